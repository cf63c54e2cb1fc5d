"""What keeps an answer in the shape that was asked for: a grammar over its tokens, from the right moment on.

That moment is the beginning, the end of the thoughts, or the opening of a tool call. It may come in the middle of a
token, so the grammar begins with the whole of the token in which the opening began, and is told of the tokens since then.
Knows nothing of llama.cpp: what makes a grammar comes from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from engine.request import Shape
from engine.thinking import END as THOUGHT
from engine.thinking import Splitter


class Grammar(Protocol):
    """See engine.native.grammar.Grammar."""

    def allows(self, token: int) -> bool: ...  # noqa: D102
    def mask(self, logits: np.ndarray) -> np.ndarray: ...  # noqa: D102
    def accept(self, token: int) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class GrammarError(Exception):
    """A grammar that cannot be used, or a token that it does not allow; the message is a sentence."""


class Constraint:
    """Of one answer. `grammar` is what the next token must fit; None: it may be any.

    `begin` makes a grammar for a text that begins with what it is given; b"": with the shape itself. A token that does not
    fit raises GrammarError.
    """

    def __init__(self, shape: Shape, begin: Callable[[bytes], Grammar], thinking: bool) -> None:
        self._begin = begin
        self._lazy, self._many = shape.lazy, shape.lazy and shape.many
        self._closing = shape.closing.encode()
        self._trigger = shape.opening.encode() if shape.lazy else THOUGHT.encode() if thinking else b""
        self._pieces: list[tuple[int, bytes]] = []  # the last tokens, in which the trigger may have begun
        self._since = b""  # all text since the grammar began
        self.grammar: Grammar | None = None if self._trigger else begin(b"")

    def push(self, token: int, piece: bytes, thoughts: Splitter) -> None:
        """Takes the next token of the answer."""
        if self.grammar:
            self.grammar.accept(token)
            self._since += piece
            if self._many and self._since.endswith(self._closing):
                self.close()  # anything may follow, maybe another one
        elif self._trigger and not (thoughts.inside and self._lazy):
            self._look_for_trigger(token, piece)

    def _look_for_trigger(self, token: int, piece: bytes) -> None:
        self._pieces.append((token, piece))
        text = b"".join(piece for _, piece in self._pieces)
        at = text.find(self._trigger)
        if at < 0:
            while len(text) - len(self._pieces[0][1]) >= len(self._trigger) - 1:
                text = text[len(self._pieces.pop(0)[1]) :]
            return
        while len(self._pieces[0][1]) <= at:
            at -= len(self._pieces.pop(0)[1])
        pieces, self._pieces = self._pieces, []
        text = b"".join(piece for _, piece in pieces)
        self.grammar = self._begin(text[: at + len(self._trigger)])
        self._since = text
        try:
            for token, _ in pieces:
                self.grammar.accept(token)
        except GrammarError:  # more than the trigger stood in its last token, and it does not fit
            if not self._lazy:
                raise
            self.close()

    def close(self) -> None:
        """Nothing is to be kept in shape from now on."""
        if self.grammar:
            self.grammar.close()
        self.grammar = None
