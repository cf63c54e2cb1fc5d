"""A whole answer as it is kept: its events, written as JSON, and what shorter and longer answers can be made of them."""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import Any

from engine.request import Accepted, Delta, Event, Finished, Reason

VERSION = 2


@dataclass(frozen=True)
class Record:
    """All Deltas of one answer, how it ended, and the fingerprint of what made it."""

    deltas: list[Delta]
    end: Finished
    fingerprint: str
    thinking: str = ""  # as the engine said that it begins

    def dump(self) -> bytes:
        """For the store."""
        facts = {
            "version": VERSION,
            "deltas": [_dumped(delta) for delta in self.deltas],
            "end": vars(self.end) | {"id": ""},
            "fingerprint": self.fingerprint,
            "thinking": self.thinking,
        }
        return json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def load(cls, data: bytes) -> Record | None:
        """The inverse of `dump`; None when another version of Linnet wrote it."""
        try:
            facts: dict[str, Any] = json.loads(data)
            if facts["version"] != VERSION:
                return None
            end = Finished(**facts["end"])
            return cls([Delta("", *delta) for delta in facts["deltas"]], end, facts["fingerprint"], facts["thinking"])
        except (ValueError, TypeError, KeyError):
            return None

    def events(self, max_tokens: int | None) -> list[Event] | None:
        """The answer to the same request with this limit; None when it would be longer than this one."""
        end, n = self.end, self.end.n_answer
        if max_tokens is not None and max_tokens <= n and (end.stop_reason not in _AT_ONCE or max_tokens < n):
            return self._made_of(*self._cut(max_tokens))
        if end.stop_reason == Reason.MAX_TOKENS:
            return None
        return self._made_of(self.deltas, end)

    def beginning(self) -> list[Delta]:
        """What a longer answer begins with: an answer cut off says at its end what it would have held back otherwise."""
        if not self.deltas:
            return []
        last = self.deltas[-1]
        held = next((d.held[-1] if d.held else "" for d in reversed(self.deltas) if d.tokens), "")
        return [*self.deltas[:-1], dataclasses.replace(last, text=last.text.removesuffix(held))]

    def _cut(self, n: int) -> tuple[list[Delta], Finished]:
        """The first n tokens, and the end that they would have had."""
        deltas, n_left = [], n
        for delta in self.beginning():
            held = delta.held[n_left - 1] if delta.held and n_left <= len(delta.tokens) else ""
            if n_left < len(delta.tokens):  # its text came with a later token
                deltas.append(Delta("", held, delta.tokens[:n_left], [], delta.logprobs[:n_left]))
                break
            deltas.append(delta)
            n_left -= len(delta.tokens)
            if n_left == 0:
                if held:
                    deltas.append(Delta("", held))
                break
        part = n / self.end.n_answer
        reason = Reason.MAX_TOKENS
        end = dataclasses.replace(
            self.end,
            finish_reason=reason.finish_reason,
            stop_reason=reason,
            n_answer=n,
            answer_s=self.end.answer_s * part,
            n_thought=min(n, self.end.n_thought),
        )
        return deltas, end

    def _made_of(self, deltas: list[Delta], end: Finished) -> list[Event]:
        # Nothing waited and nothing of the prompt was read for this; how fast the answer was made stays true.
        now = dataclasses.replace(end, n_cached=end.n_prompt, queue_s=0.0, prompt_s=0.0)
        return [Accepted("", end.n_prompt, self.thinking), *deltas, now]


def _dumped(delta: Delta) -> list[Any]:
    """Without what is empty at its end."""
    fields = [delta.text, delta.tokens, delta.held, delta.logprobs]
    while len(fields) > 2 and not fields[-1]:
        fields.pop()
    return fields


@dataclass(frozen=True)
class Known:
    """A kept answer ready to be given again, and what that saves."""

    events: list[Event]
    fingerprint: str
    saved_s: float
    saved_tokens: int


@functools.lru_cache(64)  # what is asked again and again is not decoded again and again
def replay(data: bytes, max_tokens: int | None, whole: bool) -> Known | None:
    """Of a dumped Record; `whole`: all text in one Delta. None when the answer would be longer, or is none of ours."""
    record = Record.load(data)
    if not record or not (events := record.events(max_tokens)):
        return None
    end = events[-1]
    assert isinstance(end, Finished)
    if whole:
        deltas = [event for event in events if isinstance(event, Delta)]
        text, logprobs = "".join(d.text for d in deltas), [chance for d in deltas for chance in d.logprobs]
        events = [events[0], Delta("", text, logprobs=logprobs), end]
    return Known(events, record.fingerprint, record.end.prompt_s + end.answer_s, end.n_prompt + end.n_answer)


_AT_ONCE = (Reason.STOP, Reason.SENTENCES, Reason.LOOP)  # these end an answer before its limit does
