"""How much is measured: the whole, in six minutes on two cores with a model of a billion parameters, or a quick look."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """Counts of everything. A slow model gets fewer turns: none begins once `turns_s` seconds went
    into the others of the same part."""

    lengths: tuple[int, ...] = (64, 256, 1024)  # tokens of prompts
    clients: tuple[int, ...] = (1, 2, 4, 8)  # at once
    n_turns: int = 3
    turns_s: float = 45.0
    n_answer: int = 36  # tokens of an answer
    n_chat: int = 512  # tokens of a chat's first question
    n_steps: int = 24  # of the engine's loop and of the bare one
    n_script: int = 80  # tokens of a scripted answer
    n_story: int = 160  # tokens of an answer that an early stop may end
    n_hits: int = 500  # answers given before that are asked for again

    def turns(self) -> Iterator[int]:
        """The number of each turn that there is time for; at least one."""
        until = time.perf_counter() + self.turns_s
        for turn in range(self.n_turns):
            if turn == 0 or time.perf_counter() < until:
                yield turn


def pair(turn: int, one: Callable[[], T], other: Callable[[], T]) -> tuple[T, T]:
    """What both give. Who begins changes from turn to turn: the second one finds a machine that is warmer."""
    if turn % 2 == 0:
        first = one()
        return first, other()
    second = other()
    return one(), second


FULL = Plan()
QUICK = Plan((64, 256), (1, 4), n_turns=1, n_answer=16, n_chat=160, n_steps=10, n_script=32, n_hits=200)
