"""What is measured: single values as they come, and figures, which are many values of one kind with their spread."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.kinds import Kind

ABSENT = "not available: "
MEMORY, LOOP = "memory", "bare loop"  # the limits


class BenchError(Exception):
    """Nothing can be measured, or what was measured is wrong; the message is a sentence for the user."""


@dataclass(frozen=True)
class Taken:
    """One value."""

    key: str
    value: float
    started: float  # seconds of time.perf_counter(), which is the same clock in all processes
    ended: float


@dataclass(frozen=True)
class Missing:
    """A figure that this machine or this model cannot give."""

    key: str
    why: str


@dataclass(frozen=True)
class Remark:
    """What must be known to read a figure of this run."""

    key: str
    words: str


Found = Taken | Missing | Remark  # what a part of the bench yields


@dataclass(frozen=True)
class Limit:
    """What a figure could be at best."""

    name: str  # MEMORY: all bytes of a token read as fast as can be; LOOP: llama_decode and nothing else
    value: float
    share: float  # of the limit that was reached; 1 is all of it


@dataclass(frozen=True)
class Figure:
    """One measured number. Without values it is not available, and the note says why."""

    key: str
    group: str
    title: str
    unit: str
    values: list[float]
    disturbed: int = 0  # so many of the values were taken while other programs were busy
    limits: list[Limit] = field(default_factory=list)
    note: str = ""

    @property
    def median(self) -> float | None:
        """Of its values."""
        return statistics.median(self.values) if self.values else None

    @property
    def low(self) -> float | None:
        """The least."""
        return min(self.values, default=None)

    @property
    def high(self) -> float | None:
        """The most."""
        return max(self.values, default=None)

    def plain(self) -> dict[str, Any]:
        """As it stands in the file of results."""
        middle = {"median": self.median, "low": self.low, "high": self.high}
        return {name: rounded(value) for name, value in (asdict(self) | middle).items()}


class Record:
    """All values of one run, those marked that other programs disturbed."""

    def __init__(self, kinds: dict[str, Kind], disturbed: Callable[[float, float], bool]) -> None:
        """`disturbed`: whether other programs were busy between two moments."""
        self._kinds = kinds
        self._disturbed = disturbed
        self._values: dict[str, list[float]] = {key: [] for key in kinds}
        self._n_disturbed = dict.fromkeys(kinds, 0)
        self._why: dict[str, str] = {}
        self._remarks: dict[str, str] = {}

    def take(self, part: Iterable[Found]) -> Iterator[str]:
        """Measures a part; yields the key of each value as it comes. Raises BenchError."""
        for one in part:
            if isinstance(one, Missing):
                self._why[one.key] = one.why
                continue
            if isinstance(one, Remark):
                self._remarks[one.key] = one.words
                continue
            if not (math.isfinite(one.value) and one.value >= 0):
                raise BenchError(f"{one.key} was measured as {one.value}, which cannot be.")
            self._values[one.key].append(one.value)
            self._n_disturbed[one.key] += self._disturbed(one.started, one.ended)
            yield one.key

    def lose(self, begins: tuple[str, ...], why: str) -> None:
        """The figures whose keys begin so are not available: what was measured of them before is not to be trusted."""
        for key in self._kinds:
            if key.startswith(begins):
                self._values[key], self._n_disturbed[key] = [], 0
                self._why.setdefault(key, why)

    def figure(self, key: str) -> Figure:
        """What is known of one by now."""
        kind, values = self._kinds[key], self._values[key]
        note = self._remarks.get(key, kind.note) if values else ABSENT + self._why.get(key, "it was not measured")
        return Figure(key, kind.group, kind.title, kind.unit, list(values), self._n_disturbed[key], note=note)

    def figures(self) -> dict[str, Figure]:
        """All of them, by key."""
        return {key: self.figure(key) for key in self._kinds}


def rounded(value: Any) -> Any:
    """Numbers with no more digits than are true, also inside of lists and dictionaries."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return {name: rounded(one) for name, one in value.items()} if isinstance(value, dict) else value


def taken(started: float, **values: float) -> list[Taken]:
    """Values that were all taken from `started` until now; in their names `__` stands for a dot."""
    ended = time.perf_counter()
    return [Taken(name.replace("__", "."), value, started, ended) for name, value in values.items()]


def medians(values: Iterable[Taken]) -> dict[str, float]:
    """By key."""
    by_key: dict[str, list[float]] = {}
    for one in values:
        by_key.setdefault(one.key, []).append(one.value)
    return {key: statistics.median(found) for key, found in by_key.items()}
