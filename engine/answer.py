"""One answer in the making: its tokens, its text, its clocks, and all that belongs to it alone."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.constraint import Constraint
from engine.draft import Lookup
from engine.endings import Loops, Sentences
from engine.native.sampler import Sampler
from engine.prompt import Prompt
from engine.request import Delta, Finished, Limits, Progress, Reason, Request, Trouble, Want
from engine.scheduler import Sequence
from engine.text import Text
from engine.thinking import Splitter, Thinking


@dataclass(eq=False, kw_only=True)
class Answer(Sequence):
    """A sequence and what its request asks for."""

    request: Request
    sampler: Sampler
    text: Text
    lookup: Lookup
    loops: Loops | None
    sentences: Sentences | None
    begins: Thinking
    thoughts: Splitter
    constraint: Constraint | None = None
    closing: list[int] = field(default_factory=list)  # tokens that end thoughts from outside
    forced: deque[int] = field(default_factory=deque)  # tokens that come next, whatever the model says
    n_thought: int = 0  # tokens of thoughts so far
    vector: np.ndarray | None = None  # the sum of what was computed for the prompt's tokens, where that is wanted
    told: float = 0.0  # when its reader last heard how far it is
    chances: list[list[Any]] = field(default_factory=list)  # of the unsent tokens, where they are wanted
    unsent: list[int] = field(default_factory=list)  # tokens whose text is still held back
    held: list[str] = field(default_factory=list)  # what was held back after each of them
    n_cached: int = 0
    added: float = field(default_factory=time.monotonic)  # times of that clock
    admitted: float = 0.0
    first_token: float = 0.0

    @classmethod
    def new(cls, request: Request, prompt: Prompt, sampler: Sampler, **fields: Any) -> Answer:
        """Of a request with its prompt."""
        tokens = prompt.tokens + request.done
        answer = cls(
            request.id,
            tokens,
            n_prompt=len(prompt.tokens),
            background=request.background,
            apart=request.want is Want.VECTOR,
            request=request,
            sampler=sampler,
            text=Text(request.stop),
            lookup=Lookup(tokens),
            loops=Loops() if request.loop_stop else None,
            sentences=Sentences(prompt.thinking in (Thinking.OPEN, Thinking.AMID)) if request.early_stop else None,
            begins=prompt.thinking,
            thoughts=Splitter(prompt.thinking),
            **fields,
        )
        answer._think()
        return answer

    def remember(self, pieces: list[bytes]) -> None:
        """Takes the tokens that were said before by another worker; `pieces` are their bytes."""
        for token, piece in zip(self.request.done, pieces, strict=True):
            self._note(token, piece, self._show(piece))
        self.sampler.accept(self.request.done)

    @property
    def n_answer(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - self.n_prompt

    @property
    def n_wanted(self) -> int:
        """Tokens that may still come, as far as the request says."""
        return 2**31 if self.request.max_tokens is None else self.request.max_tokens - self.n_answer

    def push(self, token: int, piece: bytes, n_ctx: int) -> tuple[str, Reason | None]:
        """Takes the next token; the text that can be shown now, and why the answer ends with it if it does."""
        self.tokens.append(token)
        self.unsent.append(token)
        text = self._show(piece)
        n_too_many, loop = self._note(token, piece, text)
        if n_too_many is not None:
            self.text.drop()
            text = text[: len(text) - n_too_many]
        self.held.append(self.text.held)
        if n_too_many is not None:
            return text, Reason.SENTENCES
        if self.text.stopped:
            return text, Reason.STOP
        if loop:
            return text, Reason.LOOP
        return text, self.used_up(n_ctx)

    def _show(self, piece: bytes) -> str:
        # What is in shape is whole only at its end: half a call or half an object helps nobody.
        return self.text.push(piece, stops=not (self.constraint and self.constraint.grammar))

    def used_up(self, n_ctx: int) -> Reason | None:
        """Which allowance of tokens is used up: the request's or the context's."""
        if self.n_wanted <= 0:
            return Reason.MAX_TOKENS
        return Reason.CONTEXT if len(self.tokens) >= n_ctx else None

    def _note(self, token: int, piece: bytes, text: str) -> tuple[int | None, bool]:
        """What those say who watch for an early end."""
        if not self.thoughts.over:
            was_inside = self.thoughts.inside
            self.thoughts.push(piece.decode(errors="replace"))
            self.n_thought += was_inside or self.thoughts.inside
        if self.constraint:
            self.constraint.push(token, piece, self.thoughts)
        self._think()
        too_many = self.sentences.push(text) if self.sentences else None
        return too_many, self.loops.push(token) if self.loops else False

    def close(self) -> None:
        """Frees what llama.cpp holds for it."""
        self.sampler.close()
        if self.constraint:
            self.constraint.close()

    def _think(self) -> None:
        """Ends thoughts that have taken as long as they may."""
        if self.forced:
            self.forced.popleft()
        elif self.thoughts.inside and self.request.think is not None and self.n_thought >= self.request.think:
            self.forced.extend(self.closing)

    def overdue(self, now: float, limits: Limits) -> tuple[Trouble, str] | None:
        """Which of its limits it has passed, and a sentence that says so."""
        if self.slot is None:
            if now - self.added > limits.queue_s:
                return Trouble.QUEUE_TIMEOUT, f"No slot became free within {limits.queue_s:g} s."
        elif not self.first_token:
            if now - self.admitted > limits.prompt_s and not self.background:
                return Trouble.PROMPT_TIMEOUT, f"The prompt was not read within {limits.prompt_s:g} s."
        elif now - self.first_token > limits.answer_s:
            return Trouble.ANSWER_TIMEOUT, f"The answer did not end within {limits.answer_s:g} s."
        return None

    def delta(self, text: str) -> Delta:
        """The word for the front that says so, with the tokens that came since the last one."""
        delta = Delta(self.id, text, self.unsent, self.held if any(self.held) else [], self.chances)
        self.unsent, self.held, self.chances = [], [], []
        return delta

    def progress(self, now: float, n_before: int) -> Progress:
        """The word for the front that says how far it is, while there is no token yet."""
        self.told = now
        seconds = now - self.admitted if self.admitted else 0.0
        return Progress(self.id, min(self.n_read, self.n_prompt), self.n_cached, n_before, seconds)

    def finished(self, reason: Reason) -> Finished:
        """The word for the front."""
        now = time.monotonic()
        first = self.first_token or now
        return Finished(
            self.id,
            finish_reason=reason.finish_reason,
            stop_reason=reason,
            n_prompt=self.n_prompt,
            n_cached=self.n_cached,
            n_answer=self.n_answer,
            queue_s=(self.admitted or now) - self.added,
            prompt_s=first - (self.admitted or now),
            answer_s=now - first,
            n_thought=self.n_thought,
        )
