"""Where a decode step's time goes: how much of it is spent outside native code, and against a bare loop?

    python -m bench.steps MODEL.gguf     200 steps with 1 and with 4 sequences; the last line is JSON

The real loop runs in this process, its native calls wrapped in clocks; the rest of each step is Python. The bare loop is
llama_decode and the most likely token, nothing else, after prompts of the same length and by turns with the real one.
"""

from __future__ import annotations

import functools
import json
import math
import os
import queue
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.figure import BenchError, Taken, medians, taken
from bench.kinds import SEQUENCES
from bench.limit import AFTER, BARE, READING
from bench.plan import Plan
from engine import threads
from engine.beat import Beat
from engine.constraint import Grammar
from engine.costs import Costs
from engine.governor import Governor, Others
from engine.loop import Loop
from engine.native.model import Model
from engine.native.sampler import Sampler
from engine.prefix import Prefixes
from engine.request import Command, Config, Request, Word
from engine.scheduler import step_size
from engine.states import States
from engine.worker import speak

N_STEPS = 200
N_TURNS = 3
ANY = 100  # a token that all vocabularies have
PARTS = ("native", "sampling", "outside")  # of a step's time


class ClockedModel(Model):
    """Adds up the seconds spent in native code, and of them those spent on choosing tokens. Its answers never end."""

    native_s = 0.0
    sampling_s = 0.0

    def decode(self) -> None:
        """As Model's, timed."""
        started = time.perf_counter()
        super().decode()
        self.native_s += time.perf_counter() - started

    def sample(self, sampler: Sampler, row: int, grammar: Grammar | None = None) -> int:
        """As Model's, timed; another token where an answer would end, for then there would be fewer in a step."""
        started = time.perf_counter()
        token = super().sample(sampler, row, grammar)
        seconds = time.perf_counter() - started
        self.native_s += seconds
        self.sampling_s += seconds
        return ANY if self.vocabulary.ends(token) else token


@dataclass(frozen=True)
class Step:
    """Medians over many steps, in seconds."""

    sampling_s: float
    outside_s: float  # of native code
    decode_s: float
    n_prompt: int  # tokens of each prompt


def measure(model: ClockedModel, config: Config, costs: Costs, n_sequences: int, n_steps: int) -> Step:
    """Of the engine's loop."""
    inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
    steps: list[tuple[float, float, float]] = []
    with (
        Path(os.devnull).open("wb") as out,
        loop_alone(model, config, costs, inbox, functools.partial(speak, out)) as worker,
    ):
        for i in range(n_sequences):
            messages = [{"role": "user", "content": f"tell me about stone number {i}"}]
            inbox.put(Request(str(i), messages, max_tokens=10**6, loop_stop=False))
        while len(worker.answers) < n_sequences:  # it looks at new ones for a moment only, too short on a busy machine
            worker.take()
        n_prompt = worker.answers[0].n_prompt
        while any(answer.reading for answer in worker.answers):
            worker.step()
        while len(steps) < n_steps and len(worker.answers) == n_sequences:
            native_s, sampling_s, started = model.native_s, model.sampling_s, time.perf_counter()
            worker.take()
            worker.step()
            whole_s = time.perf_counter() - started
            native_s, sampling_s = model.native_s - native_s, model.sampling_s - sampling_s
            steps.append((sampling_s, whole_s - native_s, native_s - sampling_s))
        for answer in worker.answers:
            worker.remove(answer)
    if not steps:
        raise BenchError("The answers ended before a step could be measured: the context is too small.")
    sampling_s, outside_s, decode_s = (statistics.median(values) for values in zip(*steps, strict=True))
    return Step(sampling_s, outside_s, decode_s, n_prompt)


@contextmanager
def loop_alone(
    model: Model, config: Config, costs: Costs, inbox: queue.SimpleQueue[Command], send: Callable[[list[Word]], None]
) -> Iterator[Loop]:
    """The worker's loop in this process; it remembers nothing from one request to the next."""
    governor = Governor(config.n_threads, costs, Others())
    with closing(Prefixes(0, States(None, "", 0))) as prefixes, closing(Beat()) as beat:
        yield Loop(model, config, (costs, governor, prefixes, beat), inbox, send)


def bare(model: Model, n_sequences: int, n_prompt: int, n_steps: int) -> float:
    """Median seconds of a step of a loop without anything around it."""
    for slot in range(n_sequences):
        _read(model, slot, n_prompt)
    step_s = _bare_steps(model, n_sequences, n_prompt, n_steps)
    for slot in range(n_sequences):
        model.cut(slot, 0)
    return step_s


def bare_after(model: Model, lengths: Sequence[int], n_steps: int) -> Iterator[Taken]:
    """Prompts of these lengths read by a loop without anything around it, and steps of one sequence after them."""
    for n in lengths:
        started = time.perf_counter()
        _read(model, 0, n)
        yield from taken(started, **{READING.replace("{n}", str(n)): n / (time.perf_counter() - started)})
        started = time.perf_counter()
        step_s = _bare_steps(model, 1, n, n_steps)
        yield from taken(started, **{AFTER.replace("{n}", str(n)): 1000 * step_s})
        model.cut(0, 0)


def _read(model: Model, slot: int, n_prompt: int) -> None:
    for at in range(0, n_prompt, model.batch.size):
        n = min(n_prompt - at, model.batch.size)
        model.batch.clear()
        model.batch.add(slot, [ANY] * n, at, 1)
        Model.decode(model)


def _bare_steps(model: Model, n_sequences: int, n_prompt: int, n_steps: int) -> float:
    steps = []
    for position in range(n_prompt, n_prompt + n_steps):
        started = time.perf_counter()
        model.batch.clear()
        rows = [model.batch.add(slot, [ANY + position % 100], position, 1) for slot in range(n_sequences)]
        Model.decode(model)
        for row in rows:
            int(model.logits(row).argmax())
        steps.append(time.perf_counter() - started)
    return statistics.median(steps)


def values(model: ClockedModel, config: Config, costs: Costs, plan: Plan) -> Iterator[Taken]:
    """For `make bench`."""
    for _ in plan.turns():
        for n in SEQUENCES:
            started = time.perf_counter()
            step = measure(model, config, costs, n, plan.n_steps)
            parts = dict(zip(PARTS, (step.decode_s, step.sampling_s, step.outside_s), strict=True))
            yield from taken(started, **{f"step.{n}.{name}_ms": 1000 * seconds for name, seconds in parts.items()})
            started = time.perf_counter()
            step_s = bare(model, n, step.n_prompt, plan.n_steps)
            yield from taken(started, **{BARE.replace("{n}", str(n)): 1000 * step_s})
        yield from bare_after(model, [n for n in plan.lengths if n + plan.n_steps <= model.n_ctx], plan.n_steps)


def again_with_environment(module: str, environment: dict[str, str]) -> None:
    """OpenMP has read its variables already: starts the program once more if they are not what they should be."""
    if environment != os.environ:
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 1:
        print("usage: python -m bench.steps MODEL.gguf", file=sys.stderr)
        return 2
    config = Config(arguments[0], 1024, max(SEQUENCES), threads.count(), draft=False)
    model = ClockedModel(config, *step_size(config))
    costs = Costs.measure(model.seconds, model.batch.size)
    found = medians(values(model, config, costs, Plan((), n_turns=N_TURNS, turns_s=math.inf, n_steps=N_STEPS)))
    result = {}
    for n in SEQUENCES:
        step_ms, outside_ms = sum(found[f"step.{n}.{part}_ms"] for part in PARTS), found[f"step.{n}.outside_ms"]
        ratio = found[BARE.replace("{n}", str(n))] / step_ms
        result[n] = {"step_ms": round(step_ms, 3), "outside_ms": round(outside_ms, 3), "against_bare": round(ratio, 3)}
        print(f"{n} sequences: {step_ms:7.2f} ms a step, {outside_ms:.3f} ms outside native code", end=" ")
        print(f"= {100 * outside_ms / step_ms:.2f} %; {ratio:.3f} x the bare loop's speed", flush=True)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    again_with_environment("bench.steps", os.environ | threads.environment())
    sys.exit(main(sys.argv[1:]))
