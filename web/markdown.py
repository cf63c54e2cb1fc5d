"""Markdown as HTML that may be put into the page: what a model says is never trusted.

The parser writes no HTML of the text's own, shows images as links, and links say where they go; nh3 then lets through
only the elements and attributes listed here. Blocks come one by one, because the page asks again only for the growing end.
"""

from __future__ import annotations

import functools
import itertools
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import nh3
import pygments
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES

from web import formula

MOST_CHARACTERS = 200_000  # of a text that is rendered
MOST_CODE = 20_000  # characters of one block of code that are highlighted
MOST_LEXING_S = 0.3  # of the processor's time for the same
DEEPEST = 40  # quotes and lists in each other
LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")  # as the parser has it
SCHEMES = {"http", "https", "mailto"}
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
ADDRESS = re.compile(r"https?://|mailto:", re.IGNORECASE)  # without slashes a browser goes on from the page's own address
TASK = {"[ ] ": "☐ ", "[x] ": "☑ ", "[X] ": "☑ "}
ITEM_NUMBER = re.compile(r" {0,3}\d{1,9}\s*")
# The first word of a line is pygments' name of a language, the rest what people call it. None of these lexers lingers
# over one token, which cannot be interrupted.
LANGUAGES = {
    name: line.split()[0]
    for line in """
        bash sh shell zsh console shell-session
        c h
        cpp c++ cc cxx hpp
        csharp c# cs
        css
        dart
        diff patch
        docker dockerfile
        elixir ex
        go golang
        graphql
        haskell hs
        html htm
        java
        javascript js jsx mjs node
        json jsonc json5
        julia jl
        kotlin kt
        latex tex
        lua
        make makefile
        matlab octave
        nginx
        objective-c objc
        perl pl
        php
        powershell ps1 pwsh
        protobuf proto
        python py python3
        pycon
        r
        ruby rb
        rust rs
        scala
        sql mysql postgresql sqlite
        swift
        toml
        typescript ts tsx
        xml svg
        yaml yml
    """.strip().splitlines()
    for name in line.split()
}
MATH = (
    "math menclose mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow mspace msqrt mstyle msub "
    "msubsup msup mtable mtd mtext mtr munder munderover"
).split()
MATH_ATTRIBUTES = (
    "accent accentunder columnalign columnlines columnspacing columnspan depth display displaystyle fence form height "
    "linethickness lspace mathvariant maxsize minsize movablelimits notation rowlines rowspacing rowspan rspace "
    "scriptlevel separator stretchy symmetric voffset width"
).split()
SIDES = {"left", "center", "right"}
CLEANER = nh3.Cleaner(
    tags={
        *"a blockquote br code div em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong table tbody td th thead tr ul".split(),
        *MATH,
    },
    clean_content_tags={"script", "style", "template", "noscript"},
    attributes={"a": {"href", "title"}, "ol": {"start"}} | {tag: set(MATH_ATTRIBUTES) for tag in MATH},
    tag_attribute_values={"pre": {"data-language": set(LANGUAGES.values())}},
    set_tag_attribute_values={"a": {"target": "_blank"}},
    allowed_classes={
        "code": {"math"},
        "div": {"math", "table"},
        "li": {"task"},
        "pre": {"code"},
        "span": {name for name in STANDARD_TYPES.values() if name},
        "td": SIDES,
        "th": SIDES,
    },
    link_rel="noopener noreferrer nofollow",
    url_schemes=SCHEMES,
    url_relative="deny",
)
FORMATTER = HtmlFormatter(nowrap=True)


@dataclass(frozen=True)
class Block:
    """A paragraph, a list, a table...; `end`: UTF-16 units of the text up to its end, which is how JavaScript counts."""

    html: str
    end: int


def render(text: str) -> list[Block]:
    """The blocks of a text, one after another. Two that the next characters may join come as one."""
    md, env = _parser(), dict[str, Any]()
    lines, ends = _lines(text)
    blocks: list[Block] = []
    n_before = 0  # lines up to the end of the block before
    for tokens in _top_level(md.parse(text, env)):
        assert tokens[0].map
        first, last = tokens[0].map
        html = CLEANER.clean(md.renderer.render(tokens, md.options, env))
        if blocks and first == len(lines) - 1 and _may_join(lines, n_before):
            html = blocks.pop().html + html
        blocks.append(Block(html, ends[last - 1]))
        n_before = last
    return blocks


def _may_join(lines: list[str], n_before: int) -> bool:
    """Whether the last, unfinished line may still turn out to be part of the block before it.

    With no empty line between them it may be anything: `***` is a rule, but `***so***` goes on with the paragraph. After
    an empty line only the number of a list's next item is in doubt.
    """
    while n_before and not lines[n_before - 1].strip():
        n_before -= 1
    return n_before == len(lines) - 1 or bool(ITEM_NUMBER.fullmatch(lines[-1]))


def _lines(text: str) -> tuple[list[str], list[int]]:
    """The lines with their ends, as the parser counts them, and where each ends in UTF-16 units."""
    lines = LINE.findall(text)
    lengths = (len(line) if line.isascii() else len(line.encode("utf-16-le")) // 2 for line in lines)
    return lines, list(itertools.accumulate(lengths))


def _top_level(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    depth = start = 0
    for i, token in enumerate(tokens):
        depth += token.nesting
        if depth == 0:
            yield tokens[start : i + 1]
            start = i + 1


@functools.cache
def _parser() -> MarkdownIt:
    md = MarkdownIt("commonmark", {"html": False, "maxNesting": DEEPEST}, renderer_cls=_Renderer)
    md.enable(["table", "strikethrough"]).use(formula.plugin)
    md.validateLink = _may_be_linked  # type: ignore
    md.core.ruler.push("tasks_and_sides", _tasks_and_sides)
    return md


def _may_be_linked(address: str) -> bool:
    return not SCHEME.match(address) or ADDRESS.match(address) is not None


def _tasks_and_sides(state: StateCore) -> None:
    """Boxes for `[ ]` at the start of items; classes for the alignment of a table's cells, where the parser has a style."""
    for i, token in enumerate(state.tokens):
        if token.type == "inline" and i > 1 and state.tokens[i - 2].type == "list_item_open" and token.children:
            text = token.children[0]
            if text.type == "text" and text.content[:4] in TASK:
                text.content = TASK[text.content[:4]] + text.content[4:]
                state.tokens[i - 2].attrs["class"] = "task"
        elif "style" in token.attrs:
            token.attrs = {"class": str(token.attrs["style"]).removeprefix("text-align:")}


class _Renderer(RendererHTML):
    def link_open(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        env["in_link"] = True
        return _link(str(tokens[i].attrs["href"]))

    def link_close(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        env["in_link"] = False
        return "</a>"

    def image(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        label = f"image: {escape(self.renderInlineAsText(tokens[i].children or [], options, env))}"
        return label if env.get("in_link") else f"{_link(str(tokens[i].attrs['src']))}{label}</a>"

    def fence(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        return _code(tokens[i].content, LANGUAGES.get(tokens[i].info.strip().partition(" ")[0].lower(), ""))

    def code_block(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        return _code(tokens[i].content, "")

    def table_open(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        return '<div class="table"><table>'

    def table_close(self, tokens: Sequence[Token], i: int, options: Any, env: Any) -> str:
        return "</table></div>\n"


def _link(address: str) -> str:
    return f'<a href="{escape(address)}" title="{escape(address)}">'


@functools.lru_cache(64)  # finished code in an answer that grows
def _code(text: str, language: str) -> str:
    if language and len(text) <= MOST_CODE:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
        try:
            html = pygments.format(_in_time(lexer.get_tokens(text)), FORMATTER)
            return f'<pre class="code" data-language="{language}"><code>{html}</code></pre>\n'
        except _TooSlowError:
            pass
    return f'<pre class="code"><code>{escape(text)}</code></pre>\n'


def _in_time(tokens: Iterator[Any]) -> Iterator[Any]:
    # Most lexers take quadratic time for some nonsense. A machine that is busy otherwise must not count.
    end = time.thread_time() + MOST_LEXING_S
    for token in tokens:
        if time.thread_time() > end:
            raise _TooSlowError
        yield token


class _TooSlowError(Exception):
    """Code that is shown without colours, because they would take too long."""
