"""When an answer has said enough: two sentences were asked for, or it repeats itself for ever.

Knows nothing of models: tokens and their text go in, True comes out once the answer should end.
"""

from __future__ import annotations

import re
from collections import deque

SENTENCES_FROM = 20  # tokens before the sentence rule looks
SENTENCES = 2  # that end after that
LOOK_BACK = 16  # characters before a mark that tell an abbreviation
PERIOD_MAX = 64  # tokens; a longer passage repeated is not looked for
LOOP_TOKENS = 160  # so many tokens in a row repeat what stood one period before: tables of zeros stay below it
LOOP_TIMES = 8  # and the period so many times: verses and rows of a table stay below it
# Of a sentence: a mark, maybe with quotes or brackets behind it, before a space; or a Chinese mark, which needs none.
END = re.compile(r"(?:[.!?\u2026][\"')\]*_\u201d\u2019]*(?=\s)|[\u3002\uff01\uff1f])")
NOT_AN_END = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|[Mm]rs?|Ms|Dr|St|No|approx|[A-Z])|(?:^|\n)\s*(?:\d+|[a-zA-Z]))\.$")


class Sentences:
    """Ends an answer with its second sentence after the first SENTENCES_FROM tokens; not inside code or reasoning."""

    def __init__(self, thinking: bool = False) -> None:
        """`thinking`: the prompt has opened a block of thoughts."""
        self._text = "<think>" if thinking else ""
        self._n_tokens = 0
        self._n_ended = 0
        self._looked = 0  # characters that need not be looked at again

    def push(self, text: str) -> int | None:
        """Takes a token's text; once the answer is to end, how many of the last characters are too many."""
        self._text += text
        self._n_tokens += 1
        if self._n_tokens <= SENTENCES_FROM:
            self._looked = len(self._text)
            return None
        for match in END.finditer(self._text, max(0, self._looked - 4)):
            if match.end() <= self._looked:
                continue
            self._looked = match.end()
            before = self._text[max(0, match.start() - LOOK_BACK) : match.start() + 1]
            if not NOT_AN_END.search(before) and not self._inside(match.end()):
                self._n_ended += 1
            if self._n_ended >= SENTENCES:
                return len(self._text) - match.end()
        return None

    def _inside(self, end: int) -> bool:
        thinking = self._text.rfind("<think>", 0, end) > self._text.rfind("</think>", 0, end)
        return thinking or self._text.count("```", 0, end) % 2 == 1


class Loops:
    """Sees an answer that repeats the same tokens again and again, as small models do when they are lost.

    Only exact repetition counts, and much of it: lists count up, poems vary, a table's rows differ somewhere.
    """

    def __init__(self) -> None:
        self._last: deque[int] = deque(maxlen=PERIOD_MAX)  # the last tokens, the newest first
        self._runs: dict[int, int] = {}  # by period: tokens in a row equal to the one a period before; none: not there

    def push(self, token: int) -> bool:
        """Takes the next token; whether it is a loop by now."""
        self._runs = {p: self._runs.get(p, 0) + 1 for p, last in enumerate(self._last, 1) if last == token}
        self._last.appendleft(token)
        return any(n >= max(LOOP_TOKENS, (LOOP_TIMES - 1) * p) for p, n in self._runs.items())
