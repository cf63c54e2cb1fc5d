"""Collects values as they are taken, marks those that other programs disturbed, and makes figures of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from bench.figure import BenchError, Figure, Found, Missing, Remark
from bench.kinds import Kind

ABSENT = "not available: "


class Record:
    """All values of one run."""

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

    def figure(self, key: str) -> Figure:
        """What is known of one by now."""
        kind, values = self._kinds[key], self._values[key]
        note = self._remarks.get(key, kind.note) if values else ABSENT + self._why.get(key, "it was not measured")
        return Figure(key, kind.group, kind.title, kind.unit, list(values), self._n_disturbed[key], note=note)

    def figures(self) -> dict[str, Figure]:
        """All of them, by key."""
        return {key: self.figure(key) for key in self._kinds}
