"""`python -m models [--ctx N] [--slots N]`: the models there are, whether they fit this machine, and which one to take."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from engine import memory, threads
from engine.request import Config
from models import fit, store
from models.fit import Row, Verdict, gigabytes, pace

WIDTH = 100  # columns of the table
NAME_WIDTH = 40
HEAD = ("", "model", "here", "GB", "needs GB", "tokens/s", "verdict", "good for")
# As server.py's options of these names, which stand in settings.py.
CACHE_DIR, N_SLOTS, CTX_BOUNDS, SLOTS_BOUNDS = "~/.cache/linnet", 4, (64, 2**20), (1, 64)


def table(rows: list[Row]) -> list[str]:
    """One line each, the recommended one marked."""
    cells = [HEAD, *map(_cells, rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEAD))]
    widths[1] = min(widths[1], NAME_WIDTH)
    return [_line(line, widths) for line in cells]


def _cells(row: Row) -> tuple[str, ...]:
    need, verdict, tokens_per_s = row.fit.need, row.fit.verdict, row.fit.tokens_per_s
    return (
        "*" if row.recommended else "",
        "".join(letter if letter.isprintable() else "\ufffd" for letter in row.name),
        "yes" if row.path else "no",
        gigabytes(row.size_bytes),
        gigabytes(need.total_bytes) if need else "?",
        "-" if verdict is Verdict.TOO_BIG else "?" if tokens_per_s is None else pace(tokens_per_s),
        verdict,
        row.good_for,
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    parts = []
    for cell, width, head in zip(cells, widths, HEAD, strict=True):
        cell = cell if len(cell) <= width else cell[: width - 1] + "…"
        parts.append(cell.rjust(width) if "GB" in head or "/" in head else cell.ljust(width))
    line = "  ".join(parts).rstrip()
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def advice(rows: list[Row]) -> str:
    """How to get or run the recommended model."""
    best = next((row for row in rows if row.recommended), None)
    if not best:
        return "None of them is sure to run well here. Any other: make download-gguf MODEL=owner/name:quant"
    if best.path:
        return f'Recommended (*): {best.name}, which is here: make run ARGS="--model {best.path.stem}"'
    return f"Recommended (*): {best.name}. Fetch it: make download-gguf MODEL={best.name}"


def main(arguments: list[str]) -> int:
    """The exit code."""
    options = _parser().parse_args(arguments)
    try:
        machine = fit.machine(options.cache_dir.expanduser(), lambda text: print(text, file=sys.stderr, flush=True))
        usual = Config("", options.ctx, options.slots, threads.count())
        rows = fit.fits(machine, usual, options.models_dir.expanduser())
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a home directory that is not there
        print(error, file=sys.stderr)
        return 2
    n_ctx = f"{options.ctx:,} tokens" if options.ctx else "the usual length"
    free = gigabytes(memory.available())
    print(f"{free} GB of memory are free; --slots {options.slots}, each with a context of {n_ctx}.")
    print("\n".join(table(rows)))
    print(advice(rows))
    return 0


class _Parser(argparse.ArgumentParser):
    """What is wrong is one sentence."""

    def error(self, message: str) -> NoReturn:
        """Says it and ends."""
        self.exit(2, f"{message[:1].upper()}{message[1:]}.\n")


def _parser() -> argparse.ArgumentParser:
    def within(bounds: tuple[int, int]) -> Callable[[str], int]:
        def parse(text: str) -> int:
            if not text.isdecimal() or not bounds[0] <= int(text) <= bounds[1]:
                raise argparse.ArgumentTypeError(f"{text!r} is no number from {bounds[0]} to {bounds[1]}")
            return int(text)

        return parse

    parser = _Parser(prog="python -m models", description=__doc__, allow_abbrev=False)
    parser.add_argument("--ctx", type=within(CTX_BOUNDS), help="tokens one request may use")
    parser.add_argument("--slots", type=within(SLOTS_BOUNDS), default=N_SLOTS, help="requests that run at once")
    parser.add_argument("--models-dir", type=Path, default=store.FOLDER, help="folder of the models")
    cache_dir = os.environ.get("LINNET_CACHE_DIR") or CACHE_DIR
    parser.add_argument("--cache-dir", type=Path, default=Path(cache_dir), help="where this machine's speed is remembered")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
