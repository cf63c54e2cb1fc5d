"""engine.request: the words survive the pipe."""

import pytest

from engine import request as words

EXAMPLES = [
    words.Config("/m.gguf", None, 4, 2),
    words.Request("1", [{"role": "user", "content": 'a\n"ü"🐦\u2028'}], words.Sampling(0.5, seed=7), 10, ["x"]),
    words.Request(
        "1",
        [],
        words.Sampling(logit_bias=[[5, -1.5]]),
        shape=words.Shape({"type": "object"}, opening="<"),
        want=words.Want.TEXT,
    ),
    words.Cancel("1"),
    words.Ready(2048, 2048, 10, 20, "llama", "0", 0.5),
    words.LoadFailed("no"),
    words.Accepted("1", 5),
    words.Progress("1", 512, 16, 2, 1.5),
    words.Delta("1", "\ufffd 東", [3, 4], ["", "x"], [["\xe6", -0.5, [["a", -1.0]]]]),
    words.Result("1", [0.5, -0.25]),
    words.Finished("1", "stop", "end_of_turn", 3, 2, 2, 0.1, 0.2, 0.3),
    words.Failed("1", words.Trouble.INTERNAL, "sorry"),
]


@pytest.mark.parametrize("word", EXAMPLES, ids=lambda word: type(word).__name__)
def test_a_word_is_the_same_after_the_pipe_and_takes_one_line(word):
    line = words.dump(word)
    assert line.count(b"\n") == 1
    assert words.load(line) == word


def test_every_word_has_an_example_here():
    assert {type(word).__name__ for word in EXAMPLES} == set(words.WORDS)
