"""The answer to one request on its way to its client: the events of all its choices, as they come.

It notices when the client goes, also while nothing is sent, and logs one line when the answer ends, however it ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from api import chunks
from api.choice import Choice, Piece
from api.errors import ApiError, from_failed
from api.source import Found, how
from engine.client import FULL
from engine.request import Accepted, Delta, Event, Failed, Finished, Progress, Result, Trouble
from engine.stream import LOADS

log = logging.getLogger("linnet")
LOGS_ITSELF = "linnet.logs_itself"  # in a request's environ: its line comes when its answer ends
SEATS = "linnet.seats"  # in a request's environ, too: a semaphore
TAKEN = "linnet.seat"  # the same, when one is taken
POLL_S = 0.2  # how often it is looked whether the client is still there
SILENCE_S = 10.0  # after so long something is said, lest somebody in between takes the connection for dead


Params = Mapping[Trouble, str]


class ClientGone(Exception):
    """Nobody is there to read the answer."""


class News(NamedTuple):
    """Something new about a choice: a piece of it, its end, or how far its prompt is. None: nothing for SILENCE_S."""

    choice: int
    what: Piece | Finished | Progress | None


def client_gone(environ: dict[str, Any]) -> Callable[[], bool]:
    """Tells whether the client has gone, where the server can see that."""
    gone: Callable[[], bool] = environ.get("waitress.client_disconnected", lambda: False)
    return gone


def take_seat(environ: dict[str, Any]) -> None:
    """One of the places for those who wait, each with a thread of the server; before anything is asked of an engine.

    Its answer leaves it when it is closed. Raises ApiError 429.
    """
    seats: threading.Semaphore | None = environ.get(SEATS)
    if seats and TAKEN not in environ:
        if not seats.acquire(blocking=False):
            raise from_failed(Failed("", *FULL))
        environ[TAKEN] = seats


def leave_seat(environ: dict[str, Any]) -> None:
    """Harmless when there is none."""
    if seats := environ.pop(TAKEN, None):
        seats.release()


class Answer:
    """Iterates over the news of all choices. Raises ApiError when the engine fails, ClientGone when the client has left."""

    def __init__(
        self,
        founds: Sequence[Found],
        choices: Sequence[Choice],
        environ: dict[str, Any],
        params: Params,
        quiet: bool = False,
    ) -> None:
        """`params`: which field a trouble is about; `quiet`: the request's line in the log is not this one's to write."""
        self._environ = environ
        self.choices = choices
        self.n_prompt = 0
        self.result: list[Any] = []  # what was asked for beside an answer
        self._events = [found.events for found in founds]
        self._engines = [found.engine for found in founds if found.engine]
        self._how = how(founds)
        self._params, self._quiet = params, quiet
        if not quiet:
            environ[LOGS_ITSELF] = True
        self._gone = client_gone(environ)
        self._started = time.monotonic()
        self._look_at = self._started + POLL_S
        self._first_s: float | None = None
        self._n_accepted = 0  # choices that the engine has taken
        self._outcome: str = "client left"  # until something else is known
        self._closed = False
        self._news = self._iterate()

    def accept(self, limit_s: float = float("inf")) -> bool:
        """Waits until the engine takes the request, for so long; whether it has. Closes itself if it is refused."""
        try:
            while self._n_accepted < len(self.choices):
                event = self._wait(self._n_accepted, limit_s)
                if not event:
                    return False
                if isinstance(event, Failed):
                    self._fail(event)
                assert isinstance(event, Accepted)
                self.choices[self._n_accepted].begin(event.thinking)
                self.n_prompt = event.n_prompt
                self._n_accepted += 1
        except (ApiError, ClientGone):
            self.close()
            raise
        return True

    @property
    def loads(self) -> bool:
        """Whether its model is being loaded, or is about to be once it has finished what it had before."""
        statuses = [engine.status() for engine in self._engines]
        return any(status.state in LOADS or status.leaving for status in statuses)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> News:
        return next(self._news)

    def read(self) -> None:
        """All of it, for those who want it whole."""
        for _ in self:
            pass

    def close(self) -> None:
        """Cancels what still runs and logs the request; harmless when done before."""
        if not self._closed:
            self._closed = True
            leave_seat(self._environ)
            for events in self._events:
                events.close()
            if not self._quiet:
                log.info("%s", self._summary())

    def _iterate(self) -> Iterator[News]:
        running = dict(enumerate(self._events))
        while running:
            # They go on step by step together: when the first has news, so have the others.
            first = next(iter(running))
            event = self._wait(first, SILENCE_S)
            if not event:
                yield News(first, None)
            for i in list(running):
                if i != first:
                    event = running[i].next(0)
                while event:
                    for what in self._told(i, event):
                        yield News(i, what)
                    if isinstance(event, Finished):
                        del running[i]
                        break
                    event = running[i].next(0)

    def _told(self, i: int, event: Event) -> Iterator[Piece | Finished | Progress]:
        """What an event means for the client."""
        piece = None
        match event:
            case Delta():
                if event.text and self._first_s is None:
                    self._first_s = time.monotonic() - self._started
                piece = self.choices[i].push(event)
            case Finished():
                piece = self.choices[i].finish(event)
                self._outcome = event.stop_reason
            case Result():
                self.result = event.values
            case Failed():
                self._fail(event)
        if piece:
            yield piece
        if isinstance(event, Finished | Progress):
            yield event

    def _wait(self, i: int, limit_s: float = float("inf")) -> Event | None:
        """The next event of a choice; None when there was none for so long."""
        began = time.monotonic()
        while True:
            event = self._events[i].next(POLL_S)
            now = time.monotonic()
            if now >= self._look_at:
                self._look_at = now + POLL_S
                if self._gone():
                    raise ClientGone
            if event or now - began >= limit_s:
                return event

    def _fail(self, event: Failed) -> None:
        error = from_failed(event, self._params.get(event.trouble))
        self._outcome = f"{error.status} {event.trouble}"
        raise error

    def _summary(self) -> str:
        """For people; no text of the prompt or the answer."""
        seconds = time.monotonic() - self._started
        if not all(choice.end for choice in self.choices):
            return f"chat: {self._how}, {self._outcome} after {seconds:.2f} s"
        end = chunks.total(self.choices)
        n = f"{len(self.choices)} x " if len(self.choices) > 1 else ""
        said = f"chat: 200 {self._how}, {n}{end.n_prompt} + {end.n_answer} tokens, {end.stop_reason}"
        if self._how == "hit":
            return f"{said}, {seconds * 1000:.1f} ms"
        first = "" if self._first_s is None else f", first after {self._first_s:.2f} s"
        return f"{said}, {end.n_cached} known, {chunks.tokens_per_s(end):.1f} tokens/s{first}"
