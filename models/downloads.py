"""The downloads that run in this process, each in a thread of its own. Any number of readers may watch each of them.

Knows nothing of HTTP. Two that ask for the same name share one download; a reader that leaves does not end it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from models.download import Download, Progress
from models.errors import BusyError, DownloadError
from models.store import FOLDER, StoreError

log = logging.getLogger("linnet")
MOST = 2  # at once


class Runs(Protocol):
    """What is needed of a Download."""

    def run(self) -> Path: ...  # noqa: D102
    def cancel(self) -> None: ...  # noqa: D102


Make = Callable[[str, Path, Callable[[Progress], None]], Runs]


@dataclass(frozen=True)
class News:
    """How a download stands, and by its number whether that is new. `outcome`: None as long as it runs."""

    number: int
    progress: Progress
    outcome: Path | StoreError | None


class Running:
    """One download, seen from outside its thread."""

    def __init__(self, wanted: str, folder: Path, make: Make) -> None:
        """Raises WrongNameError."""
        self.wanted, self.folder = wanted, folder
        self.cancelled = False
        self.ended = threading.Event()
        self._condition = threading.Condition()
        self._news = News(0, Progress(), None)
        self._download = make(wanted, folder, self._progressed)

    def cancel(self) -> None:
        """It ends soon, with StoppedError."""
        self.cancelled = True
        self._download.cancel()

    def news(self, seen: int = -1, timeout_s: float | None = None) -> News | None:
        """The newest, once it is newer than number `seen`; None after the time."""
        with self._condition:
            return self._news if self._condition.wait_for(lambda: self._news.number > seen, timeout_s) else None

    def work(self, leave: Callable[[Running], None]) -> None:
        """The thread. `leave` is called when it has ended, before anybody hears of it: who hears may ask again at once."""
        log.info("Downloading %s", self.wanted)
        outcome: Path | StoreError = DownloadError("The download failed; the log has the details.")
        try:
            outcome = self._download.run()
        except StoreError as error:
            outcome = error
        except Exception:  # a fault of ours must not leave the readers waiting
            log.exception("A fault of ours in the download of %s", self.wanted)
        log.info("Download of %s: %s", self.wanted, outcome)
        leave(self)
        with self._condition:
            self._tell(self._news.progress, outcome)
        self.ended.set()

    def _progressed(self, progress: Progress) -> None:
        with self._condition:
            self._tell(progress, None)

    def _tell(self, progress: Progress, outcome: Path | StoreError | None) -> None:
        self._news = News(self._news.number + 1, progress, outcome)
        self._condition.notify_all()


class Downloads:
    """All that run. Any thread may call."""

    def __init__(self, folder: Path = FOLDER, make: Make = Download, most: int = MOST) -> None:
        self.folder, self._make, self._most = folder, make, most
        self._lock = threading.Lock()
        self._threads: dict[Running, threading.Thread] = {}

    def start(self, wanted: str) -> Running:
        """The download of this name, begun if it does not run yet. Raises WrongNameError, BusyError."""
        with self._lock:
            if running := self._find(wanted):
                return running
            running = Running(wanted, self.folder, self._make)
            if len(self._threads) >= self._most:
                raise BusyError(f"{len(self._threads)} downloads are under way, as many as may be; try again later.")
            thread = threading.Thread(target=running.work, args=[self._leave], name=f"download {wanted}", daemon=True)
            self._threads[running] = thread
            thread.start()
            return running

    def cancel(self, wanted: str) -> bool:
        """Whether there was one to cancel."""
        with self._lock:
            running = self._find(wanted)
            if running:
                running.cancel()
            return running is not None

    def running(self) -> list[Running]:
        """Those that have not ended."""
        with self._lock:
            return list(self._threads)

    def stop(self, timeout_s: float) -> None:
        """Cancels all; waits for them, but not longer than so for each. What came stays."""
        with self._lock:
            threads = self._threads.copy()
        for running in threads:
            running.cancel()
        for thread in threads.values():
            thread.join(timeout_s)

    def _find(self, wanted: str) -> Running | None:
        """Not one that is about to end: a new one waits for it and goes on with its part."""
        return next((running for running in self._threads if running.wanted == wanted and not running.cancelled), None)

    def _leave(self, running: Running) -> None:
        with self._lock:
            del self._threads[running]
