"""Where an answer comes from: the store, a generation that is running already, or a new one.

    hit      it was given before: replayed, the engine is not asked
    joined   the same request is being answered just now: one generation for all who ask, until the last of them leaves
    miss     generated, and kept when it is whole; begun by what is known of a shorter answer to the same request
    bypass   neither looked up nor kept: not repeatable, or not wanted

Only what can be repeated is kept: greedy answers, and those with a seed of the client's.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from api.control import Control
from api.errors import ApiError
from api.record import Record, replay
from cache import keys
from cache.store import Entry, Store
from engine.client import Engine
from engine.request import Delta, Event, Failed, Finished, Request
from engine.stream import Stream

VERSION = 1  # to be raised when Linnet itself begins to answer the same request otherwise
NOT_IN_KEY = {"id", "background", "done", "max_tokens"}  # the last one: a longer answer holds the shorter ones


class Events(Protocol):
    """What an answer is read from; see engine.stream.Stream."""

    def next(self, timeout_s: float | None = None) -> Event | None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Replay:
    """Events that are there already."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = iter(events)

    def next(self, timeout_s: float | None = None) -> Event | None:
        """The next one, at once."""
        return next(self._events)

    def close(self) -> None:
        """There is nothing to end."""


@dataclass(frozen=True)
class Found:
    """An answer on its way, and how it was found."""

    events: Events
    how: str  # as in the header X-Linnet-Cache
    age_s: int | None = None
    fingerprint: str | None = None  # of what made it, where that was earlier

    @property
    def headers(self) -> dict[str, str]:
        """What the client is told about it."""
        age = {} if self.age_s is None else {"Age": str(self.age_s)}
        return {"X-Linnet-Cache": self.how} | age


@dataclass(frozen=True)
class Order:
    """A request, and what its client wants of the store."""

    request: Request
    repeatable: bool
    control: Control
    owner: str | None = None  # whose answers these are; None: everybody's
    fingerprint: str = ""
    whole: bool = False  # the client wants the answer in one piece


@dataclass
class Source:
    """Answers for everybody, each computed once. `scope`: what the answers depend on beside the request."""

    engine: Engine
    store: Store | None = None
    scope: dict[str, Any] = field(default_factory=dict)
    clock: Sequence[str] = ()  # forms of the date in the model's chat template
    max_age_s: float | None = None
    _running: dict[tuple[str, int | None], Stream] = field(default_factory=dict)
    _starting: threading.Lock = field(default_factory=threading.Lock)

    def get(self, order: Order) -> Found:
        """Raises ApiError 504 for an answer that is not there and must not be made."""
        control, store = order.control, self.store
        if store is None or not order.repeatable or control.no_store:
            self._refuse_to_make(control)
            return Found(self.engine.submit(order.request), "bypass")
        key = self._key(order)
        entry = None if control.no_cache else self._usable(store.get(key), control)
        if entry and (hit := self._hit(store, entry, order)):
            return hit
        self._refuse_to_make(control)
        with self._starting:
            if stream := self._join(key, order.request.max_tokens):
                store.count(joined=1)
                return Found(stream, "joined")
            late = None if control.no_cache else self._usable(store.get_from_memory(key), control)
            if late and late is not entry:  # given just now
                entry = late
                if hit := self._hit(store, entry, order):
                    return hit
            store.count(misses=1)
            return Found(self._start(store, key, order, Record.load(entry.value) if entry else None), "miss")

    def _usable(self, entry: Entry | None, control: Control) -> Entry | None:
        """What is known, unless it is too old."""
        limits = [limit for limit in (control.max_age_s, self.max_age_s) if limit is not None]
        return None if not entry or (limits and entry.age_s > min(limits)) else entry

    @staticmethod
    def _hit(store: Store, entry: Entry, order: Order) -> Found | None:
        """None: the answer wanted is longer."""
        known = replay(entry.value, order.request.max_tokens, order.whole)
        if not known:
            return None
        store.count(hits=1, saved_s=known.saved_s, saved_tokens=known.saved_tokens)
        return Found(Replay(known.events), "hit", int(entry.age_s), known.fingerprint)

    def _join(self, key: str, max_tokens: int | None) -> Stream | None:
        running = self._running.get((key, max_tokens))
        return running.join() if running else None

    def _start(self, store: Store, key: str, order: Order, record: Record | None) -> Stream:
        """A new generation. A shorter answer is its beginning, unless it was diced: dice cannot go on from there."""
        greedy = order.request.sampling.temperature == 0
        begun = record.beginning() if record and greedy else []
        place = (key, order.request.max_tokens)
        deltas: list[Delta] = []
        ended = threading.Event()

        def listen(event: Event) -> None:
            match event:
                case Delta():
                    deltas.append(event)
                case Finished():
                    store.put(key, Record(deltas, event, order.fingerprint).dump())
            if isinstance(event, Finished | Failed):
                ended.set()
                self._running.pop(place, None)

        for left in [place for place, stream in list(self._running.items()) if stream.left]:
            self._running.pop(left, None)  # no event tells us of a cancelled request's end
        stream = self._running[place] = self.engine.submit(order.request, begun, listen)
        if ended.is_set():  # before it was noted as running
            self._running.pop(place, None)
        return stream

    def _key(self, order: Order) -> str:
        request = {k: v for k, v in vars(order.request).items() if k not in NOT_IN_KEY}
        request["sampling"] = vars(order.request.sampling)
        now = datetime.now()
        clock = [now.strftime(form) for form in self.clock]
        return keys.key({"version": VERSION, "scope": self.scope, "clock": clock, "owner": order.owner, "request": request})

    @staticmethod
    def _refuse_to_make(control: Control) -> None:
        if control.only_if_cached:
            raise ApiError(504, "This answer is not in the cache.", code="not_cached")
