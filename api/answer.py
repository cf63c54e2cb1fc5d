"""One answer on its way to its client: the engine's events as text, and that text as server-sent events.

Both notice when the client goes, also while nothing is sent, and log one line when the answer ends, however it ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any, Self

from api import chunks
from api.errors import ApiError, from_failed
from api.source import Found
from engine.request import Accepted, Delta, Event, Failed, Finished

log = logging.getLogger("linnet")
LOGS_ITSELF = "linnet.logs_itself"  # in a request's environ: its line comes when its answer ends
POLL_S = 0.2  # how often it is looked whether the client is still there


class ClientGone(Exception):
    """Nobody is there to read the answer."""


class Answer:
    """Iterates over the answer's text. Raises ApiError when the engine fails, ClientGone when the client has left."""

    def __init__(self, found: Found, environ: dict[str, Any]) -> None:
        self._events, self._how = found.events, found.how
        environ[LOGS_ITSELF] = True
        self._gone = environ.get("waitress.client_disconnected", lambda: False)
        self._started = time.monotonic()
        self._look_at = self._started + POLL_S
        self._first_s: float | None = None
        self._end: Finished | None = None
        self._outcome: str = "client left"  # until something else is known
        self._closed = False

    @property
    def finished(self) -> Finished:
        """How it ended; there only once the text is exhausted."""
        assert self._end
        return self._end

    def accept(self) -> None:
        """Waits until the engine takes the request: only then may the first byte be sent. Closes itself if it does not."""
        try:
            event = self._next()
            if isinstance(event, Failed):
                self._fail(event)
        except (ApiError, ClientGone):
            self.close()
            raise
        assert isinstance(event, Accepted)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        event = self._next()
        while isinstance(event, Delta) and not event.text:  # tokens that show nothing
            event = self._next()
        match event:
            case Delta(_, text):
                if self._first_s is None:
                    self._first_s = time.monotonic() - self._started
                return text
            case Finished() as end:
                self._end, self._outcome = end, end.stop_reason
                raise StopIteration
            case Failed() as failed:
                self._fail(failed)
        raise AssertionError("the engine accepts a request once")

    def close(self) -> None:
        """Cancels what still runs and logs the request; harmless when done before."""
        if not self._closed:
            self._closed = True
            self._events.close()
            log.info("%s", self._summary())

    def _next(self) -> Event:
        while True:
            event = self._events.next(POLL_S)
            now = time.monotonic()
            if now >= self._look_at:
                self._look_at = now + POLL_S
                if self._gone():
                    raise ClientGone
            if event:
                return event

    def _fail(self, event: Failed) -> None:
        error = from_failed(event)
        self._outcome = f"{error.status} {event.trouble}"
        raise error

    def _summary(self) -> str:
        """For people; no text of the prompt or the answer."""
        seconds = time.monotonic() - self._started
        if not self._end:
            return f"chat: {self._how}, {self._outcome} after {seconds:.2f} s"
        end = self._end
        said = f"chat: 200 {self._how}, {end.n_prompt} + {end.n_answer} tokens, {end.stop_reason}"
        if self._how == "hit":
            return f"{said}, {seconds * 1000:.1f} ms"
        first = "" if self._first_s is None else f", first after {self._first_s:.2f} s"
        return f"{said}, {end.n_cached} known, {chunks.tokens_per_s(end):.1f} tokens/s{first}"


class EventStream:
    """The body of a streamed answer. An object with `close`, for a generator that never began closes without a word."""

    def __init__(self, answer: Answer, heading: chunks.Heading, include_usage: bool, at_once: bool = False) -> None:
        """`at_once`: the whole answer is there; in one piece it is faster for both sides."""
        self._answer = answer
        self._heading = heading
        self._include_usage = include_usage
        self._events = iter([b"".join(self._generate())]) if at_once else self._generate()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        """The server calls it at the end and when the client has gone."""
        self._answer.close()

    def _generate(self) -> Iterator[bytes]:
        try:
            yield self._sse(self._heading.chunk({"role": "assistant", "content": "", "refusal": None}))
            event = chunks.pattern(self._with_usage(self._heading.text_chunk()))
            yield from map(event, self._answer)
            yield self._sse(self._heading.last_chunk(self._answer.finished))
            if self._include_usage:
                yield chunks.sse(self._heading.usage_chunk(self._answer.finished))
        except ApiError as error:
            yield chunks.sse(error.body())
        except ClientGone:
            return
        yield chunks.DONE

    def _sse(self, chunk: dict[str, Any]) -> bytes:
        return chunks.sse(self._with_usage(chunk))

    def _with_usage(self, chunk: dict[str, Any]) -> dict[str, Any]:
        return chunk | {"usage": None} if self._include_usage else chunk
