"""What is refused of a client's own grammar, in llama.cpp's GBNF, before llama.cpp sees it."""

from __future__ import annotations

import re

from api.keywords import SchemaError
from api.pattern import MOST_TIMES

LARGEST_BYTES = 64 * 1024
MOST_REPEATS = 50_000  # all repetitions, each with the size of what is repeated: llama.cpp writes them out
DEEPEST_BRACKETS = 200
GAP = r"[ \t\r\n]*"
GBNF = re.compile(
    r'(?P<space>[ \t\r\n]+|#[^\r\n]*)|(?P<text>"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\])|(?P<bracket>[()])'
    rf"|\{{{GAP}(?P<least>[0-9]+){GAP}(?:,{GAP}(?P<most>[0-9]*){GAP})?\}}|(?P<name>[a-zA-Z0-9-]+)|::=|[|.*+?]",
    re.DOTALL,
)


def check_grammar(text: str) -> None:
    """Raises SchemaError for a client's grammar that would end the engine's process or be too much for it.

    What is not GBNF at all, llama.cpp finds out itself.
    """
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise SchemaError("The grammar holds a NUL or half a character.")
    if len(text.encode()) > LARGEST_BYTES:
        raise SchemaError(f"The grammar is too large: at most {LARGEST_BYTES} bytes are followed.")
    at, depth, repeats, size, last_name, has_root = 0, 0, 0, 0, "", False
    while at < len(text):
        token = GBNF.match(text, at)
        if not token:
            raise SchemaError(f"The grammar has something at character {at} that is not supported: {text[at : at + 20]}")
        at = token.end()
        if token["space"]:
            continue
        if token["least"]:
            numbers = [number for number in (token["least"], token["most"]) if number]
            if any(len(number) > len(str(MOST_TIMES)) or int(number) > MOST_TIMES for number in numbers):
                raise SchemaError(f"The grammar has {token[0][:20]}: repetitions go up to {MOST_TIMES}.")
            repeats += size * max(map(int, numbers))
        else:
            size = len(token["text"] or "1")
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth > DEEPEST_BRACKETS or repeats > MOST_REPEATS:
            raise SchemaError("The grammar has too many brackets in each other, or repeats too much.")
        has_root |= token[0] == "::=" and last_name == "root"
        last_name = token["name"] or ""
    if not has_root:
        raise SchemaError("The grammar has no rule named root.")
