"""What is measured inside of a process that runs llama.cpp itself; bench starts it and reads what it prints.

    python -m bench.inside MODEL.gguf FOLDER PLAN load    loads it from disk, measures what steps cost, loads it again
    python -m bench.inside MODEL.gguf FOLDER PLAN loop    loads it; then the bare loop, the engine's steps, guesses

FOLDER is for what is known of the costs afterwards; PLAN is JSON. Each value is a line of JSON on standard output.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from bench import drafts, steps
from bench.figure import BenchError, Missing, Taken
from bench.kinds import SEQUENCES
from bench.plan import Plan
from bench.steps import again_with_environment
from engine import threads
from engine.header import read_header
from engine.native.model import Model, ModelError
from engine.request import Config
from engine.scheduler import step_size
from engine.worker import identity, measured_costs

N_CTX = 512  # tokens: what is loaded only holds little
N_TEXT = 1024  # tokens, that a text to be copied and its copy fit in
ROOT = Path(__file__).resolve().parent.parent


class Probe(drafts.Scripted, steps.ClockedModel):
    """A model whose native calls have clocks, and which says what it is told, if it is told."""


def measured(what: str, model: Path, folder: Path, plan: Plan) -> Iterator[Taken | Missing]:
    """Runs this program. Raises BenchError."""
    command = [sys.executable, "-m", "bench.inside", str(model), str(folder), json.dumps(asdict(plan)), what]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout
        try:
            for line in process.stdout:
                fields = json.loads(line)
                yield Taken(**fields) if "value" in fields else Missing(**fields)
        except BaseException:
            process.kill()
            raise
        if process.wait() != 0:
            errors.seek(0)
            why = errors.read().strip().rpartition("\n")[2]
            raise BenchError(why or f"The process of the model ended with exit code {process.returncode}.")


def load(path: Path, folder: Path) -> Iterator[Taken | Missing]:
    """From disk, as far as the system can be told to forget a file; and again in the same way."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started, before = time.perf_counter(), _n_read()
    config = Config(str(path), N_CTX, max(SEQUENCES), threads.count(), cache_dir=str(folder))
    model = Model(config, *step_size(config))
    loaded = time.perf_counter()
    if _n_read() - before < path.stat().st_size / 2:
        yield Missing("load.cold_s", "its file could not be removed from the file cache")
    else:
        yield Taken("load.cold_s", model.load_s, started, loaded)
    measured_costs(model, config, identity(config, model))
    ended = time.perf_counter()
    yield Taken("load.warm_up_s", ended - loaded, loaded, ended)
    del model
    gc.collect()  # or both would be in memory
    started = time.perf_counter()
    model = Model(config, *step_size(config))
    yield Taken("load.warm_s", model.load_s, started, time.perf_counter())


def _n_read() -> int:
    """Bytes that this process had to fetch from disk."""
    counters: Any = getattr(psutil.Process(), "io_counters", None)
    return int(counters().read_bytes) if counters else 0


def loop(path: Path, folder: Path, plan: Plan) -> Iterator[Taken]:
    """One load for all of it."""
    n_ctx = min(max(N_TEXT, max(plan.lengths) + plan.n_steps), read_header(path).n_ctx or N_TEXT)
    config = Config(str(path), n_ctx, max(SEQUENCES), threads.count(), draft=False, cache_dir=str(folder))
    model = Probe(config, *step_size(config))
    costs = measured_costs(model, config, identity(config, model))
    yield from steps.values(model, config, costs, plan)
    yield from drafts.values(model, config, costs, plan)


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 4 or arguments[3] not in ("load", "loop"):
        print(__doc__, file=sys.stderr)
        return 2
    path, folder, plan = Path(arguments[0]), Path(arguments[1]), Plan(**json.loads(arguments[2]))
    try:
        for value in load(path, folder) if arguments[3] == "load" else loop(path, folder, plan):
            print(json.dumps(asdict(value)), flush=True)
    except (ModelError, BenchError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    again_with_environment("bench.inside", os.environ | threads.environment())
    sys.exit(main(sys.argv[1:]))
