"""One answer in the making: its tokens, its text, its clocks, and all that belongs to it alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from engine.draft import Lookup
from engine.endings import Loops, Sentences
from engine.native.sampler import Sampler
from engine.request import Delta, Finished, Limits, Reason, Request, Trouble
from engine.scheduler import Sequence
from engine.text import Text


@dataclass(eq=False, kw_only=True)
class Answer(Sequence):
    """A sequence and what its request asks for."""

    request: Request
    sampler: Sampler
    text: Text
    lookup: Lookup
    loops: Loops | None
    sentences: Sentences | None
    unsent: list[int] = field(default_factory=list)  # tokens whose text is still held back
    held: list[str] = field(default_factory=list)  # what was held back after each of them
    n_cached: int = 0
    added: float = field(default_factory=time.monotonic)  # times of that clock
    admitted: float = 0.0
    first_token: float = 0.0

    @classmethod
    def new(cls, request: Request, prompt: list[int], sampler: Sampler, pieces: list[bytes]) -> Answer:
        """Of a request with its prompt; `pieces` are the bytes of `request.done`, said before by another worker."""
        tokens = prompt + request.done
        answer = cls(
            request.id,
            tokens,
            n_prompt=len(prompt),
            background=request.background,
            request=request,
            sampler=sampler,
            text=Text(request.stop),
            lookup=Lookup(tokens),
            loops=Loops() if request.loop_stop else None,
            sentences=Sentences() if request.early_stop else None,
        )
        for token, piece in zip(request.done, pieces, strict=True):
            answer._note(token, answer.text.push(piece))
        sampler.accept(request.done)
        return answer

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
        text = self.text.push(piece)
        n_too_many, loop = self._note(token, text)
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

    def used_up(self, n_ctx: int) -> Reason | None:
        """Which allowance of tokens is used up: the request's or the context's."""
        if self.n_wanted <= 0:
            return Reason.MAX_TOKENS
        return Reason.CONTEXT if len(self.tokens) >= n_ctx else None

    def _note(self, token: int, text: str) -> tuple[int | None, bool]:
        """What those say who watch for an early end."""
        too_many = self.sentences.push(text) if self.sentences else None
        return too_many, self.loops.push(token) if self.loops else False

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
        delta = Delta(self.id, text, self.unsent, self.held if any(self.held) else [])
        self.unsent, self.held = [], []
        return delta

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
        )
