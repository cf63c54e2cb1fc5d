"""What make bench makes of its figures: a rating, pictures, one HTML file, a table in the docs."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from xml.etree import ElementTree

import pytest

from bench import chart, markdown, report
from bench.chart import Series, Value
from bench.figure import LOOP, MEMORY, Figure, Limit
from bench.kinds import kinds
from bench.peers.contest import Row
from bench.peers.pairs import Pairs
from bench.peers.scenarios import SCENARIOS, Sample
from bench.plan import FULL
from bench.rating import BARS, COMFORTABLE, HIGH_SHARE_OF_MEMORY, LOW_SHARE_OF_LOOP, SLOW, UNKNOWN, USABLE, rate
from settings import Settings
from tests.browser import browser
from tests.conftest import ROOT

__all__ = ["browser"]
DOCS = ROOT / "docs/performance.md"
EXAMPLE = ROOT / "bench/results/example.json"
MODEL = {"name": "tinyllama", "description": "llama 1.1B Q4_K", "size_bytes": 668_000_000, "parameters": 1_100_000_000}
MACHINE = {
    "name": "2-cores-x",
    "words": "2 cores of an X <9000>, 24 GB, Linux 6.1",
    "cpu": "X",
    "cores": 2,
    "memory_bytes": 2**34,
}
MEDIANS = {
    "reading.64.first_s": 0.6,
    "reading.256.first_s": 1.9,
    "reading.1024.first_s": 8.1,
    "decode.256.tokens_per_s": 14.2,
}
MEDIANS |= {
    "clients.1.total_per_s": 12.9,
    "clients.2.total_per_s": 19.8,
    "clients.4.total_per_s": 25.1,
    "clients.8.total_per_s": 24.6,
}
MEDIANS |= {
    "clients.1.each_per_s": 14.1,
    "clients.2.each_per_s": 11.2,
    "clients.4.each_per_s": 7.6,
    "clients.8.each_per_s": 6.9,
}
MEDIANS |= {"step.1.native_ms": 69.8, "step.1.sampling_ms": 0.41, "step.1.outside_ms": 0.32, "memory.worker_mb": 1204.0}
MEDIANS |= {"step.4.native_ms": 128.0, "step.4.sampling_ms": 1.3, "step.4.outside_ms": 0.5, "decode.64.tokens_per_s": 14.8}
MEDIANS |= {"decode.1024.tokens_per_s": 12.6, "reading.256.tokens_per_s": 141.0, "answers.ratio": 6123.0}


def figure(key: str, kind) -> Figure:
    if key == "energy.joule_per_token":
        return Figure(key, kind.group, kind.title, kind.unit, [], note="not available: the machine does not say")
    middle = MEDIANS.get(key, 2.5)
    limits = [Limit("memory", 16.1, middle / 16.1), Limit("bare loop", 14.9, middle / 14.9)] if "decode" in key else []
    disturbed = int(key in ("clients.4.total_per_s", "decode.1024.tokens_per_s"))
    return Figure(
        key, kind.group, kind.title, kind.unit, [middle * 0.96, middle, middle * 1.03], disturbed, limits, kind.note
    )


def example(without=""):
    """A result as make bench writes it, without the figures whose keys begin so."""
    figures = [figure(key, kind) for key, kind in kinds(FULL).items() if not without or not key.startswith(without)]
    settings = {"threads": 2, "slots": 4, "ctx": 2048}
    rating = rate({f.key: f for f in figures}, MODEL)
    versions = {"linnet": "0.1.0", "llama_cpp_python": "0.3.36", "python": "3.11.2"}
    head = {
        "format": 1,
        "date": "2026-11-25T14:00:00Z",
        "quick": False,
        "seconds": 312.4,
        "machine": MACHINE,
        "versions": versions,
    }
    return head | {
        "model": MODEL,
        "settings": settings,
        "figures": [f.plain() for f in figures],
        "rating": asdict(rating),
    }


def example_peers():
    rows = []
    for name, scenario, ratio in (
        ("llama-server", "one", 1.01),
        ("llama-server", "eight", 1.4),
        ("transformers", "one", 11.2),
    ):
        ours = [Sample(14.2 * share, 95, 64) for share in (0.96, 1.0, 1.05)]
        pairs = Pairs("tokens/s", ours, [Sample(14.2 / ratio, 95, 64)] * 3, disturbed=int(ratio > 10))
        rows.append(Row(name, scenario, SCENARIOS[scenario].title, pairs, "as its makers set it up").plain())
    bare = [
        {"name": "llama-bench", "title": "writing 64 tokens", "unit": "tokens/s", "median": 15.0, "low": 14.9, "high": 15.1}
    ]
    result = example()
    head = {key: result[key] for key in ("format", "date", "machine", "versions", "model", "settings")}
    return head | {"peers": rows, "bare": bare, "absent": {"ollama": "ollama is not installed."}}


def rated(speed=14.2, first=1.9, second=0.5, *, n=3, memory=0.88, loop=0.97, disturbed=0, odd=(), size_bytes=668_000_000):
    limits = [Limit(MEMORY, speed / memory, memory), Limit(LOOP, speed / loop, loop)]
    figures = {
        "decode.256.tokens_per_s": Figure("", "", "", "", [speed] * n, disturbed or "speed" in odd, limits),
        "limit.after.256.step_ms": Figure("", "", "", "ms", [1000 * loop / speed] * n, "loop" in odd),
        "reading.256.first_s": Figure("", "", "", "", [first], disturbed),
        "turn.second_first_s": Figure("", "", "", "", [second]),
        "energy.joule_per_token": Figure("", "", "", "", []),
    }
    return rate(figures, MODEL | {"size_bytes": size_bytes})


@pytest.mark.parametrize(
    ("speed", "first", "second", "word"),
    [
        (10, 3, 3, COMFORTABLE),
        (9.9, 3, 3, USABLE),
        (10, 3.1, 3, USABLE),
        (10, 3, 3.1, USABLE),
        (5, 10, 10, USABLE),
        (4.9, 10, 10, SLOW),
        (5, 10.1, 10, SLOW),
        (5, 10, 10.1, SLOW),
    ],
)
def test_the_worst_of_speed_first_text_and_second_turn_decides(speed, first, second, word):
    assert rated(speed, first, second).word == word


def test_the_reason_has_the_numbers():
    speed, first, second = (
        "14.2 tokens/s (people read 5 to 9)",
        "its first text after 1.9 s",
        "that of a second turn after 0.5 s",
    )
    assert rated(14.24, 1.9, 0.5).reason == f"An answer comes at {speed}, {first}, {second}."


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        ({"speed": 6}, "Take a smaller quantization or model, up to 401 MB: the memory's speed is the limit"),
        ({"speed": 6, "memory": 0.6}, "Take a smaller quantization"),
        ({"speed": 6, "memory": 0.59}, "Take a smaller model, up to 401 MB: the cores' arithmetic is the limit"),
        ({"speed": 5, "size_bytes": 8e9}, "Take a smaller quantization or model, up to 4.0 GB"),
        ({"speed": 12, "first": 12}, "Take a model of fewer parameters, or ask shorter questions"),
        ({"disturbed": 1}, "Free the cores: other programs disturbed 2 of 4 figures"),
        ({"loop": 0.84}, "Report this result: Linnet gives only 84 %"),
        ({"loop": 0.85}, "Keep this model"),
        ({"loop": 0.84, "n": 1}, "Keep this model"),
        ({"loop": 0.84, "odd": ["speed"]}, "Keep this model"),
        ({"loop": 0.84, "odd": ["loop"]}, "Keep this model"),
        ({"speed": 15, "first": 2}, "Try a bigger model: one of 1.0 GB"),
        ({"speed": 14.9, "first": 2}, "Keep this model: it suits this machine."),
        ({"speed": 30, "first": 2.1}, "Keep this model: it suits this machine."),
    ],
)
def test_the_next_step_is_the_one_for_what_limits(facts, step):
    assert rated(**facts).next.startswith(step)


def test_a_rating_says_when_nothing_was_measured():
    assert rate({}, MODEL).word == UNKNOWN
    known = {"decode.64.tokens_per_s": Figure("", "", "", "", [12.0])}
    assert rate(known, MODEL).reason == "An answer comes at 12.0 tokens/s (people read 5 to 9)."


@pytest.mark.parametrize(
    ("high", "marks"),
    [
        (25.9, [0, 10, 20, 30]),
        (8.3, [0, 2.5, 5, 7.5, 10]),
        (100, [0, 25, 50, 75, 100]),
        (0.07, [0, 0.02, 0.04, 0.06, 0.08]),
        (0, [0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_an_axis_has_round_numbers_and_holds_the_highest_value(high, marks):
    assert chart.ticks(high) == marks


def test_an_axis_of_ratios_has_1_in_it_and_few_marks():
    assert chart.log_ticks(0.9, 1.1) == [0.5, 1, 2]
    assert chart.log_ticks(0.9, 11.3) == [0.5, 1, 2, 5, 10, 20]
    assert chart.log_ticks(0.02, 900) == [0.02, 0.1, 1, 10, 100, 1000]


def test_text_in_a_picture_is_text():
    line = Series("<b>&", [(1, Value(1, 0.9, 1.1))])
    root = ElementTree.fromstring(chart.alone(chart.lines('a "title" <x>', "x & y", "<y>", [line, line])))
    assert root.get("aria-label") == 'a "title" <x>'
    words = {e.text for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {'a "title" <x>', "x & y", "<y>", "<b>&"} <= words


def test_each_picture_stands_alone_as_a_file():
    drawn = report.svgs(example(), example_peers())
    assert list(drawn) == ["clients", "first-token", "token-time", "limit", "peers"]
    for svg in drawn.values():
        assert "<style>" not in svg
        root = ElementTree.fromstring(chart.alone(svg))
        assert "prefers-color-scheme: dark" in (root.findtext("{http://www.w3.org/2000/svg}style") or "")


def test_a_disturbed_value_is_drawn_hollow():
    result = example()
    assert report.svgs(result)["clients"].count("hollow") == 1
    for figure in result["figures"]:
        figure["disturbed"] = 0
    assert "hollow" not in report.svgs(result)["clients"]


def written(tmp_path, *results):
    report.write(results[0], tmp_path / "r.html", *results[1:])
    return (tmp_path / "r.html").read_text()


def test_the_report_is_one_file_that_asks_for_nothing(tmp_path):
    page = written(tmp_path, example(), example_peers())
    assert not re.search(r"<script|<link|<img|\bsrc=|\bhref=|url\(|@import", page)
    assert set(re.findall(r"https?://[^\s\"]+", page)) == {"http://www.w3.org/2000/svg"}
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_the_report_has_every_figure_and_escapes_what_it_is_told(tmp_path):
    page = written(tmp_path, example(), example_peers())
    assert "2 cores of an X &lt;9000&gt;" in page
    assert "<9000>" not in page
    for kind in kinds(FULL).values():
        assert kind.title.replace("'", "&#39;") in page
    assert "not available: the machine does not say" in page
    assert "disturbed (1 of 3)" in page
    assert "memory 88\u00a0% (16.1), bare loop 95\u00a0% (14.9)" in page
    assert "llama-bench, writing 64 tokens: 15.0 tokens/s (14.9 – 15.1)" in page
    assert "ollama is not installed." in page


@pytest.mark.parametrize(
    ("without", "name"),
    [("clients", "clients"), ("reading", "first-token"), ("step.", "token-time"), ("decode", "limit"), ("step.4", "")],
)
def test_a_picture_without_figures_is_left_out_with_a_sentence(without, name, tmp_path):
    result = example(without)
    page = written(tmp_path, result)
    assert set(report.PICTURES) - set(report.svgs(result)) == ({name} if name else set())
    assert ("Not drawn" in page) == bool(name)


def test_a_figure_that_is_not_available_leaves_the_others_in_their_picture(tmp_path):
    result = example()
    for figure in result["figures"]:
        if "1024" in figure["key"] or figure["key"].startswith("clients.8"):
            figure |= {
                "median": None,
                "low": None,
                "high": None,
                "values": [],
                "disturbed": 0,
                "limits": [],
                "note": "too long",
            }
    assert set(report.svgs(result)) == set(report.PICTURES)
    assert "too long" in written(tmp_path, result)


@pytest.mark.browser
def test_in_a_browser_nothing_leaves_its_picture_or_the_page(browser, tmp_path):
    written(tmp_path, example(), example_peers())
    for width, scheme in ((320, "dark"), (1280, "light")):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        faults: list[str] = []
        page.on("request", lambda r, faults=faults: faults.append(r.url) if not r.url.startswith("file:") else None)
        page.goto((tmp_path / "r.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        outside = """() => [...document.querySelectorAll("svg text")].filter((text) => {
          const [inner, outer] = [text, text.ownerSVGElement].map((e) => e.getBoundingClientRect());
          return inner.left < outer.left - 1 || inner.right > outer.right + 12 || inner.bottom > outer.bottom + 1;
        }).map((text) => text.textContent)"""
        assert page.evaluate(outside) == []
        assert faults == []
        page.close()


def test_a_report_can_be_made_again_from_its_file(tmp_path, capsys):
    (tmp_path / "r.json").write_text(json.dumps(example()))
    (tmp_path / "r-peers.json").write_text(json.dumps(example_peers()))
    for name in ("docs.md", "readme.md"):
        (tmp_path / name).write_text("before\n<!-- figures -->\nold\n<!-- /figures -->\nafter\n")
    options = ["--pictures", str(tmp_path / "pictures"), "--docs", str(tmp_path / "docs.md")]
    options += ["--readme", str(tmp_path / "readme.md")]
    assert report.main([str(tmp_path / "r.json"), *options]) == 0
    names = ["clients", "first-token", "limit", "peers", "token-time"]
    assert sorted(path.stem for path in (tmp_path / "pictures").iterdir()) == names
    assert "llama-server" in (tmp_path / "r.html").read_text()
    text = (tmp_path / "docs.md").read_text()
    assert "old" not in text
    assert text.startswith("before\n<!-- figures -->\n[r.json](../bench/results/r.json): 2 cores of an X &lt;9000>")
    assert text.endswith("<!-- /figures -->\nafter\n")
    assert "| 4 together | 25.1 tokens/s (disturbed) | 24.1 – 25.9 |  |" in text
    summary = markdown.summary(example(), example_peers())
    assert (tmp_path / "readme.md").read_text() == f"before\n<!-- figures -->\n{summary}<!-- /figures -->\nafter\n"
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_what_is_no_result_and_a_text_without_a_place_are_refused_with_a_sentence(tmp_path, capsys):
    path = tmp_path / "r.json"
    for content in ("{", "[]", '{"format": 2}'):
        path.write_text(content)
        assert report.main([str(path)]) == 2
    path.write_text(json.dumps(example()))
    (tmp_path / "docs.md").write_text("nothing")
    assert report.main([str(path), "--docs", str(tmp_path / "docs.md")]) == 2
    assert report.main([str(tmp_path / "none.json")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all(line.endswith(".") for line in lines)


def test_a_damaged_comparison_is_said_and_one_of_another_model_is_not_taken(tmp_path, capsys):
    path, peers = tmp_path / "r.json", tmp_path / "r-peers.json"
    path.write_text(json.dumps(example()))
    for content in ("{", json.dumps(example_peers() | {"format": 0}), json.dumps(example())):
        peers.write_text(content)
        assert report.main([str(path)]) == 2
        assert str(peers) in capsys.readouterr().err
    assert report.beside(tmp_path / "none.json", example()) is None
    peers.write_text(json.dumps(example_peers()))
    assert report.beside(path, example()) == example_peers()
    peers.write_text(json.dumps(example_peers() | {"model": MODEL | {"name": "another"}}))
    assert report.beside(path, example()) is None


def test_the_summary_is_six_lines_with_the_ratios_to_llama_server_where_there_are_some():
    alone, beside = (markdown.summary(example(), peers).splitlines() for peers in (None, example_peers()))
    for lines in (alone, beside):
        assert [line.startswith("- **") for line in lines] == [True] * 6 + [False] * 2
        assert lines[-1] == "How fast, and why: [docs/performance.md](docs/performance.md)."
    assert alone[1] == (
        "- **One answer:** 14.2 tokens/s after a prompt of 256 tokens,"
        " 88\u00a0% of what the memory gives, 95\u00a0% of what a bare loop gives."
    )
    assert "25.1 tokens/s (disturbed) together" in alone[3]
    assert alone[5].startswith("- **Memory:** 1,204 MB")
    assert "one client 1.01 × (0.97 – 1.06); eight clients at once 1.40 × (1.34 – 1.47)." in beside[5]
    assert "11.2" not in beside[5], "the baseline is another story"


def test_a_summary_says_what_was_not_measured():
    lines = markdown.summary(example(without="decode")).splitlines()
    assert lines[1] == "- **One answer:** (not measured) after a prompt of 256 tokens."


def test_the_readme_the_docs_and_the_pictures_show_the_committed_example():
    readme, docs = (ROOT / name for name in ("README.md", "docs/performance.md"))
    for path in (readme, docs):
        assert len(report.PLACE.findall(path.read_text())) == 1, path
    if not EXAMPLE.exists():
        pytest.skip("no example is committed yet")
    result = report.read(EXAMPLE)
    peers = report.beside(EXAMPLE, result)
    again = "python -m bench.report bench/results/example.json --readme README.md --docs docs/performance.md"
    again += " --pictures docs/pictures"
    assert shown(readme) == markdown.summary(result, peers), again
    assert shown(docs) == markdown.table(result, EXAMPLE.name, peers), again
    drawn = report.svgs(result, peers)
    assert {path.stem for path in (ROOT / "docs/pictures").glob("*.svg")} == set(drawn), again
    for name, svg in drawn.items():
        assert (ROOT / f"docs/pictures/{name}.svg").read_text() == chart.alone(svg), again
        assert f"pictures/{name}.svg" in docs.read_text()


def shown(path):
    place = report.PLACE.search(path.read_text())
    return place and place[0]


def test_the_docs_explain_every_group_of_figures_with_settings_that_exist_and_the_bars_of_the_rating():
    text = " ".join(DOCS.read_text().split())
    for group in {kind.group for kind in kinds(FULL).values()}:
        assert f"**{group}.**" in text or f"## {group} " in text, group
    settings = {f"--{name.replace('_', '-')}" for name in Settings.__dataclass_fields__}
    of_programs = {"--quick", "--docs", "--pictures", "--readme", "--only", "--scenarios", "--turns"}
    assert set(re.findall(r"--[a-z][a-z-]+", text.split("## The figures")[0])) <= settings | of_programs
    good, enough = BARS[COMFORTABLE], BARS[USABLE]
    assert f"at least {good.tokens_per_s} tokens/s, and the first text within {good.first_s} s" in text
    assert f"*Usable*: {enough.tokens_per_s} tokens/s and {enough.first_s} s" in text
    assert f"less than {100 * LOW_SHARE_OF_LOOP:.0f} % of the bare loop" in text
    assert f"above {100 * HIGH_SHARE_OF_MEMORY:.0f} % of the memory's speed" in text
