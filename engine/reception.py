"""A request on its arrival: whatever can be refused is refused here, before it waits for anything."""

from __future__ import annotations

import functools
from typing import Any

from engine.answer import Answer
from engine.constraint import Constraint, GrammarError
from engine.native.grammar import Grammar, gbnf, literal
from engine.native.model import Model
from engine.native.vocabulary import TokenizeError
from engine.prompt import Prompt, Prompter, PromptError, TokensError, TooLongError
from engine.request import Accepted, Finished, Reason, Request, Result, Shape, Trouble, Want, Word
from engine.thinking import CLOSING, Thinking

LONGEST_TEXT = 2**19  # characters, or tokens, of a text that is only to be told in the other: while it is, nothing else runs


class RefusalError(Exception):
    """A request that cannot be answered: the trouble, and a sentence for whoever asked."""

    def __init__(self, trouble: Trouble, message: str) -> None:
        super().__init__(message)
        self.trouble, self.message = trouble, message


class Reception:
    """For one loaded model. Raises engine.prompt.PromptError at once when its chat template is broken."""

    def __init__(self, model: Model) -> None:
        self._model, self._vocabulary = model, model.vocabulary
        self._prompter = Prompter(model.vocabulary)
        self._closing = model.vocabulary.tokenize(CLOSING, add_bos=False)

    def receive(self, request: Request) -> Answer:
        """A request for an answer, ready to wait for its turn. Raises RefusalError."""
        prompt = self._read(request, self._model.n_ctx)
        for token, _ in request.sampling.logit_bias:
            if not 0 <= token < self._vocabulary.n_tokens:
                message = f"Tokens of this model are numbers from 0 to {self._vocabulary.n_tokens - 1}, not {int(token)}."
                raise RefusalError(Trouble.BAD_BIAS, message)
        constraint = self._constraint(request.shape, prompt) if request.shape else None
        sampler = self._model.sampler(request.sampling)
        answer = Answer.new(request, prompt, sampler, constraint=constraint, closing=self._closing)
        try:
            answer.remember([self._vocabulary.piece(token) for token in request.done])
        except GrammarError as error:
            answer.close()
            raise RefusalError(Trouble.BAD_SHAPE, str(error)) from error
        return answer

    def tell(self, request: Request) -> list[Word]:
        """All that is to be said to a request that needs no computing. Raises RefusalError."""
        if len(request.prompt or "") > LONGEST_TEXT:
            message = f"The text is too long: at most {LONGEST_TEXT:,} characters or tokens are told in the other."
            raise RefusalError(Trouble.CONTEXT_LENGTH, message)
        tokens = self._read(request, LONGEST_TEXT).tokens
        pieces = [self._vocabulary.piece(token) for token in tokens]
        values: list[Any] = [[token, piece.decode("latin-1")] for token, piece in zip(tokens, pieces, strict=True)]
        if request.want is Want.TEXT:
            values = [b"".join(pieces).decode(errors="replace")]
        end = Finished(request.id, Reason.READ.finish_reason, Reason.READ, len(tokens), 0, 0, 0.0, 0.0, 0.0)
        return [Accepted(request.id, len(tokens)), Result(request.id, values), end]

    def _read(self, request: Request, n_context: int) -> Prompt:
        try:
            return self._prompter.read(request, n_context - (request.want is Want.ANSWER))  # an answer needs room, too
        except TooLongError as error:
            what = "messages" if request.prompt is None else "prompt"
            message = f"This model's maximum context length is {n_context} tokens. However, your {what} resulted in "
            message += f"{error}. Please reduce the length of the {what}."
            raise RefusalError(Trouble.CONTEXT_LENGTH, message) from error
        except TokensError as error:
            raise RefusalError(Trouble.BAD_TOKENS, str(error)) from error
        except (PromptError, TokenizeError) as error:
            raise RefusalError(Trouble.BAD_PROMPT, str(error)) from error

    def _constraint(self, shape: Shape, prompt: Prompt) -> Constraint:
        """Also of a shape that begins later a grammar is made now: only so it is known that one can be made."""
        try:
            begin = functools.partial(self._begin, _text(shape))
            constraint = Constraint(shape, begin, prompt.thinking is Thinking.OPEN)
            if not constraint.grammar:
                begin(b"").close()
            return constraint
        except GrammarError as error:
            raise RefusalError(Trouble.BAD_SHAPE, str(error)) from error

    def _begin(self, text: str, begun: bytes) -> Grammar:
        """The grammar for a text that begins with `begun`, which comes before the shape or ends with its opening."""
        root = "root"
        if begun:
            root = "linnet-begun"
            text += f"\n{root} ::= {literal(begun.decode(errors='replace'))} [ \\n]{{0,4}} root\n"
        return Grammar(self._vocabulary, text, root)


def _text(shape: Shape) -> str:
    """The shape as GBNF; a lazy one without the opening, which has been written when its grammar begins."""
    if shape.schema is None:
        return shape.grammar
    return gbnf(shape.schema, "" if shape.lazy else shape.opening, shape.closing, shape.many and not shape.lazy)
