"""Pictures of numbers as SVG text: lines, stacked bars, shares of a limit, ratios. Knows nothing of what is measured.

Colours come from classes, so one picture is readable on light and on dark ground: within a page that has STYLE, or, made
to stand `alone`, as a file. All are as wide as a phone's column, so that nothing in them gets too small to read there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from bench.table import short

WIDTH, BAR, LINE = 360, 13, 17  # pixels; LINE is also the height of a line of text
LETTER = 6.8  # the width of most letters, for what must be known before the text is drawn
PLOT = 150  # the height of a field of lines
N_LETTERS = 54  # of a label; more would leave the picture

# A disc, a square, a diamond, a triangle and one that stands on its head; each has a colour in STYLE.
SHAPES = (
    "m-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0z",
    "m-2.8 -2.8h5.6v5.6h-5.6z",
    "m0 -4l4 4l-4 4l-4 -4z",
    "m0 -3.8l3.8 6.6h-7.6z",
    "m0 3.8l3.8 -6.6h-7.6z",
)
N_KINDS = len(SHAPES)

STYLE = """
.chart { --ink: #2a221c; --quiet: #6d6259; --rule: #e4dbd1; --paper: #fbf8f4; --c0: #a4502e; --c1: #2f6f7e; --c2: #8a6a14;
  --c3: #7a4f8c; --c4: #55762f;
  font: 12px/1.4 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums; }
@media (prefers-color-scheme: dark) {
  .chart { --ink: #ece4dc; --quiet: #a89b8f; --rule: #3f362f; --paper: #1b1714;
    --c0: #e08a63; --c1: #73b6c6; --c2: #d6b25c; --c3: #c79fd8; --c4: #a5c27e; }
}
.chart text { fill: var(--ink); stroke: var(--paper); stroke-width: 3px; paint-order: stroke; }
.chart .title { font-size: 14px; font-weight: 600; } .chart .quiet { fill: var(--quiet); }
.chart .end { text-anchor: end; } .chart .middle { text-anchor: middle; } .chart .paper { fill: var(--paper); }
.chart .rule { stroke: var(--rule); } .chart .limit { stroke: var(--ink); stroke-dasharray: 2 3; }
.chart .c0 { color: var(--c0); } .chart .c1 { color: var(--c1); } .chart .c2 { color: var(--c2); }
.chart .c3 { color: var(--c3); } .chart .c4 { color: var(--c4); }
.chart .mark { fill: currentColor; stroke: currentColor; stroke-width: 1.5; } .chart .hollow { fill: var(--paper); }
.chart .area { fill: currentColor; } .chart .curve { fill: none; stroke: currentColor; stroke-width: 2; }
.chart .spread { fill: none; stroke: currentColor; stroke-width: 1.2; } .chart .over { color: var(--ink); }
"""


@dataclass(frozen=True)
class Value:
    """A median between the least and the most that was measured; `doubtful` ones are drawn hollow."""

    median: float
    low: float
    high: float
    doubtful: bool = False


@dataclass(frozen=True)
class Series:
    """One line: values by their place on the axis."""

    name: str
    points: Sequence[tuple[float, Value]]


@dataclass(frozen=True)
class Row:
    """One label with its values by name."""

    label: str
    values: Sequence[tuple[str, Value]]


def ticks(high: float, n: int = 4) -> list[float]:
    """Round numbers from 0 to at least `high`, about n steps of 1, 2, 2.5 or 5 times a power of ten."""
    if high <= 0 or not math.isfinite(high):
        high = 1.0
    power = 10.0 ** math.floor(math.log10(high / n))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= high / n * 0.999)
    return [round(i * step, 12) for i in range(math.ceil(high / step * 0.999) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from at most `low` to at least `high`; only those powers where there are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [float(f"{s}e{p}") for p in powers for s in (1, 2, 5)]
    first = max(i for i, tick in enumerate(every) if tick <= low)
    last = min(i for i, tick in enumerate(every) if tick >= high)
    found = every[first : last + 1]
    return found if len(found) <= 7 else [t for t in found if f"{t:e}".startswith("1.") or t in (found[0], found[-1])]


def lines(title: str, x_label: str, y_label: str, series: Sequence[Series], even: bool = False) -> str:
    """Curves with whiskers from 0 up; `even`: the places on the axis stand at equal distances, as 1, 2, 4, 8 should."""
    marks = ticks(max(value.high for line in series for _, value in line.points))
    places = sorted({x for line in series for x, _ in line.points})
    legend, top = _legend([line.name for line in series], 2 * LINE + 4) if len(series) > 1 else ([], LINE + 4)
    left, right, top = 10 + LETTER * max(len(_text(m)) for m in marks), WIDTH - 14, top + LINE + 16
    bottom = top + PLOT

    def across(x: float) -> float:
        share = (places.index(x) + 0.5) / len(places) if even else x / places[-1]
        return left + share * (right - left)

    def up(y: float) -> float:
        return bottom - y / marks[-1] * PLOT

    parts = [*legend, _words(0, top - 13, y_label, "quiet")]
    for mark in marks:
        parts += [_rule(left, up(mark), right, up(mark)), _words(left - 6, up(mark) + 4, _text(mark), "quiet end")]
    parts += [_words(across(x), bottom + LINE, _text(x), "quiet middle") for x in places]
    parts += [_words(right, bottom + 2 * LINE, x_label, "quiet end")]
    parts += [_curve(i, [(across(x), value) for x, value in line.points], up) for i, line in enumerate(series)]
    return _picture(title, bottom + 2 * LINE + 8, parts)


def stack(title: str, unit: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> str:
    """A bar for each row, made of its parts; beneath it the parts in figures."""
    marks = ticks(max(sum(amount for _, amount in amounts) for _, amounts in rows))
    scale = (WIDTH - 14) / marks[-1]
    parts, y = _legend([name for name, _ in rows[0][1]], 2 * LINE + 4)
    top = y
    for label, amounts in rows:
        total = sum(amount for _, amount in amounts)
        x = 0.0
        parts += [_words(0, y + LINE, label), _words(WIDTH, y + LINE, f"{short(total)} {unit}", "end")]
        for i, (_, amount) in enumerate(amounts):
            parts.append(f'<rect class="c{i} area" {_at(x=x, y=y + 24, width=amount * scale, height=BAR + 5)}/>')
            x += amount * scale
        told = " · ".join(f"{name} {short(amount)}" for name, amount in amounts)
        parts.append(_words(0, y + 25 + BAR + LINE, told, "quiet"))
        y += 25 + BAR + 2 * LINE
    return _picture(title, y + 2 * LINE + 4, [*_axis(marks, lambda m: m * scale, top + 6, y, unit), *parts])


def shares(title: str, note: str, rows: Sequence[Row]) -> str:
    """Bars with whiskers on an axis in percent; a line marks the limit, 100 %."""
    names = list(dict.fromkeys(name for row in rows for name, _ in row.values))
    marks = ticks(100 * max([1.0, *(value.high for row in rows for _, value in row.values)]), 5)
    scale = (WIDTH - 52) / marks[-1]
    parts, y = _legend(names, 2 * LINE + 4)
    top = y
    for row in rows:
        parts.append(_words(0, y + LINE, row.label))
        y += 24
        for name, value in row.values:
            low, at, high = (100 * v * scale for v in (value.low, value.median, value.high))
            kind = f"c{names.index(name)}"
            parts.append(f'<rect class="{kind} mark{_hollow(value)}" {_at(x=0, y=y, width=at, height=BAR - 3)}/>')
            parts += [_whisker("over", low, high, y + (BAR - 3) / 2)]
            parts.append(_words(WIDTH, y + BAR - 3, f"{100 * value.median:.0f} %", "quiet end"))
            y += BAR
        y += 4
    axis = _axis(marks, lambda m: m * scale, top + 6, y, note)
    limit = f'<line class="limit" {_at(x1=100 * scale, x2=100 * scale, y1=top + 6, y2=y)}/>'
    return _picture(title, y + 2 * LINE + 4, [*axis, limit, *parts])


def ratios(title: str, note: str, rows: Sequence[Row]) -> str:
    """A mark with a whisker for each value, as far to the right for 2 as to the left for 1/2; a line marks 1."""
    names = list(dict.fromkeys(name for row in rows for name, _ in row.values))
    every = [value for row in rows for _, value in row.values]
    marks = log_ticks(min(0.9, *(v.low for v in every)), max(1.1, *(v.high for v in every)))
    low, high = math.log(marks[0]), math.log(marks[-1])

    def across(ratio: float) -> float:
        return 10 + (math.log(ratio) - low) / (high - low) * (WIDTH - 70)

    parts, y = _legend(names, 2 * LINE + 4) if len(names) > 1 else ([], LINE + 4)
    top = y
    for row in rows:
        parts.append(_words(0, y + LINE, row.label))
        y += 30
        for name, value in row.values:
            kind = names.index(name)
            parts.append(_whisker(f"c{kind % N_KINDS}", across(value.low), across(value.high), y))
            parts += [
                _mark(kind, across(value.median), y, value),
                _words(WIDTH, y + 4, f"{short(value.median)} ×", "quiet end"),
            ]
            y += BAR
    axis = _axis(marks, across, top + 6, y, note)
    same = f'<line class="limit" {_at(x1=across(1), x2=across(1), y1=top + 6, y2=y)}/>'
    return _picture(title, y + 2 * LINE + 4, [*axis, same, *parts])


def alone(svg: str) -> str:
    """The same picture as a file of its own: with its style, its ground and a margin."""
    found = re.search(r'viewBox="0 0 (\d+) (\d+)"', svg)
    assert found, "it was not drawn here"
    width, height = int(found[1]) + 40, int(found[2]) + 32
    size = f'viewBox="-20 -16 {width} {height}" width="{width * 5 // 4}" height="{height * 5 // 4}"'
    ground = f'<rect class="paper" {_at(x=-20, y=-16, width=width, height=height, rx=6)}/>'
    return svg.replace(found[0], size, 1).replace(">", f">\n<style>{STYLE}</style>\n{ground}", 1)


def _picture(title: str, height: float, parts: Sequence[str]) -> str:
    head = f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {math.ceil(height)}" role="img"'
    name = escape(title)
    return "\n".join([f'{head} aria-label="{name}">', _words(0, 14, title, "title"), *parts, "</svg>"]) + "\n"


def _legend(names: Sequence[str], y: float) -> tuple[list[str], float]:
    """What each colour means, in as many lines as it takes; and where the next thing may begin."""
    parts, x = [], 0.0
    for i, name in enumerate(names):
        width = 30 + LETTER * len(name)
        if x and x + width > WIDTH + 16:
            x, y = 0.0, y + LINE
        value = Value(0, 0, 0)
        parts += [_mark(i, x + 5, y - 4, value), _words(x + 14, y, name, "quiet")]
        x += width
    return parts, y + 6


def _axis(marks: Sequence[float], across: Callable[[float], float], top: float, bottom: float, note: str) -> list[str]:
    """Upright rules with their numbers beneath; the last line says what they are."""
    parts = [_rule(across(m), top, across(m), bottom) for m in marks]
    parts += [_words(across(m), bottom + LINE - 2, _text(m), "quiet middle" if across(m) > 8 else "quiet") for m in marks]
    return [*parts, _words(WIDTH, bottom + 2 * LINE - 2, note, "quiet end")]


def _curve(i: int, points: Sequence[tuple[float, Value]], up: Callable[[float], float]) -> str:
    path = " ".join(f"{x:.1f},{up(value.median):.1f}" for x, value in points)
    parts = [f'<polyline class="curve" points="{path}"/>']
    for x, value in points:
        low, high = up(value.low), up(value.high)
        caps = "".join(f"M{x - 3:.1f} {y:.1f}h6" for y in (low, high))
        parts += [f'<path class="spread" d="M{x:.1f} {low:.1f}V{high:.1f}{caps}"/>', _mark(i, x, up(value.median), value)]
    return f'<g class="c{i % N_KINDS}">{"".join(parts)}</g>'


def _whisker(kind: str, low: float, high: float, y: float) -> str:
    caps = "".join(f"M{x:.1f} {y - 3:.1f}v6" for x in (low, high))
    return f'<path class="{kind} spread" d="M{low:.1f} {y:.1f}H{high:.1f}{caps}"/>'


def _mark(i: int, x: float, y: float, value: Value) -> str:
    """Of a colour and a shape, so that colour is not all that tells them apart."""
    return f'<path class="c{i % N_KINDS} mark{_hollow(value)}" d="M{x:.1f} {y:.1f}{SHAPES[i % N_KINDS]}"/>'


def _hollow(value: Value) -> str:
    return " hollow" if value.doubtful else ""


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="rule" {_at(x1=x1, y1=y1, x2=x2, y2=y2)}/>'


def _words(x: float, y: float, text: str, kind: str = "") -> str:
    text = text if len(text) <= N_LETTERS else text[: N_LETTERS - 1].rstrip() + "…"
    return f"<text {f'class={chr(34)}{kind}{chr(34)} ' if kind else ''}{_at(x=x, y=y)}>{escape(text)}</text>"


def _at(**numbers: float) -> str:
    return " ".join(f'{name}="{number:.1f}"' for name, number in numbers.items())


def _text(value: float) -> str:
    return f"{value:,.10g}"
