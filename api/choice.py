"""One of the answers to a request: from the engine's text to what OpenAI's API knows of it, piece by piece or folded.

Thoughts become `reasoning_content`, written calls `tool_calls`, chances `logprobs`; all else is `content`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from api.calls import Calls
from engine.request import Delta, Finished
from engine.thinking import Splitter, Thinking


class Piece(NamedTuple):
    """What a chunk of a stream tells: a delta, and the chances of its tokens where they are wanted."""

    delta: dict[str, Any]
    logprobs: dict[str, Any] | None = None


class Choice:
    """`tools`: the request offers some. It must be `begun` as the engine says that the answer begins."""

    def __init__(self, tools: bool = False, logprobs: bool = False) -> None:
        self._calls = Calls() if tools else None
        self._wants_logprobs = logprobs
        self._splitter: Splitter | None = None
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []
        self.end: Finished | None = None

    @property
    def may_call(self) -> bool:
        """Whether it may be a call without any text."""
        return self._calls is not None

    def begin(self, thinking: str) -> None:
        """How the answer begins, as the engine has read it off the prompt."""
        if thinking:
            self._splitter = Splitter(Thinking(thinking))

    def push(self, delta: Delta) -> Piece | None:
        """What is new; None: nothing that can be told already."""
        thought, said = self._splitter.push(delta.text) if self._splitter else ("", delta.text)
        return self._piece(thought, *(self._calls.push(said) if self._calls else (said, [])), delta)

    def finish(self, end: Finished) -> Piece | None:
        """What was held back."""
        self.end = end
        thought, said = self._splitter.finish() if self._splitter else ("", "")
        calls: list[dict[str, Any]] = []
        if self._calls:
            said, calls = self._calls.push(said)
            said += self._calls.finish()
        return self._piece(thought, said, calls, Delta("", ""))

    def _piece(self, thought: str, said: str, calls: list[dict[str, Any]], delta: Delta) -> Piece | None:
        told: dict[str, Any] = {}
        if thought:
            told["reasoning_content"] = thought
            self._reasoning.append(thought)
        if said:
            told["content"] = said
            self._content.append(said)
        if calls:
            told["tool_calls"] = calls
            self._note(calls)
        logprobs = [_chance(*chance) for chance in delta.logprobs] if self._wants_logprobs else []
        self._logprobs += logprobs
        return Piece(told, {"content": logprobs, "refusal": None} if logprobs else None) if told or logprobs else None

    def _note(self, calls: list[dict[str, Any]]) -> None:
        for call in calls:
            if call["index"] < len(self._tool_calls):
                self._tool_calls[-1]["function"]["arguments"] += call["function"]["arguments"]
            else:
                self._tool_calls.append({"id": call["id"], "type": "function", "function": dict(call["function"])})

    @property
    def finish_reason(self) -> str:
        """As OpenAI's API knows it."""
        assert self.end
        return "tool_calls" if self._tool_calls and self.end.finish_reason == "stop" else self.end.finish_reason

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(self._content)

    def message(self) -> dict[str, Any]:
        """All of it."""
        text = self.text
        message: dict[str, Any] = {"role": "assistant", "content": text or None if self._tool_calls else text}
        message["refusal"] = None
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if self._tool_calls:
            message["tool_calls"] = self._tool_calls
        return message

    def logprobs(self) -> dict[str, Any] | None:
        """Of all tokens, where they are wanted."""
        return {"content": self._logprobs, "refusal": None} if self._wants_logprobs else None


def _chance(spelled: str, logprob: float, others: list[list[Any]]) -> dict[str, Any]:
    return _token(spelled, logprob) | {"top_logprobs": [_token(*other) for other in others]}


def _token(spelled: str, logprob: float) -> dict[str, Any]:
    data = spelled.encode("latin-1")
    return {"token": data.decode(errors="replace"), "logprob": max(logprob, -9999.0), "bytes": list(data)}
