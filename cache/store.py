"""Values under keys in two tiers: memory in front, disk behind it. Both forget the least recently used first.

Reading is for any thread and takes what it takes to look; writing to disk is for one thread of its own, so nobody who
answers ever waits for it. Whatever goes wrong with the disk is a miss.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import queue
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from cache.disk import RETRY_S, Shelf

log = logging.getLogger("cache")
TIME = struct.Struct("<d")  # before each value, in memory and on disk: when it was made, in seconds since 1970
OPEN_S = 2.0  # so long after the start a look-up waits for the database to be opened
QUEUE = 1000  # values waiting to be written; more are not written
TOUCH_S = 60.0  # what memory answers is noted as used on disk at most so often
LOOK_S = 0.1  # whether another process has cleared the store is looked at so often
SAVE_S = 10.0  # the totals are written at most so often
NOT_CLEARED = "The answers in memory are forgotten; those on disk cannot be removed at present."
OWNED = ":"  # in a key, after the name of its value's owner


class NotClearedError(Exception):
    """The disk did not let its values be removed; the message says so."""


class Entry(NamedTuple):
    """A value and when it was made, in seconds since 1970."""

    value: bytes
    made: float

    @property
    def age_s(self) -> float:
        """Seconds since then; 0.0 where the clock was set back."""
        return max(0.0, time.time() - self.made)


@dataclass
class Totals:
    """What the store has done since it was begun."""

    hits: int = 0
    misses: int = 0
    joined: int = 0
    evictions: int = 0
    saved_s: float = 0.0
    saved_tokens: int = 0


class Store:
    """Threads may call everything at any time. A key may begin with an owner's name and ":".

    `serving`: this process writes into the folder for long, and looks it through first.
    """

    def __init__(self, folder: Path, ram_bytes: int, disk_bytes: int, serving: bool = True) -> None:
        self._ram: OrderedDict[str, bytes] = OrderedDict()  # as on disk: a million of Entry would take 100 MB more
        self._ram_bytes, self._most_ram_bytes = 0, ram_bytes
        self._touched: set[str] = set()  # keys that were noted as used on disk
        self._touch_until = 0.0  # until then; then they are noted anew
        self._n_forgotten = 0  # times
        self._lock = threading.Lock()  # guards the above and the totals; held for moments only
        self._shelf = Shelf(folder, disk_bytes, check=serving) if disk_bytes else None
        self._totals_path = folder.with_suffix(".json")
        self._cleared_path = folder.with_suffix(".cleared")  # its time says when the store was last cleared, by anybody
        self.totals = self._read_totals()
        self._saved, self._save_at = asdict(self.totals), time.monotonic() + SAVE_S
        self._cleared = self._cleared_at()
        self._look_at = 0.0
        self._jobs: queue.Queue[Callable[[], object]] = queue.Queue(QUEUE)
        self._closing = False
        self._opened = threading.Event()
        self._wait_until = time.monotonic() + OPEN_S
        self._writer = threading.Thread(target=self._work, name="cache", daemon=True)
        self._writer.start()

    def get(self, key: str) -> Entry | None:
        """The value, from wherever it is."""
        if entry := self.get_from_memory(key):
            return entry
        if not self._shelf or not self._opened.wait(max(0.0, self._wait_until - time.monotonic())):
            return None
        n_forgotten = self._n_forgotten
        content = self._shelf.get(key)
        if content is None or len(content) < TIME.size:
            return None
        entry = _entry(content)
        if not math.isfinite(entry.made):
            return None
        self._remember(key, content, n_forgotten)
        return entry

    def get_from_memory(self, key: str) -> Entry | None:
        """The value, if it is there: takes no longer than a moment."""
        if (now := time.monotonic()) > self._look_at:
            self._look_at = now + LOOK_S
            if self._cleared_at() != self._cleared:
                self._forget()  # by another process
        with self._lock:
            content = self._ram.get(key)
            if content is None:
                return None
            self._ram.move_to_end(key)
            if now > self._touch_until:
                self._touch_until = now + TOUCH_S
                self._touched.clear()
            if not self._shelf or key in self._touched:
                return _entry(content)
            self._touched.add(key)
        self._later(functools.partial(self._shelf.get, key))
        return _entry(content)

    def put(self, key: str, value: bytes) -> None:
        """Keeps a value: in memory now, on disk soon."""
        content = TIME.pack(time.time()) + value
        self._remember(key, content)
        if self._shelf:
            self._later(functools.partial(self._shelf.put, key, content, _owner(key)))

    def count(self, **more: float) -> None:
        """Adds to the totals."""
        with self._lock:
            for name, n in more.items():
                setattr(self.totals, name, getattr(self.totals, name) + n)

    def clear(self, owner: str | None = None, timeout_s: float = 10.0) -> int:
        """Forgets everything, or all of one owner; how many values there were. Other processes' memory forgets, too.

        Raises NotClearedError when the disk could not be cleared (yet); nothing of it is given any more all the same.
        """
        n = self._forget(owner)
        done = threading.Event()
        removed: list[int | None] = [0]

        def clear_disk() -> None:
            if self._shelf:
                removed[0] = self._shelf.clear(owner)
            self._note_cleared()
            self._forget(owner)  # what was read from the disk meanwhile
            done.set()

        try:
            self._jobs.put(clear_disk, timeout=timeout_s)
        except queue.Full:
            raise NotClearedError(NOT_CLEARED) from None
        if not done.wait(timeout_s) or removed[0] is None:
            raise NotClearedError(NOT_CLEARED)
        return max(n, removed[0])

    def facts(self) -> dict[str, float]:
        """Entries, bytes and the totals, by name."""
        with self._lock:
            n, n_bytes, totals = len(self._ram), self._ram_bytes, asdict(self.totals)
        disk = self._shelf.size() if self._shelf and self._opened.is_set() else None
        entries, disk_bytes = disk or (n, 0)
        return {"entries": max(n, entries), "bytes": disk_bytes or n_bytes, "memory_bytes": n_bytes} | totals

    def flush(self, timeout_s: float) -> bool:
        """Waits until all that was put is written; whether it is."""
        done = threading.Event()
        try:
            self._jobs.put(done.set, timeout=timeout_s)
        except queue.Full:
            return False
        return done.wait(timeout_s)

    def close(self, timeout_s: float = 2.0) -> None:
        """Writes what is waiting, and ends."""
        self._closing = True
        self._later(lambda: None)  # wakes it
        self._writer.join(timeout_s)

    def _remember(self, key: str, content: bytes, n_forgotten: int | None = None) -> None:
        with self._lock:
            if n_forgotten not in (None, self._n_forgotten):
                return  # it was read before they were cleared
            if old := self._ram.pop(key, None):
                self._ram_bytes -= len(old) - TIME.size
            self._ram[key] = content
            self._ram_bytes += len(content) - TIME.size
            while self._ram_bytes > self._most_ram_bytes:
                gone, old = self._ram.popitem(last=False)
                self._ram_bytes -= len(old) - TIME.size
                self._touched.discard(gone)
                self.totals.evictions += not self._shelf

    def _forget(self, owner: str | None = None) -> int:
        """What memory holds of this owner, or all of it; how many values that were."""
        with self._lock:
            self._cleared = self._cleared_at()
            self._n_forgotten += 1
            gone = [key for key in self._ram if owner in (None, _owner(key))]
            for key in gone:
                self._ram_bytes -= len(self._ram.pop(key)) - TIME.size
                self._touched.discard(key)
            return len(gone)

    def _later(self, job: Callable[[], object]) -> None:
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            log.debug("The disk is too slow: a value is not written.")

    def _work(self) -> None:
        if self._shelf:
            self._shelf.open()
        self._opened.set()
        while not (self._closing and self._jobs.empty()):
            try:
                self._do(self._jobs.get(timeout=RETRY_S))
            except queue.Empty:
                if self._shelf:
                    self._do(self._shelf.heal)
            if time.monotonic() >= self._save_at:
                self._do(self._save)
        self._do(self._save)
        if self._shelf:
            self._shelf.close()

    def _do(self, job: Callable[[], object]) -> None:
        """A job of the writer's; whatever it makes of it, there is a next one."""
        try:
            job()
        except Exception:
            log.exception("A fault of ours in the answer cache:")
        if self._shelf and (n := self._shelf.n_evicted):
            self._shelf.n_evicted = 0
            self.count(evictions=n)

    def _save(self) -> None:
        """Writes the totals; on a disk that does not take them they are those of this run."""
        self._save_at = time.monotonic() + SAVE_S
        totals = asdict(self.totals)
        if totals == self._saved or not self._shelf:
            return
        self._saved = totals
        try:
            beside = self._totals_path.with_suffix(".part")
            beside.write_text(json.dumps(totals))
            beside.replace(self._totals_path)
        except OSError as error:
            log.debug("%s cannot be written: %s", self._totals_path, error)

    def _read_totals(self) -> Totals:
        try:
            return Totals(**json.loads(self._totals_path.read_text()))
        except (OSError, ValueError, TypeError):
            return Totals()

    def _cleared_at(self) -> int:
        try:
            return self._cleared_path.stat().st_mtime_ns
        except OSError:
            return 0

    def _note_cleared(self) -> None:
        try:
            self._cleared_path.touch()
        except OSError as error:
            log.debug("%s cannot be written: %s", self._cleared_path, error)
        self._cleared = self._cleared_at()


def _entry(content: bytes) -> Entry:
    return Entry(content[TIME.size :], TIME.unpack_from(content)[0])


def _owner(key: str) -> str | None:
    owner, colon, _ = key.rpartition(OWNED)
    return owner if colon else None
