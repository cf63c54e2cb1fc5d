"""What is measured: single values as they come, and figures, which are many values of one kind with their spread."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import Any


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

    name: str  # "memory": all bytes of a token read as fast as can be; "bare loop": llama_decode and nothing else
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
