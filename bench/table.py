"""The figures as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bench.figure import LOOP, Figure, Limit

TITLE, NUMBER = 58, 24  # characters


def table(figures: Iterable[Figure]) -> Iterator[str]:
    """Line by line, the groups with a headline each."""
    figures = list(figures)
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            yield f"\n{group}"
        yield line(figure)
    if any(figure.disturbed for figure in figures):
        yield "\n! other programs took more than a tenth of a core while so many of the values were taken"


def line(figure: Figure) -> str:
    """One figure: its median, the least and the most, the unit, its share of the limits."""
    if figure.median is None or figure.low is None or figure.high is None:
        return f"  {figure.title:{TITLE}} {figure.note}"
    numbers = short(figure.median)
    if len(figure.values) > 1:
        numbers += f" ({short(figure.low)} - {short(figure.high)})"
    shares = "".join(f"  {limit.share:.0%} of {_name(limit)}" for limit in figure.limits)
    mark = f"  ! {figure.disturbed} of {len(figure.values)}" if figure.disturbed else ""
    note = f"  ({figure.note})" if figure.note else ""
    return f"  {figure.title:{TITLE}} {numbers:>{NUMBER}} {figure.unit}{shares}{mark}{note}"


def _name(limit: Limit) -> str:
    return f"the {limit.name}{'' if limit.name == LOOP else ' limit'}"


def short(value: float) -> str:
    """Three digits, and all before the point: "0.0123", "4.56", "1,234"."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"
