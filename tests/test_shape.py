"""Answers in a shape, with a budget of thoughts, with chances and vectors: the loop and what it asks, step by step.

The judge is again the slow plain way: all scores masked at every token, all tokens looked at in one step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api import schema
from engine.constraint import Constraint, GrammarError
from engine.native.grammar import Grammar, gbnf
from engine.native.model import Model
from engine.native.vocabulary import Vocabulary
from engine.request import Accepted, Delta, Failed, Progress, Request, Result, Sampling, Shape, Trouble, Want
from engine.thinking import Splitter, Thinking
from engine.tools import CALL, CALL_END
from tests.conftest import DEMO
from tests.rig import Rig, ask, chat, load, rigs
from tests.vocabularies import write

STORY = "Tell me a story about a fox."
SUM = "What is 2 + 3?"
PERSON = schema.honoured(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
        },
        "required": ["name", "age"],
    }
)
CALLS = Shape({"anyOf": [PERSON]}, opening=CALL, closing=f"\n{CALL_END}", lazy=True, many=True)


@pytest.fixture(scope="module")
def model() -> Model:
    return load(DEMO)


@pytest.fixture
def rig(model: Model) -> Iterator[Callable[..., Rig]]:
    with rigs(model) as rig:
        yield rig


def test_a_greedy_answer_in_a_shape_is_the_likeliest_of_all_that_fit(rig, model):
    r = rig()
    r.run(ask("1", STORY, shape=Shape(PERSON), max_tokens=60))
    prompt = r.loop._reception._prompter.read(ask("", STORY), 1000).tokens
    grammar = Grammar(model.vocabulary, gbnf(PERSON))
    tokens: list[int] = []
    while True:
        model.batch.clear()
        row = model.batch.add(0, prompt + tokens, 0, 1)
        model.decode()
        token = int(grammar.mask(model.logits(row)).argmax())
        model.cut(0, 0)
        if model.vocabulary.ends(token):
            break
        grammar.accept(token)
        tokens.append(token)
    assert r.tokens("1") == tokens
    assert set(json.loads(r.text("1"))) == {"name", "age"}


@pytest.mark.parametrize("draft", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_diced_answers_keep_to_their_shape_also_where_tokens_are_guessed(rig, draft, seed):
    r = rig(draft=draft)
    sampling = Sampling(temperature=2.0, seed=seed, repeat_penalty=1.2, logit_bias=[[300, 2.0]])
    r.run(*[ask(str(i), STORY, shape=Shape(PERSON), sampling=sampling, max_tokens=200) for i in range(3)])
    for i in range(3):
        told = json.loads(r.text(str(i)))
        assert 0 <= told["age"] <= 120
        assert len(told["name"]) <= 12


def test_an_answer_in_a_shape_goes_on_where_another_worker_ended(rig):
    r = rig()
    r.run(ask("1", STORY, shape=Shape(PERSON)))
    tokens = r.tokens("1")
    for n in (1, len(tokens) // 2, len(tokens) - 1):
        r.run(ask(f"from {n}", STORY, shape=Shape(PERSON), done=tokens[:n]))
        assert r.tokens(f"from {n}") == tokens[n:]
    r.run(ask("2", STORY, max_tokens=2), ask("wrong", STORY, shape=Shape(PERSON), done=[300, 301]))
    assert r.failure("wrong").trouble is Trouble.BAD_SHAPE


def test_a_shape_that_is_no_grammar_is_refused_and_the_others_go_on(rig):
    r = rig()
    r.put(ask("1", STORY, max_tokens=5))
    r.run(ask("2", STORY, shape=Shape(grammar="root ::= nothing")), ask("3", STORY, shape=Shape(grammar="x ::= y")))
    assert r.failure("2").trouble is r.failure("3").trouble is Trouble.BAD_SHAPE
    assert r.text("1")


def test_a_grammar_with_no_way_on_ends_its_answer_alone(rig, monkeypatch):
    monkeypatch.setattr(Grammar, "allows", lambda *_: False)
    monkeypatch.setattr(Grammar, "mask", lambda _, logits: np.full_like(logits, -np.inf))
    r = rig()
    r.run(ask("1", STORY, shape=Shape(PERSON)), ask("2", STORY, max_tokens=5))
    assert r.failure("1").trouble is Trouble.BAD_SHAPE
    assert r.end("2").n_answer == 5


def test_stop_strings_are_not_looked_for_inside_a_shape(rig):
    r = rig()
    r.run(ask("1", STORY, shape=Shape(PERSON)), ask("2", STORY, shape=Shape(PERSON), stop=['"', "{"]))
    assert r.text("2") == r.text("1")
    assert r.end("2").stop_reason == r.end("1").stop_reason == "end_of_turn"


def test_a_text_is_told_in_tokens_only_while_that_takes_no_time(rig):
    r = rig()
    r.run(ask("1", STORY, max_tokens=2), Request("2", [], prompt="a" * 2**20, want=Want.TOKENS))
    assert r.failure("2").trouble is Trouble.CONTEXT_LENGTH


class Letters:
    """A grammar that is a regular expression over text, told of tokens through a table."""

    def __init__(self, pattern: str, pieces: dict[int, bytes]) -> None:
        self._pattern, self._pieces, self.text, self.closed = pattern, pieces, b"", False

    def accept(self, token: int) -> None:
        self.text += self._pieces[token]
        if not any(re.fullmatch(self._pattern[:n], self.text.decode()) for n in range(len(self._pattern) + 1)):
            raise GrammarError(self.text)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    "pieces",
    [
        [b"so ", b"<tool_call>", b"ab", b"\n</tool_call>", b" and"],
        [b"so <tool", b"_call>a", b"b\n</tool", b"_call>", b" and"],
        [bytes([c]) for c in b"so <tool_call>ab\n</tool_call> and"],
        [b"<tool_call>ab", b"\n</tool_call>", b" and"],
    ],
)
def test_a_call_is_held_to_its_grammar_from_its_opening_to_its_closing_wherever_tokens_end(pieces):
    table = dict(enumerate(pieces))
    begun: list[bytes] = []

    def begin(prefix: bytes) -> Letters:
        begun.append(prefix)
        return Letters(prefix.decode() + "ab\n</tool_call>", table)

    constraint = Constraint(CALLS, begin, thinking=False)  # type: ignore[arg-type]
    held = []
    for token, piece in table.items():
        constraint.push(token, piece, Splitter(Thinking.NEVER))
        held.append(constraint.grammar is not None)
    assert len(begun) == 1
    assert begun[0].endswith(b"<tool_call>")
    assert any(held), "it was never held"
    assert not held[-1], "it is free again"


def test_an_opening_inside_thoughts_opens_nothing_and_one_that_cannot_go_on_is_text():
    table = dict(enumerate([b"<tool_call>", b"</think>", b"<tool_call>zz", b"<tool_call>", b"ab"]))
    made: list[Letters] = []

    def begin(prefix: bytes) -> Letters:
        made.append(Letters(prefix.decode() + "ab\n</tool_call>", table))
        return made[-1]

    constraint = Constraint(CALLS, begin, thinking=True)  # type: ignore[arg-type]
    thoughts = Splitter(Thinking.OPEN)
    held = []
    for token, piece in table.items():
        thoughts.push(piece.decode())
        constraint.push(token, piece, thoughts)
        held.append(constraint.grammar is not None)
    assert held == [False, False, False, True, True]
    assert made[0].closed
    constraint.close()
    assert made[1].closed


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Random weights behind DeepSeek-R1's tokens and template: its prompts end inside the thoughts."""
    return load(write("deepseek_r1", tmp_path_factory.mktemp("families") / "r1.gguf"))


def accepted(r: Rig, id: str) -> Accepted:
    (word,) = (word for word in r.words if isinstance(word, Accepted) and word.id == id)
    return word


def test_thoughts_that_the_prompt_opens_end_when_their_budget_does(thinker):
    with rigs(thinker) as rig:
        r = rig()
        r.run(
            ask("none", SUM, think=0, max_tokens=5),
            ask("some", SUM, think=7, max_tokens=40),
            ask("many", SUM, max_tokens=40),
        )
        assert [accepted(r, id).thinking for id in ("none", "some", "many")] == ["", "open", "open"]
        closing = thinker.vocabulary.tokenize("\n</think>\n\n", add_bos=False)
        assert r.end("none").n_thought == 0
        assert r.tokens("some")[7 : 7 + len(closing)] == closing
        assert 7 < r.end("some").n_thought <= 7 + len(closing)
        assert r.tokens("some")[:7] == r.tokens("many")[:7], "until then nothing is different"
        tokens = r.tokens("some")
        for n in (3, 8, 20):
            r.run(ask(f"from {n}", SUM, think=7, max_tokens=40, done=tokens[:n]))
            assert r.tokens(f"from {n}") == tokens[n:]


def test_a_shape_begins_after_the_thoughts(thinker):
    with rigs(thinker) as rig:
        r = rig()
        r.run(ask("1", SUM, think=5, shape=Shape(PERSON), max_tokens=300))
        thought, said = r.text("1").split("</think>")
        assert thought
        assert set(json.loads(said)) == {"name", "age"}
        r.run(ask("2", SUM, think=5, shape=Shape(PERSON), max_tokens=300, done=r.tokens("1")[:12]))
        assert r.tokens("2") == r.tokens("1")[12:]


def test_a_bad_shape_is_refused_at_once_also_where_it_would_begin_after_the_thoughts(thinker):
    with rigs(thinker) as rig:
        r = rig()
        r.run(ask("1", SUM, max_tokens=2), ask("2", SUM, think=5, shape=Shape(grammar="root ::= nothing")))
        assert r.failure("2").trouble is Trouble.BAD_SHAPE
        assert not r.text("2")


def test_a_text_that_is_too_long_hears_the_true_limit(rig):
    r = rig()
    r.run(ask("1", STORY, max_tokens=2), Request("2", [], prompt=STORY * 400, want=Want.VECTOR))
    assert "maximum context length is 1024 tokens" in r.failure("2").message


def chances(r: Rig, id: str) -> list[list[Any]]:
    return [chance for word in r.words if isinstance(word, Delta) and word.id == id for chance in word.logprobs]


@pytest.mark.parametrize("draft", [False, True])
def test_chances_are_the_models_own_also_of_guessed_tokens(rig, model, draft):
    text = "one two three four five six seven eight nine ten. " * 3
    r = rig(draft=draft)
    r.run(ask("1", f"Repeat: {text}", logprobs=2, max_tokens=30))
    prompt = r.loop._reception._prompter.read(ask("", f"Repeat: {text}"), 1000).tokens
    tokens = r.tokens("1")
    told = chances(r, "1")
    assert len(told) == len(tokens)
    for i, token in enumerate(tokens):
        model.batch.clear()
        row = model.batch.add(0, prompt + tokens[:i], 0, 1)
        model.decode()
        logits = model.logits(row).astype(np.float64)
        model.cut(0, 0)
        log = logits[token] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        spelled, logprob, others = told[i]
        assert spelled.encode("latin-1") == model.vocabulary.piece(token)
        assert logprob == pytest.approx(log, abs=0.05)
        assert [other[1] for other in others] == sorted((other[1] for other in others), reverse=True)
        assert len(others) == 2


def test_a_vector_is_the_mean_over_all_tokens_however_many_steps_that_takes(rig, model):
    text = "The quick brown fox jumps over the lazy dog. " * 8
    r = rig()
    r.run(Request("1", [], prompt=text, want=Want.VECTOR))
    tokens = r.loop._reception._prompter.read(Request("", [], prompt=text, want=Want.VECTOR), 1000).tokens
    assert len(tokens) > 2 * model.n_outputs
    summed = np.zeros(len(vector(r, "1")))
    for start in range(0, len(tokens), 5):
        model.batch.clear()
        model.batch.add(0, tokens[start : start + 5], start, 5)
        summed += model.vectors().sum(axis=0)
    model.cut(0, 0)
    assert np.allclose(vector(r, "1"), summed / np.linalg.norm(summed), atol=1e-4)


def vector(r: Rig, id: str) -> list[float]:
    (word,) = (word for word in r.words if isinstance(word, Result) and word.id == id)
    return word.values


def test_vectors_and_answers_get_on_side_by_side_and_disturb_nothing(rig):
    alone = rig(ram_bytes=0)
    alone.run(ask("1", STORY, max_tokens=30))
    alone.run(Request("2", [], prompt=STORY * 10, want=Want.VECTOR))
    r = rig()
    r.run(
        ask("1", STORY, max_tokens=30),
        Request("2", [], prompt=STORY * 10, want=Want.VECTOR),
        Request("3", [], prompt="short", want=Want.VECTOR),
    )
    assert r.text("1") == alone.text("1")
    assert np.allclose(vector(r, "2"), vector(alone, "2"), atol=1e-4)
    assert len(vector(r, "3")) == len(vector(r, "2"))


def test_texts_and_tokens_are_told_at_once_while_others_run(rig, model: Model):
    r = rig()
    r.put(ask("1", STORY, max_tokens=5))
    r.put(Request("2", [], prompt="hello wörld", want=Want.TOKENS))
    (result,) = (word for word in r.words if isinstance(word, Result))
    vocabulary: Vocabulary = model.vocabulary
    assert [token for token, _ in result.values] == vocabulary.tokenize("hello wörld", add_bos=False)
    r.put(Request("3", [], prompt=[token for token, _ in result.values], want=Want.TEXT))
    assert [word.values for word in r.words if isinstance(word, Result)][-1] == ["hello wörld"]
    r.put(Request("4", [], prompt=[10**6], want=Want.TEXT))
    assert r.failure("4").trouble is Trouble.BAD_TOKENS
    r.run()
    assert r.text("1")


def test_who_waits_hears_how_far_it_is(rig, monkeypatch):
    monkeypatch.setattr("engine.loop.TELL_S", 0.0)
    r = rig()
    r.put(*[ask(str(i), "word " * (300 + i), max_tokens=30) for i in range(5)], Request("6", chat("x"), max_tokens=2))
    while len(r.loop.answers) > 1:
        r.step()
    told = [word for word in r.words if isinstance(word, Progress)]
    assert {word.n_before for word in told if word.id == "4"} >= {0}
    assert {word.n_before for word in told if word.id == "6"} >= {1, 5}
    assert any(word.n_read > 0 for word in told if word.id == "0")
    for word in told:
        first = next((i for i, w in enumerate(r.words) if isinstance(w, Delta) and w.id == word.id), len(r.words))
        assert r.words.index(word) < first, "only until the first token"


def test_a_bias_to_a_token_that_is_not_there_is_refused(rig):
    r = rig()
    r.run(ask("0", STORY, max_tokens=2), ask("1", STORY, sampling=Sampling(logit_bias=[[10**6, 5.0]])))
    failure = r.failure("1")
    assert isinstance(failure, Failed)
    assert failure.trouble is Trouble.BAD_BIAS


def test_each_family_writes_calls_and_reads_what_came_back(tmp_path: Path):
    call = {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"name":"x","age":5}'}}
    messages = [*chat(SUM), {"role": "assistant", "content": "", "tool_calls": [call]}]
    messages.append({"role": "tool", "tool_call_id": "call_0", "content": "42"})
    tool = {"name": "f", "description": "Does it.", "parameters": {"type": "object", "properties": {}}}
    shape = Shape({"anyOf": [PERSON]}, opening=f"{CALL}\n", closing=f"\n{CALL_END}")
    for family in ("tinyllama", "chatml", "llama3", "deepseek_r1"):
        with rigs(load(write(family, tmp_path / f"{family}.gguf"))) as rig:
            r = rig()
            r.run(Request("1", messages, tools=[tool], shape=shape, think=3, max_tokens=300))
            text = r.text("1").rpartition("</think>")[2].strip()
            assert text.startswith(CALL), family
            assert set(json.loads(text.removeprefix(CALL).removesuffix(CALL_END))) == {"name", "age"}
