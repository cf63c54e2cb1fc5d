"""Who gets how many tokens in the next step. Plain Python: no llama.cpp, no threads, no clock.

Running answers get one token each, as many of them in one step as is fastest for all together. A prompt is read in
slices. Small ones are dear (on two cores a token of a prompt costs twice as much in a step of four as in one of 64), so
when somebody reads along, a slice is long but comes seldom: each running answer gets CALM tokens at its usual pace
between two of them. What the cost table shows to be cheap in small slices, or done soon, is read without such a pause.
Prompts read ahead for somebody who still types come when nothing else is to do.

A step's cost grows with those who run, never with those who wait (bench.scale).
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from engine.costs import PATIENCE, ROWS, Costs
from engine.request import Config

ALONE_S = 1.0  # a step may take so long when nobody reads along; a cancel or a newcomer waits for it
CALM = 24  # tokens of an answer between two long slices, so that 19 of 20 of its gaps are short
FAIR = 1.25  # times the least price of a token: that is cheap
REST = 4  # a prompt's last tokens, fewer than every so many-th of the slice before them, go along: a step is dearer
SLICE_MAX = 512  # tokens of prompts in a step
LOOK = 64  # so many of those who wait are looked at in a step; where more wait, they hear less often
DRAFT_MAX = 31  # guessed tokens in a step, of all answers together


@dataclass(eq=False)
class Sequence:
    """One request's tokens. `tokens` is the prompt and what was generated so far; the first `n_read` are in the context."""

    id: str
    tokens: list[int]
    n_prompt: int = 0  # 0: all of the tokens
    n_given: int = field(init=False)  # read before one is generated: the prompt, and what another worker had generated
    n_read: int = 0
    slot: int | None = None  # None: waiting for one
    apart: bool = False  # its tokens are read outside of the steps that are planned here
    background: bool = False  # has time: its prompt is read when nothing else is to do
    leader: Sequence | None = None  # reads the same beginning at this moment; to be copied, not read twice
    n_awaited: int = 0  # so many tokens of the leader
    draft: list[int] = field(default_factory=list)  # what may come next, to be verified in the next step
    n_calm: int = CALM  # tokens it got since a long slice of a prompt; CALM: as many as it must get before the next

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


class Slice(NamedTuple, Generic[S]):  # a frozen dataclass takes four times as long to make, and each step makes many
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
        # Not plain dicts: those become slow at their front once much has been taken away there.
        self._waiting: OrderedDict[str, S] = OrderedDict()  # by id
        self._urgent: OrderedDict[str, S] = OrderedDict()  # those of them that are not in the background
        self._round: list[str] = []  # the ids of those that waited when it began; each is looked at once in it
        self._n_looked = 0  # of them
        self._running: dict[int, S] = {}  # by slot
        self._turns: OrderedDict[S, None] = OrderedDict()  # running answers; whoever waits longest for a token comes first
        self._costs = costs
        self._slice_s = slice_s  # how long a step with a long slice may take; None: half of the time is for prompts

    def __bool__(self) -> bool:
        return bool(self._running or self._waiting)

    def __iter__(self) -> Iterator[S]:
        yield from self._running.values()
        yield from self._waiting.values()

    @property
    def running(self) -> list[S]:
        """Those that have a slot."""
        return list(self._running.values())

    @property
    def waiting(self) -> Collection[S]:
        """Those that have none yet, in order."""
        return self._waiting.values()

    def find(self, id: str) -> S | None:
        """The sequence of this name, running or waiting."""
        return self._waiting.get(id) or next((s for s in self._running.values() if s.id == id), None)

    def some_waiting(self) -> list[tuple[int, S]]:
        """A few of those who wait, each with how many stood before it; in the end it is everybody's turn."""
        n_left = len(self._round) - self._n_looked
        if not n_left or n_left > len(self._waiting):  # newcomers must not wait for the many that have gone
            self._round, self._n_looked = list(self._waiting), 0
        start, self._n_looked = self._n_looked, min(self._n_looked + LOOK, len(self._round))
        some = enumerate(self._round[start : self._n_looked], start)
        return [(n_before, s) for n_before, id in some if (s := self._waiting.get(id))]

    def add(self, sequence: S) -> None:
        """Puts it at the end of the queue. Its name must be its own."""
        self._waiting[sequence.id] = sequence
        if not sequence.background:
            self._urgent[sequence.id] = sequence

    def remove(self, sequence: S) -> None:
        """Forgets a sequence, running or waiting; its slot is free at once."""
        if sequence.slot is None:
            self._leave(sequence)
            return
        del self._running[sequence.slot]
        self._free.append(sequence.slot)
        self._turns.pop(sequence, None)

    def _leave(self, sequence: S) -> None:
        del self._waiting[sequence.id]
        self._urgent.pop(sequence.id, None)

    def admit(self) -> list[S]:
        """Gives free slots to those who wait longest, background last; returns who got one."""
        admitted = []
        while self._free and self._waiting:
            sequence = next(iter((self._urgent or self._waiting).values()))
            self._leave(sequence)
            sequence.slot = self._free.popleft()
            self._running[sequence.slot] = sequence
            admitted.append(sequence)
        return admitted

    def in_the_way(self) -> list[S]:
        """Background sequences whose slots are waited for."""
        n = len(self._urgent) - len(self._free)
        return [s for s in self._running.values() if s.background][:n] if n > 0 else []

    @property
    def reading(self) -> bool:
        """Whether somebody waits for the reading of a prompt."""
        return any(s.reading and not s.background and not s.apart for s in self._running.values())

    def answering(self) -> list[S]:
        """The running answers whose next token is to be computed in this step."""
        for s in self._running.values():
            if not s.reading and s not in self._turns and not s.apart:
                self._turns[s] = None
        n = len(self._turns)
        if not (self.reading and self._wait == 0):  # beside a long slice a token is cheapest: then it is everybody's turn
            n = self._costs.best(n)
        chosen = list(itertools.islice(self._turns, n))
        for s in chosen:
            self._turns.move_to_end(s)
        return chosen

    @property
    def _wait(self) -> int:
        """Tokens that some running answer has yet to get at its usual pace before a long slice may come."""
        return max((CALM - s.n_calm for s in self._turns if s.n_calm < CALM), default=0)

    def next(self, answering: list[S]) -> list[Slice[S]]:
        """The next step: these answers with their drafts, and slices of prompts. Empty only when nothing can run."""
        batch = [_slice(s, len(s.tokens)) for s in answering]
        parts = [] if len(self._turns) == len(self._running) else self._parts(background=not answering)
        n_tokens = sum(1 + len(s.draft) for s in answering)
        n_left = sum(n for _, n in parts)
        n_slice = min(n_left, self._budget(n_tokens, n_left) if answering else self._room(0, ALONE_S, 4)) if parts else 0
        if n_slice:
            n_slice = max(n_slice, len(parts))  # so that everybody gets on
            if REST * (n_left - n_slice) <= n_slice and n_left <= SLICE_MAX and not self._slice_s:
                n_slice = n_left
        n_calm = self._calm_after(n_tokens, n_slice) if n_slice and answering else None
        for s in answering if n_calm is None else self._turns:
            s.n_calm = s.n_calm + 1 if n_calm is None else CALM - n_calm
        return batch + _slices(parts, n_slice)

    def _calm_after(self, n_tokens: int, n_slice: int) -> int | None:
        """Tokens that the answers get at their usual pace after a step with this slice; None: it keeps nobody waiting."""
        ratio = self._costs(n_tokens + n_slice) / self._costs(n_tokens)
        if ratio <= PATIENCE:
            return None
        # A pause whose length somebody has set may be short: then as much time for the answers is enough.
        return min(CALM, math.ceil(ratio)) if self._slice_s else CALM

    def _parts(self, background: bool) -> list[tuple[S, int]]:
        """The prompts to be read, and how many tokens of each before others can do something: to its end, or as far as
        somebody follows. Background ones only if nobody else has one.
        """
        reading = [s for s in self._running.values() if s.reading and not s.leader and not s.apart]
        if (urgent := [s for s in reading if not s.background]) or not background:
            reading = urgent
        marks: dict[Sequence, int] = {}  # how far somebody follows
        for s in self._running.values():
            if s.leader and not s.background:
                marks[s.leader] = min(s.n_awaited, marks.get(s.leader, s.n_awaited))
        return [(s, min(s.n_given, marks.get(s, s.n_given)) - s.n_read) for s in reading]

    @property
    def _usual_s(self) -> float:
        """Seconds in which each running answer gets a token when no prompt is read."""
        n = len(self._turns)
        best = self._costs.best(n)
        return self._costs(best) * n / best

    def _room(self, n_tokens: int, limit_s: float, least: int) -> int:
        return self._costs.room(n_tokens, limit_s, SLICE_MAX) or least

    def _budget(self, n_tokens: int, n_left: int) -> int:
        """How many tokens of prompts to read beside answers that need n."""
        wait = self._wait
        if wait == 0:
            limit_s = self._slice_s or min(ALONE_S, CALM * self._usual_s * self._costs.slowness)
            # Where everything is slow, at least what the kernels take at once: the pause after it is long, too.
            return self._room(n_tokens, limit_s, 4 - n_tokens % 4 if self._slice_s else ROWS - n_tokens % ROWS)
        usual_s = self._costs(n_tokens)
        n = self._costs.room(n_tokens, PATIENCE * usual_s * self._costs.slowness, SLICE_MAX)
        if not n:
            return 0
        step_s = self._costs(n_tokens + n)
        cheap = step_s - usual_s <= n * FAIR * self._costs.least_price
        soon = math.ceil(n_left / n) * step_s <= wait * self._usual_s  # it would be done before a long slice may begin
        return n if cheap or soon else 0


def _slices(parts: list[tuple[S, int]], budget: int) -> list[Slice[S]]:
    """Equal slices of the parts; what one does not need is for the others. The first get what cannot be divided."""
    slices = []
    for n_more, (s, n_left) in zip(range(len(parts), 0, -1), sorted(parts, key=lambda p: p[1]), strict=True):
        n = min(n_left, math.ceil(budget / n_more))
        budget -= n
        if n:
            slices.append(_slice(s, s.n_read + n))
    return slices


def _slice(sequence: S, stop: int) -> Slice[S]:
    assert sequence.slot is not None
    return Slice(sequence.slot, sequence, sequence.n_read, stop)
