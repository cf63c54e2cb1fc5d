"""Who gets how many tokens in the next step. Plain Python: no llama.cpp, no threads, no clock.

The rule: every running answer first (one token each), then a slice of the waiting prompts, oldest first. While answers
run the slice is short, so that no reader waits long for the next word; alone, a prompt is read in long slices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

SLICE_ALONE = 128  # prompt tokens a step when nobody reads: about 1 s for a 1 B model on 2 cores, and a cancel waits for it
SLICE_BESIDE = 32  # prompt tokens a step beside running answers


@dataclass(eq=False)
class Sequence:
    """One request's tokens. `tokens` is the prompt and what was generated so far; the first `n_read` are in the context."""

    id: str
    tokens: list[int]
    n_prompt: int = field(init=False)
    n_read: int = 0
    slot: int | None = None  # None: waiting for one

    def __post_init__(self) -> None:
        self.n_prompt = len(self.tokens)

    @property
    def reading(self) -> bool:
        """Whether there is prompt left to read."""
        return self.n_read < self.n_prompt


S = TypeVar("S", bound=Sequence)


@dataclass(frozen=True)
class Slice(Generic[S]):
    """Tokens of one sequence for the next step: `sequence.tokens[start:stop]`."""

    slot: int
    sequence: S
    start: int
    stop: int

    @property
    def complete(self) -> bool:
        """Whether a next token is to be sampled after it."""
        return self.stop == len(self.sequence.tokens)


class Scheduler(Generic[S]):
    """The sequences that wait and those that have a slot, in order of arrival."""

    def __init__(self, n_slots: int) -> None:
        self._free = deque(range(n_slots))
        self._waiting: deque[S] = deque()
        self._running: dict[int, S] = {}  # by slot

    def __bool__(self) -> bool:
        return bool(self._running or self._waiting)

    def __iter__(self) -> Iterator[S]:
        yield from self._running.values()
        yield from self._waiting

    def add(self, sequence: S) -> None:
        """Puts it at the end of the queue."""
        self._waiting.append(sequence)

    def remove(self, sequence: S) -> None:
        """Forgets a sequence, running or waiting; its slot is free at once."""
        if sequence.slot is None:
            self._waiting.remove(sequence)
        else:
            del self._running[sequence.slot]
            self._free.append(sequence.slot)

    def admit(self) -> list[S]:
        """Gives free slots to those who wait longest; returns who got one."""
        admitted = []
        while self._free and self._waiting:
            sequence = self._waiting.popleft()
            sequence.slot = self._free.popleft()
            self._running[sequence.slot] = sequence
            admitted.append(sequence)
        return admitted

    def next(self) -> list[Slice[S]]:
        """The next step: one slice at most of each running sequence, empty only when nothing runs."""
        batch = [Slice(slot, s, s.n_read, len(s.tokens)) for slot, s in self._running.items() if not s.reading]
        budget = SLICE_BESIDE if batch else SLICE_ALONE
        for slot, s in self._running.items():
            if s.reading and budget > 0:
                n = min(budget, s.n_prompt - s.n_read)
                batch.append(Slice(slot, s, s.n_read, s.n_read + n))
                budget -= n
        return batch
