"""What the events of a streamed answer come to: the message that is kept of it."""

from __future__ import annotations

import json
import time
from typing import Any

from api.errors import ApiError

STOPPING = "server_stopping"  # the code of an error that is no failure of this answer
TOLD_AT_THE_END = ("timings", "usage")


class Said:
    """A message that grows. Its state is `running` until it is ended."""

    def __init__(self, message: dict[str, Any], facts: dict[str, Any], began: float) -> None:
        """`message`: what there is of it already; `began`: when it was asked for, on the monotonic clock."""
        self._message = message
        self._began = began
        self._facts = facts
        self._content, self._reasoning = [message["content"]], [message["reasoning"]]
        self._thinks_since: float | None = None
        self.state = "running"
        self.n_events = 0

    def add(self, event: bytes) -> None:
        """A server-sent event of /v1/chat/completions."""
        self.n_events += 1
        chunk = json.loads(event.removeprefix(b"data: "))
        if "error" in chunk:
            self._fail(chunk["error"])
            return
        for choice in chunk["choices"]:
            self._grow(choice["delta"])
            if choice["finish_reason"]:
                self._facts["stop_reason"] = choice["stop_reason"]
                self._thought()
        self._facts |= {name: chunk[name] for name in TOLD_AT_THE_END if chunk.get(name)}

    def fail(self, error: ApiError) -> None:
        """For what is not told by an event."""
        self._fail(error.body()["error"])

    def end(self, whole: bool) -> None:
        """Nothing more comes; `whole`: and nothing is missing."""
        self._thought()
        if self.state == "running":
            self.state = "done" if whole else "stopped"

    def message(self) -> dict[str, Any]:
        """As it is now."""
        now = {"content": "".join(self._content), "reasoning": "".join(self._reasoning), "state": self.state}
        return self._message | now | {"facts": dict(self._facts)}

    def _grow(self, delta: dict[str, Any]) -> None:
        thought, said = delta.get("reasoning_content"), delta.get("content")
        if thought or said:
            self._facts.setdefault("first_s", self._since(self._began))
        if thought:
            self._reasoning.append(thought)
            self._thinks_since = self._thinks_since or time.monotonic()
        if said:
            self._content.append(said)
            self._thought()

    def _thought(self) -> None:
        """It thinks no more."""
        if self._thinks_since:
            self._facts["thought_s"] = self._since(self._thinks_since)
            self._thinks_since = None

    def _fail(self, error: dict[str, Any]) -> None:
        self._facts["error"] = error
        self.state = "stopped" if error["code"] == STOPPING else "failed"

    @staticmethod
    def _since(moment: float) -> float:
        return round(time.monotonic() - moment, 3)
