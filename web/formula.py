"""Formulas: where they begin and end in Markdown, and their LaTeX as MathML, which browsers draw themselves.

Dollars, `\\(...\\)`, `\\[...\\]`, bare `\\begin{align}` and bare `\\boxed{...}`: models write all of them. What cannot be
converted, or is not finished yet, is shown as it was written.
"""

from __future__ import annotations

import functools
import re
from html import escape, unescape
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import Converter
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

LONGEST = 4000  # characters of one formula
LONGEST_BOXED = 400  # ... in a box without brackets around it
BRACKETS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
NAMES = r"equation|align|alignat|gather|multline|flalign|eqnarray|cases|[pbBvV]?matrix"
ENVIRONMENT = re.compile(rf"\\begin\{{((?:{NAMES})\*?)\}}")
NUMBERED = re.compile(r"\\(begin|end)\{(equation|align|alignat|gather|multline|flalign|eqnarray)\}")
AFTER = re.compile(r"[\s.,;:]*")  # what may stand behind a formula that has its lines for itself
# A macro that calls itself twice grows without end, and nobody's answer needs one.
MACROS = re.compile(r"\\(re)?new|\\provide|\\[egx]?def|\\let|\\Declare")
LENGTH = re.compile(r"-?\d{0,2}(\.\d{1,3})?(em|ex|px|pt|mu)?")  # larger ones could push the formula over the page
LENGTHS = {"width", "height", "depth", "voffset", "lspace", "rspace", "minsize", "maxsize", "linethickness"}


def plugin(md: MarkdownIt) -> None:
    """Teaches a Markdown parser to find formulas and to show them."""
    md.block.ruler.before("fence", "formula", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    md.inline.ruler.before("escape", "formula", _inline)
    md.add_render_rule("formula", lambda self, tokens, i, options, env: _inline_html(tokens[i].content, tokens[i].markup))
    md.add_render_rule("formula_block", lambda self, tokens, i, options, env: _block_html(tokens[i].content, tokens[i].info))
    md.add_render_rule("formula_open", lambda self, tokens, i, options, env: f"<p>{escape(tokens[i].content)}</p>\n")


def _inline_html(source: str, opening: str) -> str:
    return mathml(source, opening in ("$$", "\\["))


def _block_html(source: str, after: str) -> str:
    text = f"<p>{escape(after)}</p>\n" if after else ""  # that the lines before are a formula must not depend on it
    return f'<div class="math">{mathml(source, True)}</div>\n{text}'


@functools.lru_cache(512)  # the growing end of an answer is shown again and again
def mathml(latex: str, display: bool) -> str:
    """A `<math>` element, or the source as `<code class="math">`."""
    try:
        if len(latex) > LONGEST or MACROS.search(latex):
            raise ValueError(latex)
        converter = Converter(xmlns="", display="block" if display else "inline")
        root = converter.convert_to_element(NUMBERED.sub(r"\\\1{\2*}", latex.strip()))
        for element in root.iter():
            _tame(element)
        return tostring(root, encoding="unicode")
    except Exception:  # noqa: BLE001  # the library fails in many ways on LaTeX that is none, RecursionError among them
        return f'<code class="math">{escape(latex)}</code>'


def _tame(element: Element) -> None:
    # The library writes references to characters as text; its own way to show them makes an image of `\text{<img>}`, too.
    element.text, element.tail = unescape(element.text or ""), unescape(element.tail or "")
    element.attrib = {k: v for k, v in element.attrib.items() if k not in LENGTHS or LENGTH.fullmatch(v)}


def _inline(state: StateInline, silent: bool) -> bool:
    src, start = state.src, state.pos
    if src[start] not in "$\\":
        return False
    if src.startswith("\\boxed{", start):
        end = _closing_brace(src, start + 7)
        opening, content = "\\boxed", src[start:end]
    else:
        opening = next((opening for opening in BRACKETS if src.startswith(opening, start)), "")
        if not opening:
            return False
        closing = BRACKETS[opening]
        end = _find(src, closing, start + len(opening)) + len(closing)
        content = src[start + len(opening) : end - len(closing)]
    if end <= start + len(opening) + 1 or not content.strip():
        return False
    # Prices are no formulas: "$5 to $10", "$5-$10".
    if opening == "$" and (content != content.strip() or src[end : end + 1].isdigit()):
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content, token.markup = content, opening
    state.pos = end
    return True


def _find(src: str, closing: str, start: int) -> int:
    """Where the closing bracket stands, which no backslash may take the meaning of; far below zero if nowhere near."""
    at, limit = src.find(closing, start, start + LONGEST), start + LONGEST
    while closing[0] == "$" and at > 0 and src[at - 1] == "\\":
        at = src.find(closing, at + 1, limit)
    return at if at >= 0 else -LONGEST


def _closing_brace(src: str, start: int) -> int:
    """The end of what began before `start` with a brace; below zero if it is not near."""
    depth = 1
    for i in range(start, min(len(src), start + LONGEST_BOXED)):
        depth += {"{": 1, "}": -1}.get(src[i], 0)
        if depth == 0:
            return i + 1
    return -1


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A formula that has its lines for itself.

    One that is still open is text up to the next empty line: its lines must not become lists and headings on the way.
    """
    if state.is_code_block(start):
        return False
    line = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
    if environment := ENVIRONMENT.match(line):
        opening, closing = environment[0], f"\\end{{{environment[1]}}}"
    elif line[:2] in ("$$", "\\["):
        opening, closing = line[:2], BRACKETS[line[:2]]
    else:
        return False
    last, rest, closed = start, line[len(opening) :], False
    while not (closed := closing in rest) and last + 1 < end and _goes_on(state, last + 1):
        last += 1
        rest = state.src[state.bMarks[last] : state.eMarks[last]]
    after = rest.rpartition(closing)[2].strip() if closed else ""
    if last == start and not AFTER.fullmatch(after):
        return False  # a sentence that begins with a formula
    if silent:
        return True
    text = state.getLines(start, last + 1, state.blkIndent, False).strip()
    token = state.push("formula_block" if closed else "formula_open", "math", 0)
    token.map, token.block = [start, last + 1], True
    token.content = text
    if closed:
        inner, _, _ = text.rpartition(closing)
        stop, token.info = (after, "") if AFTER.fullmatch(after) else ("", after)
        token.content = f"{inner}{closing}{stop}" if environment else f"{inner[2:]}{stop}"
    state.line = last + 1
    return True


def _goes_on(state: StateBlock, line: int) -> bool:
    return not state.isEmpty(line) and state.sCount[line] >= state.blkIndent
