"""Chats from and to other programs: one conversation of an export at a time, and a chat to be read by people.

Three kinds of conversations are known: our own, those of llama.cpp's web UI (a line of its session file or an element of
its older export: `conv` and `messages`) and ChatGPT's (`mapping`). Nothing in them is trusted: what is not of the right
type is as if it were not there, and a conversation in which nothing was said is an error. What is neither said by a person
nor by the model (tools, hidden turns) is left out, and what follows it hangs on what comes before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

FORMAT = "linnet-chat"
ROLES = ("user", "assistant")
N_TITLE = 200  # characters
N_MESSAGES = 10_000  # of one chat
FENCE = "```"

Chat = dict[str, Any]  # as GET /api/chats/ID gives it


class TransferError(Exception):
    """This is no conversation that can be read; the message is a sentence."""


@dataclass(frozen=True)
class _Turn:
    """A node of somebody's tree. Without a role: not for us, but others may hang on it."""

    id: str
    parent: str | None
    role: str | None
    content: str
    created: float
    reasoning: str = ""
    files: tuple[dict[str, str], ...] = ()


def read(item: Any) -> Chat:
    """A chat from one conversation of an export. Raises TransferError."""
    kind = next((kind for kind in KINDS if isinstance(item, dict) and kind in item), None)
    if not kind:
        raise TransferError("This is neither a chat of Linnet nor one of llama.cpp's web UI or of ChatGPT.")
    chat = KINDS[kind](item)
    if not chat["messages"]:
        raise TransferError("There is nothing said in this chat.")
    if len(chat["messages"]) > N_MESSAGES:
        raise TransferError(f"This chat has more than {N_MESSAGES:,} messages.")
    return chat


def export(chat: Chat) -> dict[str, Any]:
    """The chat as `read` takes it back."""
    kept = ("title", "pinned", "system", "created", "changed", "leaf")
    turns = ("id", "parent", "role", "content", "reasoning", "state", "facts", "files", "created")
    messages = [{key: message[key] for key in turns if key in message} for message in chat["messages"]]
    return {"format": FORMAT} | {key: chat[key] for key in kept} | {"messages": messages}


def markdown(chat: Chat) -> str:
    """What was said in the branch that is shown, for people."""
    parts = [f"# {_line(chat['title']) or 'Chat'}"]
    if chat["system"]:
        parts.append("\n".join(f"> {line}" for line in chat["system"].splitlines()))
    for message in branch(chat):
        parts.append("## You" if message["role"] == "user" else f"## {_line(message['facts'].get('model')) or 'Assistant'}")
        parts += [f"{_line(file['name'])}:\n\n{_fenced(file['text'])}" for file in message.get("files") or ()]
        parts.append(message["content"])
    return "\n\n".join(parts) + "\n"


def branch(chat: Chat) -> list[dict[str, Any]]:
    """The messages from the first to the leaf."""
    by_id = {message["id"]: message for message in chat["messages"]}
    found: list[dict[str, Any]] = []
    id = chat["leaf"]
    while id in by_id:
        found.append(by_id.pop(id))
        id = found[-1]["parent"]
    return found[::-1]


def _ours(item: dict[str, Any]) -> Chat:
    messages = _messages(item)
    turns = [
        _turn(m, _seconds(m.get("created")), _text(m.get("reasoning")), _files(m.get("files"), "text")) for m in messages
    ]
    facts = {_text(m.get("id")): m.get("facts") for m in messages}
    chat = _chat(item.get("title"), turns, _text(item.get("leaf")), _seconds(item.get("changed")))
    for message in chat["messages"]:
        message["facts"] = _facts(_dict(facts.get(message["id"])))
    return chat | {"system": _text(item.get("system")), "pinned": item.get("pinned") is True}


def _llama_cpp(item: dict[str, Any]) -> Chat:
    conversation, messages = _dict(item["conv"]), _messages(item)
    turns = [
        _turn(
            m,
            _seconds(m.get("timestamp"), 1000),
            _text(m.get("reasoningContent")) or _text(m.get("thinking")),
            _files(m.get("extra"), "content"),
        )
        for m in messages
    ]
    system = next((said for m in messages if m.get("role") == "system" and (said := _text(m.get("content")))), "")
    changed = _seconds(conversation.get("lastModified"), 1000)
    chat = _chat(conversation.get("name"), turns, _text(conversation.get("currNode")), changed)
    return chat | {"system": system, "pinned": conversation.get("pinned") is True}


def _messages(item: dict[str, Any]) -> list[dict[str, Any]]:
    return [message for message in _list(item.get("messages")) if isinstance(message, dict)]


def _turn(message: dict[str, Any], created: float, reasoning: str, files: Iterable[dict[str, str]]) -> _Turn:
    return _Turn(
        _text(message.get("id")),
        _text(message.get("parent")) or None,
        _role(message.get("role")),
        _text(message.get("content")),
        created,
        reasoning,
        tuple(files),
    )


def _chatgpt(item: dict[str, Any]) -> Chat:
    mapping = _dict(item["mapping"])
    turns = [_chatgpt_turn(str(id), node) for id, node in mapping.items() if isinstance(node, dict)]
    return _chat(item.get("title"), turns, _text(item.get("current_node")), _seconds(item.get("update_time")))


def _chatgpt_turn(id: str, node: dict[str, Any]) -> _Turn:
    message = _dict(node.get("message"))
    content, metadata = _dict(message.get("content")), _dict(message.get("metadata"))
    role = _role(_dict(message.get("author")).get("role"))
    if metadata.get("is_visually_hidden_from_conversation") or content.get("content_type") not in (
        "text",
        "multimodal_text",
    ):
        role = None
    said = "\n\n".join(part for part in _list(content.get("parts")) if isinstance(part, str) and part)
    return _Turn(id, _text(node.get("parent")) or None, role if said else None, said, _seconds(message.get("create_time")))


KINDS: dict[str, Callable[[dict[str, Any]], Chat]] = {"format": _ours, "conv": _llama_cpp, "mapping": _chatgpt}


def _chat(title: Any, turns: list[_Turn], leaf: str, changed: float) -> Chat:
    """Of turns in any order, parents before children afterwards; the ids are still the other program's."""
    reached = list(_from_the_root({turn.id: turn for turn in turns if turn.id}))
    nearest: dict[str | None, str | None] = {}  # by a turn's id: itself, or the nearest one before it that is for us
    for turn in reached:
        nearest[turn.id] = turn.id if turn.role else nearest.get(turn.parent)
    messages: list[dict[str, Any]] = [
        {
            "id": turn.id,
            "parent": nearest.get(turn.parent),
            "role": turn.role,
            "content": turn.content,
            "reasoning": turn.reasoning,
            "state": "done",
            "facts": {},
            "files": list(turn.files),
            "created": turn.created or changed or time.time(),
        }
        for turn in reached
        if turn.role
    ]
    times: list[float] = [message["created"] for message in messages]
    return {
        "title": _line(title)[:N_TITLE],
        "system": "",
        "pinned": False,
        "created": min(times, default=changed),
        "changed": changed or max(times, default=0.0),
        "leaf": nearest.get(leaf) or (messages[-1]["id"] if messages else None),
        "messages": messages,
    }


def _from_the_root(by_id: dict[str, _Turn]) -> Iterator[_Turn]:
    """Each after its parent. What hangs on itself, at whatever distance, is never reached."""
    children: dict[str | None, list[_Turn]] = {}
    for turn in by_id.values():
        children.setdefault(turn.parent if turn.parent in by_id else None, []).append(turn)
    waiting = children.pop(None, [])[::-1]
    while waiting:
        turn = waiting.pop()
        yield turn
        waiting += children.pop(turn.id, [])[::-1]


def _files(given: Any, key: str) -> Iterator[dict[str, str]]:
    for file in _list(given):
        if isinstance(file, dict) and _text(file.get(key)):
            yield {"name": _line(file.get("name"))[:N_TITLE] or "file", "text": _text(file.get(key))}


def _facts(told: dict[str, Any]) -> dict[str, Any]:
    """What the page shows under an answer, as far as it is what it should be."""
    texts = {name: _line(told[name]) for name in ("model", "stop_reason", "cache") if isinstance(told.get(name), str)}
    numbers = {name: _numbers(told[name]) for name in ("first_s", "thought_s", "timings", "usage") if name in told}
    return texts | {name: value for name, value in numbers.items() if value is not None and value != {}}


def _numbers(value: Any, depth: int = 2) -> Any:
    """A number, or a table of numbers; else nothing."""
    if isinstance(value, dict) and depth:
        told = {_line(key): _numbers(inner, depth - 1) for key, inner in value.items()}
        return {key: inner for key, inner in told.items() if inner is not None}
    ok = isinstance(value, int | float) and not isinstance(value, bool) and -(2.0**53) < value < 2.0**53
    return value if ok else None


def _fenced(text: str) -> str:
    fence = FENCE
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"


def _role(value: Any) -> str | None:
    return value if value in ROLES else None


def _line(value: Any) -> str:
    return " ".join(_text(value).split())


def _text(value: Any) -> str:
    """Without lone surrogates, which JSON can spell and nobody can write down."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def _seconds(value: Any, per_second: int = 1) -> float:
    ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**33 * per_second
    return value / per_second if ok else 0.0


def _list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
