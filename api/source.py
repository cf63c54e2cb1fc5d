"""Where an answer comes from: the store, a generation that is running already, or a new one.

    hit      it was given before: replayed, the engine is not asked
    joined   the same request is being answered just now: one generation for all who ask, until the last of them leaves
    miss     generated, and kept when it is whole; begun by what is known of a shorter answer to the same request
    bypass   neither looked up nor kept: not repeatable, or not wanted

Only what can be repeated is kept: greedy answers, and those with a seed of the client's.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from importlib import metadata
from typing import Any, Protocol

from api.control import Control
from api.errors import ApiError
from api.record import Record, replay
from cache import keys
from cache.store import OWNED, Entry, Store
from engine.client import Engine
from engine.request import Accepted, Delta, Event, Failed, Finished, Reason, Request
from engine.stream import NOTHING, Begun, Stream

VERSION = 1  # to be raised when Linnet itself begins to answer the same request otherwise
NOT_IN_KEY = {"id", "background", "done", "max_tokens", "want"}  # the last one: a longer answer holds the shorter ones


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
    fingerprint: str = ""  # of what made it, now or earlier
    engine: Engine | None = None  # that makes it


def how(founds: Sequence[Found]) -> str:
    """Of several together: a hit only if all of them are."""
    return next((found.how for found in founds if found.how != "hit"), "hit")


@dataclass(frozen=True)
class Order:
    """A request, and what its client wants of the store."""

    request: Request
    repeatable: bool
    control: Control
    owner: str | None = None  # whose answers these are; None: everybody's
    whole: bool = False  # the client wants the answer in one piece


@dataclass(frozen=True)
class Scope:
    """What answers depend on beside the request."""

    facts: dict[str, Any] = field(default_factory=dict)  # the model, the engine, how it is set up
    clock: Sequence[str] = ()  # forms of the date in the model's chat template

    def now(self) -> dict[str, Any]:
        """All of it, as of this moment."""
        moment = datetime.now()
        return self.facts | {"version": VERSION, "clock": [moment.strftime(form) for form in self.clock]}


@dataclass
class Flight:
    """A generation that runs, and how many wait for it beside the one who asked first."""

    stream: Stream | None = None
    n_joined: int = 0


@dataclass
class Source:
    """Answers for everybody, each computed once. `scope` tells what they depend on now; None: that is not known."""

    engine: Engine
    store: Store | None = None
    scope: Callable[[], Scope | None] = Scope
    max_age_s: float | None = None
    may_make: Callable[[], None] = lambda: None  # raises ApiError when the model should not be loaded for an answer
    _running: dict[tuple[str, int | None], Flight] = field(default_factory=dict)
    _starting: threading.Lock = field(default_factory=threading.Lock)

    def clear(self, owner: str | None = None) -> int:
        """Forgets the answers of an owner, or all; how many there were. Raises cache.store.NotClearedError."""
        replay.cache_clear()
        return self.store.clear(owner) if self.store else 0

    def get(self, order: Order, before: Callable[[], None] = lambda: None) -> Found:
        """Raises ApiError 504 for an answer that is not there and must not be made. `before` it is made this is called."""
        control, store = order.control, self.store
        scope = self.scope() if store is not None and order.repeatable and not control.no_store else None
        if store is None or scope is None:
            self._about_to_make(control, before)
            return self._made(self.engine.submit(order.request), "bypass")
        facts = scope.now()
        key = _key(order, facts)
        entry = None if control.no_cache else self._usable(store.get(key), control)
        if entry and (hit := self._hit(store, entry, order)):
            return hit
        self._about_to_make(control, before)
        with self._starting:
            if stream := self._join(key, order.request.max_tokens):
                store.count(joined=1)
                return self._made(stream, "joined")
            late = None if control.no_cache else self._usable(store.get_from_memory(key), control)
            if late and late is not entry:  # given just now
                entry = late
                if hit := self._hit(store, entry, order):
                    return hit
            store.count(misses=1)
            return self._made(self._start(store, key, order, facts, entry), "miss")

    def _made(self, stream: Stream, how: str) -> Found:
        return Found(stream, how, fingerprint=fingerprint(self.engine), engine=self.engine)

    def again(self, found: Found) -> Found | None:
        """The same answer once more, where it is just being made."""
        stream = self.engine.join(found.events) if isinstance(found.events, Stream) else None
        return replace(found, events=stream) if stream else None

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
        flight = self._running.get((key, max_tokens))
        stream = self.engine.join(flight.stream) if flight and flight.stream else None
        if flight and stream:
            flight.n_joined += 1
        return stream

    def _start(self, store: Store, key: str, order: Order, facts: dict[str, Any], known: Entry | None) -> Stream:
        """A new generation. A shorter answer is its beginning, unless it was diced: dice cannot go on from there."""
        record = Record.load(known.value) if known and order.request.sampling.temperature == 0 else None
        begun = Begun(record.beginning(), record.end.answer_s) if record else NOTHING
        place, flight = (key, order.request.max_tokens), Flight()
        made_by = fingerprint(self.engine)
        deltas: list[Delta] = []
        begins: list[str] = []

        def listen(event: Event) -> None:
            if isinstance(event, Accepted):
                begins.append(event.thinking)
            if isinstance(event, Delta):
                deltas.append(event)
            if isinstance(event, Finished):
                self._keep(store, key, order, facts, Record(deltas, event, made_by, begins[0]))
                n, seconds = flight.n_joined, event.prompt_s + event.answer_s - begun.answer_s
                store.count(saved_s=n * seconds, saved_tokens=n * (event.n_prompt + event.n_answer))
            if isinstance(event, Finished | Failed) and self._running.get(place) is flight:
                del self._running[place]

        for left in [p for p, other in list(self._running.items()) if other.stream and other.stream.left]:
            self._running.pop(left, None)  # no event tells us of a cancelled request's end
        self._running[place] = flight
        flight.stream = self.engine.submit(order.request, begun, listen)
        return flight.stream

    def _keep(self, store: Store, key: str, order: Order, facts: dict[str, Any], record: Record) -> None:
        """Keeps an answer, unless it is not what its key says, or a longer one is kept already."""
        scope = self.scope()
        if not scope or scope.now() != facts:
            return  # another model was loaded meanwhile, or it is another day
        if record.end.stop_reason == Reason.MAX_TOKENS and not order.control.no_cache:
            known = self._usable(store.get_from_memory(key), order.control)
            if known and replay(known.value, order.request.max_tokens, order.whole):
                return
        store.put(key, record.dump())

    def _about_to_make(self, control: Control, before: Callable[[], None]) -> None:
        if control.only_if_cached:
            raise ApiError(504, "This answer is not in the cache.", code="not_cached")
        self.may_make()
        before()


def _key(order: Order, facts: dict[str, Any]) -> str:
    request = {k: v for k, v in vars(order.request).items() if k not in NOT_IN_KEY}
    key = keys.key({"facts": facts, "request": request})
    return f"{order.owner}{OWNED}{key}" if order.owner else key


def fingerprint(engine: Engine) -> str:
    """Changes when the model's file (its template is in it), its context or the engine's build does."""
    return _fingerprint(engine.model_file() or str(engine.status().ready), engine.n_ctx, engine.config.kv_type)


@functools.lru_cache(64)
def _fingerprint(file: str, n_ctx: int | None, kv_type: str) -> str:
    facts = (file, n_ctx, kv_type, metadata.version("llama-cpp-python"))
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
