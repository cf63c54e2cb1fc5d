"""Values of two sides, taken by turns, and how many times better the first side is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.figure import rounded
from bench.peers.scenarios import DELAY, Sample

OTHER_LENGTH = 0.05  # share by which the counts of tokens may differ without a word


@dataclass(frozen=True)
class Pairs:
    """What was measured of ours and of theirs in each turn."""

    unit: str
    ours: list[Sample]
    theirs: list[Sample]
    disturbed: int = 0  # turns in which other programs were busy

    @property
    def ratios(self) -> list[float]:
        """Of each turn; above 1 ours is better, whether more or less is better."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return [b.value / a.value if self.unit == DELAY else a.value / b.value for a, b in pairs]

    @property
    def uneven(self) -> str:
        """A sentence, if the two did not have the same to do."""
        parts = []
        for what in ("n_prompt", "n_tokens"):
            us, them = (statistics.median(getattr(s, what) for s in side) for side in (self.ours, self.theirs))
            if us and them and abs(us - them) > OTHER_LENGTH * us:
                parts.append(f"{'prompts' if what == 'n_prompt' else 'answers'} of {us:,.0f} and {them:,.0f} tokens")
        return " and ".join(parts)

    def plain(self) -> dict[str, Any]:
        """As it stands in the file of results."""
        sides = {"ours": [s.value for s in self.ours], "theirs": [s.value for s in self.theirs], "ratio": self.ratios}
        spreads = {name: rounded(spread(values)) for name, values in sides.items()}
        return {"unit": self.unit, **spreads, "turns": len(self.ours), "disturbed": self.disturbed}


@dataclass(frozen=True)
class Turns:
    """How both sides are measured."""

    n: int
    disturbed: Callable[[float, float], bool]  # other programs were busy between two moments of time.perf_counter()
    tell: Callable[[str], None]  # hears what is measured now

    def take(self, name: str, key: str, unit: str, ours: Callable[[str], Sample], theirs: Callable[[str], Sample]) -> Pairs:
        """Of the scenario `key` with the peer `name`. Both are given the salt of the turn, which is the same for all peers.

        Who begins changes from turn to turn: the machine that the second finds is a warmer one.
        """
        pairs: list[tuple[Sample, Sample]] = []
        n_disturbed = 0
        for turn in range(self.n):
            self.tell(f"{name}, {key}: turn {turn + 1} of {self.n}")
            started, salt = time.perf_counter(), f"{turn} {key}"
            if turn % 2 == 0:
                us, them = ours(salt), theirs(salt)
            else:
                them, us = theirs(salt), ours(salt)
            pairs.append((us, them))
            n_disturbed += self.disturbed(started, time.perf_counter())
        return Pairs(unit, [us for us, _ in pairs], [them for _, them in pairs], n_disturbed)


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
