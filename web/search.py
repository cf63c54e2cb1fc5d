"""Which chats hold a text: by words, or letter by letter where a text has none that an index could know."""

from __future__ import annotations

import json
import re
import sqlite3

# Scripts that put no spaces between words (Thai, Chinese, Japanese ...): the index takes a whole sentence for a word.
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]")
AROUND = 40  # characters of a snippet before and after what was found
SHOWN = "chats.owner = ? AND chats.deleted IS NULL"
BY_WORDS = (
    "SELECT messages.chat, max(messages.n) FROM message_words JOIN messages ON messages.n = message_words.rowid "
    f"JOIN chats ON chats.id = messages.chat WHERE message_words MATCH ? AND {SHOWN} GROUP BY messages.chat"
)
# The plus keeps SQLite from looking up each row by itself, which would go through the index anew each time.
SNIPPETS = (
    "SELECT rowid, snippet(message_words, 0, '', '', '…', 16) FROM message_words "
    "WHERE message_words MATCH ? AND +rowid IN (SELECT value FROM json_each(?))"
)
BY_LETTERS = (
    "SELECT messages.chat, messages.content, max(messages.n) FROM messages JOIN chats ON chats.id = messages.chat "
    f"WHERE messages.content LIKE ? ESCAPE '\\' AND {SHOWN} GROUP BY messages.chat"
)
TITLES_BY_WORDS = (
    "SELECT chats.id, chats.title FROM title_words JOIN chats ON chats.n = title_words.rowid "
    f"WHERE title_words MATCH ? AND {SHOWN}"
)
TITLES_BY_LETTERS = f"SELECT chats.id, chats.title FROM chats WHERE chats.title LIKE ? ESCAPE '\\' AND {SHOWN}"


def find(db: sqlite3.Connection, owner: str, text: str) -> dict[str, str]:
    """By a chat's id: where it holds the text, in its newest message that does, or else in its title."""
    text = text.replace("\0", " ").strip()
    if not text:
        return {}
    by_words = {} if UNSPACED.search(text) else _by_words(db, owner, text)
    return by_words or _by_letters(db, owner, text)


def forget(db: sqlite3.Connection) -> None:
    """After something was removed: its words do not stay in the index."""
    for table in ("title_words", "message_words"):
        db.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")


def _by_words(db: sqlite3.Connection, owner: str, text: str) -> dict[str, str]:
    """All words in one place; the last may be just begun."""
    words = text.split()
    query = " ".join('"{}"'.format(word.replace('"', '""')) for word in words)  # nothing in it is syntax now
    query += "*" if len(words[-1]) > 1 else ""  # a letter alone would begin too much
    found: dict[str, str] = dict(db.execute(TITLES_BY_WORDS, (query, owner)).fetchall())
    newest: dict[str, int] = dict(db.execute(BY_WORDS, (query, owner)).fetchall())
    snippets = dict(db.execute(SNIPPETS, (query, json.dumps(list(newest.values())))).fetchall())
    return found | {chat: _line(snippets[n]) for chat, n in newest.items()}


def _by_letters(db: sqlite3.Connection, owner: str, text: str) -> dict[str, str]:
    pattern = "%" + re.sub(r"([\\%_])", r"\\\1", text) + "%"
    found: dict[str, str] = dict(db.execute(TITLES_BY_LETTERS, (pattern, owner)).fetchall())
    for chat, content, _ in db.execute(BY_LETTERS, (pattern, owner)):
        found[chat] = _around(content, text)
    return found


def _around(content: str, text: str) -> str:
    at = max(0, content.lower().find(text.lower()))
    begin, end = max(0, at - AROUND), at + len(text) + AROUND
    return "…" * (begin > 0) + _line(content[begin:end]) + "…" * (end < len(content))


def _line(text: str) -> str:
    return " ".join(text.split())
