"""What engines have done since the server began, counted from what their workers say. Knows nothing of who asks for it."""

from __future__ import annotations

import bisect
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from engine.request import Delta, Finished, Word

WAITS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
N_RECENT = 16  # answers whose mean speed is told
MINUTES = 15
NOW_S = 3  # whole seconds, and the one that has begun


class Histogram:
    """How often a number was at most so large, for each bound."""

    def __init__(self, bounds: Sequence[float] = WAITS_S) -> None:
        self.bounds, self.sum = bounds, 0.0
        self._counts = [0] * (len(bounds) + 1)  # the last one: larger than all bounds

    def add(self, value: float) -> None:
        """One more."""
        self.sum += value
        self._counts[bisect.bisect_left(self.bounds, value)] += 1

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: each bound, and how many were not larger."""
        n, told = 0, []
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self._counts, strict=True):
            n += count
            told.append((bound, float(n)))
        return told


class Rate:
    """How many a second, now and in each of the last minutes. All times are time.monotonic's."""

    def __init__(self) -> None:
        self._counts = [0] * (60 * MINUTES)  # of a second each; the second s stands at s modulo their number
        self._second = int(time.monotonic())  # the last one that stands there

    def add(self, n: int) -> None:
        """So many more."""
        second = self._go_on(time.monotonic())
        self._counts[second % len(self._counts)] += n

    def now(self) -> float:
        """Of the last moments."""
        now = time.monotonic()
        second = self._go_on(now)
        n = sum(self._counts[(second - i) % len(self._counts)] for i in range(NOW_S + 1))
        return n / (NOW_S + now - second)

    def minutes(self) -> list[float]:
        """Means of the last MINUTES minutes, the latest one last."""
        second = self._go_on(time.monotonic())
        start = (second + 1) % len(self._counts)
        seconds = self._counts[start:] + self._counts[:start]
        return [sum(seconds[i : i + 60]) / 60 for i in range(0, len(seconds), 60)]

    def _go_on(self, now: float) -> int:
        """Forgets what is too old; the second it is."""
        second = int(now)
        for passed in range(max(self._second + 1, second - len(self._counts) + 1), second + 1):
            self._counts[passed % len(self._counts)] = 0
        self._second = second
        return second


@dataclass
class Counts:
    """Of all answers together. Prompts are counted when their answer has ended, its tokens as they come."""

    n_prompt: int = 0  # tokens of prompts that were read
    n_known: int = 0  # and of those that were not: their state was known
    n_answer: int = 0  # tokens generated
    prompt_s: float = 0.0  # from the slot to the first token
    answer_s: float = 0.0  # from the first token to the last
    n_answers: int = 0  # that have ended by themselves
    n_longest: int = 0  # tokens of the longest, with its prompt
    n_steps: int = 0  # calls of the native kernel
    n_in_steps: int = 0  # answers and prompts in these, summed up
    n_drafts: int = 0  # times that tokens were guessed
    n_guessed: int = 0  # tokens
    n_right: int = 0  # tokens that were guessed right


@dataclass
class Tally:
    """Any thread may count and ask. `waits` and `firsts` are of answers whose first token came, in seconds."""

    counts: Counts = field(default_factory=Counts)
    rate: Rate = field(default_factory=Rate)
    waits: Histogram = field(default_factory=Histogram)  # for a slot
    firsts: Histogram = field(default_factory=Histogram)  # for the first token, the wait for a slot in it
    _recent: deque[Finished] = field(default_factory=lambda: deque(maxlen=N_RECENT))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hear(self, word: Word) -> None:
        """Something that a worker says."""
        if isinstance(word, Delta) and word.tokens:
            with self._lock:
                self.counts.n_answer += len(word.tokens)
                self.rate.add(len(word.tokens))
        elif isinstance(word, Finished) and (word.prompt_s or word.answer_s):  # else nothing was computed for it
            with self._lock:
                self._ended(word)

    def work(self, n_steps: int, n_in_steps: int, n_drafts: int, n_guessed: int, n_right: int) -> None:
        """What a worker has done since it was last asked; see engine.beat."""
        with self._lock:
            counts = self.counts
            counts.n_steps += n_steps
            counts.n_in_steps += n_in_steps
            counts.n_drafts += n_drafts
            counts.n_guessed += n_guessed
            counts.n_right += n_right

    def told(self) -> Told:
        """All of it at one moment."""
        with self._lock:
            n_prompt = sum(end.n_prompt - end.n_cached for end in self._recent)
            prompt_s = sum(end.prompt_s for end in self._recent)
            n_answer, answer_s = (sum(end.n_answer for end in self._recent), sum(end.answer_s for end in self._recent))
            return Told(
                replace(self.counts),
                self.rate.now(),
                self.rate.minutes(),
                n_prompt / prompt_s if prompt_s else 0.0,
                n_answer / answer_s if answer_s else 0.0,
                (self.waits.buckets(), self.waits.sum),
                (self.firsts.buckets(), self.firsts.sum),
            )

    def _ended(self, end: Finished) -> None:
        counts = self.counts
        counts.n_prompt += end.n_prompt - end.n_cached
        counts.n_known += end.n_cached
        counts.prompt_s += end.prompt_s
        counts.answer_s += end.answer_s
        counts.n_longest = max(counts.n_longest, end.n_prompt + end.n_answer)
        if end.n_answer:
            counts.n_answers += 1
            self.waits.add(end.queue_s)
            self.firsts.add(end.queue_s + end.prompt_s)
            self._recent.append(end)


@dataclass(frozen=True)
class Told:
    """What a Tally has counted."""

    counts: Counts
    tokens_per_s: float  # generated just now, by all answers together
    minutes: list[float]  # the same in the last minutes, the latest one last
    prompt_tokens_per_s: float  # how fast the prompts of the last few answers were read
    answer_tokens_per_s: float  # and how fast these answers were made, each by itself
    waits: tuple[list[tuple[str, float]], float]  # buckets and sum of a histogram
    firsts: tuple[list[tuple[str, float]], float]
