"""What is refused of a client's own grammar, in llama.cpp's GBNF, before llama.cpp sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from api.keywords import SchemaError
from api.pattern import MOST_TIMES

LARGEST_BYTES = 64 * 1024
MOST_REPEATS = 50_000  # all repetitions, each with the size of what is repeated: llama.cpp writes them out
DEEPEST = 200  # brackets in each other, or rules that begin with each other
MOST_BEGINNINGS = 5000  # of one rule; llama.cpp holds each as a stack and compares them pair by pair
GAP = r"[ \t\r\n]*"
GBNF = re.compile(
    r'(?P<space>[ \t\r\n]+|#[^\r\n]*)|(?P<text>"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\])|(?P<bracket>[()])'
    rf"|\{{{GAP}(?P<least>[0-9]+){GAP}(?:,{GAP}(?P<most>[0-9]*){GAP})?\}}|(?P<name>[a-zA-Z0-9-]+)|::=|[|.*+?]",
    re.DOTALL,
)


@dataclass
class Item:
    """A text, a rule's name or a group of ways, and how often it comes."""

    what: str | list[list[Item]] | None = None  # None: text
    may_lack: bool = False
    times: int = 1


Ways = list[list[Item]]


def check_grammar(text: str) -> None:
    """Raises SchemaError for a client's grammar that would end the engine's process or be too much for it.

    What is not GBNF at all, llama.cpp finds out itself.
    """
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise SchemaError("The grammar holds a NUL or half a character.")
    if len(text.encode()) > LARGEST_BYTES:
        raise SchemaError(f"The grammar is too large: at most {LARGEST_BYTES} bytes are followed.")
    rules = _rules(text)
    if "root" not in rules:
        raise SchemaError("The grammar has no rule named root.")
    beginnings = _Beginnings(rules)
    for name in rules:
        beginnings.of(name, 0)


def _tokens(text: str) -> Iterator[re.Match[str]]:
    at = 0
    while at < len(text):
        token = GBNF.match(text, at)
        if not token:
            raise SchemaError(f"The grammar has something at character {at} that is not supported: {text[at : at + 20]}")
        at = token.end()
        if not token["space"]:
            yield token


def _rules(text: str) -> dict[str, Ways]:
    rules: dict[str, Ways] = {}
    open_ways: list[Ways] = [[[]]]  # the rule's, then those of the brackets in each other
    repeats, size = 0, 0
    for token in _tokens(text):
        items = open_ways[-1][-1]
        if token[0] == "::=":
            name = items.pop().what if items else ""
            open_ways = [rules.setdefault(str(name), [])]
            open_ways[0].append([])
        elif token[0] == "|":
            open_ways[-1].append([])
        elif token[0] == "(":
            items.append(Item([[]]))
            open_ways.append(items[-1].what)  # type: ignore[arg-type]
        elif token[0] == ")":
            open_ways[1:] = open_ways[1:-1]
        elif token["least"]:
            times = _times(token)
            repeats += size * times
            items[-1:] = [Item(item.what, int(token["least"]) == 0, times) for item in items[-1:]]
        elif token[0] in "*+?":
            items[-1:] = [Item(item.what, token[0] != "+") for item in items[-1:]]
        else:
            items.append(Item(token["name"]))
        size = len(token["text"] or "1")
        if len(open_ways) > DEEPEST or repeats > MOST_REPEATS:
            raise SchemaError("The grammar has too many brackets in each other, or repeats too much.")
    return rules


def _times(token: re.Match[str]) -> int:
    numbers = [number for number in (token["least"], token["most"]) if number]
    if any(len(number) > len(str(MOST_TIMES)) or int(number) > MOST_TIMES for number in numbers):
        raise SchemaError(f"The grammar has {token[0][:20]}: repetitions go up to {MOST_TIMES}.")
    return max(map(int, numbers))


class _Beginnings:
    """In how many ways each rule can begin. Rules that double the ways of the next grow beyond all bounds in a few lines."""

    def __init__(self, rules: dict[str, Ways]) -> None:
        self._rules = rules
        self._known: dict[str, tuple[int, bool]] = {}

    def of(self, name: str, depth: int) -> tuple[int, bool]:
        """How many, and whether the rule may be empty. Raises SchemaError for too many."""
        if name not in self._known:
            self._known[name] = (1, False)  # for a rule that begins with itself, which llama.cpp refuses
            self._known[name] = self._of_ways(self._rules.get(name, [[Item()]]), depth + 1)
        return self._known[name]

    def _of_ways(self, ways: Ways, depth: int) -> tuple[int, bool]:
        if depth > DEEPEST:
            raise SchemaError(f"The grammar has more than {DEEPEST} rules or brackets that begin with each other.")
        total, may_lack = 0, False
        for way in ways:
            for item in way:
                n, lacks = (1, False) if item.what is None else self._of(item.what, depth)
                total += n * (item.times if lacks else 1)
                if not (lacks or item.may_lack):
                    break
            else:
                total, may_lack = total + 1, True
        if total > MOST_BEGINNINGS:
            raise SchemaError(
                f"The grammar is too ambiguous: one of its rules can begin in more than {MOST_BEGINNINGS} ways."
            )
        return total, may_lack

    def _of(self, what: str | Ways, depth: int) -> tuple[int, bool]:
        return self.of(what, depth) if isinstance(what, str) else self._of_ways(what, depth + 1)
