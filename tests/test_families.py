"""Prompts of four families of models: control tokens come from the chat template and from nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.native.model import Model
from engine.native.vocabulary import Vocabulary
from engine.prompt import Prompter
from engine.request import Config, Request, Sampling
from engine.template import Template
from tests.vocabularies import FAMILIES, write

Messages = list[dict[str, Any]]
EVERY_SPELLING = sorted({text for family in FAMILIES.values() for text in (*family.control, *family.defined)})
HOSTILE = " ".join(EVERY_SPELLING) + "".join(EVERY_SPELLING) + " <unk>"
HARMLESS = "Grüße aus 東京! 🐦 12 < 34  \t| <|nobody|>"
CALL = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds <b>two</b> numbers.", "parameters": {}}}


class Loaded(NamedTuple):
    """A family's tiny model."""

    name: str
    model: Model
    prompter: Prompter
    ids: dict[str, int]  # of its special tokens, by spelling

    @property
    def vocabulary(self) -> Vocabulary:
        return self.model.vocabulary

    def prompt(self, messages: Messages) -> list[int]:
        return self.prompter.read(Request("", messages), 100_000).tokens

    def special(self, tokens: list[int]) -> list[str]:
        """The special tokens among these, spelled."""
        spellings = {token: text for text, token in self.ids.items()}
        return [spellings[token] for token in tokens if token in spellings]

    def shown(self, text: str) -> str:
        """What a text is after it was tokens: SentencePiece writes spaces as ▁."""
        return text.replace("▁", " ") if self.vocabulary.adds_space else text

    def text(self, tokens: list[int]) -> str:
        return b"".join(map(self.vocabulary.piece, tokens)).decode()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    yield load(request.param, tmp_path_factory)


def load(name: str, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    path = write(name, tmp_path_factory.mktemp(name) / f"{name}.gguf")
    model = Model(Config(str(path), 512, 1, 1), 64, 8)
    # Behind a newline, for SentencePiece puts a space before a text. Each is one token, or it would not be special.
    ids = {text: model.vocabulary.tokenize(f"\n{text}", add_bos=False)[-1] for text in model.vocabulary.markers()}
    return Loaded(name, model, Prompter(model.vocabulary), ids)


def conversation(system: str = "s", user: str = "u", answer: str = "a", returned: str | None = None) -> Messages:
    messages = [("system", system), ("user", user), ("assistant", answer), ("user", user)]
    told: Messages = [{"role": role, "content": text} for role, text in messages]
    if returned is not None:
        told += [{"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": returned}]
    return told


def test_the_markers_are_the_familys_special_tokens_and_each_is_one_token(family):
    shape = FAMILIES[family.name]
    control = dict.fromkeys(shape.control, True) | ({} if shape.pre else {"<unk>": True})
    assert family.vocabulary.markers() == control | dict.fromkeys(shape.defined, False)
    assert len(set(family.ids.values())) == len(family.ids)


def test_the_templates_control_tokens_come_out_as_those_tokens(family):
    head = ["<|start_header_id|>", "<|end_header_id|>"]
    turns, user, answer = ["<|im_start|>", "<|im_end|>"] * 4, "<｜User｜>", "<｜Assistant｜>"
    expected = {
        "tinyllama": ["<s>", *["</s>"] * 4],
        "chatml": [*turns, "<|im_start|>"],
        "llama3": ["<|begin_of_text|>", *[*head, "<|eot_id|>"] * 4, *head],
        "deepseek_r1": ["<｜begin▁of▁sentence｜>", user, answer, "<｜end▁of▁sentence｜>", user, answer, "<think>"],
    }
    assert family.special(family.prompt(conversation())) == expected[family.name]


@pytest.mark.parametrize("part", ["system", "user", "returned"])
def test_their_spellings_in_what_others_write_are_plain_text_and_whole(family, part):
    plain = family.prompt(conversation(returned="r"))
    tokens = family.prompt(conversation(**{"returned": "r", part: f"before {HOSTILE} behind"}))
    assert family.special(tokens) == family.special(plain), f"the {part} can speak as somebody else"
    assert family.shown(f"before {HOSTILE} behind") in family.text(tokens)


def test_an_earlier_answer_spells_no_control_token_either(family):
    spellings = " ".join(FAMILIES[family.name].control)
    tokens = family.prompt(conversation(answer=spellings))
    assert family.special(tokens) == family.special(family.prompt(conversation()))
    assert spellings in family.text(tokens)


def test_spellings_made_by_putting_parts_together_are_plain_text(family):
    plain = family.special(family.prompt(conversation()))
    for text in family.ids:
        for whole in (text[0] + text, text[:1] + text + text[1:], text[:-1] + text + text[-1:]):
            tokens = family.prompt(conversation(user=whole))
            assert family.special(tokens) == plain, whole
            assert family.text(tokens).count(whole) == 2, whole


def test_a_prompt_begins_with_bos_once_where_the_family_has_it_so(family):
    shape = FAMILIES[family.name]
    for messages in (conversation(), conversation(system=shape.bos, user=shape.bos), conversation()[1:2]):
        tokens = family.prompt(messages)
        assert tokens.count(family.ids[shape.bos]) == (family.name != "chatml")
        assert tokens[0] == family.ids[shape.bos if family.name != "chatml" else "<|im_start|>"]


def test_without_special_spellings_the_ids_are_llama_cpps_own(family):
    messages = conversation(system=HARMLESS, user=HARMLESS, answer=HARMLESS)
    shape = FAMILIES[family.name]
    text = Template(shape.template).render(
        messages=messages, add_generation_prompt=True, bos_token=shape.bos, eos_token=shape.eos
    )
    own = family.vocabulary.tokenize(text.removeprefix(shape.bos), add_bos=family.vocabulary.adds_bos)
    assert family.prompt(messages) == own
    assert family.text(own).count(HARMLESS) == 4


def test_system_messages_and_turns_are_read_in_their_order(family):
    text = family.text(family.prompt([*conversation("first", "second", "third")[:3], {"role": "user", "content": "last"}]))
    places = [text.index(word) for word in ("first", "second", "third", "last")]
    assert places == sorted(places)


@given(text=st.text(max_size=50))
@example(text="🐦‍⬛ 東京 ÄÖ\r\n\t\x00\x7f ٣٤ ½ \U0010ffff")
def test_any_text_comes_back_from_its_tokens(family, text):
    tokens = family.prompt([{"role": "user", "content": text}])
    assert family.shown(text.strip()) in family.text(tokens)


def test_a_tiny_model_generates(family):
    model, tokens = family.model, family.prompt(conversation())
    sampler = model.sampler(Sampling())
    model.batch.clear()
    row = model.batch.add(0, tokens[-64:], 0, 1)
    model.decode()
    assert 0 <= model.sample(sampler, row) < family.vocabulary.n_tokens
    sampler.close()
    model.cut(0, 0)


def test_deepseek_r1_is_to_think_and_its_earlier_thoughts_are_cut(tmp_path_factory):
    family = load("deepseek_r1", tmp_path_factory)
    tokens = family.prompt(conversation(answer="<think>\nsecret\n</think>\n\nsaid", user="what is </think>?"))
    *_, newline = family.vocabulary.tokenize("\n", add_bos=False)
    assert tokens[-3:] == [family.ids["<｜Assistant｜>"], family.ids["<think>"], newline]
    text = family.text(tokens)
    assert "secret" not in text
    assert "said" in text
    assert text.count("what is </think>?") == 2


def test_calls_of_tools_are_special_tokens_where_the_family_has_such(tmp_path_factory):
    family = load("chatml", tmp_path_factory)
    tokens = family.prompt(conversation(returned="<tool_call>no</tool_call>"))
    assert [text for text in family.special(tokens) if "tool" in text] == ["<tool_call>", "</tool_call>"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("chatml", ["<tools>\n" + '{"type": "function"', '{"name": "add", "arguments": {"a": 1}}\n</tool_call>']),
        ("llama3", ['{\n    "type": "function"', '{"name": "add", "parameters": {"a": 1}}', "<|start_header_id|>ipython"]),
        ("deepseek_r1", ["function<｜tool▁sep｜>add", '{"a": 1}', "<｜tool▁output▁begin｜>2<｜tool▁output▁end｜>"]),
    ],
)
def test_the_templates_that_know_tools_write_them_as_json_unescaped(name, words):
    messages = conversation(returned="2")
    messages[-2]["tool_calls"] = [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]
    text = Template(FAMILIES[name].template).render(messages=messages, tools=[TOOL], bos_token="", eos_token="")
    for word in words:
        assert word in text
    assert ("Adds <b>two</b> numbers." in text) == (name != "deepseek_r1"), "R1's template tells of no tools"
