"""The answers kept on disk, from a shell.

    python -m cache [clear] [--cache-dir DIR]

Without `clear` it says how many there are and what they have saved. A running server forgets them too.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from cache.store import NotClearedError, Store
from settings import SettingsError, read


def main(arguments: list[str]) -> int:
    """The exit code."""
    logging.basicConfig(format="%(message)s")
    clear = arguments[:1] == ["clear"]
    try:
        settings = read(arguments[clear:])
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    folder = settings.cache_dir / "answers"
    if not folder.exists():
        sys.stdout.write(f"No answers are kept in {settings.cache_dir}.\n")
        return 0
    store = Store(folder, 0, settings.answer_disk * 2**20, serving=False)
    store.flush(60)
    try:
        sys.stdout.write(f"{counted(store.clear())} removed.\n" if clear else report(folder, store.facts()))
    except NotClearedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        store.close()
    return 0


def report(folder: Path, f: dict[str, float]) -> str:
    """The facts of a store for people."""
    return (
        f"{counted(int(f['entries']))}, {f['bytes'] / 1e6:,.1f} MB, in {folder}\n"
        f"{f['evictions']:,.0f} forgotten to make room\n"
        f"{f['hits']:,.0f} hits, {f['joined']:,.0f} joined, {f['misses']:,.0f} misses\n"
        f"saved: {f['saved_s']:,.0f} s of computing, {f['saved_tokens']:,.0f} tokens\n"
    )


def counted(n: int) -> str:
    """How many answers."""
    return f"{n:,} answer" if n == 1 else f"{n:,} answers"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
