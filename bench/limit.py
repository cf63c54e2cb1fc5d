"""What the figures could be at best: all bytes that a token touches read as fast as memory gives them; and a bare loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from bench.figure import LOOP, MEMORY, Figure, Limit, Missing, Taken
from bench.kinds import SEQUENCES
from bench.plan import Plan
from engine import memory
from engine.header import Header
from models import fit

READ = "limit.read_gb_per_s"
BARE = "limit.bare.{n}.step_ms"
AFTER = "limit.after.{n}.step_ms"
READING = "limit.reading.{n}.tokens_per_s"


def read_speed(plan: Plan) -> Iterator[Taken | Missing]:
    """How fast the kernels of llama.cpp read weights from memory, by whatever type of weights is the least work."""
    for turn in plan.turns():
        started = time.perf_counter()
        machine = fit.machine(None, announce=lambda _: None)
        if machine:
            yield Taken(READ, machine.read_bytes_per_s / 1e9, started, time.perf_counter())
        elif not turn:
            yield Missing(READ, "this build of llama.cpp cannot be measured")


def bytes_touched(header: Header, n_tokens: float) -> float:
    """By one token after so many others: the weights, and what is kept of the others."""
    return sum(fit.bytes_read(header).values()) + (header.kv_elements or 0) * memory.KV_BYTES["f16"] * n_tokens


def with_limits(figures: dict[str, Figure], header: Header, plan: Plan) -> dict[str, Figure]:
    """The same figures with what they could be at best beside them."""
    read = figures[READ].median
    read_bytes_per_s = read * 1e9 if read else None
    done = dict(figures)

    def add(key: str, limits: dict[str, float | None]) -> None:
        figure = figures[key]
        if figure.median:
            found = [Limit(name, value, _share(figure, value)) for name, value in limits.items() if value]
            done[key] = replace(figure, limits=found)

    def median(pattern: str, n: int) -> float | None:
        return figures[pattern.replace("{n}", str(n))].median

    for n in plan.lengths:
        touched = bytes_touched(header, n + plan.n_answer / 2)
        best = read_bytes_per_s / touched if read_bytes_per_s else None
        step_ms, read_per_s = median(AFTER, n), median(READING, n)
        add(f"decode.{n}.tokens_per_s", {MEMORY: best, LOOP: 1000 / step_ms if step_ms else None})
        add(f"reading.{n}.tokens_per_s", {LOOP: read_per_s})
        add(f"reading.{n}.first_s", {LOOP: n / read_per_s if read_per_s else None})
    for n in SEQUENCES:
        step_ms = median(BARE, n)
        if n in plan.clients:
            add(f"clients.{n}.each_per_s", {LOOP: 1000 / step_ms if step_ms else None})
        best = 1000 * bytes_touched(header, 0) / read_bytes_per_s if read_bytes_per_s else None
        add(BARE.replace("{n}", str(n)), {MEMORY: best})
    return done


def _share(figure: Figure, best: float) -> float:
    """Of seconds less is better."""
    median = figure.median or best
    return best / median if figure.unit in ("ms", "s") else median / best
