"""What the front sees of the engine: its state, and one stream of events per request."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from engine.request import Accepted, Delta, Event, Failed, Finished, Ready, Request, Trouble

log = logging.getLogger("engine")


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


class Leaving(IntEnum):
    """Whether a worker is to go once it has finished what it has; until then it gets nothing more."""

    NO = 0
    MAY_STAY = 1  # if its room is not needed after all
    MUST_GO = 2


LOADS = (State.LOADING, State.RESTARTING, State.STALLED, State.WAKING)  # something else will come of these by itself
OPEN = (State.READY, State.IDLE, State.WAKING)
REFUSALS = {
    State.LOADING: (Trouble.LOADING, "The model is still being loaded."),
    State.RESTARTING: (Trouble.LOADING, "The engine is being restarted."),
    State.STALLED: (Trouble.LOADING, "The engine is being replaced."),
    State.FAILED: (Trouble.NO_MODEL, "The model could not be loaded."),
    State.STOPPING: (Trouble.STOPPING, "The server is shutting down."),
}


def refusal(state: State, failure: str | None = None) -> tuple[Trouble, str]:
    """What is said to those who ask in a state that is not open. `failure`: why the model is not loaded."""
    trouble, message = REFUSALS[state]
    return trouble, f"{message} {failure}" if state is State.FAILED and failure else message


@dataclass(frozen=True)
class Status:
    """The engine at one moment."""

    state: State
    ready: Ready | None  # what is (or was last) loaded
    failure: str | None  # why loading failed
    n_requests: int  # running and waiting
    n_restarts: int
    worker_pid: int | None
    busy: bool = False  # its worker has something to do
    leaving: bool = False  # and is to go when it has done it
    last_used: float = 0.0  # when its last request ended, in time.monotonic's seconds; now, while there are any

    @property
    def serves(self) -> bool:
        """Whether a request would be served now."""
        return self.state in OPEN


Sink = Callable[[Event], None]


@dataclass(frozen=True)
class Begun:
    """An answer generated earlier, as far as it is known, and how long that took."""

    deltas: Sequence[Delta] = ()
    answer_s: float = 0.0


NOTHING = Begun()


class Work:
    """One request in the engine: what is asked, what has come of it, and who reads that.

    All events are kept, so whoever joins later gets all of them. Once the last reader has left, the request is cancelled.
    The answer goes on after what is `begun` of it. `listener` gets each event before any reader does.
    """

    def __init__(
        self,
        request: Request,
        cancel: Callable[[str], None],
        begun: Begun = NOTHING,
        listener: Sink | None = None,
    ) -> None:
        self._request = request
        self._cancel = cancel
        self._before = begun
        self._tokens = [token for delta in begun.deltas for token in delta.tokens]  # of the answer, as far as they are known
        self._lock = threading.Lock()  # guards what follows
        self._events: list[Event] = []
        self._listener = listener
        self._readers: list[Sink] = []
        self.left = False  # by its last reader
        self.id, self.background = request.id, request.background
        self.begun = False  # whether a worker has delivered text
        self.n_strikes = 0  # workers that ended while this request was in them

    def put(self, event: Event) -> None:
        """For the engine: appends an event. That a second worker accepts the request too is nothing new."""
        match event:
            case Accepted():
                if not self._events:
                    self._put(event, *self._before.deltas)
                return
            case Delta():
                self.begun = True
                self._tokens += event.tokens
            case Finished():
                event = replace(event, answer_s=self._before.answer_s + event.answer_s)
        self._put(event)

    def _put(self, *events: Event) -> None:
        with self._lock:
            self._events += events
            for event in events:
                if self._listener:
                    self._tell(self._listener, event)
                for reader in self._readers:
                    reader(event)

    @staticmethod
    def _tell(listener: Sink, event: Event) -> None:
        try:
            listener(event)
        except Exception:  # it must not take those with it who wait for the answer
            log.exception("A fault of ours: an answer was not kept.")

    @property
    def n_readers(self) -> int:
        """How many wait for it."""
        return len(self._readers)

    @property
    def request(self) -> Request:
        """For a worker: what is asked, and how much of the answer is there already."""
        return replace(self._request, done=list(self._tokens)) if self._tokens else self._request

    def join(self, reader: Sink) -> bool:
        """Another reader: it gets all events from the first on. False when the last one's leaving cancelled the request."""
        with self._lock:
            if self.left:
                return False
            for event in self._events:
                reader(event)
            self._readers.append(reader)
            return True

    def leave(self, reader: Sink) -> None:
        """Nobody reads there any more."""
        with self._lock:
            self._readers.remove(reader)
            self.left = not self._readers
        if self.left:
            self._cancel(self.id)


class Stream:
    """The events of one request: one Accepted or Failed, then Deltas, then one Finished or Failed.

    `close` must be called by whoever asked, in whatever way it ends: the last one's cancels what still runs.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._sink = self._events.put  # kept: each look at it would make another object
        self._open = work.join(self._sink)

    def next(self, timeout_s: float | None = None) -> Event | None:
        """The next event, None when there was none for `timeout_s` seconds; without it, waits as long as it takes."""
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    @property
    def left(self) -> bool:
        """Whether its last reader has left."""
        return self._work.left

    def join(self) -> Stream | None:
        """The same events for somebody else; None when the request is cancelled already."""
        other = Stream(self._work)
        return other if other._open else None

    def refused(self, trouble: Trouble, message: str) -> Stream:
        """A stream for somebody who may not join."""
        work = Work(self._work.request, lambda _: None)
        work.put(Failed(work.id, trouble, message))
        return Stream(work)

    def close(self) -> None:
        """Harmless when done before."""
        if self._open:
            self._open = False
            self._work.leave(self._sink)
