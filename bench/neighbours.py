"""Other programs on the same cores: how much of them they took at any time since the bench began."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable

import psutil

from engine import threads

EVERY_S = 0.5
LEAST_S = 1.0  # the kernel counts in hundredths of a second: a shorter time says too little
DISTURBED = 0.1  # cores' worth of other programs
NOBODY = ("idle", "iowait", "softirq")  # nothing to do, waiting, and packets on the way, which are mostly our own


def others_s() -> float:
    """Seconds of our CPUs' time that went to others, since the machine was started.

    Its own is that of this process and all that it started: the server, its worker, what has ended already.
    """
    busy, _ = threads.busy_s(threads.allowed(), NOBODY)
    this = psutil.Process()
    return busy - sum(map(_spent_s, [this, *this.children(recursive=True)]))


def _spent_s(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:4])  # its own, and that of its children that have ended
    except psutil.NoSuchProcess:
        return 0.0


class Neighbours:
    """Looks twice a second until it is closed."""

    def __init__(self, look: Callable[[], float] = others_s) -> None:
        """`look`: seconds that others took since some moment."""
        self._look = look
        self._times: list[float] = []
        self._spent: list[float] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._note()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(EVERY_S):
            self._note()

    def _note(self) -> None:
        with self._lock:
            self._spent.append(self._look())
            self._times.append(time.perf_counter())

    def cores(self, started: float, ended: float) -> float:
        """How many cores they kept busy between two moments of time.perf_counter()."""
        self._note()
        missing = LEAST_S - (ended - started)
        if missing > 0:
            started, ended = started - missing / 2, ended + missing / 2
        started, ended = max(started, self._times[0]), min(ended, self._times[-1])
        return max(0.0, self._at(ended) - self._at(started)) / (ended - started) if ended > started else 0.0

    def _at(self, moment: float) -> float:
        """Straight lines between what was seen."""
        i = min(max(1, bisect.bisect(self._times, moment)), len(self._times) - 1)
        before, after = self._times[i - 1], self._times[i]
        part = (moment - before) / (after - before) if after > before else 1.0
        return self._spent[i - 1] + part * (self._spent[i] - self._spent[i - 1])

    def disturbed(self, started: float, ended: float) -> bool:
        """Whether they kept more than a tenth of a core busy."""
        return self.cores(started, ended) > DISTURBED

    def close(self) -> None:
        """Looks no more."""
        self._end.set()
        self._thread.join()
