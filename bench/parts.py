"""For programs that measure several things of a model: those that are named, else all of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping

Parts = Mapping[str, Callable[[str], dict[str, float]]]  # by name; each takes the model's path


def run(parts: Parts, usage: str | None, arguments: list[str]) -> int:
    """Prints each part's figures, and all of them as JSON in the last line; the exit code."""
    if not arguments or set(arguments[1:]) - set(parts):
        print(usage, file=sys.stderr)
        return 2
    model, *names = arguments
    figures = {}
    for name in names or parts:
        figures[name] = {what: round(value, 3) for what, value in parts[name](model).items()}
        print(name, figures[name], flush=True)
    print(json.dumps(figures))
    return 0
