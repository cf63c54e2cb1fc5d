"""Who gets how many tokens in the next step. Plain Python: no llama.cpp, no threads, no clock.

The rule: running answers first, one token each, as many in one step as is fastest for all of them together; then a
slice of the prompts being read, as long as the step stays short enough for those who read along. When nobody reads
along a prompt is read in long slices. Prompts read ahead for somebody who still types come when nothing else is to do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from engine.costs import PATIENCE, Costs
from engine.request import Config

ALONE_S = 1.0  # a step may take so long when nobody reads along; a cancel or a newcomer waits for it
SLICE_MAX = 512  # tokens of prompts in a step
DRAFT_MAX = 15  # guessed tokens in a step, of all answers together


@dataclass(eq=False)
class Sequence:
    """One request's tokens. `tokens` is the prompt and what was generated so far; the first `n_read` are in the context."""

    id: str
    tokens: list[int]
    n_prompt: int = 0  # 0: all of the tokens
    n_given: int = field(init=False)  # read before one is generated: the prompt, and what another worker had generated
    n_read: int = 0
    slot: int | None = None  # None: waiting for one
    background: bool = False  # has time: its prompt is read when nothing else is to do
    leader: Sequence | None = None  # reads the same beginning at this moment; to be copied, not read twice
    draft: list[int] = field(default_factory=list)  # what may come next, to be verified in the next step

    def __post_init__(self) -> None:
        self.n_given = len(self.tokens)
        self.n_prompt = self.n_prompt or self.n_given

    @property
    def n_left(self) -> int:
        """Given tokens still to be read."""
        return max(0, self.n_given - self.n_read)

    @property
    def reading(self) -> bool:
        """Whether there are any."""
        return self.n_read < self.n_given


def step_size(config: Config) -> tuple[int, int]:
    """The most tokens in a step, and the most of them after which a token is sampled or a guess verified."""
    n_outputs = config.n_slots + DRAFT_MAX
    return n_outputs + SLICE_MAX, n_outputs


S = TypeVar("S", bound=Sequence)


@dataclass(frozen=True)
class Slice(Generic[S]):
    """Tokens of one sequence for the next step: `sequence.tokens[start:stop]`, and then its draft when that is the end."""

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

    def __init__(self, n_slots: int, costs: Costs, slice_s: float | None = None) -> None:
        self._free = deque(range(n_slots))
        self._waiting: deque[S] = deque()
        self._running: dict[int, S] = {}  # by slot
        self._turns: deque[S] = deque()  # running answers; whoever waits longest for a token comes first
        self._costs = costs
        self._slice_s = slice_s  # how long a step beside running answers may take; None: PATIENCE

    def __bool__(self) -> bool:
        return bool(self._running or self._waiting)

    def __iter__(self) -> Iterator[S]:
        yield from self._running.values()
        yield from self._waiting

    @property
    def running(self) -> list[S]:
        """Those that have a slot."""
        return list(self._running.values())

    def add(self, sequence: S) -> None:
        """Puts it at the end of the queue."""
        self._waiting.append(sequence)

    def remove(self, sequence: S) -> None:
        """Forgets a sequence, running or waiting; its slot is free at once."""
        if sequence.slot is None:
            self._waiting.remove(sequence)
            return
        del self._running[sequence.slot]
        self._free.append(sequence.slot)
        if sequence in self._turns:
            self._turns.remove(sequence)

    def admit(self) -> list[S]:
        """Gives free slots to those who wait longest, background last; returns who got one."""
        if not self._waiting:
            return []
        admitted = []
        for sequence in sorted(self._waiting, key=lambda s: s.background)[: len(self._free)]:
            self._waiting.remove(sequence)
            sequence.slot = self._free.popleft()
            self._running[sequence.slot] = sequence
            admitted.append(sequence)
        return admitted

    def in_the_way(self) -> list[S]:
        """Background sequences whose slots are waited for."""
        if not self._waiting:
            return []
        n = sum(not s.background for s in self._waiting) - len(self._free)
        return [s for s in self._running.values() if s.background][: max(0, n)]

    @property
    def reading(self) -> bool:
        """Whether somebody waits for the reading of a prompt."""
        return any(s.reading and not s.background for s in self._running.values())

    def answering(self) -> list[S]:
        """The running answers whose next token is to be computed in this step."""
        for s in self._running.values():
            if not s.reading and s not in self._turns:
                self._turns.append(s)
        n = self._costs.best(len(self._turns))
        chosen = [self._turns.popleft() for _ in range(n)]
        self._turns.extend(chosen)
        return chosen

    def next(self, answering: list[S]) -> list[Slice[S]]:
        """The next step: these answers with their drafts, and slices of prompts. Empty only when nothing can run."""
        batch = [_slice(s, len(s.tokens)) for s in answering]
        n_tokens = sum(1 + len(s.draft) for s in answering)
        reading = [s for s in self._running.values() if s.reading and not s.leader]
        if urgent := [s for s in reading if not s.background]:
            reading = urgent
        elif answering:
            return batch
        return batch + self._slices(reading, self._budget(len(answering), n_tokens))

    def _budget(self, n_answering: int, n_tokens: int) -> int:
        if not n_answering:
            return min(SLICE_MAX, self._costs.room(0, ALONE_S))
        limit_s = self._slice_s or PATIENCE * self._costs(n_answering) * self._costs.slowness
        return min(SLICE_MAX, self._costs.room(n_tokens, limit_s))

    @staticmethod
    def _slices(reading: list[S], budget: int) -> list[Slice[S]]:
        """Half of the budget for whoever came first, so that nobody starves; then the least left to read comes first."""
        given: dict[S, int] = {}
        for n_most, sequences in (
            (math.ceil(budget / 2), reading[:1]),
            (budget, sorted(reading, key=lambda s: s.n_left)),
        ):
            for s in sequences:
                n = min(n_most, budget, s.n_left - given.get(s, 0))
                if n:
                    given[s] = given.get(s, 0) + n
                    budget -= n
        return [_slice(s, s.n_read + n) for s, n in given.items()]


def _slice(sequence: S, stop: int) -> Slice[S]:
    assert sequence.slot is not None
    return Slice(sequence.slot, sequence, sequence.n_read, stop)
