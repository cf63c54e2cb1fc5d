"""Linnet against others: the same model, slots, context, threads, prompts and client, by turns in one run.

    make bench-peers MODEL=name-or-path     or: python -m bench.peers [MODEL] [--only PEER ...] [--scenarios NAME ...]

llama-server and llama-bench are built from the llama.cpp that Linnet runs on, once; llama-cpp-python's module server runs
on the same library; ollama and llamafile take part where they are installed; transformers in float32 is what the first
version of this program ran on. One peer at a time is loaded beside Linnet, and one of the two computes at any moment. A
ratio above 1 says that Linnet is better. The last line is the path of the results.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from bench import result
from bench.__main__ import default
from bench.figure import BenchError
from bench.machine import machine, versions
from bench.neighbours import Neighbours
from bench.peers import build, contest, original
from bench.peers.contest import BARE
from bench.peers.pairs import Turns
from bench.peers.peer import PEERS, AbsentError, Sizes
from bench.peers.scenarios import SCENARIOS
from engine import threads
from engine.header import HeaderError, read_header
from models import store

N_TURNS = 5  # machines are noisy: the median of so many
N_SLOTS, N_CTX = 8, 1024
NAMES = [BARE, *PEERS, original.NAME]


def main(arguments: list[str], folder: Path = result.FOLDER) -> int:
    """The exit code."""
    options = _parser().parse_args(arguments)
    started, about_machine = time.perf_counter(), machine()
    try:
        path = store.find(options.model) if options.model else default()
        model = result.about(path, read_header(path))
    except (store.StoreError, HeaderError) as error:
        print(error, file=sys.stderr)
        return 2
    say(f"{model['name']}: {model['description']}\n{about_machine['words']}")
    found = measure(path, options)
    if not found["peers"] and not found["bare"]:
        print("Nothing could be compared; the lines above say why.", file=sys.stderr)
        return 1
    about = {"machine": about_machine, "versions": versions() | build.pins("torch", "transformers"), "model": model}
    now, seconds = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", round(time.perf_counter() - started, 1)
    print(write({"format": result.FORMAT, "date": now, "seconds": seconds, **about, **found}, folder))
    return 0


def write(found: dict[str, Any], folder: Path) -> Path:
    """Beside the results of `make bench` of the same day and machine; the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found['date'][:10]}-{found['machine']['name']}-peers.json"
    beside = path.with_suffix(".part")
    beside.write_text(f"{json.dumps(found, indent=1)}\n")
    beside.replace(path)
    return path


def measure(model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What each peer gave; prints it line by line. One that cannot take part is named with the reason."""
    sizes = Sizes(N_SLOTS, N_CTX, threads.count())
    neighbours = Neighbours()
    turns = Turns(options.turns, neighbours.disturbed, tell)
    rows: list[dict[str, Any]] = []
    bare: list[dict[str, Any]] = []
    absent: dict[str, str] = {}
    for name in options.only:
        try:
            if name == BARE:
                bare += contest.bare(model, sizes, options.turns)
                for line in bare:
                    say(f"{BARE}, {line['title']}: {contest.in_words(line)} {line['unit']}")
                continue
            found = (
                contest.baseline(model, sizes, turns)
                if name == original.NAME
                else contest.servers(name, model, sizes, turns, options.scenarios)
            )
            for i, row in enumerate(found):
                say(f"{contest.heading(name)}\n{row}" if i == 0 else str(row))
                rows.append(row.plain())
        except (AbsentError, BenchError, RuntimeError, OSError, HTTPException) as error:
            again = "further " if any(row["name"] == name for row in rows) else ""
            say(f"\n{name} takes no {again}part: {error}")
            absent[name] = str(error)
    neighbours.close()
    settings = {"threads": sizes.n_threads, "slots": sizes.n_slots, "ctx": sizes.n_ctx}
    return {"settings": settings, "peers": rows, "bare": bare, "absent": absent}


def say(text: str) -> None:
    """A line that stays."""
    tell("")
    print(text, flush=True)


def tell(text: str) -> None:
    """What happens now, over the words before; on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    about, *_ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=about)
    parser.add_argument("model", nargs="?", help="path or name; default: the one used last, else a shape made for it")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="PEER", help=f"of {', '.join(NAMES)}")
    parser.add_argument(
        "--scenarios",
        nargs="+",
        choices=list(SCENARIOS),
        default=list(SCENARIOS),
        metavar="NAME",
        help=f"of {', '.join(SCENARIOS)}",
    )
    parser.add_argument("--turns", type=int, default=N_TURNS, metavar="N", help=f"of each scenario (default: {N_TURNS})")
    return parser


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the servers end with this program
    sys.exit(main(sys.argv[1:]))
