"""What the figures mean to somebody who wants to chat: a word, the reason, and the next best step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.figure import LOOP, MEMORY, Figure
from bench.table import short

COMFORTABLE, USABLE, SLOW, UNKNOWN = "comfortable chat", "usable", "slow", "unknown"


@dataclass(frozen=True)
class Rating:
    """For people: one word, one sentence why, one sentence what to do next."""

    word: str
    reason: str
    next: str


@dataclass(frozen=True)
class Bar:
    """What an answer must give at least."""

    tokens_per_s: float
    first_s: float


# People read 4 to 7 words a second, and a word is about 1.3 tokens: 5 to 9 tokens a second. Below 5 everybody waits for each
# word, from 10 on nobody does. A pause of up to 3 seconds is one that a talk bears; after 10 the mind is elsewhere.
BARS = {COMFORTABLE: Bar(10, 3), USABLE: Bar(5, 10)}
LOW_SHARE_OF_LOOP = 0.85  # of the bare loop; what is missing is our own doing
N_SURE = 3  # so many values at least, and none of them disturbed, before we are told of it
HIGH_SHARE_OF_MEMORY = 0.6  # of the memory's speed; from here on only fewer bytes help
MUCH_BIGGER = 1.5  # a model less than so many times as large is not worth the trouble

SPEEDS = ("decode.256.tokens_per_s", "decode.64.tokens_per_s", "decode.1024.tokens_per_s")
FIRSTS = ("reading.256.first_s", "reading.64.first_s", "reading.1024.first_s")


def rate(figures: Mapping[str, Figure], model: Mapping[str, Any]) -> Rating:
    """The word is "comfortable chat", "usable" or "slow": the worst of three things, by BARS.

    They are the tokens/s of one answer, against 4 to 7 words/s that people read; the time to the first text of a question of
    256 tokens; and that of the second turn of a chat. What was not measured is not judged; without any answer's
    speed the word is "unknown".
    """
    speed = _median(figures, *SPEEDS)
    if speed is None:
        return Rating(UNKNOWN, "No answer was measured.", "Run make bench again.")
    first_s, second_s = _median(figures, *FIRSTS), _median(figures, "turn.second_first_s")
    waits = [s for s in (first_s, second_s) if s is not None]
    word = next((w for w, bar in BARS.items() if speed >= bar.tokens_per_s and all(s <= bar.first_s for s in waits)), SLOW)
    step = _first_of_all(figures) or _next(word, speed, waits, figures, model)
    return Rating(word, _reason(speed, first_s, second_s), step)


def _reason(speed: float, first_s: float | None, second_s: float | None) -> str:
    words = f"An answer comes at {short(speed)} tokens/s (people read 5 to 9)"
    first = f", its first text after {_seconds(first_s)}" if first_s is not None else ""
    second = f", that of a second turn after {_seconds(second_s)}" if second_s is not None else ""
    return f"{words}{first}{second}."


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:,.0f} s"


def _first_of_all(figures: Mapping[str, Figure]) -> str | None:
    """What spoils the figures themselves."""
    known = [f for f in figures.values() if f.median is not None]
    disturbed = sum(1 for f in known if f.disturbed)
    if 2 * disturbed >= len(known):
        return f"Free the cores: other programs disturbed {disturbed} of {len(known)} figures. End them and measure again."
    loop = _share_of_loop(figures)
    if loop is not None and loop < LOW_SHARE_OF_LOOP:
        return f"Report this result: Linnet gives only {100 * loop:.0f} % of what a bare loop of llama.cpp does here."
    return None


def _next(word: str, speed: float, waits: list[float], figures: Mapping[str, Figure], model: Mapping[str, Any]) -> str:
    good = BARS[COMFORTABLE]
    if word == COMFORTABLE:
        room = min(speed / good.tokens_per_s, *(good.first_s / max(s, 0.001) for s in waits), 100)
        if room < MUCH_BIGGER:
            return "Keep this model: it suits this machine."
        return f"Try a bigger model: one of {_size(model['size_bytes'] * room)} would still be comfortable (make models)."
    if speed >= good.tokens_per_s:
        return "Take a model of fewer parameters, or ask shorter questions: what takes long is reading them (make models)."
    fits = _size(model["size_bytes"] * speed / good.tokens_per_s)
    if (_share(figures, MEMORY) or 0) >= HIGH_SHARE_OF_MEMORY:
        return f"Take a smaller quantization or model, up to {fits}: the memory's speed is the limit (make models)."
    return f"Take a smaller model, up to {fits}: the cores' arithmetic is the limit (make models)."


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _median(figures: Mapping[str, Figure], *keys: str) -> float | None:
    """Of the first of these that was measured."""
    return next((m for key in keys if key in figures and (m := figures[key].median) is not None), None)


def _share(figures: Mapping[str, Figure], name: str) -> float | None:
    """Of this limit, by the first speed of an answer that it is known of."""
    limits = (limit for key in SPEEDS if key in figures for limit in figures[key].limits)
    return next((limit.share for limit in limits if limit.name == name), None)


def _share_of_loop(figures: Mapping[str, Figure]) -> float | None:
    """Of the first speed of an answer that is sure, as its bare loop is: one odd moment is no reason to write to us."""
    for speed in SPEEDS:
        pair = (speed, speed.replace("decode", "limit.after").replace("tokens_per_s", "step_ms"))
        if all(key in figures and len(figures[key].values) >= N_SURE and not figures[key].disturbed for key in pair):
            return next((limit.share for limit in figures[speed].limits if limit.name == LOOP), None)
    return None
