"""How many threads to use now: fewer while other programs keep the cores busy, all of them again when they stop.

Threads of one step wait for each other at hundreds of barriers, so one core shared with another program slows all of
them: with one busy neighbour on two cores, one thread gives twice the tokens of two. Decided by trying: a few steps with
another number, and what was faster stays. Trials that fail become rare, so that nothing flaps.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable

import psutil

from engine import threads
from engine.costs import Costs

N_STEPS = 6  # in a trial, and before one
SLOW = 1.25  # steps take so much longer than they should: worth a look
FASTER = 0.92  # a trial's steps must take at most this part of the time before it
LARGEST = 16  # tokens in a step; the few long steps of a prompt would be spent on one trial
OLD_S = 2.0  # an older look at what other programs do does not count
BUSY = 0.3  # cores' worth of other programs: less cannot be the reason
WAIT_S, WAIT_MAX_S = 0.5, 30.0  # between trials; doubled by each that fails


class Governor:
    """Looks at each step's time and says how many threads the next one gets."""

    def __init__(self, n_most: int, costs: Costs, others: Callable[[], float]) -> None:
        self.n = self.n_most = n_most
        self._costs = costs
        self._others = others  # cores' worth of time that other programs took since it was last asked
        self._recent: deque[float] = deque(maxlen=N_STEPS)  # measured / expected seconds of the last steps
        self._trial_of: tuple[int, float] | None = None  # the threads before the trial, and their measured / expected
        self._wait_s = WAIT_S
        self._next_look = 0.0
        self._next_trial = 0.0
        self._last_look = -OLD_S
        self._busy = 0.0

    def observe(self, n_tokens: int, seconds: float, now: float) -> int:
        """A step of so many tokens took so long; the number of threads from now on."""
        if n_tokens > LARGEST:
            if self.n < self.n_most and now >= self._next_look and self._ask(now, seconds) and self._busy < BUSY:
                self._trial_of = None
                self._use(self.n_most)  # without a trial: nobody is there to be waited for
            return self.n
        self._recent.append(seconds / self._costs(n_tokens))
        if len(self._recent) == N_STEPS:
            if self._trial_of:
                self._judge(now)
            elif now >= self._next_look:
                self._look(now, seconds)
        return self.n

    def _judge(self, now: float) -> None:
        assert self._trial_of
        before_n, before = self._trial_of
        self._trial_of = None
        if statistics.median(self._recent) <= FASTER * before:
            self._wait_s = WAIT_S
        else:
            self._use(before_n)
            self._wait_s = min(2 * self._wait_s, WAIT_MAX_S)
        self._next_look, self._next_trial = now + WAIT_S, now + self._wait_s

    def _ask(self, now: float, seconds: float) -> bool:
        """Finds out what others do; False when most of that was while nothing ran here, which says nothing about now."""
        idle_s = now - self._last_look - seconds
        self._last_look, self._next_look = now, now + WAIT_S
        busy = self._others()
        if idle_s > OLD_S:
            return False
        self._busy = busy
        return True

    def _look(self, now: float, seconds: float) -> None:
        median, before = statistics.median(self._recent), self._busy
        if not self._ask(now, seconds):
            return
        busy = self._busy
        if self.n == self.n_most:
            if self.n == 1 or median < SLOW or busy < BUSY or now < self._next_trial:
                return
            other_n = max(1, self.n_most - max(1, round(busy)))
        elif busy < BUSY <= before:
            other_n = self.n_most  # they have stopped just now
        elif now >= self._next_trial:
            other_n = self.n_most if busy < BUSY else self.n + 1  # they may have become fewer
        else:
            return
        self._trial_of = (self.n, median)
        self._use(other_n)

    def _use(self, n: int) -> None:
        self.n = n
        self._recent.clear()


class Others:
    """Cores' worth of time that other programs took of the CPUs we may run on, since it was last asked."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._allowed = threads.allowed()
        self._last = self._times()

    def __call__(self) -> float:
        """0.0 when it is not known."""
        last, self._last = self._last, self._times()
        busy, own, total = (new - old for new, old in zip(self._last, last, strict=True))
        return max(0.0, busy - own) / total * len(self._allowed) if total > 0 else 0.0

    def _times(self) -> tuple[float, float, float]:
        """Seconds that our CPUs were busy, that this process was, and of all."""
        busy, total = threads.busy_s(self._allowed)
        own = self._process.cpu_times()
        return busy, own.user + own.system, total
