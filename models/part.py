"""A model on its way into the folder: its part, who may write to it, and how it takes its place.

    models/.parts/NAME.gguf.part      what came so far
    models/.parts/NAME.gguf.json      of which file that is: another hash or size, and it starts over
    models/.parts/NAME.gguf.lock      held by the one process that fetches it
    models/.parts/NAME.gguf.ours      which file we installed under the name: that one we may replace
    models/NAME.gguf                  the model, renamed last

The ETag of a large file on the hub is its SHA-256, so the hash is all that the record needs to know a file again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from models.errors import OccupiedError
from models.hub import HubFile

PARTS = ".parts"
VERSION = 1  # of the records


class Part:
    """The part of one file. All but `lock` only while it is locked; all raise OSError."""

    def __init__(self, folder: Path, file: HubFile) -> None:
        self.file = file
        self.model = folder / file.name
        self.path = folder / PARTS / f"{file.name}.part"
        self._record = self.path.with_suffix(".json")
        self._lock = self.path.with_suffix(".lock")
        self._ours = self.path.with_suffix(".ours")

    @contextmanager
    def lock(self, wait: Callable[[], None]) -> Iterator[None]:
        """`wait` is called again and again while another process or thread holds the lock; it may raise to give up."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with self._lock.open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    wait()
                    continue
                if not self._is_current(lock.fileno()):
                    continue  # who held it has just removed it
                try:
                    yield
                finally:
                    self._lock.unlink(missing_ok=True)
                return

    def _is_current(self, lock: int) -> bool:
        try:
            return os.path.samestat(os.fstat(lock), self._lock.stat())
        except FileNotFoundError:
            return False

    def n_bytes(self) -> int:
        """How much is there; what is there of another file is thrown away."""
        known = _read(self._record)
        if (known.get("sha256"), known.get("bytes")) == (self.file.sha256, self.file.n_bytes) and self.path.exists():
            return self.path.stat().st_size
        self.discard()
        return 0

    @contextmanager
    def open(self, start: int) -> Iterator[BinaryIO]:
        """For writing from `start` on, its end or 0; each write has reached the kernel when it returns."""
        if not start:
            _write(self._record, self._identity())
        with self.path.open("ab" if start else "wb", buffering=0) as part:
            yield part

    def discard(self) -> None:
        """So that the next try begins at the beginning."""
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)

    def is_installed(self, sha256: Callable[[Path], str]) -> bool:
        """Whether the model is there already. Raises OccupiedError if there is another file that we may not replace."""
        if not os.path.lexists(self.model):
            return False
        ours = self._known()
        if ours.get("sha256") == self.file.sha256:
            return True
        is_file = self.model.is_file() and self.model.stat().st_size == self.file.n_bytes
        if is_file and sha256(self.model) == self.file.sha256:
            self._remember()
            return True
        if (ours.get("repository"), ours.get("path")) != (self.file.repository, self.file.path):
            raise OccupiedError(f"{self.model} is another file than the hub's; move it away or give it another name.")
        return False

    def install(self) -> None:
        """The checked part takes its place, and stays there even if the power fails."""
        with self.path.open("rb") as part:
            os.fsync(part.fileno())
        self.path.replace(self.model)
        folder = os.open(self.model.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._record.unlink(missing_ok=True)
        self._remember()

    def _identity(self) -> dict[str, Any]:
        file = self.file
        return {"repository": file.repository, "path": file.path, "sha256": file.sha256, "bytes": file.n_bytes}

    def _remember(self) -> None:
        _write(self._ours, self._identity() | {"state": self._state()})

    def _known(self) -> dict[str, Any]:
        """What we wrote down about the installed file, if it is still the one that we wrote about."""
        known = _read(self._ours)
        return known if self.model.is_file() and known.get("state") == self._state() else {}

    def _state(self) -> list[int]:
        state = self.model.stat()
        return [state.st_size, state.st_mtime_ns]


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}  # none, or cut by a crash
    return known if isinstance(known, dict) and known.get("version") == VERSION else {}


def _write(path: Path, known: dict[str, Any]) -> None:
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps({"version": VERSION} | known))
    beside.replace(path)
