"""Markdown as the page shows it: what models write, half-written text, the growing end, and nonsense without end."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.test_api import ScriptedEngine, client_of, error_of
from web.markdown import LANGUAGES, MOST_CHARACTERS, MOST_CODE, render


def html_of(text: str) -> str:
    return "".join(block.html for block in render(text))


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# A *b*", "<h1>A <em>b</em></h1>\n"),
        ("a\nb\\\nc ~~d~~", "<p>a\nb<br>\nc <s>d</s></p>\n"),
        ("- [ ] a\n- [x] b", '<ul>\n<li class="task">☐ a</li>\n<li class="task">☑ b</li>\n</ul>\n'),
        ("3. a", '<ol start="3">\n<li>a</li>\n</ol>\n'),
        ("> a\n> - b", "<blockquote>\n<p>a</p>\n<ul>\n<li>b</li>\n</ul>\n</blockquote>\n"),
        ("a `<b>` &amp; <i>c</i>", "<p>a <code>&lt;b&gt;</code> &amp; &lt;i&gt;c&lt;/i&gt;</p>\n"),
        ("    a < b", '<pre class="code"><code>a &lt; b\n</code></pre>\n'),
    ],
)
def test_markdown_becomes_html(text, html):
    assert html_of(text) == html


def test_a_tables_cells_are_aligned_by_classes_because_the_page_allows_no_styles():
    html = html_of("|a|b|c|\n|:-|:-:|-:|\n|1|2|3|")
    assert html.startswith('<div class="table"><table>')
    assert re.findall(r'<td class="(\w+)">', html) == ["left", "center", "right"]
    assert "style" not in html


def test_code_is_coloured_by_classes_and_unknown_languages_are_plain():
    html = html_of("```py\nif 1 < 2:\n```")
    assert html.startswith('<pre class="code" data-language="python"><code><span class="k">if</span>')
    assert "&lt;" in html
    assert "style" not in html
    assert html_of("```brainfuzz\n<b>\n```") == '<pre class="code"><code>&lt;b&gt;\n</code></pre>\n'
    long = html_of("```py\n" + "1\n" * MOST_CODE + "```")
    assert "span" not in long


@pytest.mark.parametrize("language", sorted(set(LANGUAGES.values())))
def test_code_loses_no_character_by_its_colours(language):
    code = '\n  a = "b" # é < &\n\n\tx;\n'
    html = html_of(f"~~~{language}\n{code}~~~")
    assert f'data-language="{language}"' in html
    text = re.sub("<[^>]+>", "", html)
    assert text.replace("&lt;", "<").replace("&amp;", "&") == code + "\n"


def test_links_open_elsewhere_say_where_they_go_and_tell_nobody_where_they_were():
    rel = "noopener noreferrer nofollow"
    assert html_of('[a](https://b.example/c "bank")') == (
        f'<p><a href="https://b.example/c" title="https://b.example/c" target="_blank" rel="{rel}">a</a></p>\n'
    )
    assert 'href="mailto:a@b.example"' in html_of("<a@b.example>")
    assert "href" not in html_of("[a](/api/chats)") + html_of("[a](//b.example)") + html_of("[a](#b)")


@pytest.mark.parametrize(
    "address",
    [
        "javascript:a",
        "data:text/html,a",
        "data:image/png;base64,a",
        "vbscript:a",
        "file:///a",
        "blob:a",
        "http:/api/chats",
        "https:a",
    ],
)
def test_links_to_anything_but_the_web_and_mail_stay_text(address):
    assert html_of(f"[a]({address})") == f"<p>[a]({address})</p>\n"
    assert "<a" not in html_of(f"[a]: {address}\n\n[a]\n\n![a]({address})\n\n<{address}>")


def test_an_image_is_never_loaded_but_can_be_visited():
    html = html_of("![a *b*](https://c.example/d?e=f)")
    assert html.startswith('<p><a href="https://c.example/d?e=f" title="https://c.example/d?e=f"')
    assert ">image: a b</a>" in html
    assert html_of("[![a](http://b.example)](http://c.example)").count("<a") == 1


@pytest.mark.parametrize("text", [r"a $x<2$ b", r"a \(x<2\) b", r"$x<2$", "- $x<2$"])
def test_formulas_in_a_line_are_mathml(text):
    assert '<math display="inline"><mrow><mi>x</mi><mo>&lt;</mo><mn>2</mn></mrow></math>' in html_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "$$x^2$$",
        "$$\nx^2\n$$",
        "\\[\nx^2\n\\]",
        "\\[ x^2 \\].",
        "a\n\\[\nx^2\n\\]\nb",
        "- a\n  $$\n  x^2\n  $$",
        "> $$\n> x^2\n> $$",
        "a $$x^2$$ b",
    ],
)
def test_formulas_of_their_own_are_blocks(text):
    html = html_of(text)
    assert html.count('<math display="block"><mrow><msup><mi>x</mi><mn>2</mn></msup>') == 1
    assert "$" not in html
    assert "\\" not in html


def test_what_models_write_without_brackets_is_a_formula_too():
    assert '<menclose notation="box"><mrow><mn>42</mn>' in html_of(r"So it is \boxed{42}.")
    assert html_of("\\begin{align}\na &= b \\\\\n&= c\n\\end{align}").count("<mtr>") == 2
    assert html_of("\\begin{pmatrix}1\\end{pmatrix}").count("<math") == 1
    assert "(1)" not in html_of("$$\\begin{align}a\\end{align}$$")  # nobody refers to its number


@pytest.mark.parametrize(
    "text", ["It costs $5 and $10.", "$5-$10", "US$ 5, or $ 6", r"\$a\$", "a $x", "`$a$`", r"\\(a\\)", r"a \boxed{b"]
)
def test_prices_and_half_formulas_are_text(text):
    assert "<math" not in html_of(text)


@pytest.mark.parametrize("latex", [r"\sqrt", r"\begin{matrix}", "{" * 300, r"\def\a{\a\a}\a", "x" * 5000, r"\left( x"])
def test_latex_that_is_none_is_shown_as_it_was_written(latex):
    assert html_of(f"$${latex}$$") == f'<div class="math"><code class="math">{latex}</code></div>\n'


def test_text_in_a_formula_stays_text_and_lengths_stay_small():
    html = html_of(r"$\text{<img src=x>}\hspace{9999em}\href{javascript:a}{b}\style{color:red}{c}$")
    assert "<img" not in html
    assert not re.search("9999|javascript|style=|href", html)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a **b", "<p>a **b</p>\n"),
        ("a `b", "<p>a `b</p>\n"),
        ("[a](http://b", "<p>[a](http://b</p>\n"),
        ("```py\n1", '<pre class="code" data-language="python"><code><span class="mi">1</span>\n</code></pre>\n'),
        ("$$\na_1 * b\n- c_1", "<p>$$\na_1 * b\n- c_1</p>\n"),
        ("\\[\n# a", "<p>\\[\n# a</p>\n"),
        ("\\begin{align}\n1. a", "<p>\\begin{align}\n1. a</p>\n"),
        ("| a | b |\n|--", "<p>| a | b |\n|--</p>\n"),
    ],
)
def test_what_is_not_finished_yet_looks_sane(text, html):
    assert html_of(text) == html


def test_blocks_end_where_javascript_says_they_end():
    text = "é🐦 a\r\n\r\n- b\r- 🐦\n\n```\nc\n```\n$$\nd\n$$\nlast 🐦"
    ends = [block.end for block in render(text)]
    pieces = text.encode("utf-16-le")
    starts = [0, *ends]
    cut = [pieces[2 * a : 2 * b].decode("utf-16-le").strip() for a, b in itertools.pairwise(starts)]
    assert cut == ["é🐦 a", "- b\r- 🐦", "```\nc\n```", "$$\nd\n$$\nlast 🐦"]  # the last line may still change what it is
    assert ends[-1] == len(pieces) // 2
    assert render("") == render(" \n\n") == []


BITS = [
    *"a b 2 1. - * # > ` ``` ~~~ $ $$ \\( \\) \\[ \\] | |- : = _ ** *** 🐦 é ( ) { } \\ +".split(),
    *(
        "\n",
        "\n\n",
        " ",
        "    ",
        "\t",
        "\r\n",
        "\n- ",
        "\n\n2",
        "\n\n  ",
        "\n> ",
        "\n***",
        "\n#",
        "\n1. ",
        "- a\n",
        "1. a\n\n",
    ),
    *("\n|a|\n|-|\n", "\n```py\n", "\n$$\n", "\n\\[\n"),
]


@example(["\n|a|\n|-|\n", "$$", "\n> ", "$$", "a"])
@settings(max_examples=60)
@given(st.lists(st.sampled_from(BITS), max_size=25))
def test_the_growing_end_shows_what_the_whole_text_would_show(bits):
    text = "".join(bits)
    kept, start = "", 0  # what the page keeps of the blocks that are finished, and where it goes on
    for n in range(1, len(text) + 1):
        grown = text[:n]
        blocks = render(grown.encode("utf-16-le")[2 * start :].decode("utf-16-le"))
        assert kept + "".join(block.html for block in blocks) == html_of(grown), repr(grown)
        if len(blocks) > 1:
            kept += "".join(block.html for block in blocks[:-1])
            start += blocks[-2].end


NONSENSE = [
    *"[ ![ [a]( [a][ * _ ` $ $$ \\( \\[ \\ < &# ~ > **a *a** $a \\boxed{ | #".split(),
    *("- ", "  - ", "\n", "a|b\n-|-\n", "> > ", "1. "),
]
TELL = """
import sys, time
from web.markdown import render
for unit in eval(sys.argv[1]):
    assert render(unit * (5_000 // len(unit))) or unit == "\\n"
print(time.process_time())
"""


def test_nonsense_takes_time_in_proportion():
    """Generous: quadratic time would need minutes; but a server must never be brought to that."""
    command = [sys.executable, "-c", TELL, repr(NONSENSE)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=200)
    assert float(told.stdout) < 30


def test_deep_nesting_ends_somewhere():
    assert html_of(">" * 5000 + " a").count("<blockquote>") < 100
    assert html_of("".join("  " * n + "- a\n" for n in range(500))).count("<ul>") < 100
    assert html_of("*a **b " * 2000 + "** c*" * 2000).count("<em>") <= 4000


def test_code_that_would_take_too_long_to_colour_is_plain():
    slow = "a\n" * (MOST_CODE // 2)
    assert "span" not in html_of(f"```cs\n{slow}```")


def test_the_endpoint_gives_the_blocks_and_refuses_what_is_too_much():
    http = client_of(ScriptedEngine())
    assert http.post("/api/markdown", json={"text": "a\n\nb"}).json == {
        "blocks": [{"html": "<p>a</p>\n", "end": 2}, {"html": "<p>b</p>\n", "end": 4}]
    }
    assert http.post("/api/markdown", json={"text": ""}).json == {"blocks": []}
    too_long = http.post("/api/markdown", json={"text": "[" * (MOST_CHARACTERS + 1)})
    assert (too_long.status_code, error_of(too_long)["param"]) == (413, "text")
    for body in ({}, {"text": None}, {"text": 1}, {"text": "a", "more": 1}, "a"):
        assert http.post("/api/markdown", json=body).status_code == 400
