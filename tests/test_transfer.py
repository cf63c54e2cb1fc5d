"""web.transfer: chats of other programs, and our own, there and back."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web import transfer
from web.transfer import TransferError


def llama(*messages: dict[str, Any], **conversation: Any) -> dict[str, Any]:
    return {"conv": {"name": "Birds", "currNode": None} | conversation, "messages": list(messages)}


LLAMA = llama(
    {"id": "r", "parent": None, "role": "system", "type": "root", "content": "", "timestamp": 1, "children": ["s"]},
    {"id": "s", "parent": "r", "role": "system", "content": "Be brief.", "timestamp": 1_000},
    {"id": "1", "parent": "s", "role": "user", "content": "What is a linnet?", "timestamp": 2_000,
     "extra": [{"type": "TEXT", "name": "a.txt", "content": "abc"}, {"type": "IMAGE", "base64Url": "data:"}]},
    {"id": "2", "parent": "1", "role": "assistant", "content": "A bird.", "reasoningContent": "Hm.", "timestamp": 3_000},
    {"id": "3", "parent": "1", "role": "assistant", "content": "A finch.", "timestamp": 4_000},
    {"id": "4", "parent": "3", "role": "tool", "content": "no", "timestamp": 5_000},
    {"id": "5", "parent": "4", "role": "user", "content": "Thanks.", "timestamp": 6_000},
    currNode="2", lastModified=7_000, pinned=True,
)  # fmt: skip


def said(id: str, parent: str | None, role: str | None, *parts: Any, kind: str = "text", **metadata: Any) -> dict[str, Any]:
    message = {"author": {"role": role}, "content": {"content_type": kind, "parts": list(parts)}, "create_time": 5.5}
    return {"id": id, "parent": parent, "children": [], "message": role and message | {"metadata": metadata}}


CHATGPT = {
    "title": "Birds \n of Europe",
    "create_time": 1.5,
    "update_time": 9.5,
    "current_node": "d",
    "mapping": {
        node["id"]: node
        for node in (
            said("d", "c", "assistant", "A bird."),
            said("root", None, None),
            said("a", "root", "system", "", is_visually_hidden_from_conversation=True),
            said("b", "a", "user", "What is ", {"asset_pointer": "x"}, "a linnet?", kind="multimodal_text"),
            said("c", "b", "assistant", "search()", kind="code"),
        )
    },
}


def shown(chat: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in transfer.branch(chat)]


def test_a_chat_of_llama_cpps_page_keeps_its_branches_files_and_thoughts():
    chat = transfer.read(LLAMA)
    assert (chat["title"], chat["system"], chat["pinned"], chat["changed"]) == ("Birds", "Be brief.", True, 7.0)
    assert shown(chat) == [("user", "What is a linnet?"), ("assistant", "A bird.")]
    assert {message["id"]: message["parent"] for message in chat["messages"]} == {"1": None, "2": "1", "3": "1", "5": "3"}
    question, answer, *_ = chat["messages"]
    assert question["files"] == [{"name": "a.txt", "text": "abc"}]
    assert answer["reasoning"] == "Hm."


def test_a_chat_of_chatgpt_keeps_what_was_said_and_leaves_out_what_is_hidden():
    chat = transfer.read(CHATGPT)
    assert (chat["title"], chat["changed"], chat["created"]) == ("Birds of Europe", 9.5, 5.5)
    assert shown(chat) == [("user", "What is \n\na linnet?"), ("assistant", "A bird.")]


def test_our_own_chats_come_back_as_they_went():
    chat = transfer.read(LLAMA) | {"system": "Be kind."}
    usage = {"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}}
    chat["messages"][1]["facts"] = {"model": "demo", "first_s": 0.5, "timings": {"predicted_n": 3}, "usage": usage}
    there = json.loads(json.dumps(transfer.export(chat)))
    assert transfer.read(there) == chat


def test_facts_that_are_not_what_they_should_be_are_dropped():
    chat = transfer.read(LLAMA)
    bad = {
        "model": 5,
        "first_s": "x",
        "timings": {"a": "b", "c": 1},
        "usage": [],
        "error": {"message": "x"},
        "thought_s": True,
    }
    chat["messages"][1]["facts"] = bad
    assert transfer.read(transfer.export(chat))["messages"][1]["facts"] == {"timings": {"c": 1}}


def test_people_can_read_a_chat_as_markdown():
    chat = transfer.read(LLAMA)
    chat["messages"][0]["files"] = [{"name": "a.md", "text": "```\nx\n```"}]
    text = transfer.markdown(chat)
    assert text.startswith("# Birds\n\n> Be brief.\n\n## You\n\na.md:\n\n````\n```\nx\n```\n````\n\nWhat is a linnet?\n\n")
    assert text.endswith("## Assistant\n\nA bird.\n")


def test_the_branch_goes_to_the_newest_message_where_none_is_named():
    assert shown(transfer.read(LLAMA | {"conv": {"currNode": "gone"}}))[-1] == ("user", "Thanks.")


def test_the_work_grows_with_the_turns_and_not_with_their_square():
    def n_lines(n: int) -> int:
        """Of web.transfer, run for so many hidden turns in a row, each with an answer."""
        nodes = [said(f"h{i}", f"h{i - 1}", None) for i in range(n)]
        nodes += [said(f"a{i}", f"h{i}", "assistant", "x") for i in range(n)]
        count = 0

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal count
            count += event == "line"
            return trace if frame.f_code.co_filename == transfer.__file__ else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            chat = transfer.read({"mapping": {node["id"]: node for node in nodes}})
        finally:
            sys.settrace(before)
        assert [message["parent"] for message in chat["messages"]] == [None] * n
        return count

    assert n_lines(200) < 3 * n_lines(100)


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        {},
        {"format": "linnet-chat"},
        llama(),
        {"mapping": {"a": said("a", "b", "user", "hi"), "b": said("b", "a", "user", "ho")}},
        {"mapping": {"a": said("a", "b", None), "b": said("b", "a", None)}, "current_node": "a"},
    ],
)
def test_what_is_no_chat_is_an_error_with_a_sentence(item):
    with pytest.raises(TransferError, match=r"\.$"):
        transfer.read(item)


IDS = st.sampled_from(["a", "b", "c", "d", ""])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | IDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(IDS, inner, max_size=3),
    max_leaves=8,
)
TURN = st.fixed_dictionaries(
    {"id": IDS, "parent": IDS | st.none(), "role": st.sampled_from(["user", "assistant", "tool"])},
    optional={"content": st.text(max_size=5) | JUNK, "created": JUNK, "timestamp": JUNK, "files": JUNK, "extra": JUNK},
)
TURNS = st.lists(TURN | JUNK, max_size=6)


@given(st.fixed_dictionaries({}, optional={"format": JUNK, "conv": JUNK, "mapping": JUNK, "messages": TURNS, "leaf": IDS}))
def test_whatever_comes_is_a_tree_that_can_be_told_or_an_error(item):
    try:
        chat = transfer.read(item)
    except TransferError:
        return
    seen: set[str | None] = {None}
    for message in chat["messages"]:
        assert message["parent"] in seen
        seen.add(message["id"])
    assert chat["leaf"] in seen - {None}
    assert transfer.markdown(chat).encode()
    assert transfer.read(transfer.export(chat))["messages"] == chat["messages"]
