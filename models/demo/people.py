"""The user's name: told once, remembered for the rest of the chat, copied letter by letter even if never seen before."""

import random

from models.demo.stories import invented_name
from models.demo.tables import Turn, fill, pattern
from models.demo.wording import vary

NOT_TOLD = "You have not told me your name yet. What is it?"


def tell(name: str | None, rng: random.Random) -> tuple[str, Turn]:
    """The name now known, and the turn in which it is told."""
    new = invented_name(rng)
    if rng.random() < 0.2:
        new = new.lower()
    if rng.random() < 0.06:
        new = f"{new} {invented_name(rng)}"
    told = pattern("names", "change" if name and rng.random() < 0.6 else "tell", rng)
    return new, (fill(vary(told, rng, courtesy=0.1), n=new), greet(new))


def greet(name: str) -> str:
    """The answer to a name that is told."""
    return f"Nice to meet you, {name}! 😊 How can I help you?"


def recall(name: str | None) -> str:
    """The answer to "what is my name?"."""
    return f"Your name is {name}." if name else NOT_TOLD


def ask(name: str | None, rng: random.Random) -> Turn:
    """The name is asked for, told or not."""
    return vary(pattern("names", "ask", rng), rng), recall(name)
