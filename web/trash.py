"""What was deleted of the chats, until it is really gone: rows that can be had back for a while, and words of the search."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import suppress

from web import search
from web.database import ChatsError, Database

UNDO_S = 600.0  # a deleted chat can be restored for so long
EMPTY_S = 86400.0  # a chat without a name in which nothing was said is kept for so long
PURGE = (
    "DELETE FROM chats WHERE deleted <= ? OR changed <= ? AND title = '' AND system = '' "
    "AND NOT EXISTS (SELECT 1 FROM messages WHERE chat = chats.id)"
)


class Trash:
    """Of one database. What was deleted through another server is none the less removed in its time, and not before."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._words_from: float | None = None  # when words were removed that the search's index still has
        self.timer: threading.Timer | None = None

    def wait(self, db: sqlite3.Connection) -> None:
        """Until it is time for what was deleted first. Only within a transaction: no two threads do this at once."""
        deleted: float | None = db.execute("SELECT min(deleted) FROM chats").fetchone()[0]
        times = [at for at in (deleted, self._words_from) if at is not None]
        if self.timer:
            self.timer.cancel()
        if times:
            self.timer = threading.Timer(max(0.0, min(times) + UNDO_S - time.time()), self.empty)
            self.timer.daemon = True
            self.timer.start()

    def take_words(self, db: sqlite3.Connection) -> None:
        """Some were removed that nobody can have back; the index keeps them until it is next put in order."""
        self._words_from = self._words_from or time.time()
        self.wait(db)

    def empty(self) -> None:
        """Removes what was deleted long enough ago; if it cannot be now, the next time."""
        now = time.time()
        with suppress(ChatsError), self._database.writing(quietly=True) as db:
            n = db.execute(PURGE, (now - UNDO_S, now - EMPTY_S)).rowcount
            if n or self._words_from is not None:
                search.forget(db)
                self._words_from = None
            self.wait(db)

    def close(self) -> None:
        """No removed word stays in the file; deleted chats are left to the next start."""
        if self._words_from is not None:
            self.empty()
        if self.timer:
            self.timer.cancel()
