"""Linnet against others: the same model, slots, context, threads, prompts and client, by turns in one run.

    make bench-peers MODEL=name-or-path     or: python -m bench.peers [MODEL] [--only PEER ...] [--scenarios NAME ...]

llama-server and llama-bench are built from the llama.cpp that Linnet runs on, once; llama-cpp-python's module server runs
on the same library; ollama and llamafile take part where they are installed; transformers in float32 is what the first
version of this program ran on. One peer at a time is loaded beside Linnet, and one of the two computes at any moment. A
ratio above 1 says that Linnet is better. The last line is the path of the results, which are written after each peer; what
other peers gave on the same day, with the same model, settings and versions, stays in them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from bench import report, result
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
    started, sizes = time.perf_counter(), Sizes(N_SLOTS, N_CTX, threads.count())
    settings = {"threads": sizes.n_threads, "slots": sizes.n_slots, "ctx": sizes.n_ctx}
    try:
        model = store.find(options.model) if options.model else default()
        about = {"machine": machine(), "versions": versions() | build.pins("torch", "transformers")}
        about |= {"model": result.about(model, read_header(model)), "settings": settings}
        date = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        path = result.path_of({"date": date, **about}, folder, "-peers.json")
        found = kept(path, about, options.only)
    except (store.StoreError, HeaderError, report.ReportError) as error:
        print(error, file=sys.stderr)
        return 2
    say(f"{about['model']['name']}: {about['model']['description']}\n{about['machine']['words']}")
    compared = False
    with closing(Neighbours()) as neighbours:
        turns = Turns(options.turns, neighbours.disturbed, tell)
        for name in options.only:
            compared |= compare(name, model, sizes, turns, options.scenarios, found)
            if compared:
                seconds = round(time.perf_counter() - started, 1)
                head = {"format": result.FORMAT, "date": date, "seconds": seconds, **about}
                result.put(path, f"{json.dumps(head | found, indent=1)}\n")
    if not compared:
        print("Nothing could be compared; the lines above say why.", file=sys.stderr)
        return 1
    print(path)
    return 0


def kept(path: Path, about: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What a run before this one wrote there of peers but these. Raises ReportError."""
    found = report.comparison(path) if path.exists() else {}
    if any(found.get(key) != value for key, value in about.items()):
        return {"peers": [], "bare": [], "absent": {}}
    rows, bare = ([row for row in found[part] if row["name"] not in names] for part in ("peers", "bare"))
    return {"peers": rows, "bare": bare, "absent": {name: why for name, why in found["absent"].items() if name not in names}}


def compare(name: str, model: Path, sizes: Sizes, turns: Turns, keys: list[str], found: dict[str, Any]) -> bool:
    """Adds to `found` what a peer gave, and prints it line by line; whether it gave anything.

    One that cannot take part, or not until its end, is named with the reason.
    """
    n_found = len(found["peers"]) + len(found["bare"])
    try:
        for row in _rows(name, model, sizes, turns, keys):
            found["bare" if name == BARE else "peers"].append(row)
    except (AbsentError, BenchError, RuntimeError, OSError, HTTPException) as error:
        found["absent"][name] = str(error)
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # of the client, at an answer of another form
        found["absent"][name] = f"Its answer was not understood: {error!r}."
    compared = len(found["peers"]) + len(found["bare"]) > n_found
    if name in found["absent"]:
        say(f"\n{name} takes no {'further ' if compared else ''}part: {found['absent'][name]}")
    return compared


def _rows(name: str, model: Path, sizes: Sizes, turns: Turns, keys: list[str]) -> Iterator[dict[str, Any]]:
    if name == BARE:
        for line in contest.bare(model, sizes, turns.n):
            say(f"{BARE}, {line['title']}: {contest.in_words(line)} {line['unit']}")
            yield line
        return
    if name == original.NAME:
        rows = contest.baseline(model, sizes, turns)
    else:
        rows = contest.servers(name, model, sizes, turns, keys)
    for i, row in enumerate(rows):
        say(f"{contest.heading(name)}\n{row}" if i == 0 else str(row))
        yield row.plain()


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
