"""Where a decode step's time goes: how much of it is spent outside native code?

    python -m bench.steps MODEL.gguf     200 steps with 1 and with 4 sequences; the last line is JSON

The real worker runs in this process, its native calls wrapped in clocks; the rest of each step is Python.
"""

from __future__ import annotations

import functools
import json
import os
import queue
import statistics
import sys
import time
from pathlib import Path

from engine import threads
from engine.beat import Beat
from engine.costs import Costs
from engine.governor import Governor, Others
from engine.loop import DRAFT_MAX, Loop
from engine.native.model import Model
from engine.native.sampler import Sampler
from engine.prefix import Prefixes
from engine.request import Command, Config, Request
from engine.scheduler import SLICE_MAX
from engine.states import States
from engine.worker import speak

N_STEPS = 200
N_SEQUENCES = (1, 4)


class ClockedModel(Model):
    """Adds up the seconds spent in native code."""

    native_s = 0.0

    def decode(self) -> None:
        """As Model's, timed."""
        started = time.perf_counter()
        super().decode()
        self.native_s += time.perf_counter() - started

    def sample(self, sampler: Sampler, row: int) -> int:
        """As Model's, timed."""
        started = time.perf_counter()
        token = super().sample(sampler, row)
        self.native_s += time.perf_counter() - started
        return token


def measure(model: ClockedModel, config: Config, costs: Costs, n_sequences: int) -> tuple[float, float]:
    """Medians over the steps: seconds of a step, and seconds of it outside native code."""
    inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
    steps: list[float] = []
    outside: list[float] = []
    with Path(os.devnull).open("wb") as out:
        governor = Governor(config.n_threads, costs, Others())
        parts = (costs, governor, Prefixes(0, States(None, "", 0)), Beat())
        worker = Loop(model, config, parts, inbox, functools.partial(speak, out))
        for i in range(n_sequences):
            messages = [{"role": "user", "content": f"tell me about stone number {i}"}]
            inbox.put(Request(str(i), messages, max_tokens=10**6, loop_stop=False))
        worker.take()
        worker.step()  # reads the prompts
        while len(steps) < N_STEPS and worker.answers:  # a trained model may end its answer sooner
            native_s, started = model.native_s, time.perf_counter()
            worker.take()
            worker.step()
            steps.append(time.perf_counter() - started)
            outside.append(steps[-1] - (model.native_s - native_s))
        for answer in worker.answers:
            worker.remove(answer)
    return statistics.median(steps), statistics.median(outside)


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 1:
        print("usage: python -m bench.steps MODEL.gguf", file=sys.stderr)
        return 2
    config = Config(arguments[0], 1024, max(N_SEQUENCES), threads.count())
    model = ClockedModel(config, SLICE_MAX + config.n_slots + DRAFT_MAX, config.n_slots + DRAFT_MAX)
    costs = Costs.measure(model.seconds, model.batch.size)
    result = {}
    for n in N_SEQUENCES:
        step_s, outside_s = measure(model, config, costs, n)
        result[n] = {"step_ms": round(step_s * 1e3, 3), "outside_ms": round(outside_s * 1e3, 3)}
        print(f"{n} sequences: {step_s * 1e3:7.2f} ms a step, {outside_s * 1e3:.3f} ms outside native code", end=" ")
        print(f"= {100 * outside_s / step_s:.2f} %")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    if os.environ | threads.environment() != os.environ:  # OpenMP has read it already: once more from the beginning
        os.execve(sys.executable, [sys.executable, "-m", "bench.steps", *sys.argv[1:]], os.environ | threads.environment())
    sys.exit(main(sys.argv[1:]))
