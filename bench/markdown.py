"""A result of make bench as Markdown: every figure as a table for the docs, and six lines for the README."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from bench.figure import LOOP, MEMORY
from bench.table import short

BESIDE = "llama-server"  # whose ratios the six lines tell
LIMITS = {MEMORY: "the memory", LOOP: "a bare loop"}

Figure = Mapping[str, Any]
Result = Mapping[str, Any]


def summary(result: Result, peers: Result | None = None) -> str:
    """What matters most to somebody who has a minute: six lines, and where to read on."""
    model = result["model"]
    what = f"{model['name']} ({model['description']}, {size(model['size_bytes'])})"
    figures = {figure["key"]: figure for figure in result["figures"]}

    def told(key: str) -> str:
        return _told(figures.get(key))

    writing = figures.get("decode.256.tokens_per_s")
    lines = [
        f"**Measured on** {result['machine']['words']}, with {what}: *{result['rating']['word']}*.",
        f"**One answer:** {_told(writing)} after a prompt of 256 tokens{_of_limits(writing)}.",
        f"**First text:** {told('reading.256.first_s')} after a new prompt of 256 tokens,"
        f" {told('turn.second_first_s')} in the second turn of a chat,"
        f" {told('restart.known_first_s')} in a chat known from before a restart.",
        f"**Four clients at once:** {told('clients.4.total_per_s')} together, reading their prompts included;"
        f" {told('clients.4.each_per_s')} for each, once it writes.",
        f"**Not computed again:** a question asked before is answered in {told('answers.hit_ms')},"
        f" a new one in {told('answers.cold_s')}; a text is copied {told('draft.copy.ratio')} as fast with guesses.",
        _beside(peers)
        or f"**Memory:** {told('memory.worker_mb')} for model and context, {told('memory.front_mb')} for the rest.",
    ]
    return (
        "".join(f"- {_cell(line)}\n" for line in lines)
        + "\nHow fast, and why: [docs/performance.md](docs/performance.md).\n"
    )


def _told(figure: Figure | None) -> str:
    if not figure or figure["median"] is None:
        return "(not measured)"
    return f"{short(figure['median'])} {figure['unit']}{' (disturbed)' if figure['disturbed'] else ''}"


def _of_limits(figure: Figure | None) -> str:
    limits = figure["limits"] if figure else []
    shares = (
        f"{100 * limit['share']:.0f}\u00a0% of what {LIMITS.get(limit['name'], limit['name'])} gives" for limit in limits
    )
    return "".join(f", {share}" for share in shares)


def _beside(peers: Result | None) -> str:
    """The ratios with one of them; empty where it took no part."""
    rows = [row for row in (peers or {}).get("peers", ()) if row["name"] == BESIDE]
    ratios = (f"{row['title']} {short(row['ratio']['median'])} × ({spread(row['ratio'])})" for row in rows)
    text = "; ".join(ratio.replace(" ()", "") for ratio in ratios)
    return f"**Beside {BESIDE}** (above 1 Linnet is better; in brackets the spread): {text}." if text else ""


def table(result: Result, source: str, peers: Result | None = None) -> str:
    """The figures as Markdown, headed by what they were measured on; `source` is the result's file."""
    model, rating = result["model"], result["rating"]
    lines = [
        f"[{source}](../bench/results/{source}): {_cell(result['machine']['words'])}; {_cell(model['description'])},"
        f" {size(model['size_bytes'])}; {in_words(result['settings'])}. Rated *{rating['word']}*. {rating['reason']}",
        "",
        "| figure | median | spread | share of the limit |",
        "|---|---:|---:|---|",
    ]
    for group, figures in itertools.groupby(result["figures"], lambda f: f["group"]):
        lines.append(_cells(f"**{group}**", "", "", ""))
        lines += [_line(figure) for figure in figures]
    return "\n".join([*lines, *(_beside_others(peers) if peers and peers["peers"] else [])]) + "\n"


def _beside_others(peers: Result) -> list[str]:
    lines = ["", "![Linnet against others](pictures/peers.svg)", ""]
    lines += ["| beside | scenario | Linnet | the other | ratio | spread |", "|---|---|---:|---:|---:|---:|"]
    for p in peers["peers"]:
        sides = (f"{short(p[side]['median'])} {p['unit']}" for side in ("ours", "theirs"))
        lines.append(_cells(p["name"], p["title"], *sides, f"{short(p['ratio']['median'])} ×", spread(p["ratio"])))
    return lines


def _line(figure: Figure) -> str:
    if figure["median"] is None:
        return _cells(figure["title"], figure["note"] or "not available", "", "")
    mark = " (disturbed)" if figure["disturbed"] else ""
    return _cells(figure["title"], f"{short(figure['median'])} {figure['unit']}{mark}", spread(figure), share(figure))


def _cells(*texts: str) -> str:
    return f"| {' | '.join(map(_cell, texts))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def spread(figure: Mapping[str, Any]) -> str:
    """From the least to the most that was measured; empty where that is one number."""
    low, high = short(figure["low"]), short(figure["high"])
    return "" if low == high else f"{low} – {high}"


def share(figure: Figure) -> str:
    """The limits beside a figure, each with the share of it that was reached."""
    return ", ".join(
        f"{limit['name']} {100 * limit['share']:.0f}\u00a0% ({short(limit['value'])})" for limit in figure["limits"]
    )


def in_words(settings: Mapping[str, Any]) -> str:
    """Such as "2 threads, 4 slots, ctx 2048"."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def size(n_bytes: float) -> str:
    """Such as "668 MB"."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.0f} MB"
