"""The database file of the chats: opened when it is needed, looked through, moved aside when it is broken.

Everything that SQLite may say becomes one of two errors:

ChatsError          a sentence for whoever asked
    AbsentError     there is no such chat or message
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("linnet")
SCHEMA = Path(__file__).with_name("schema.sql")
VERSION = 1  # of the schema; in the database as its user_version
BUSY_S = 5.0  # another server may hold the database so long
REMIND_S = 60.0  # between two lines in the log about the same trouble
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
RECOVER = "UPDATE messages SET state = 'stopped' WHERE state = 'running'"  # a server that has crashed left them
REBUILD = (
    "INSERT INTO title_words (title_words) VALUES ('rebuild')",
    "INSERT INTO message_words (message_words) VALUES ('rebuild')",
)


class ChatsError(Exception):
    """The chats cannot be read or kept at present; the message is a sentence for people."""


class AbsentError(ChatsError):
    """There is no such chat or message."""


class Database:
    """One connection, for any thread: what is done with it takes less time than opening another would."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()  # guards what follows
        self._connection: sqlite3.Connection | None = None
        self._place: tuple[int, int] | None = None  # device and number of the file that is open
        self._mending: tuple[str, ...] = (RECOVER,)  # when it is opened next; it is looked through then, too
        self._n_changes = int(time.time() * 1000)  # larger than any number of an earlier run
        self._say_at = 0.0
        self._others: int | None = None  # SQLite's number for what other processes have changed

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the database, for as long as the block runs. Raises ChatsError."""
        with self._opened("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self, quietly: bool = False) -> Iterator[sqlite3.Connection]:
        """All of the block or nothing; `quietly`: it is no change that others need to know of. Raises ChatsError."""
        with self._opened("BEGIN IMMEDIATE") as connection:
            yield connection
            self._n_changes += not quietly

    @property
    def version(self) -> int:
        """Grows with every change, also those of other processes."""
        with self._lock:
            if self._connection:
                try:
                    others = self._connection.execute("PRAGMA data_version").fetchone()[0]
                except sqlite3.Error:  # whoever looks for what has changed will be told
                    others = None
                if others != self._others:
                    self._others = others
                    self._n_changes += 1
            return self._n_changes

    def close(self) -> None:
        """It is opened again by whoever asks."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = self._others = None

    @contextmanager
    def _opened(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection and _place(self.file) != self._place:
                    self._close()  # somebody has taken the file away
                if not self._connection:
                    self._connection = self._open()
                    self._place = _place(self.file)
                with _transaction(self._connection, begin):
                    yield self._connection
            except sqlite3.Error as error:
                if _broken(error):
                    self._mending = REBUILD
                    self._close()
                raise self._trouble(str(error)) from error
            except OSError as error:
                raise self._trouble(error.strerror or str(error)) from error

    def _open(self) -> sqlite3.Connection:
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            connection = self._connect()
        except sqlite3.DatabaseError as error:
            if not _broken(error):
                raise
            self._set_aside()
            connection = self._connect()
        self._mending = ()
        return connection

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would let others read it
        connection = sqlite3.connect(self.file, BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.row_factory = sqlite3.Row
        if _version(connection) > VERSION:
            raise self._trouble("they were written by a newer version of Linnet")
        if self._mending:
            _look_through(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what was removed is gone
        with _transaction(connection, "BEGIN IMMEDIATE"):
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _statements(SCHEMA.read_text()):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
            if not _version(connection):
                raise self._trouble(f"{self.file.name} holds something else")
            for statement in self._mending:
                connection.execute(statement)

    def _trouble(self, reason: str) -> ChatsError:
        now = time.monotonic()
        if now >= self._say_at:
            self._say_at = now + REMIND_S
            log.warning("The chats in %s cannot be read or kept at present: %s", self.file, reason)
        return ChatsError(f"The chats cannot be read or kept at present: {reason}.")

    def _set_aside(self) -> None:
        """The broken file stays there for whoever wants to look, with what belongs to it."""
        aside = f"{self.file}.broken-{time.strftime('%Y-%m-%d-%H%M%S')}"
        for end in ("-wal", "-shm", ""):
            part = Path(f"{self.file}{end}")
            if part.exists():
                part.rename(f"{aside}{end}")
        log.error("The chats in %s cannot be read; the file was moved to %s, and a new one is begun", self.file, aside)


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors end it by themselves
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _look_through(connection: sqlite3.Connection) -> None:
    fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        error = sqlite3.DatabaseError(fault)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _statements(script: str) -> Iterator[str]:
    """One by one: all at once, they could not be part of a transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _broken(error: sqlite3.Error) -> bool:
    """Whether the file itself makes no sense. Else it may be locked, full or read-only."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in BROKEN


def _place(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
