"""Regular expressions of schemas, in the few words that the engine knows.

What comes out is a regular expression and, between ^ and $, a piece of GBNF: it has only classes of code points that JSON
writes as themselves, groups, | and repetitions.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

from api.keywords import refuse

DEEPEST = 64  # groups in each other
MOST_TIMES = 1000  # of one repetition
MOST_RULES = 2000  # llama.cpp's own: rules in a repeated group, times the repetitions
Ranges = list[tuple[int, int]]
AS_THEMSELVES: Ranges = [(0x20, 0x21), (0x23, 0x5B), (0x5D, 0x7E), (0x80, 0xD7FF), (0xE000, 0x10FFFF)]
CLASSES: dict[str, Ranges] = {
    "d": [(0x30, 0x39)],
    "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    "s": [(9, 13), (0x20, 0x20)],
}
WIDE_SPACES: Ranges = [
    *((0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029)),
    *((0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
]  # which some dialects count among \s
NOT_DOT: Ranges = [(10, 10), (13, 13), (0x2028, 0x2029)]
TIMES: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
ESCAPE = r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[^xu]"
PIECE = re.compile(
    rf"(?P<open>\((?:\?:)?)|(?P<close>\))|(?P<or>\|)|(?P<times>[*+?]|\{{[0-9]{{1,4}}(?:,[0-9]{{0,4}})?\}})(?P<lazy>\??)"
    rf"|\[(?P<not>\^?+)(?P<set>(?:{ESCAPE}|[^\\\]])+)\]|(?P<one>{ESCAPE}|[^\\\[\]{{}}^$*+?()|])",
    re.DOTALL,
)
IN_SET = re.compile(rf"{ESCAPE}|[^\\]", re.DOTALL)


class Pattern:
    """A client's regular expression, read from left to right."""

    def __init__(self, source: Any, place: str) -> None:
        self.place = place
        self.text = ""
        self.repeats = 0  # what its repetitions come to, written out
        # Of each open group: rules that llama.cpp makes of it so far; whether it, and its last alternative, may be empty.
        self._groups: list[tuple[int, bool, bool]] = [(0, False, True)]
        # What could be repeated: its rules, its size, may it be empty, might the sequence before it.
        self._last: tuple[int, int, bool, bool] | None = None
        if not isinstance(source, str) or not source.startswith("^") or not source.endswith("$"):
            self._refuse("must be a string that begins with ^ and ends with $")
        at, end = 1, len(source) - 1
        while at < end:
            piece = PIECE.match(source, at, end)
            if not piece:
                self._refuse(f"has something at character {at} that is not supported: {source[at : at + 20]}")
            self._read(piece)
            at = piece.end()
        if len(self._groups) != 1:
            self._refuse("has a group without an end")

    def _refuse(self, says: str) -> NoReturn:
        refuse(self.place, says)

    def _read(self, piece: re.Match[str]) -> None:
        rules, empty, last_empty = self._groups[-1]
        if piece["open"]:
            self.text += "("
            self._groups.append((0, False, True))
            self._last = None
            if len(self._groups) > DEEPEST:
                self._refuse(f"has more than {DEEPEST} groups in each other")
        elif piece["close"]:
            if len(self._groups) == 1:
                self._refuse("has a ) without a (")
            self._groups.pop()
            self.text += ")"
            self._add(rules + 1, 1, empty or last_empty)
        elif piece["or"]:
            self.text += "|"
            self._groups[-1] = (rules, empty or last_empty, True)
            self._last = None
        elif piece["times"]:
            self._repeat(piece["times"])
        else:
            if piece["one"] == ".":
                ranges = _others(NOT_DOT)
            else:
                ranges = self._set(piece["set"]) if piece["set"] else self._ranges(piece["one"])
            if piece["not"] and r"\s" in piece["set"]:
                ranges = ranges + WIDE_SPACES
            ranges = _common(_others(ranges) if piece["not"] else ranges, AS_THEMSELVES)
            if not ranges:
                self._refuse(f"needs a character that JSON must escape, which is not supported: {piece[0][:20]}")
            text = "".join(_code(low) if low == high else f"{_code(low)}-{_code(high)}" for low, high in ranges)
            self.text += f"[{text}]"
            self._add(0, 2 * len(ranges), False)

    def _add(self, rules: int, size: int, empty: bool) -> None:
        """One more thing in the sequence, which may be repeated."""
        before, any_empty, last_empty = self._groups[-1]
        self._groups[-1] = (before + rules, any_empty, last_empty and empty)
        self._last = (max(rules, 1), size, empty, last_empty)

    def _repeat(self, times: str) -> None:
        if self._last is None:
            self._refuse(f"has {times} with nothing to repeat")
        rules, size, empty, was_empty = self._last
        least, most = TIMES[times] if times in TIMES else _least_and_most(times.strip("{}"))
        if max(least, most or 0) > MOST_TIMES or (most is not None and least > most):
            self._refuse(f"has {times}: repetitions go up to {MOST_TIMES}")
        if empty and most != 1:
            self._refuse("repeats something that may be empty")  # llama.cpp would follow all the ways to read it
        total = most or least or 1
        if rules * total > MOST_RULES:
            self._refuse("has too many repetitions in each other")
        self.text += times
        self.repeats += total * size
        before, any_empty, _ = self._groups[-1]
        new_rules = 1 if most is None else most - least
        self._groups[-1] = (before + new_rules, any_empty, was_empty and (empty or least == 0))
        self._last = None

    def _ranges(self, item: str) -> Ranges:
        """The code points that a letter or an escape stands for."""
        if len(item) == 1:
            return [(ord(item), ord(item))]
        if len(item) > 2:
            return [(int(item[2:], 16), int(item[2:], 16))]
        letter = item[1]
        if letter in CONTROLS:
            return [(CONTROLS[letter], CONTROLS[letter])]
        if letter == "S":
            return _others(CLASSES["s"] + WIDE_SPACES)
        if letter.lower() in CLASSES:
            return CLASSES[letter] if letter.islower() else _others(CLASSES[letter.lower()])
        if letter.isascii() and letter.isalnum():
            self._refuse(f"has {item}, which is not supported")
        return [(ord(letter), ord(letter))]

    def _set(self, content: str) -> Ranges:
        items, found, i = IN_SET.findall(content), [], 0
        while i < len(items):
            ranges = self._ranges(items[i])
            i += 1
            if items[i : i + 1] == ["-"] and i + 1 < len(items):
                low, high = ranges[0][0], self._ranges(items[i + 1])[-1][1]
                if ranges != [(low, low)] or self._ranges(items[i + 1]) != [(high, high)] or low > high:
                    self._refuse(f"has a range that is none: {items[i - 1]}-{items[i + 1]}")
                ranges = [(low, high)]
                i += 2
            found += ranges
        return found


def _least_and_most(times: str) -> tuple[int, int | None]:
    least, comma, most = times.partition(",")
    return int(least), int(most) if most else None if comma else int(least)


def _others(ranges: Ranges) -> Ranges:
    """All other code points."""
    found, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return [*found, (start, 0x10FFFF)] if start <= 0x10FFFF else found


def _common(some: Ranges, others: Ranges) -> Ranges:
    both = [(max(low, other_low), min(high, other_high)) for low, high in some for other_low, other_high in others]
    return sorted({(low, high) for low, high in both if low <= high})


def _code(point: int) -> str:
    letter = chr(point)
    if letter.isascii():
        return letter if letter.isalnum() else f"\\x{point:02X}"
    return f"\\u{point:04X}" if point < 0x10000 else f"\\U{point:08X}"
