"""engine.thinking: thoughts are told apart from what is said, however the text is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.thinking import Splitter, Thinking, state_after


def split(state: Thinking, pieces: list[str]) -> tuple[str, str]:
    splitter = Splitter(state)
    told = [splitter.push(piece) for piece in pieces] + [splitter.finish()]
    return "".join(thought for thought, _ in told), "".join(said for _, said in told)


@pytest.mark.parametrize(
    ("state", "text", "thought", "said"),
    [
        (Thinking.OPEN, "\nI think so.\n\n</think>\n\nHello.", "I think so.", "Hello."),
        (Thinking.OPEN, "a < b </ c", "a < b </ c", ""),
        (Thinking.AMID, " so it goes on.\n</think>\n\nYes", " so it goes on.", "Yes"),
        (Thinking.OPEN, "cut off \n", "cut off", ""),
        (Thinking.OPEN, "</think>Yes", "", "Yes"),
        (Thinking.MAYBE, "\n<think>\nhm\n</think>\n\nYes.", "hm", "Yes."),
        (Thinking.MAYBE, " Yes. <think>no</think>", "", " Yes. <think>no</think>"),
        (Thinking.MAYBE, "<thin", "", "<thin"),
        (Thinking.OPEN, "x</think>The tag <think> and </think>.", "x", "The tag <think> and </think>."),
        (Thinking.NEVER, "<think>a</think> b", "", "<think>a</think> b"),
    ],
)
def test_the_two_parts_are_the_same_in_one_piece_and_letter_by_letter(state, text, thought, said):
    assert split(state, [text]) == (thought, said)
    assert split(state, list(text)) == (thought, said)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "think>", "a", " ", "\n", "é"]), max_size=12), st.data())
def test_how_a_text_is_cut_changes_nothing_and_nothing_but_tags_and_space_is_lost(parts, data):
    text = "".join(parts)
    cut = data.draw(st.integers(0, len(text)))
    for state in Thinking:
        whole = split(state, [text])
        assert split(state, [text[:cut], text[cut:]]) == whole == split(state, list(text))
        kept = "".join(whole).replace(" ", "").replace("\n", "")
        rest = text.replace(" ", "").replace("\n", "")
        assert kept in (
            rest,
            rest.replace("</think>", "", 1),
            rest.replace("<think>", "", 1),
            rest.removeprefix("<think>").replace("</think>", "", 1),
        )


@pytest.mark.parametrize(
    ("prompt", "template", "state"),
    [
        ("<|Assistant|><think>\n", "…</think>…", Thinking.OPEN),
        ("<|Assistant|>", "…</think>…", Thinking.MAYBE),
        ("<|Assistant|>", "…", Thinking.NEVER),
        ("<|Assistant|><think>\n\n</think>\n\n", "…</think>…", Thinking.NEVER),
    ],
)
def test_the_end_of_a_prompt_says_how_the_answer_begins(prompt, template, state):
    assert state_after(prompt, template) is state
