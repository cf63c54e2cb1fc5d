"""The disk tier: diskcache without what makes it dangerous, and whose failures cost nothing but a miss.

diskcache unpickles what it finds (CVE-2025-69872; its JSONDisk does so too), reads and removes the files its rows name, and
waits for ever on a read-only disk. So here every value is bytes inside the database, with a checksum; a row of any other
kind is a miss; and whatever goes wrong closes the database for a while instead of being tried again for ever.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import MODE_RAW, UNKNOWN

log = logging.getLogger("cache")
DIGEST_BYTES = hashlib.sha256().digest_size
LOCK_S = 0.05  # another process may hold the database so long; a hit is not worth waiting longer
WRITE_S = 2.0  # a writer waits so long: nobody waits for it
RETRY_S = 5.0  # after a failure the disk is left alone so long
REMIND_S = 60.0  # between two lines in the log about it
FREE_BYTES = 64 * 2**20  # of the disk, which are not for us
MENDED = ("Settings.", "file not found", "wrong file size", "unknown file", "empty directory")  # warnings of its check
ASIDE = ".broken"
PAGES = 256  # of 4 KiB, of the database in the memory of each thread that reads; the system keeps what is read often


class ForeignRowError(ValueError):
    """A row that we have not written like this, or that was damaged since."""


class SafeDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """str keys, bytes values with their SHA-256, all in the database. Nothing is unpickled, no file read or removed."""

    def put(self, key: Any) -> tuple[str, bool]:
        """A key for the database."""
        if not isinstance(key, str):
            raise ForeignRowError
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        """A key from the database."""
        if not (isinstance(key, str) and raw):
            raise ForeignRowError
        return key

    def store(self, value: bytes, read: bool, key: Any = UNKNOWN) -> tuple[int, int, None, sqlite3.Binary]:
        """A value for the database."""
        return 0, MODE_RAW, None, sqlite3.Binary(hashlib.sha256(value).digest() + value)

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> bytes:
        """A value from the database."""
        if mode != MODE_RAW or filename is not None or not isinstance(value, bytes):
            raise ForeignRowError
        digest, content = value[:DIGEST_BYTES], value[DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            raise ForeignRowError
        return content

    def remove(self, file_path: Any) -> None:
        """No row of ours has a file; another's stays where it is."""


class Shelf:
    """Bytes under keys in a folder, at most so many bytes; the least recently used go first. Any thread may `get`.

    Only one thread may call the others: `open`, `put`, `clear`, `close` and `heal`. Each value belongs to an owner, for
    whom alone it can be cleared. `check`: the database is looked through when it is first opened, as only the server
    does that writes into it.
    """

    def __init__(self, folder: Path, most_bytes: int, check: bool = True) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._check = check  # once: what it needs (time, a free disk) may be just what is missing
        self._to_clear: set[str | None] = set()  # owners whose values are as good as gone already; None: everybody's
        self._cache: diskcache.Cache | None = None  # None: closed, for good or for now; an empty one is false, too
        self._place: tuple[int, int] | None = None  # device and number of the database file that is open
        self._broken = False  # the database itself makes no sense: it is to be set aside
        self._retry_at = 0.0
        self._said_at = -REMIND_S
        self._trouble = threading.Lock()
        self.n_evicted = 0

    def open(self) -> None:
        """Opens the database, checked and mended, or begins a new one where that cannot be."""
        try:
            self._make_folder()
            try:
                if self._broken:
                    raise sqlite3.DatabaseError
                self._cache = self._opened()
            except Exception as error:
                if _will_pass(error):
                    raise
                self._set_aside()  # whatever a strange database makes of diskcache: it is none of ours
                self._cache = self._opened()
            self._place, self._broken = self._database_place(), False
        except Exception as error:  # noqa: BLE001  # a cache must never be the reason why there is no answer
            self._fail(error)

    def get(self, key: str) -> bytes | None:
        """The value; None when it is not there, is none of ours, or the disk is in trouble."""
        cache = self._cache
        if cache is None or self._to_clear:
            return None
        try:
            value: bytes | None = cache.get(key)
            return value
        except diskcache.Timeout:
            log.debug("The database is locked at present: a miss.")
        except ForeignRowError:
            log.warning("An answer on disk is damaged and will be computed again.")
        except Exception as error:  # noqa: BLE001
            self._fail(error)
        return None

    def put(self, key: str, value: bytes, owner: str | None = None) -> None:
        """Keeps a value, if it can."""
        self.heal()
        if self._cache is None or self._to_clear or len(value) > self._most_bytes // 4:
            return
        try:
            if shutil.disk_usage(self._folder).free < FREE_BYTES + len(value):
                self._say("the disk is nearly full")
                return
            self._insist(lambda cache: self._put(cache, key, value, owner))
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def clear(self, owner: str | None = None) -> int | None:
        """Forgets all values of an owner, or all; how many there were.

        None when the disk does not let it now: nothing of it is given any more, and it is removed as soon as it can be.
        """
        self.heal()
        self._to_clear.add(owner)
        return self._clear()

    def size(self) -> tuple[int, int] | None:
        """Values and bytes; None while it is closed."""
        cache = self._cache
        try:
            return (len(cache), int(cache.volume())) if cache is not None else None
        except Exception as error:  # noqa: BLE001
            self._fail(error)
            return None

    def close(self) -> None:
        """Closes the database."""
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def heal(self) -> None:
        """Opens the database again when it is time to, or when somebody has taken its files away."""
        if self._cache is not None and self._database_place() != self._place:
            self._fail(FileNotFoundError("its folder was deleted"))
            self._retry_at = 0.0
        if self._cache is None and time.monotonic() >= self._retry_at:
            self.open()
        if self._to_clear:
            self._clear()

    def _put(self, cache: diskcache.Cache, key: str, value: bytes, owner: str | None) -> None:
        n_before, is_new = len(cache), key not in cache
        cache.set(key, value, tag=owner)
        self.n_evicted += max(0, n_before + is_new - len(cache))

    def _clear(self) -> int | None:
        if self._cache is None:
            return None
        n = 0
        try:
            for owner in list(self._to_clear):
                n += self._insist(diskcache.Cache.clear if owner is None else lambda cache: cache.evict(owner))  # noqa: B023
                self._to_clear.remove(owner)
        except Exception as error:  # noqa: BLE001
            self._fail(error)
            return None
        return n

    def _insist(self, act: Callable[[diskcache.Cache], Any]) -> Any:
        """Does it, after others have let go of the database if need be."""
        cache, give_up_at = self._cache, time.monotonic() + WRITE_S
        while True:
            try:
                return act(cache)
            except diskcache.Timeout:
                if time.monotonic() > give_up_at:
                    raise

    def _opened(self) -> diskcache.Cache:
        # diskcache would try for a minute, or for ever, where the database is locked or read-only.
        with closing(sqlite3.connect(self._folder / diskcache.core.DBNAME, LOCK_S, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
        cache = diskcache.Cache(
            str(self._folder),
            timeout=LOCK_S,
            disk=SafeDisk,
            eviction_policy="least-recently-used",
            size_limit=self._most_bytes,
            sqlite_cache_size=PAGES,
            sqlite_synchronous=1,  # with its log written ahead: a crash of the machine loses the last answers, nothing else
        )
        if self._check:
            self._check = False
            if shutil.disk_usage(self._folder).free > FREE_BYTES + 2 * cache.volume():  # it copies the database
                _look_through(cache)
        return cache

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._folder.stat()
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o022:
            raise PermissionError("others may write into it")
        self._folder.chmod(0o700)

    def _database_place(self) -> tuple[int, int] | None:
        try:
            status = (self._folder / diskcache.core.DBNAME).stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _set_aside(self) -> None:
        """The broken database stays there for whoever wants to look, once."""
        aside = self._folder.with_name(self._folder.name + ASIDE)
        shutil.rmtree(aside, ignore_errors=True)
        self._folder.rename(aside)
        log.warning("The answers in %s cannot be read; they were moved to %s.", self._folder, aside)
        self._make_folder()

    def _fail(self, error: Exception) -> None:
        """Closes the database for a while."""
        with self._trouble:
            self._cache = None
            self._broken |= isinstance(error, sqlite3.DatabaseError) and not _will_pass(error)
            self._retry_at = time.monotonic() + RETRY_S
        self._say(str(error) or type(error).__name__)

    def _say(self, reason: str) -> None:
        now = time.monotonic()
        if now - self._said_at >= REMIND_S:
            self._said_at = now
            log.warning("Answers are not kept in %s at present: %s.", self._folder, reason)


def _will_pass(error: Exception) -> bool:
    """Whether the database may be whole all the same: locked, full, read-only. Else it is "malformed", or has no table."""
    if isinstance(error, sqlite3.OperationalError):
        return not str(error).startswith("no such")
    return isinstance(error, diskcache.Timeout | OSError)


def _look_through(cache: diskcache.Cache) -> None:
    """Mends what diskcache can mend. Raises sqlite3.DatabaseError for what it only warns of."""
    for warning in cache.check(fix=True):
        if not str(warning.message).startswith(MENDED):
            raise sqlite3.DatabaseError(str(warning.message))
