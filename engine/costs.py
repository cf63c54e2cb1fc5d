"""What a step costs: seconds by the number of tokens in it, measured at warm-up, for the policies that must choose.

On a CPU this is no straight line. The kernels take rows in fours or sixteens, so sixteen tokens can be cheaper than
twelve, and eight answers in one step slower than two steps of four. What is true of one machine is false of the next:
measured, never assumed. Knows nothing of llama.cpp.
"""

from __future__ import annotations

import bisect
import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger("engine")
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 32, 128)  # tokens in a step
ROWS = 16  # the most that a kernel takes at once; a step of prompts is a multiple of it where it can be
SURE = 1.1  # a smaller batch must be so much better: times are noisy, and each step costs something beside the kernel
FOLLOW = 0.05  # how fast `slowness` follows the measured steps
PATIENCE = 2.5  # a step may take so many times as long because of what others want in it


class Costs:
    """Seconds of a step by its number of tokens; straight lines between the measured sizes and beyond the last two."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self._sizes = sorted(seconds)
        # Up to ROWS a larger step can be cheaper; beyond, where it was measured so, it was noise.
        self._seconds = [seconds[n] if n <= ROWS else max(seconds[m] for m in self._sizes if m <= n) for n in self._sizes]
        self._best = {0: 0}
        self._known: dict[int, float] = {}  # asked for several times in each step
        self.slowness = 1.0  # how much longer steps take at present: long contexts, other programs

    @classmethod
    def measure(cls, run: Callable[[int], float], n_most: int) -> Costs:
        """`run` computes a step of so many tokens, at most `n_most`, and returns its seconds; small ones are run twice."""
        return cls({n: min(run(n) for _ in range(2 if n <= 4 else 1)) for n in SIZES if n <= n_most})

    def __call__(self, n: int) -> float:
        """Seconds of a step of n tokens on a machine with nothing else to do."""
        if n not in self._known:
            self._known[n] = self._between(n)
        return self._known[n]

    def _between(self, n: int) -> float:
        if n <= self._sizes[0]:
            return self._seconds[0]
        i = min(bisect.bisect_left(self._sizes, n), len(self._sizes) - 1)
        low, high = self._sizes[i - 1], self._sizes[i]
        slope = (self._seconds[i] - self._seconds[i - 1]) / (high - low)
        if n > high:  # no token is for nothing
            return self._seconds[i] + max(slope, self.least_price) * (n - high)
        return self._seconds[i - 1] + slope * (n - low)

    def best(self, n: int) -> int:
        """How many of n answers to put into one step so that all together get the most tokens a second."""
        if n not in self._best:
            rates = {m: m / self(m) for m in range(1, n + 1)}
            top = max(rates.values())
            self._best[n] = max(m for m, rate in rates.items() if rate * SURE >= top)
        return self._best[n]

    def room(self, n: int, limit_s: float, n_most: int) -> int:
        """How many more tokens, at most `n_most`, make a size the kernels like that takes no longer; 0: there is none."""
        sizes = sorted({4, 8, 12, *range(ROWS, n + n_most + 1, ROWS)}, reverse=True)
        return next((m - n for m in sizes if n < m <= n + n_most and self(m) * self.slowness <= limit_s), 0)

    @functools.cached_property
    def least_price(self) -> float:
        """Seconds for a token in the steps that are cheapest by the token."""
        return min(s / n for n, s in zip(self._sizes, self._seconds, strict=True))

    def observe(self, n: int, seconds: float) -> None:
        """Takes note of a real step."""
        self.slowness += FOLLOW * (min(seconds / self(n), 20.0) - self.slowness)

    def save(self, path: Path) -> None:
        """Writes the table; what cannot be written is measured again next time."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(".part")
            beside.write_text(json.dumps(dict(zip(self._sizes, self._seconds, strict=True))))
            beside.replace(path)
        except OSError as error:
            log.warning("%s cannot be written: %s", path, error.strerror)

    @classmethod
    def read(cls, path: Path) -> Costs | None:
        """The table in the file; None when there is none that makes sense."""
        try:
            seconds = {int(n): float(s) for n, s in json.loads(path.read_text()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return None
        sane = len(seconds) > 1 and min(seconds) == 1 and all(0 < s < 3600 for s in seconds.values())
        return cls(seconds) if sane else None
