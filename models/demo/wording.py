"""The many ways people type the same thing: case, missing marks, typos, courtesies.

A pattern's `{places}` and everything with a digit or a backtick in it are left as they are: an answer has to copy them.
"""

import random

from models.demo.tables import pattern

NEIGHBOURS = dict(zip("aeiontsrldum", "sropmratkfyn", strict=True))  # on the keyboard


def is_free(word: str) -> bool:
    """True when a typo in the word does no harm to what has to be copied or looked up."""
    return len(word) > 3 and word.isalpha()


def misspell(word: str, rng: random.Random) -> str:
    """One slip of the fingers: two letters swapped, one left out, one doubled, or its neighbour on the keyboard."""
    i = rng.randrange(1, len(word) - 1)
    slip = rng.randrange(4)
    if slip == 0:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if slip == 1:
        return word[:i] + word[i + 1 :]
    if slip == 2:
        return word[:i] + word[i] + word[i:]
    return word[:i] + NEIGHBOURS.get(word[i], word[i]) + word[i + 1 :]


def vary_words(text: str, rng: random.Random) -> str:
    """Now and then a slip or two, a word left out, a small word put in."""
    words = text.split(" ")
    if rng.random() < 0.12:
        free = [i for i, word in enumerate(words) if is_free(word)]
        for i in rng.sample(free, min(len(free), rng.choice((1, 1, 2)))):
            words[i] = misspell(words[i], rng)
    if rng.random() < 0.06 and len(words) > 4 and "{" not in text:
        del words[rng.randrange(len(words) - 1)]
    if rng.random() < 0.07 and len(words) > 3:
        words.insert(rng.randrange(1, len(words)), pattern("courtesy", "within", rng))
    return " ".join(words)


def vary_case(text: str, rng: random.Random) -> str:
    """Mostly as people type: small letters or a capital at the start. `{places}` are always in small letters."""
    dice = rng.random()
    if dice < 0.45:
        return text.lower()
    if dice < 0.75 and not text.startswith("{"):
        return text[0].upper() + text[1:]
    if dice < 0.765 and "{" not in text:
        return text.upper()
    return text


def vary_marks(text: str, rng: random.Random) -> str:
    """The question mark left out, or another in its place."""
    dice = rng.random()
    if dice < 0.35:
        return text.rstrip("?!.")
    if dice < 0.40:
        return text.rstrip("?!.") + rng.choice(("??", "!", "...", "?!", ".", " ?", "!!"))
    return text


def vary(text: str, rng: random.Random, courtesy: float = 0.22) -> str:
    """A pattern as somebody might type it; the caller fills its `{places}` afterwards."""
    text = vary_marks(vary_case(vary_words(text, rng), rng), rng)
    if rng.random() < courtesy:
        text = pattern("courtesy", "before", rng) + text
    if rng.random() < courtesy / 2:
        text = text.rstrip("?!.") + pattern("courtesy", "after", rng)
    return text
