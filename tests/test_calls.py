"""api.calls: calls are found however the text is cut, and what is no call stays text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.calls import Calls

ADD = '<tool_call>\n{"name": "add", "arguments": {"a": "}\\"{", "b": {"c": 2}}}\n</tool_call>'


def read(pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    calls, said, found = Calls(), "", dict[int, dict[str, Any]]()
    for piece in pieces:
        text, entries = calls.push(piece)
        said += text
        assert len({entry["index"] for entry in entries}) == len(entries)
        for entry in entries:
            if entry["index"] not in found:
                assert set(entry) == {"index", "id", "type", "function"}
                assert entry["type"] == "function"
                found[entry["index"]] = entry["function"]
            else:
                assert set(entry) == {"index", "function"}
                assert set(entry["function"]) == {"arguments"}
                found[entry["index"]]["arguments"] += entry["function"]["arguments"]
    assert list(found) == list(range(len(found)))
    return said + calls.finish(), [(call["name"], call["arguments"]) for call in found.values()]


ADDED = ("add", '{"a": "}\\"{", "b": {"c": 2}}')


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        (ADD, "", [ADDED]),
        (f"Let me see.\n\n{ADD}", "Let me see.", [ADDED]),
        (f"{ADD}\n{ADD}", "", [ADDED, ADDED]),
        ('<tool_call>{"arguments": {}, "name": "g"}</tool_call>', "", [("g", "{}")]),
        ('<tool_call>{"name": "g", "parameters": {"x": 1}}</tool_call>', "", [("g", '{"x": 1}')]),
        ("a <tool_call> nonsense</tool_call> b", "a <tool_call> nonsense</tool_call> b", []),
        ('<tool_call>["x"]</tool_call>', '<tool_call>["x"]</tool_call>', []),
        ('<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": 5}</tool_call>', []),
        ("a < b <tool", "a < b <tool", []),
        ("  spaces stay \n", "  spaces stay \n", []),
        ('<tool_call>\n{"name": "add", "arguments": {"a', "", [("add", '{"a')]),
        ('x <tool_call>\n{"name": "ad', 'x <tool_call>\n{"name": "ad', []),
    ],
)
def test_calls_and_text_are_the_same_in_one_piece_and_letter_by_letter(text, said, calls):
    assert read([text]) == (said, calls)
    assert read(list(text)) == (said, calls)


@given(
    st.recursive(
        st.none() | st.text(max_size=5) | st.integers(), lambda v: st.dictionaries(st.text(max_size=3), v, max_size=3)
    ),
    st.data(),
)
def test_arguments_of_every_kind_come_through_whole(value, data):
    arguments = json.dumps({"x": value})
    text = f'<tool_call>\n{{"name": "f", "arguments": {arguments}}}\n</tool_call>'
    cut = data.draw(st.integers(0, len(text)))
    assert read([text[:cut], text[cut:]]) == ("", [("f", arguments)])
