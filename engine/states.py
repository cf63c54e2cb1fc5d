"""Computed states (KV) on disk: one file each, written beside and renamed, checked when read. Trouble of any kind is a miss.

A file is a line of JSON, the tokens, and the state; the last two under one SHA-256. Writing happens in a thread of its own,
so no step waits for a disk. A file's time is that of its last use. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import shutil
import sys
import threading
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

State = bytes | bytearray

log = logging.getLogger("engine")
VERSION = 1
HEADER_BYTES = 4096  # no header is longer
PENDING_BYTES = 2**28  # waiting to be written: a disk slower than the engine must not fill the memory
FREE_BYTES = 2**30  # what is left free of the disk at least


@dataclass(frozen=True)
class Record:
    """What a file says of itself; whether its state is whole is known once it is read."""

    id: str
    parent: str  # "": it begins with the first token
    start: int
    tokens: list[int]
    n_bytes: int  # of the state
    used: int  # when, in ns


class States:
    """The files of one model under `folder` / `key`; the limit counts those of all models. No folder: keeps nothing."""

    def __init__(self, folder: Path | None, key: str, limit_bytes: int) -> None:
        self._folder = folder / key if folder and limit_bytes else None
        self._limit_bytes = limit_bytes
        self._sizes: dict[str, int] = {}  # bytes by id, of files and of those still to be written
        self._n_bytes = 0  # of all of them
        self._lock = threading.Lock()  # guards the two
        self._pending: dict[str, State] = {}
        self._others: list[tuple[int, Path]] = []  # sizes and files of other models, the oldest last
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        if self._folder and folder:
            try:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._others = _others(folder, self._folder)
            except OSError as error:
                log.warning("Nothing is kept on disk: %s: %s", self._folder, error.strerror)
                self._folder = None
        self._n_others_bytes = sum(size for size, _ in self._others)
        if self._folder:
            threading.Thread(target=self._work, name="states", daemon=True).start()

    def full(self) -> bool:
        """Whether something should go. Other models' files go first, without being asked."""
        while self._others and self._n_bytes + self._n_others_bytes > self._limit_bytes:
            size, path = self._others.pop()
            self._n_others_bytes -= size
            self._jobs.put(lambda path=path: path.unlink(missing_ok=True))  # type: ignore[misc]
        return self._n_bytes > self._limit_bytes

    def records(self) -> Iterator[Record]:
        """What is there, in the order of where it starts. Files that make no sense are removed.

        One after the other, each read twice: the tokens of all files together may be more than the memory has room for.
        """
        starts = []
        for path in self._folder.glob("*.kv") if self._folder else ():
            if record := self._record(path):
                self._count(record.id, record.n_bytes)
                starts.append((record.start, record.id))
        for _, id in sorted(starts):
            if record := self._record(self._path(id)):
                yield record

    @property
    def limit_bytes(self) -> int:
        """How much may be kept."""
        return self._limit_bytes if self._folder else 0

    def holds(self, id: str) -> bool:
        """Whether it is on disk, or will be."""
        return id in self._sizes

    def write(self, record: Record, state: State) -> None:
        """Begins to write a state; whether it is taken says `holds`."""
        if not self._folder or self.holds(record.id) or len(state) > self._limit_bytes:
            return
        if sum(map(len, list(self._pending.values()))) + len(state) > PENDING_BYTES:
            return
        self._count(record.id, len(state))
        self._pending[record.id] = state
        self._jobs.put(lambda: self._write(record, state))

    def read(self, id: str) -> State | None:
        """A state; None when it is not there, cut or corrupt."""
        if pending := self._pending.get(id):  # one look: it can be written and gone in between
            return pending
        if not self._folder or id not in self._sizes:
            return None
        try:
            with self._path(id).open("rb") as file:
                header = json.loads(file.readline(HEADER_BYTES))
                tokens, state = file.read(4 * header["n_tokens"]), file.read()
            if header["version"] == VERSION and _digest(tokens, state) == header["sha256"]:
                return state
            log.warning("%s is corrupt; its tokens will be computed again", self._path(id))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%s); its tokens will be computed again", self._path(id), error)
        return None

    def touch(self, id: str, used: int) -> None:
        """Notes when it was used."""
        if self._folder and id in self._sizes:
            self._jobs.put(lambda: os.utime(self._path(id), ns=(used, used)))

    def remove(self, id: str) -> None:
        """Forgets a state."""
        if self._folder and self._discount(id):
            self._jobs.put(lambda: self._path(id).unlink(missing_ok=True))

    def flush(self, timeout_s: float) -> bool:
        """Waits until what was begun is written; whether it is."""
        done = threading.Event()
        self._jobs.put(done.set)
        return not self._folder or done.wait(timeout_s)

    def _count(self, id: str, n_bytes: int) -> None:
        with self._lock:
            self._n_bytes += n_bytes - self._sizes.get(id, 0)
            self._sizes[id] = n_bytes

    def _discount(self, id: str) -> bool:
        with self._lock:
            n_bytes = self._sizes.pop(id, None)
            self._n_bytes -= n_bytes or 0
            return n_bytes is not None

    def _record(self, path: Path) -> Record | None:
        try:
            return _record(path)
        except (OSError, ValueError, KeyError, TypeError):
            self._discount(path.stem)
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def _path(self, id: str) -> Path:
        assert self._folder
        return self._folder / f"{id}.kv"

    def _work(self) -> None:
        if sys.platform == "linux":  # there a thread has a priority of its own: the steps come first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while True:
            with contextlib.suppress(OSError):  # a full or failing disk: a miss later
                self._jobs.get()()

    def _write(self, record: Record, state: State) -> None:
        beside = self._path(record.id).with_suffix(f".{os.getpid()}")
        tokens = array("i", record.tokens).tobytes()
        header = {"version": VERSION, "parent": record.parent, "start": record.start, "n_tokens": len(record.tokens)}
        header["sha256"] = _digest(tokens, state)
        try:
            if shutil.disk_usage(beside.parent).free < FREE_BYTES + len(state):
                raise OSError("the disk is full")
            with beside.open("wb") as file:
                file.write(json.dumps(header).encode() + b"\n" + tokens)
                file.write(state)
            os.utime(beside, ns=(record.used, record.used))
            beside.replace(self._path(record.id))
        except OSError:
            self._discount(record.id)
            beside.unlink(missing_ok=True)
            raise
        finally:
            self._pending.pop(record.id, None)


def _digest(tokens: bytes, state: State) -> str:
    digest = hashlib.sha256(tokens)
    digest.update(state)  # not joined with the tokens first: that would copy many megabytes
    return digest.hexdigest()


def _record(path: Path) -> Record:
    """Raises OSError, ValueError, KeyError or TypeError when the file is none of ours."""
    with path.open("rb") as file:
        header = json.loads(file.readline(HEADER_BYTES))
        if header["version"] != VERSION or not isinstance(header["start"], int) or not isinstance(header["parent"], str):
            raise ValueError("none of ours")
        at = file.tell()
        tokens = array("i", file.read(4 * header["n_tokens"]))
    status = path.stat()
    n_bytes = status.st_size - at - 4 * len(tokens)
    return Record(path.stem, header["parent"], header["start"], tokens.tolist(), n_bytes, status.st_mtime_ns)


def _others(root: Path, mine: Path) -> list[tuple[int, Path]]:
    """Sizes and files of other models, the oldest last."""
    for cut_off in mine.glob("*.[0-9]*"):  # half-written when an earlier server was killed
        cut_off.unlink(missing_ok=True)
    files = [(path.stat(), path) for path in root.glob("*/*.kv") if path.parent != mine]
    return [(status.st_size, path) for status, path in sorted(files, key=lambda pair: -pair[0].st_mtime_ns)]
