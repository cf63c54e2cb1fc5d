"""The chats that are kept: their titles, and a tree of messages for each. Knows nothing of HTTP, nor of who answers.

Each chat belongs to an owner; to everybody else it does not exist. Any thread may ask. What goes wrong is a ChatsError of
web.database. Chats and messages are dictionaries, as the page gets them.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from web import search
from web.database import AbsentError, ChatsError, Database
from web.trash import Trash

MOST_MESSAGES = 10_000  # of a chat
CHAT = (
    "SELECT id, title, pinned, system, created, changed, leaf, "
    "EXISTS (SELECT 1 FROM messages WHERE chat = chats.id AND state = 'running') AS running, "
    "coalesce((SELECT substr(content, 1, 100) FROM messages WHERE chat = chats.id ORDER BY n LIMIT 1), '') AS first "
    "FROM chats "
)
MESSAGE = "SELECT id, parent, role, content, reasoning, state, facts, files, created FROM messages "
TREE = "WITH RECURSIVE tree (id) AS (VALUES (?) UNION ALL SELECT messages.id FROM messages JOIN tree ON parent = tree.id) "

Chat = dict[str, Any]
Message = dict[str, Any]


class TooLongError(ChatsError):
    """A chat has as many messages as it may have."""


class RunningError(ChatsError):
    """An answer cannot be continued while it is being made."""


class Chats:
    """All of them, in one file."""

    def __init__(self, file: Path) -> None:
        """The file is begun when it is first needed. One that is there is opened now; if it cannot be, later."""
        self._database = Database(file)
        self._trash = Trash(self._database)
        if file.exists():
            self._trash.empty()

    @property
    def version(self) -> int:
        """Grows with every change that a list or a chat would show, but not with each word of an answer in progress."""
        return self._database.version

    def close(self) -> None:
        """Closes the file."""
        self._trash.close()
        self._database.close()

    def find(self, owner: str, text: str = "") -> list[Chat]:
        """Without their messages: the pinned ones, then the newest. With a text only those that hold it, and where."""
        with self._database.reading() as db:
            order = "WHERE owner = ? AND deleted IS NULL ORDER BY pinned DESC, changed DESC, n DESC"
            chats = [_chat(row) for row in db.execute(CHAT + order, (owner,))]
            if not text.strip():
                return chats
            found = search.find(db, owner, text)
        return [chat | {"snippet": found[chat["id"]]} for chat in chats if chat["id"] in found]

    def all(self, owner: str) -> Iterator[Chat]:
        """With their messages."""
        for chat in self.find(owner):
            with suppress(AbsentError):  # removed meanwhile
                yield self.read(owner, chat["id"])

    def create(self, owner: str, title: str = "", system: str = "") -> Chat:
        """A new one."""
        return self.add(owner, {"title": title, "system": system})

    def add(self, owner: str, chat: Mapping[str, Any]) -> Chat:
        """A whole one, from elsewhere: the ids become new ones. Raises ValueError for messages that make no tree."""
        now = time.time()
        messages = _sorted(chat.get("messages", []))
        names = {message["id"]: _name("msg") for message in messages}
        id, leaf = _name("chat"), names.get(chat.get("leaf"))
        with self._database.writing() as db:
            texts = (id, owner, chat.get("title", ""), bool(chat.get("pinned")), chat.get("system", ""))
            last = names[messages[-1]["id"]] if messages else None
            db.execute(
                "INSERT INTO chats (id, owner, title, pinned, system, leaf, created, changed) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*texts, leaf or last, chat.get("created", now), chat.get("changed", now)),
            )
            for message in messages:
                renamed = {"id": names[message["id"]], "parent": names.get(message.get("parent"))}
                _insert(db, id, {"created": now, **message, **renamed})
            return _read(db, owner, id)

    def read(self, owner: str, id: str) -> Chat:
        """With all messages of the tree, the oldest first. Raises AbsentError."""
        with self._database.reading() as db:
            chat = _read(db, owner, id)
            rows = db.execute(MESSAGE + "WHERE chat = ? ORDER BY n", (id,))
            return chat | {"messages": [_message(row) for row in rows]}

    def find_one(self, owner: str, id: str) -> Chat:
        """Without its messages. Raises AbsentError."""
        with self._database.reading() as db:
            return _read(db, owner, id)

    def message(self, owner: str, chat: str, id: str) -> Message:
        """One of them. Raises AbsentError."""
        with self._database.reading() as db:
            _read(db, owner, chat)
            return _read_message(db, chat, id)

    def change(self, owner: str, id: str, fields: Mapping[str, Any]) -> Chat:
        """Of the fields title, pinned, leaf and system those that are there. Raises AbsentError, for a leaf, too."""
        with self._database.writing() as db:
            _read(db, owner, id)
            if fields.get("leaf") is not None:
                _read_message(db, id, fields["leaf"])
            for name in {"title", "pinned", "leaf", "system"} & set(fields):
                db.execute(f"UPDATE chats SET {name} = ? WHERE id = ?", (fields[name], id))
            if "title" in fields:
                self._trash.take_words(db)
            return _read(db, owner, id)

    def entitle(self, owner: str, id: str, title: str) -> None:
        """Gives a chat a title, unless it has got one."""
        with self._database.writing() as db:
            db.execute("UPDATE chats SET title = ? WHERE owner = ? AND id = ? AND title = ''", (title, owner, id))

    def remove(self, owner: str, id: str) -> Chat:
        """It can be restored for a while, whoever is started meanwhile. Raises AbsentError."""
        with self._database.writing() as db:
            chat = _read(db, owner, id)
            db.execute("UPDATE chats SET deleted = ? WHERE id = ?", (time.time(), id))
            self._trash.wait(db)
            return chat

    def restore(self, owner: str, id: str) -> Chat:
        """Raises AbsentError once it is really gone."""
        with self._database.writing() as db:
            db.execute("UPDATE chats SET deleted = NULL WHERE owner = ? AND id = ?", (owner, id))
            return _read(db, owner, id)

    def say(
        self, owner: str, chat: str, parent: str | None, content: str, files: Sequence[Mapping[str, str]] = ()
    ) -> Message:
        """A message of the user's. Raises AbsentError, TooLongError."""
        return self._append(owner, chat, parent, {"role": "user", "content": content, "files": list(files)})

    def begin(self, owner: str, chat: str, parent: str, facts: Mapping[str, Any]) -> Message:
        """An answer that is being made. Raises AbsentError, TooLongError."""
        return self._append(owner, chat, parent, {"role": "assistant", "state": "running", "facts": facts})

    def resume(self, owner: str, chat: str, id: str) -> Message:
        """An answer that is to grow. Raises AbsentError, RunningError."""
        with self._database.writing() as db:
            _read(db, owner, chat)
            message = _read_message(db, chat, id)
            if message["state"] == "running":
                raise RunningError("This answer is still being made.")
            db.execute("UPDATE messages SET state = 'running' WHERE id = ?", (id,))
            _show(db, chat, _newest(db, chat, id) or id)  # what was said after it stays in sight
            return message | {"state": "running"}

    def keep(self, message: Message) -> bool:
        """What an answer has come to; False when it is not there any more."""
        texts = (message["content"], message["reasoning"], message["state"], _json(message["facts"]), message["id"])
        with self._database.writing(quietly=message["state"] == "running") as db:
            update = "UPDATE messages SET content = ?, reasoning = ?, state = ?, facts = ? WHERE id = ?"
            return db.execute(update, texts).rowcount > 0

    def remove_message(self, owner: str, chat: str, id: str) -> tuple[str | None, list[str]]:
        """With everything after it; the new leaf, and what was removed. Raises AbsentError."""
        with self._database.writing() as db:
            leaf = _read(db, owner, chat)["leaf"]
            parent = _read_message(db, chat, id)["parent"]
            removed = [row["id"] for row in db.execute(TREE + "SELECT id FROM tree", (id,))]
            db.execute(TREE + "DELETE FROM messages WHERE id IN (SELECT id FROM tree)", (id,))
            if leaf in removed:
                leaf = _newest(db, chat, parent)
                db.execute("UPDATE chats SET leaf = ? WHERE id = ?", (leaf, chat))
            self._trash.take_words(db)
            return leaf, removed

    def _append(self, owner: str, chat: str, parent: str | None, fields: Mapping[str, Any]) -> Message:
        with self._database.writing() as db:
            _read(db, owner, chat)
            if parent is not None:
                _read_message(db, chat, parent)
            if db.execute("SELECT count(*) FROM messages WHERE chat = ?", (chat,)).fetchone()[0] >= MOST_MESSAGES:
                raise TooLongError(f"A chat has at most {MOST_MESSAGES:,} messages.")
            id = _name("msg")
            _insert(db, chat, {**fields, "id": id, "parent": parent, "created": time.time()})
            _show(db, chat, id)
            return _read_message(db, chat, id)


def _name(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _chat(row: sqlite3.Row) -> Chat:
    return dict(row) | {"pinned": bool(row["pinned"]), "running": bool(row["running"])}


def _message(row: sqlite3.Row) -> Message:
    return dict(row) | {"facts": json.loads(row["facts"]), "files": json.loads(row["files"])}


def _read(db: sqlite3.Connection, owner: str, id: str) -> Chat:
    row = db.execute(CHAT + "WHERE owner = ? AND id = ? AND deleted IS NULL", (owner, id)).fetchone()
    if not row:
        raise AbsentError(f"There is no chat {id[:100]}.")
    return _chat(row)


def _read_message(db: sqlite3.Connection, chat: str, id: str) -> Message:
    row = db.execute(MESSAGE + "WHERE chat = ? AND id = ?", (chat, id)).fetchone()
    if not row:
        raise AbsentError(f"There is no message {id[:100]} in this chat.")
    return _message(row)


def _insert(db: sqlite3.Connection, chat: str, message: Mapping[str, Any]) -> None:
    texts = [message.get(name, default) for name, default in (("content", ""), ("reasoning", ""), ("state", "done"))]
    data = (_json(message.get("facts", {})), _json(message.get("files", [])))
    db.execute(
        "INSERT INTO messages (chat, id, parent, role, content, reasoning, state, facts, files, created) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (chat, message["id"], message["parent"], message["role"], *texts, *data, message["created"]),
    )


def _show(db: sqlite3.Connection, chat: str, leaf: str) -> None:
    """Something was said there just now."""
    db.execute("UPDATE chats SET leaf = ?, changed = ? WHERE id = ?", (leaf, time.time(), chat))


def _newest(db: sqlite3.Connection, chat: str, parent: str | None) -> str | None:
    """What was said last after a message, in any branch: nothing can follow it. If there is nothing, the message itself."""
    if parent is None:
        row = db.execute("SELECT id FROM messages WHERE chat = ? ORDER BY n DESC LIMIT 1", (chat,)).fetchone()
    else:
        newest = TREE + "SELECT id FROM messages WHERE id IN (SELECT id FROM tree) ORDER BY n DESC LIMIT 1"
        row = db.execute(newest, (parent,)).fetchone()
    return row["id"] if row else None


def _sorted(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Parents before what follows them, else as they come."""
    known = {message["id"] for message in messages}
    after: dict[str | None, list[Mapping[str, Any]]] = {}
    for message in messages:
        parent = message.get("parent")
        after.setdefault(parent if parent in known else None, []).append(message)
    result = list(after.pop(None, []))
    for message in result:  # it grows meanwhile
        result += after.pop(message["id"], [])
    if len(result) < len(messages) or len(known) < len(messages):
        raise ValueError("The messages make no tree.")
    return result
