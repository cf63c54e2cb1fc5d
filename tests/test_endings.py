"""engine.endings: when an answer has said enough, and when it has not."""

import random
import re

import pytest

from engine.endings import LOOP_TIMES, LOOP_TOKENS, PERIOD_MAX, SENTENCES_FROM, Loops, Sentences

LONG = "So it came that the little bird sat on the fence of the old garden and sang for all who passed by "


def ended(text: str) -> str | None:
    """The text up to where the sentence rule ends it; None: it does not. Words are the tokens."""
    sentences, shown = Sentences(), ""
    token: str
    for token in re.findall(r"\s*\S+|\s+$", text):
        shown += token
        n_too_many = sentences.push(token)
        if n_too_many is not None:
            return shown[: len(shown) - n_too_many]
    return None


def test_the_second_sentence_after_twenty_tokens_ends_the_answer():
    assert ended(LONG + "each day. Then it flew. And more came.") == LONG + "each day. Then it flew."


def test_sentences_before_the_twentieth_token_do_not_count():
    assert ended("One. Two. Three. " + "word " * SENTENCES_FROM + "four. Five! Six") == (
        "One. Two. Three. " + "word " * SENTENCES_FROM + "four. Five!"
    )


@pytest.mark.parametrize(
    "text",
    ["at 3.5 degrees, e.g. here, with Dr. Wren and J. Finch", "x:\n1. first 2.5 then v1.2.3 of it", "to www.example.org"],
)
def test_points_inside_numbers_names_and_abbreviations_are_no_endings(text):
    assert ended(f"{LONG}{text} it went on. It was the end. Really.") == f"{LONG}{text} it went on. It was the end."


def test_list_numbers_are_no_endings():
    assert ended(LONG + "like this:\n1. bread\n2. milk\n3. tea\n") is None


def test_code_and_reasoning_are_left_alone():
    assert ended("<think> " + LONG + "one. Two. Three. Four. Five.") is None
    assert ended(LONG + "\n```\n# One. Two. Three.\nx = 1.\ny = 2. \n") is None


def test_sentences_of_reasoning_and_code_do_not_count_afterwards_either():
    thought = "<think> " + "I think so. " * 30 + "</think>\n\n"
    assert ended(thought + "It is four. That is sure. Really.") == thought + "It is four. That is sure."
    code = LONG + "\n```\n# One. Two. Three.\n```\n"
    assert ended(code + "It runs. It stops. Really.") == code + "It runs. It stops."


def test_quotes_and_chinese_points_end_sentences_too():
    assert ended(LONG + '"Sing!" she said. "No." He left.') == LONG + '"Sing!" she said.'
    assert ended(LONG + "你好。 我很好。 再见。") == LONG + "你好。 我很好。"


def loops_at(tokens: list[int]) -> int | None:
    """The position of the token at which the detector calls it a loop."""
    loops = Loops()
    return next((i for i, token in enumerate(tokens) if loops.push(token)), None)


@pytest.mark.parametrize("period", [1, 2, 7, 20, 21, 40, PERIOD_MAX])
def test_an_exact_repetition_is_a_loop_once_it_is_long_enough(period):
    start = [random.Random(period).randrange(1000) for _ in range(30)]
    passage = list(range(2000, 2000 + period))
    n_least = period + max(LOOP_TOKENS, (LOOP_TIMES - 1) * period)
    assert loops_at(start + passage * 1000) == len(start) + n_least - 1


def test_a_long_passage_given_a_few_times_is_none():
    assert loops_at(list(range(60)) * (LOOP_TIMES - 1)) is None


# A token per word or sign: about what tokenizers make of such text.
SAMPLES = {
    "a counted list": "\n".join(f"{i}. item" for i in range(1, 300)),
    "a table": "| a | b | c |\n|---|---|---|\n" + "\n".join(f"| {i} | {i * i} | yes |" for i in range(100)),
    "a wide ruler": "| a | b |\n" + "|---" * 30 + "|\n" + "-" * 80,
    "code": "\n".join(f"    self.field_{i} = field_{i}\n    if x == {i}:\n        return {i * 7}" for i in range(80)),
    "a matrix of zeros with its brackets": "[[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]",
    "a poem with a refrain": "\n".join(
        f"verse {i} of the {n}\nOh the wind and the rain\n" for i, n in enumerate("abcdefghijklmnop")
    ),
    "a song": "row row row your boat gently down the stream merrily merrily merrily merrily life is but a dream\n" * 4,
    "multiplication": "\n".join(f"{a} x {b} = {a * b}" for a in range(1, 13) for b in range(1, 13)),
    "json": str([{"id": i, "name": f"n{i}", "ok": True, "tags": []} for i in range(100)]),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(
    "pattern", [r"\w+|\W", r"\s*\w+|\s*[^\w\s]+|\s+", r"."], ids=["words", "words with spaces", "characters"]
)
def test_lists_tables_code_and_poems_are_left_alone(name, pattern):
    words = re.findall(pattern, SAMPLES[name], re.DOTALL)
    ids = {word: i for i, word in enumerate(dict.fromkeys(words))}
    assert loops_at([ids[word] for word in words]) is None
