"""What this machine gives with a model, and how close that is to what it could give.

    make bench                                    the model used last; where there is only the demo, a model's shape
    make bench MODEL=path-or-name ARGS=--quick    another one; in less than a minute

The client is this process; the server and everything else that runs llama.cpp are processes of their own. The table goes
to standard output, the progress to standard error. The last line is the path of the file of results. Where a part fails its
figures are not available, with the reason; the others are measured all the same, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import psutil

from bench import alone, answers, clients, inside, limit, rating, report, stream
from bench import result as results
from bench.chats import Chats
from bench.figure import BenchError, Found, Record
from bench.kinds import kinds
from bench.machine import machine
from bench.neighbours import Neighbours
from bench.plan import FULL, QUICK, Plan
from bench.table import line, table
from engine import memory, threads
from engine.header import Header, HeaderError, read_header
from engine.request import Config
from models import store

CACHE = Path(os.environ.get("LINNET_CACHE_DIR") or "~/.cache/linnet").expanduser()  # where servers note what they used
SHAPE, SHAPE_FILE = "tinyllama", stream.ROOT / "build" / "tinyllama-shape.gguf"
N_CTX = 2048  # tokens of one request
FAILURES = (BenchError, RuntimeError, OSError, HTTPException, psutil.Error, ValueError, LookupError)  # also odd JSON


@dataclass(frozen=True)
class Subject:
    """What is measured, and how much."""

    path: Path
    header: Header
    n_ctx: int
    plan: Plan

    @property
    def n_slots(self) -> int:
        """Of the server: as many as there are clients at once."""
        return max(self.plan.clients)

    def options(self, folder: Path) -> tuple[str, ...]:
        """Of a server. Without guesses, so that a token is a step: what they bring is a figure of its own."""
        sizes = ("--slots", str(self.n_slots), "--ctx", str(self.n_ctx), "--max-queue", str(self.n_slots))
        return ("--cache-dir", str(folder), "--no-draft", *sizes)


@dataclass(frozen=True)
class Part:
    """Some of what is measured."""

    name: str
    begins: tuple[str, ...]  # with which the keys of its figures begin
    found: Iterable[Found]


def main(arguments: list[str], plan: Plan | None = None, folder: Path = results.FOLDER) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser("make bench", description="Measures a model on this machine.")
    parser.add_argument("model", nargs="?", help="path or name; default: the one used last, else a shape made for it")
    parser.add_argument("--quick", action="store_true", help="in less than a minute, each figure once")
    chosen = parser.parse_args(arguments)
    plan = plan or (QUICK if chosen.quick else FULL)
    try:
        path = store.find(chosen.model) if chosen.model else default()
        header = read_header(path)
        n_ctx = min(N_CTX, header.n_ctx or N_CTX)
        memory.check(Config(str(path), n_ctx, max(plan.clients), threads.count()))
    except (store.StoreError, HeaderError, memory.DoesNotFitError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        with closing(Neighbours()) as neighbours:
            written, failed = run(Subject(path, header, n_ctx, plan), chosen.quick, neighbours.disturbed, folder)
    except (BenchError, RuntimeError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing was written.", file=sys.stderr)
        return 130
    for name, why in failed.items():
        print(f"{name}: {why}", file=sys.stderr)
    print(written)
    return 1 if failed else 0


def default() -> Path:
    """The model used last, or fetched last; with only the demo, which tells little, random weights in a real shape."""
    path = store.find(None, CACHE)
    if path != store.DEMO:
        return path
    if others := [path for path in store.installed().values() if path != store.DEMO]:
        return store.check(max(others, key=lambda path: path.stat().st_mtime))
    if not SHAPE_FILE.exists():
        print(f"Making {SHAPE_FILE.name}: random weights in the shape of TinyLlama, 668 MB ...", file=sys.stderr)
        command = [sys.executable, "-m", "bench.shapes", SHAPE, str(SHAPE_FILE)]
        made = subprocess.run(command, cwd=stream.ROOT, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            reason = made.stderr.strip().rpartition("\n")[2]
            raise store.StoreError(f"The model to measure with cannot be made: {reason}. Name one with MODEL=.")
    return SHAPE_FILE.resolve()


def run(
    subject: Subject, quick: bool, disturbed: Callable[[float, float], bool], folder: Path
) -> tuple[Path, dict[str, str]]:
    """Measures everything and prints the table; the path of the results, and which parts failed why.

    Raises BenchError, RuntimeError, OSError when no server can be started, or nothing be written.
    """
    started = time.perf_counter()
    model, plan = results.about(subject.path, subject.header), subject.plan
    about_machine = machine()
    settings = {"threads": threads.count(), "slots": subject.n_slots, "ctx": subject.n_ctx}
    print(f"{model['name']}: {model['description']}, {model['size_bytes'] / 1e6:,.0f} MB")
    print(
        f"{about_machine['words']}; {settings['threads']} threads, {settings['slots']} slots of {subject.n_ctx:,} tokens",
        flush=True,
    )
    record = Record(kinds(plan), disturbed)
    with tempfile.TemporaryDirectory(prefix="linnet-bench-") as scratch, closing(parts(subject, Path(scratch))) as all_parts:
        failed = follow(record, all_parts, started)
    figures = limit.with_limits(record.figures(), subject.header, plan)
    rated = rating.rate(figures, model)
    print("\n".join(table(figures.values())))
    print(f"\n{rated.word.capitalize()}. {rated.reason} {rated.next}\n")
    seconds = time.perf_counter() - started
    found = results.result(figures, rated, model, settings, quick=quick, seconds=seconds)
    path = results.write(found, folder)
    page = path.with_suffix(".html")
    try:
        peers = report.beside(path, found)
    except report.ReportError as error:
        print(error, file=sys.stderr)
        peers = None
    report.write(found, page, peers)
    print(f"{seconds:.0f} s. With pictures: {page}")
    return path, failed


def parts(subject: Subject, folder: Path) -> Generator[Part]:
    """What is measured, one after the other."""
    path, plan, options = subject.path, subject.plan, subject.options(folder)
    talks = Chats(plan)
    for turn in plan.turns():
        known = folder if turn == 0 else folder / str(turn)  # what steps cost must be unknown for it to be measured
        loaded = ("load.cold_s", "load.warm_s", "load.warm_up_s")
        yield Part("Loading from disk", loaded, inside.measured("load", path, known, plan))
    yield Part("The speed of the memory", ("limit.read_gb",), limit.read_speed(plan))
    loop = ("step.", "limit.bare.", "limit.after.", "limit.reading.", "draft.")
    yield Part("A bare loop, the engine's steps, guesses", loop, inside.measured("loop", path, folder, plan))
    with stream.linnet(str(path), *options) as url:
        yield Part("One client", ("reading.", "decode.", "energy."), alone.lengths(url, subject.n_ctx, plan))
        yield Part("Several clients", ("clients.",), clients.clients(url, plan))
        yield Part("Memory", ("memory.",), clients.memory(url))
        yield Part("Greedy and sampled answers", ("sampling.",), alone.sampling(url, plan))
        yield Part("Early stop", ("early_stop.",), alone.stopping(url, path, subject.header, plan))
        yield Part("Answers given before", ("answers.",), answers.values(url, plan))
        yield Part("A chat and its second turn", ("turn.",), talks.new(url))
    yield Part("The same chat after a restart", ("restart.", "load.ready_s"), talks.restarts(path, options))


def follow(record: Record, parts: Iterable[Part], started: float) -> dict[str, str]:
    """Measures all, and says how far it is; which parts failed why."""
    live, width = sys.stderr.isatty(), shutil.get_terminal_size().columns - 1
    failed = {}
    for part in parts:
        print(f"{time.perf_counter() - started:4.0f} s  {part.name} ...", file=sys.stderr, flush=True)
        try:
            for key in record.take(part.found):
                if live:
                    print(f"\r\033[K{line(record.figure(key))[:width]}", end="", file=sys.stderr, flush=True)
        except FAILURES as error:
            failed[part.name] = repr(error) if isinstance(error, LookupError | ValueError) else str(error)
            record.lose(part.begins, failed[part.name])
        if live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
    return failed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the servers end with this program
    sys.exit(main(sys.argv[1:]))
