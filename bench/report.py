"""A result of make bench as one HTML file that opens without a network, as pictures, and as Markdown in the docs.

python -m bench.report RESULT.json                                  writes RESULT.html again
python -m bench.report RESULT.json --pictures docs/pictures         and its pictures as SVG files
python -m bench.report RESULT.json --docs docs/performance.md       and its figures into a text, between two comments
python -m bench.report RESULT.json --readme README.md               and what matters most of them, in six lines
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2

from bench import chart, markdown
from bench.chart import Row, Series, Value
from bench.figure import BenchError
from bench.markdown import in_words, share, size, spread
from bench.result import FORMAT, put
from bench.table import short

N_CLIENTS, N_PROMPT, N_SEQUENCES = (1, 2, 4, 8), (64, 256, 1024), (1, 4)
PLACE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)

Figure = Mapping[str, Any]
Result = Mapping[str, Any]


class ReportError(BenchError):
    """The file is no result, or the text has no place for it; the message is a sentence for the user."""


def write(result: Result, path: Path, peers: Result | None = None) -> None:
    """The HTML; with those of a comparison with other servers, if there was one."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=folder, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"short": short, "spread": spread, "settings": in_words, "share": share, "bytes": size}
    drawn = svgs(result, peers)
    missing = [PICTURES[name][1] for name in PICTURES if name not in drawn]
    groups = [(name, list(figures)) for name, figures in itertools.groupby(result["figures"], lambda f: f["group"])]
    page = environment.get_template("report.html").render(
        result=result, peers=peers, svgs=drawn, missing=missing, groups=groups, style=chart.STYLE
    )
    put(path, page)


def svgs(result: Result, peers: Result | None = None) -> dict[str, str]:
    """The pictures by name, without those whose figures were not measured."""
    figures = {f["key"]: f for f in result["figures"] if f["median"] is not None}
    drawn = {name: draw(figures) for name, (draw, _) in PICTURES.items()}
    drawn["peers"] = _peers(peers) if peers else None
    return {name: svg for name, svg in drawn.items() if svg}


def _clients(figures: Mapping[str, Figure]) -> str | None:
    series = [
        _series("all together", [(n, f"clients.{n}.total_per_s") for n in N_CLIENTS], figures),
        _series("each", [(n, f"clients.{n}.each_per_s") for n in N_CLIENTS], figures),
    ]
    if not all(line.points for line in series):
        return None
    return chart.lines("Tokens a second against clients", "clients at once", "tokens/s", series, even=True)


def _first_token(figures: Mapping[str, Figure]) -> str | None:
    line = _series("first token", [(n, f"reading.{n}.first_s") for n in N_PROMPT], figures)
    if not line.points:
        return None
    return chart.lines("Time to the first token against prompt length", "tokens of the prompt, all new", "seconds", [line])


def _token_time(figures: Mapping[str, Figure]) -> str | None:
    parts = {"native_ms": "native decode", "sampling_ms": "sampling", "outside_ms": "the rest"}
    rows = []
    for n, words in zip(N_SEQUENCES, ("a step of one answer", "a step of four answers"), strict=True):
        if all(f"step.{n}.{part}" in figures for part in parts):
            rows.append((words, [(name, figures[f"step.{n}.{part}"]["median"]) for part, name in parts.items()]))
    return chart.stack("Where a token's time goes", "ms", rows) if rows else None


def _limit(figures: Mapping[str, Figure]) -> str | None:
    limited = [f for key, f in figures.items() if key.startswith("decode.") and f["limits"]]
    rows = [Row(f["title"], [(limit["name"], _part(f, limit["value"])) for limit in f["limits"]]) for f in limited]
    return chart.shares("Share of the limit", "percent of what the machine could give", rows) if rows else None


def _peers(peers: Result) -> str | None:
    titles = dict.fromkeys(p["title"] for p in peers["peers"])
    rows = [Row(title, [_ratio(p) for p in peers["peers"] if p["title"] == title]) for title in titles]
    return chart.ratios("Linnet against others", "times as good as the other; right of 1: Linnet is", rows) if rows else None


PICTURES: dict[str, tuple[Callable[[Mapping[str, Figure]], str | None], str]] = {
    "clients": (_clients, "tokens a second against clients"),
    "first-token": (_first_token, "time to the first token against prompt length"),
    "token-time": (_token_time, "where a token's time goes"),
    "limit": (_limit, "share of the limit"),
}


def _series(name: str, keys: list[tuple[int, str]], figures: Mapping[str, Figure]) -> Series:
    return Series(name, [(n, _value(figures[key])) for n, key in keys if key in figures])


def _value(figure: Figure) -> Value:
    return Value(figure["median"], figure["low"], figure["high"], figure["disturbed"] > 0)


def _part(figure: Figure, whole: float) -> Value:
    value = _value(figure)
    return Value(value.median / whole, value.low / whole, value.high / whole, value.doubtful)


def _ratio(peer: Mapping[str, Any]) -> tuple[str, Value]:
    ratio = peer["ratio"]
    return peer["name"], Value(ratio["median"], ratio["low"], ratio["high"], peer["disturbed"] > 0)


def fill(text: str, figures: str) -> str:
    """The text with these figures between its two comments. Raises ReportError where it has none."""
    if not PLACE.search(text):
        raise ReportError("The text has no line <!-- figures --> with <!-- /figures --> after it.")
    return PLACE.sub(lambda _: figures, text)


def read(path: Path, *, needs: tuple[str, ...] = ("machine", "model", "settings", "figures", "rating")) -> dict[str, Any]:
    """A result from its file. Raises ReportError."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read: {error}.") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT or any(key not in result for key in needs):
        raise ReportError(f"{path} is no result of this version of make bench.")
    return result


def comparison(path: Path) -> dict[str, Any]:
    """A comparison with other servers from its file. Raises ReportError."""
    return read(path, needs=("machine", "model", "settings", "peers", "bare", "absent"))


def beside(path: Path, result: Result) -> dict[str, Any] | None:
    """The comparison with other servers that lies beside a result, if there is one of the same model. Raises ReportError."""
    path = path.with_name(f"{path.stem}-peers.json")
    peers = comparison(path) if path.exists() else None
    return peers if peers and peers["model"]["name"] == result["model"]["name"] else None


def _written(options: argparse.Namespace) -> Iterator[Path]:
    result = read(options.result)
    peers = beside(options.result, result)
    page = options.result.with_suffix(".html")
    write(result, page, peers)
    yield page
    if options.pictures:
        for name, svg in svgs(result, peers).items():
            put(options.pictures / f"{name}.svg", chart.alone(svg))
            yield options.pictures / f"{name}.svg"
    texts = {
        options.docs: markdown.table(result, options.result.name, peers),
        options.readme: markdown.summary(result, peers),
    }
    for path, figures in texts.items():
        if path:
            put(path, fill(path.read_text(), figures))
            yield path


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser("python -m bench.report", description="Writes a result of make bench as HTML.")
    parser.add_argument("result", type=Path, metavar="RESULT.json")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write its pictures there as SVG files, too")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write its figures into this text, too")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="write six lines of them into this one, too")
    try:
        for path in _written(parser.parse_args(arguments)):
            print(path)
    except ReportError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
