"""Lists: so many fruits, the days of the week, counting up and down."""

import random

from models.demo.tables import Turn, fill, pattern, table
from models.demo.wording import vary

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def as_lines(items: list[str], bullets: bool) -> str:
    """Numbered, or with bullets."""
    return "\n".join(f"- {item}" if bullets else f"{i}. {item}" for i, item in enumerate(items, 1))


def counted(first: int, last: int) -> str:
    """Up or down, both ends included."""
    step = 1 if last >= first else -1
    return ", ".join(str(n) for n in range(first, last + step, step)) + "."


def some(rng: random.Random) -> Turn:
    """The first n of one of the lists."""
    entry = rng.choice(table("lists")["list"])
    n = rng.randrange(2, len(entry["items"]) + 1)
    bullets = rng.random() < 0.35
    asked = vary(pattern("lists", "bullets" if bullets else "some", rng), rng)
    asked = fill(asked, n=str(n) if rng.random() < 0.5 else NUMBERS[n - 1], x=rng.choice(entry["ask"]))
    return asked, as_lines(entry["items"][:n], bullets)


def whole(rng: random.Random) -> Turn:
    """A list that is always given whole."""
    entry = rng.choice(table("lists")["whole"])
    return vary(rng.choice(entry["ask"]), rng), as_lines(entry["items"], bullets=False)


def count(rng: random.Random) -> Turn:
    """Counting up or down."""
    last = rng.randrange(3, 31) if rng.random() < 0.8 else rng.randrange(31, 51)
    dice = rng.random()
    if dice < 0.25:
        return fill(vary(pattern("lists", "count_down", rng), rng), b=str(last)), counted(last, 1)
    if dice < 0.5:
        return fill(vary(pattern("lists", "count_to", rng), rng), b=str(last)), counted(1, last)
    first = 1 if rng.random() < 0.5 else rng.randrange(0, last)
    return fill(vary(pattern("lists", "count", rng), rng), a=str(first), b=str(last)), counted(first, last)


def ask(rng: random.Random) -> Turn:
    """One of the kinds above."""
    return rng.choice((some, some, whole, count))(rng)
