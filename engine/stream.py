"""What the front sees of the engine: its state, and one stream of events per request."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from engine.request import Accepted, Delta, Event, Ready, Request, Trouble


class State(StrEnum):
    """What the engine is doing, for /health and for those who submit."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"  # the worker died; requests are refused until the model is loaded again
    STALLED = "stalled"  # a step did not come back; the worker is being ended
    IDLE = "idle"  # unloaded to save memory; the next request loads it and waits
    WAKING = "waking"  # that load
    FAILED = "failed"  # it cannot be loaded (any more)
    STOPPING = "stopping"


OPEN = (State.READY, State.IDLE, State.WAKING)
REFUSALS = {
    State.LOADING: (Trouble.LOADING, "The model is still being loaded."),
    State.RESTARTING: (Trouble.LOADING, "The engine is being restarted."),
    State.STALLED: (Trouble.LOADING, "The engine is being replaced."),
    State.FAILED: (Trouble.NO_MODEL, "The model could not be loaded."),
    State.STOPPING: (Trouble.STOPPING, "The server is shutting down."),
}


@dataclass(frozen=True)
class Status:
    """The engine at one moment."""

    state: State
    ready: Ready | None  # what is (or was last) loaded
    failure: str | None  # why loading failed
    n_requests: int  # running and waiting
    n_restarts: int
    worker_pid: int | None

    @property
    def serves(self) -> bool:
        """Whether a request would be served now."""
        return self.state in OPEN


class Stream:
    """The events of one request: one Accepted or Failed, then Deltas, then one Finished or Failed.

    `close` must be called by whoever asked, in whatever way it ends: it cancels what still runs.
    """

    def __init__(self, request: Request, cancel: Callable[[str], None]) -> None:
        self._request = request
        self._cancel = cancel
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._accepted = False
        self._tokens: list[int] = []  # of the answer, as far as their text was delivered
        self.id, self.background = request.id, request.background
        self.n_strikes = 0  # workers that ended while this request was in them

    def put(self, event: Event) -> None:
        """For the engine: appends an event. That a second worker accepts the request too is nothing new."""
        match event:
            case Accepted():
                if self._accepted:
                    return
                self._accepted = True
            case Delta():
                self._tokens += event.tokens
        self._events.put(event)

    @property
    def begun(self) -> bool:
        """Whether text was delivered."""
        return bool(self._tokens)

    @property
    def request(self) -> Request:
        """For a worker: what is asked, and how much of the answer is delivered already."""
        return replace(self._request, done=list(self._tokens)) if self._tokens else self._request

    def next(self, timeout_s: float | None = None) -> Event | None:
        """The next event, None when there was none for `timeout_s` seconds; without it, waits as long as it takes."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Nobody reads any more; frees the slot if the request still has one. Harmless after the end."""
        self._cancel(self.id)
