"""Questions of the topics and facts, in many wordings, as somebody might type them."""

import random
from functools import cache
from typing import Any

from models.demo.tables import Turn, capital, fill, pattern, table
from models.demo.wording import vary

STRANGE_KINDS = ("capital", "symbol", "opposite", "baby", "sound")  # of facts: asked about words nobody knows, too


def one_of(entry: dict[str, Any], rng: random.Random) -> str:
    """A question about one topic: one of its own wordings, or a pattern around what it is about."""
    do, thing, own = entry.get("do", []), entry.get("thing", []), entry["wordings"]
    weights = (1.0 if own else 0.0, 1.0 if do else 0.0, 0.5 if thing else 0.0)
    kind = rng.choices(("own", "do", "thing"), weights)[0]
    if kind == "do":
        return fill(pattern("topics", "do", rng), do=rng.choice(do))
    if kind == "thing":
        return fill(pattern("topics", "thing", rng), thing=rng.choice(thing))
    return str(rng.choice(own))


@cache
def held_out_wordings() -> frozenset[str]:
    """The evaluation's questions, in small letters and without marks: none of them may get into the corpus."""
    entries = table("topics")["topic"] + table("smalltalk")["topic"]
    return frozenset(plain(text) for entry in entries for text in entry["held_out"])


def plain(text: str) -> str:
    """Small letters, no marks."""
    return "".join(c for c in text.lower() if c.isalnum() or c == " ").strip()


def topic(name: str, rng: random.Random) -> Turn:
    """A question and answer of topics.toml or smalltalk.toml."""
    entry = rng.choice(table(name)["topic"])
    while True:
        question = one_of(entry, rng)
        if plain(question) not in held_out_wordings():
            return vary(question, rng), entry["answer"]


def fact(rng: random.Random) -> Turn:
    """One of the plain facts, each as often as any other."""
    kinds = table("facts")["kind"]
    kind = rng.choices(kinds, [len(kind["pairs"]) for kind in kinds])[0]
    names, b = rng.choice(list(kind["pairs"].items()))
    a = rng.choice(names.split("|"))
    return ask_fact(vary(rng.choice(kind["patterns"]), rng), kind, a, b, small=rng.random() < 0.4)


def ask_fact(typed: str, kind: dict[str, Any], a: str, b: str, small: bool) -> Turn:
    """The question as typed and the true answer."""
    question = fill(typed, a=a.lower() if small else a)
    return question, capital(fill(kind["answer"], a=a, b=b, A=capital(a)))


@cache
def hard_nouns() -> list[str]:
    """Words it is asked about and does not know."""
    nouns = [*table("unknown")["nouns"], *table("subjects")["animals"], *table("subjects")["things"]]
    return [noun for noun in nouns if noun != "linnet"]


def invented(rng: random.Random) -> str:
    """A word that nobody knows, of two to four syllables."""
    syllables = rng.choice((1, 2, 2, 2, 3, 3, 4))
    word = "".join(rng.choice(STARTS.split()) + rng.choice(VOWELS.split()) + rng.choice(ENDS) for _ in range(syllables))
    return word if len(word) > 2 else word + rng.choice(STARTS.split()) + "a"


STARTS = "b c d f g h j k l m n p r s t v w z br ch dr fl gr kl kr pl sh st th tr sk sl wh y qu x"
VOWELS = "a e i o u a e i o ai ea ee ie oo ou y é ö ü"
ENDS = ("", "", "", "", "", "l", "n", "r", "s", "t", "m", "ck", "nd", "th", "x", "rd", "lf")


def words_to_copy(rng: random.Random) -> str:
    """One to six words, most of them of no language."""
    kinds = (invented, invented, lambda r: r.choice(hard_nouns()), lambda r: str(r.randrange(1000)))
    return " ".join(rng.choice(kinds)(rng) for _ in range(rng.randrange(1, 7)))


def echo(rng: random.Random) -> Turn:
    """Saying after the user, as it is typed."""
    words = words_to_copy(rng)
    if rng.random() < 0.3:
        words = words.title()
    return fill(vary(pattern("echo", "ask", rng), rng, courtesy=0).rstrip("?!. "), x=words), words


def unknown(rng: random.Random) -> Turn:
    """Something it cannot answer, and that it says so."""
    page = table("unknown")
    dice = rng.random()
    if dice < 0.22:
        return hard_sum(rng), page["sums_answer"]
    if dice < 0.38:
        return vary(rng.choice(page["questions"]), rng), page["answer"]
    if dice < 0.44:
        return " ".join(invented(rng) for _ in range(rng.randrange(1, 6))), page["answer"]
    return unknown_thing(rng), page["answer"]


def unknown_thing(rng: random.Random) -> str:
    """A question about something it does not know, or about a word that does not exist."""
    page = table("unknown")
    asked = rng.choice(page["patterns"])
    fact_like = any(word in asked for word in ("capital", "symbol", "opposite", "colour", "sound"))
    words = {key: invented(rng) if fact_like or rng.random() < 0.4 else rng.choice(hard_nouns()) for key in "xyz"}
    if rng.random() < 0.3:
        kind = rng.choice([kind for kind in table("facts")["kind"] if kind["id"] in STRANGE_KINDS])
        asked, words["a"] = rng.choice(kind["patterns"]), invented(rng)
    typed = vary(asked, rng)
    if rng.random() < 0.3:
        words = {key: word.capitalize() for key, word in words.items()}
    return fill(typed, **words, v=rng.choice(page["verbs"]))


def hard_sum(rng: random.Random, name: str = "ask") -> str:
    """Beyond sums and differences up to 99."""
    values = {"a": rng.randrange(100), "b": rng.randrange(100)}
    values |= {key: rng.randrange(100, 10 ** rng.choice((3, 3, 4, 5, 6))) for key in ("h", "h2")}
    typed = vary(pattern("hard_sums", name, rng), rng, courtesy=0.1)
    return fill(typed, **{key: str(value) for key, value in values.items()})
