"""OpenAI's JSON of a chat completion: chunks of a stream, or one whole made of the same choices."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from api.choice import Choice, Piece
from engine.request import Finished, Progress

DONE = b"data: [DONE]\n\n"
CHUNK = "chat.completion.chunk"

_MARK = "\0"  # where a chunk's text goes
encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # one encoder, not a new one per token


def sse(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {encode(data)}\n\n".encode()


def comment(text: str) -> bytes:
    """What keeps a connection alive and is no event."""
    return f": {text}\n\n".encode()


def pattern(chunk: dict[str, Any]) -> Callable[[str], bytes]:
    """Makes the events of a stream that differ from each other, and from this chunk, in their text alone."""
    before, after = sse(chunk).split(encode(_MARK).encode())
    return lambda text: before + encode(text).encode() + after


@dataclass(frozen=True)
class Heading:
    """What all chunks of one answer have in common."""

    model: str
    fingerprint: str
    id: str
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        told: list[dict[str, Any]] = [
            {"index": i, "message": c.message(), "logprobs": c.logprobs(), "finish_reason": c.finish_reason, **_why(c)}
            for i, c in enumerate(choices)
        ]
        return self.object("chat.completion", told) | self.counts(choices)

    def text_chunk(self, index: int) -> dict[str, Any]:
        """The piece of a stream that `pattern` takes."""
        return self.chunk(index, Piece({"content": _MARK}))

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        """One piece of a stream."""
        choice = {"index": index, "delta": piece.delta, "logprobs": piece.logprobs, "finish_reason": None}
        return self.object(CHUNK, [choice])

    def last_chunk(self, index: int, choice: Choice) -> dict[str, Any]:
        """The piece that says how a choice ended."""
        told: dict[str, Any] = {
            "index": index,
            "delta": {},
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            **_why(choice),
        }
        return self.object(CHUNK, [told]) | {"timings": timings(total([choice]))}

    def counts(self, choices: Sequence[Choice], n_each: int = 0) -> dict[str, Any]:
        """What is told beside the choices; so many of them share a prompt, or all (0)."""
        end = total(choices, n_each)
        return {"usage": usage(end), "timings": timings(end)}

    def object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """What all objects have in common."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }


def _why(choice: Choice) -> dict[str, str]:
    assert choice.end
    return {"stop_reason": choice.end.stop_reason}


def total(choices: Sequence[Choice], n_each: int = 0) -> Finished:
    """The counts of all of them together; a prompt, which so many (0: all) of them share, counts once."""
    first, *others = [choice.end for choice in choices if choice.end]
    for i, end in enumerate(others, 1):
        own = n_each > 0 and i % n_each == 0
        first = dataclasses.replace(
            first,
            n_prompt=first.n_prompt + end.n_prompt * own,
            n_cached=first.n_cached + end.n_cached * own,
            n_answer=first.n_answer + end.n_answer,
            n_thought=first.n_thought + end.n_thought,
            answer_s=max(first.answer_s, end.answer_s),
        )
    return first


def usage(end: Finished) -> dict[str, Any]:
    """Token counts as OpenAI gives them."""
    return {
        "prompt_tokens": end.n_prompt,
        "completion_tokens": end.n_answer,
        "total_tokens": end.n_prompt + end.n_answer,
        "prompt_tokens_details": {"cached_tokens": end.n_cached},
        "completion_tokens_details": {"reasoning_tokens": end.n_thought},
    }


def prompt_progress(progress: Progress, n_prompt: int) -> dict[str, Any]:
    """How much of the prompt is read, under llama-server's names; `before`, how many wait before it, is ours."""
    return {
        "before": progress.n_before,
        "total": n_prompt,
        "cache": progress.n_cached,
        "processed": progress.n_read,
        "time_ms": round(progress.seconds * 1000),
    }


def timings(end: Finished) -> dict[str, Any]:
    """How long it took, under llama-server's names; times in milliseconds, rates in tokens/s."""
    return {
        "cache_n": end.n_cached,
        "prompt_n": end.n_prompt - end.n_cached,
        "prompt_ms": round(end.prompt_s * 1000, 3),
        "prompt_per_token_ms": _ratio(end.prompt_s * 1000, end.n_prompt - end.n_cached),
        "prompt_per_second": _ratio(end.n_prompt - end.n_cached, end.prompt_s),
        "predicted_n": end.n_answer,
        "predicted_ms": round(end.answer_s * 1000, 3),
        "predicted_per_token_ms": _ratio(end.answer_s * 1000, end.n_answer - 1),
        "predicted_per_second": tokens_per_s(end),
    }


def tokens_per_s(end: Finished) -> float:
    """Of the answer; its first token belongs to the time of the prompt."""
    return _ratio(end.n_answer - 1, end.answer_s)


def _ratio(a: float, b: float) -> float:
    return round(a / b, 2) if a > 0 and b > 0 else 0.0
