"""From the engine's events to OpenAI's JSON: chunks of a stream, or one whole completion folded from the same events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.request import Finished

DONE = b"data: [DONE]\n\n"


_MARK = "\0"  # where a chunk's text goes
encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # one encoder, not a new one per token


def sse(data: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {encode(data)}\n\n".encode()


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

    def completion(self, text: str, end: Finished) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end.finish_reason}
        choice["stop_reason"] = end.stop_reason
        return self._object("chat.completion", [choice]) | {"usage": usage(end), "timings": timings(end)}

    def text_chunk(self) -> dict[str, Any]:
        """The piece of a stream that `pattern` takes."""
        return self.chunk({"content": _MARK})

    def chunk(self, delta: dict[str, Any]) -> dict[str, Any]:
        """One piece of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._object("chat.completion.chunk", [choice])

    def last_chunk(self, end: Finished) -> dict[str, Any]:
        """The piece that says how it ended."""
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": end.finish_reason}
        choice["stop_reason"] = end.stop_reason
        return self._object("chat.completion.chunk", [choice]) | {"timings": timings(end)}

    def usage_chunk(self, end: Finished) -> dict[str, Any]:
        """The last piece of a stream that was asked to tell its usage."""
        return self._object("chat.completion.chunk", []) | {"usage": usage(end)}

    def _object(self, object: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        }


def usage(end: Finished) -> dict[str, Any]:
    """Token counts as OpenAI gives them."""
    return {
        "prompt_tokens": end.n_prompt,
        "completion_tokens": end.n_answer,
        "total_tokens": end.n_prompt + end.n_answer,
        "prompt_tokens_details": {"cached_tokens": end.n_cached},
    }


def timings(end: Finished) -> dict[str, Any]:
    """How long it took, under llama-server's names; times in milliseconds, rates in tokens/s."""
    return {
        "cache_n": end.n_cached,
        "prompt_n": end.n_prompt - end.n_cached,
        "prompt_ms": round(end.prompt_s * 1000, 3),
        "prompt_per_second": _rate(end.n_prompt - end.n_cached, end.prompt_s),
        "predicted_n": end.n_answer,
        "predicted_ms": round(end.answer_s * 1000, 3),
        "predicted_per_second": tokens_per_s(end),
    }


def tokens_per_s(end: Finished) -> float:
    """Of the answer; its first token belongs to the time of the prompt."""
    return _rate(end.n_answer - 1, end.answer_s)


def _rate(n: int, seconds: float) -> float:
    return round(n / seconds, 2) if n > 0 and seconds > 0 else 0.0
