"""The .toml files beside this one, and how their patterns are filled."""

import random
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

Turn = tuple[str, str]  # (what the user says, what the assistant answers)
Chat = list[tuple[str, str]]  # (role, content)


@cache
def table(name: str) -> dict[str, Any]:
    """One of the .toml files."""
    return tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))


def pattern(group: str, name: str, rng: random.Random) -> str:
    """One of the patterns of patterns.toml."""
    return str(rng.choice(table("patterns")[group][name]))


def fill(text: str, **values: str) -> str:
    """Like str.format, for texts that may hold other braces."""
    for key, value in values.items():
        text = text.replace("{" + key + "}", value)
    return text


def capital(text: str) -> str:
    """The first letter large, the rest left alone."""
    return text[:1].upper() + text[1:]


def a_or_an(words: str) -> str:
    """The words with their article."""
    return ("an " if words[0].lower() in "aeiou" else "a ") + words
