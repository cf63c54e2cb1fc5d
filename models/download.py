"""Fetches a model from the Hugging Face hub into models/.

python -m models.download                 TinyLlama 1.1B Chat, Q4_K_M, 669 MB
python -m models.download NAME            another one of models/catalog.toml
python -m models.download REPO[:QUANT]    any repository with GGUF files, e.g. owner/name-GGUF:Q4_K_M

It goes on where it stopped, whatever stopped it. huggingface_hub's own download checks the size of what came, not its
hash, and cannot be cancelled; so the bytes are received here. Knows nothing of HTTP; that is models/hub.py.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

from models.catalog import DEFAULT
from models.errors import DamagedError, DiskError, PastEndError, StoppedError, UnreachableError, from_disk
from models.hub import Body, Hub, wish
from models.part import Part
from models.store import FOLDER, StoreError, check

TRIES = 5  # in a row that bring nothing
WORTH_BYTES = 2**16  # a try that brings as much has not been in vain
LONGEST_PAUSE_S = 30.0
LOCK_S = 0.2  # between two looks at a lock that another process holds: nobody tells us when it is free
TELL_S = 0.1
PACE_S = 5.0  # over which the speed is taken
SPARE_BYTES = 2**28  # 256 MiB of the disk stay free for everything else
PIECE_BYTES = 2**20

Result = TypeVar("Result")


class State(StrEnum):
    """What a download is doing. The last one is told once, at the end."""

    LISTING = "listing"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    CHECKING = "checking"
    INSTALLED = "installed"


@dataclass(frozen=True)
class Progress:
    """How far a download is. None: not known."""

    state: State = State.LISTING
    name: str | None = None  # of the model
    n_bytes: int = 0
    total_bytes: int | None = None
    bytes_per_s: float | None = None
    seconds_left: float | None = None
    note: str | None = None  # a sentence: what is waited for


class Pace:
    """The speed of late."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def of(self, n_bytes: int) -> float | None:
        """Bytes per second, now that so many are there."""
        now = time.monotonic()
        if self._points and n_bytes < self._points[-1][1]:
            self._points.clear()  # it started over
        self._points.append((now, n_bytes))
        while len(self._points) > 2 and now - self._points[0][0] > PACE_S:
            self._points.popleft()
        began, before = self._points[0]
        return (n_bytes - before) / (now - began) if now > began else None


class Download:
    """One model on its way. `run` in one thread, `cancel` from any."""

    def __init__(
        self,
        wanted: str,
        folder: Path = FOLDER,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        hub: Hub | None = None,
        pause: Callable[[float], object] | None = None,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """`pause` waits before another try, for so many seconds or until cancelled. Raises WrongNameError."""
        self._wish = wish(wanted)
        self._folder = folder
        self._on_progress = on_progress
        self._hub = hub or Hub()
        self._cancelled = threading.Event()
        self._pause = pause or self._cancelled.wait
        self._free_bytes = free_bytes
        self._body: Body | None = None
        self._told = Progress()
        self._told_at = 0.0
        self._pace = Pace()
        self._part: Part | None = None
        self._n_bytes = 0

    def cancel(self) -> None:
        """`run` raises StoppedError soon; what came stays for the next time."""
        self._cancelled.set()
        if body := self._body:
            body.interrupt()

    def run(self) -> Path:
        """The installed file. Raises DownloadError, or StoreError when the right file came and is no model."""
        try:
            self._tell(State.LISTING)
            file = self._patiently(lambda: self._hub.find(self._wish))
            self._part = part = Part(self._folder, file)
            with part.lock(self._wait_for_other):
                if not part.is_installed(self._sha256):
                    self._fetch(part)
        except OSError as error:
            raise from_disk(error, self._folder) from error
        self._n_bytes = file.n_bytes
        self._tell(State.INSTALLED)
        return part.model.resolve()

    def _fetch(self, part: Part) -> None:
        self._n_bytes = part.n_bytes()
        self._make_sure_of_room(part)
        try:
            try:
                self._patiently(lambda: self._receive(part))
            except PastEndError:
                part.discard()
                self._n_bytes = 0
                self._patiently(lambda: self._receive(part))
            if self._sha256(part.path) != part.file.sha256:
                raise DamagedError(
                    f"What came as {part.file.name} has not the SHA-256 that the hub tells; it is thrown away."
                )
        except DamagedError:
            part.discard()
            raise
        try:
            check(part.path)
        except StoreError:
            part.discard()
            raise
        part.install()

    def _make_sure_of_room(self, part: Part) -> None:
        missing, free = part.file.n_bytes - self._n_bytes, self._free_bytes(self._folder)
        if missing and missing + SPARE_BYTES > free:
            raise DiskError(
                f"{part.file.name} needs {missing / 1e6:,.0f} MB more, and {SPARE_BYTES / 1e6:,.0f} MB should stay free;"
                f" {self._folder} has {free / 1e6:,.0f} MB."
            )

    def _patiently(self, act: Callable[[], Result]) -> Result:
        """What `act` returns, tried again as long as the hub cannot be reached and some try brings something."""
        n_vain = 0
        while True:
            before = self._n_bytes
            self._stop_if_cancelled()
            try:
                return act()
            except UnreachableError as error:
                self._stop_if_cancelled()
                n_vain = 0 if self._n_bytes - before >= WORTH_BYTES else n_vain + 1
                if n_vain == TRIES:
                    raise UnreachableError(f"{error} The same command goes on where it stopped.") from error
                pause_s = min(2.0**n_vain, LONGEST_PAUSE_S)
                self._tell(State.WAITING, f"{error} Next try in {pause_s:.0f} s.")
                self._pause(pause_s)

    def _receive(self, part: Part) -> None:
        total = part.file.n_bytes
        if self._n_bytes == total:
            return
        with self._hub.body(part.file, self._n_bytes) as body, part.open(body.start) as out:
            self._n_bytes = body.start
            self._body = body
            try:
                self._stop_if_cancelled()  # after the body can be seen: one of the two notices each other
                for chunk in body:
                    self._stop_if_cancelled()
                    if self._n_bytes + len(chunk) > total:
                        raise DamagedError(f"The hub sends more of {part.file.name} than the {total:,} bytes it told.")
                    while chunk:  # a full disk takes the first half of a piece and refuses the second
                        n_written = out.write(chunk)
                        self._n_bytes += n_written
                        chunk = chunk[n_written:]
                    self._tell(State.DOWNLOADING)
            finally:
                self._body = None
        if self._n_bytes < total:
            raise UnreachableError("The hub stopped in the middle.")

    def _sha256(self, path: Path) -> str:
        digest = hashlib.sha256()
        self._n_bytes = 0
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                self._stop_if_cancelled()
                digest.update(piece)
                self._n_bytes += len(piece)
                self._tell(State.CHECKING)
        return digest.hexdigest()

    def _wait_for_other(self) -> None:
        self._tell(State.WAITING, "Another download of the same model is under way; this one waits for it.")
        self._cancelled.wait(LOCK_S)
        self._stop_if_cancelled()

    def _stop_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise StoppedError("The download was cancelled; what came stays, and the next one goes on there.")

    def _tell(self, state: State, note: str | None = None) -> None:
        now = time.monotonic()
        is_new = (state, note) != (self._told.state, self._told.note) or not self._told_at
        file = self._part.file if self._part else None
        is_last = file and self._n_bytes == file.n_bytes
        if not is_new and (state is State.WAITING or (now - self._told_at < TELL_S and not is_last)):
            return
        if is_new:
            self._pace = Pace()
        rate = self._pace.of(self._n_bytes) if state in (State.DOWNLOADING, State.CHECKING) else None
        left_s = (file.n_bytes - self._n_bytes) / rate if file and rate else None
        total = file.n_bytes if file else None
        self._told = Progress(state, file.name[:-5] if file else None, self._n_bytes, total, rate, left_s, note)
        self._told_at = now
        self._on_progress(self._told)


class Bar:
    """Progress on a terminal: a bar with speed and time left while bytes move, else a line."""

    def __init__(self) -> None:
        self._state = State.LISTING
        self._bar: tqdm | None = None

    def show(self, progress: Progress) -> None:
        """To be called with each progress."""
        if progress.state != self._state:
            self.close()
        self._state = progress.state
        if progress.note:
            print(progress.note, file=sys.stderr)
        if progress.state in (State.DOWNLOADING, State.CHECKING):
            if not self._bar:
                total, begun = progress.total_bytes, progress.n_bytes
                self._bar = tqdm(desc=progress.state, total=total, initial=begun, unit="B", unit_scale=True)
            self._bar.update(progress.n_bytes - self._bar.n)

    def close(self) -> None:
        """Leaves the bar where it is."""
        if self._bar:
            self._bar.close()
        self._bar = None


def main(arguments: list[str], folder: Path = FOLDER) -> int:
    """The exit code."""
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    bar = Bar()
    try:
        path = Download(" ".join(arguments) or DEFAULT, folder, bar.show).run()
    except (StoreError, KeyboardInterrupt) as error:
        bar.close()
        print("Stopped; the same command goes on there." if isinstance(error, KeyboardInterrupt) else error, file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    bar.close()
    print(f"{path.stem} is installed: python server.py --model {path.stem}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
