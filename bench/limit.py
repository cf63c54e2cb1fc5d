"""What the figures could be at best: all bytes that a token touches read as fast as memory gives them; and a bare loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from bench.figure import Figure, Limit, Missing, Taken
from bench.kinds import SEQUENCES
from bench.plan import Plan
from engine import memory
from engine.header import Header
from models import fit

READ = "limit.read_gb_per_s"
BARE = "limit.bare.{n}.step_ms"
AFTER = "limit.after.{n}.step_ms"
MEMORY, LOOP = "memory", "bare loop"


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

    def add(key: str, **values: float | None) -> None:
        figure = figures[key]
        if figure.median:
            share = {name: _share(figure, value) for name, value in values.items() if value}
            limits = [Limit(name.replace("_", " "), values[name] or 0.0, part) for name, part in share.items()]
            done[key] = replace(figure, limits=limits)

    bare_ms = {n: figures[BARE.replace("{n}", str(n))].median for n in SEQUENCES}
    for n in plan.lengths:
        touched = bytes_touched(header, n + plan.n_answer / 2)
        best = read_bytes_per_s / touched if read_bytes_per_s else None
        step_ms = figures[AFTER.replace("{n}", str(n))].median
        add(f"decode.{n}.tokens_per_s", memory=best, bare_loop=1000 / step_ms if step_ms else None)
    for n, step_ms in bare_ms.items():
        if n in plan.clients:
            add(f"clients.{n}.total_per_s", bare_loop=1000 * n / step_ms if step_ms else None)
        touched = bytes_touched(header, 0)
        add(BARE.replace("{n}", str(n)), memory=1000 * touched / read_bytes_per_s if read_bytes_per_s else None)
    return done


def _share(figure: Figure, best: float) -> float:
    median = figure.median or best
    return best / median if figure.unit == "ms" else median / best
