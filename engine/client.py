"""The engine as the front process sees it: requests go in, each comes back as a stream of events.

Behind it stands one worker process. llama.cpp can crash, and Python HTTP work must not take time from the decode loop; so
the worker is looked after here (engine.supervisor), and nobody else knows where it lives.
"""

from __future__ import annotations

import time
from dataclasses import replace

from engine import memory
from engine.loading import Former, Loading
from engine.request import Cancel, Failed, Request, Trouble, stamp
from engine.stream import LOADS, NOTHING, OPEN, Begun, Leaving, Sink, State, Status, Stream, Work, refusal
from engine.supervisor import Supervisor

FULL = (Trouble.QUEUE_FULL, "Too many requests are waiting; try again later.")


class Engine(Supervisor):
    """Takes requests and hands them to the worker, which it loads and unloads. Any thread may call any method."""

    def model_file(self) -> str:
        """The state of the file that answers come from; "" when another one is loaded than is at its path by now."""
        at_path = stamp(self.config.model_path)
        with self._changed:
            loaded = self._ready.file if self._ready else ""
            return "" if self._state is State.READY and at_path and at_path != loaded else at_path or loaded

    def submit(self, request: Request, begun: Begun = NOTHING, listener: Sink | None = None) -> Stream:
        """Asks for an answer. Whatever is wrong comes as the stream's first event, never as an exception.

        `begun`: what is known of the answer; it comes first in the stream, and the engine goes on after it. `listener`
        gets each event before any reader does; the engine's own thread calls it, so it must not wait for anything.
        """
        work = Work(request, self.cancel, begun, listener)
        stream = Stream(work)
        with self._changed:
            if self._state is State.FAILED and self._may_try_again():
                self._enter(State.WAKING)
            if self._state not in OPEN:
                work.put(Failed(request.id, *refusal(self._state, self._failure)))
                return stream
            if self._in_flight.is_full(request.background):
                work.put(Failed(request.id, *FULL))
                return stream
            process = None if self._leaving else self._process
            self._in_flight.add(work, held=not process)
            self._changed.notify_all()  # now there is a heartbeat to watch
            if self._state is State.IDLE:
                self._enter(State.WAKING)
        if process:  # else _spawn sends it
            process.send(work.request)
        return stream

    def join(self, stream: Stream) -> Stream | None:
        """The same answer once more, refused like any other request where too many wait; None when it was cancelled."""
        with self._changed:
            return stream.refused(*FULL) if self._in_flight.is_full(background=False) else stream.join()

    def cancel(self, id: str) -> None:
        """Ends a request if it still runs or waits."""
        with self._changed:
            process = self._process
            if not self._in_flight.pop(id):
                return
            self._idle_since = time.monotonic()
            self._tell()
        if process:
            process.send(Cancel(id))

    def load(self, force: bool = False, n_ctx: int | None = None) -> Loading:
        """Begins to load a model that is not loaded, also one that could not be; what comes back tells how that went.

        `force`: also if it does not fit. `n_ctx`: it has this context from now on. A worker with another one goes once it
        has finished what it has; where none can be had with the new one, all becomes as it was.
        """
        loading = Loading(n_ctx)
        with self._changed:
            if n_ctx and n_ctx != self.n_ctx:
                self._resize(n_ctx, force)
            self._loadings.add(loading)
            if self._state is State.STOPPING:
                self._loadings.fail(refusal(self._state)[1])
            elif self._state is State.READY and self._leaving is not Leaving.MUST_GO:
                self._loadings.succeed()
            else:
                self.forced = self.forced or force
            if self._state in (State.IDLE, State.FAILED):
                self._enter(State.WAKING)
        return loading

    def give_up(self, loading: Loading) -> None:
        """Who has called `load` does not wait for it any more."""
        with self._changed:
            self._loadings.give_up(loading)
            self._tell()

    @property
    def n_ctx(self) -> int | None:
        """Tokens one request may use, from the next worker on; None: neither we nor the file's header say it."""
        need = None if self.config.n_ctx else memory.need(self.config)
        return need.n_ctx if need else self.config.n_ctx

    def unload(self) -> None:
        """The worker goes once it has finished what it has; what comes meanwhile waits until the model is loaded again.

        A model that could not be loaded, or only waits for its room, is forgotten at once.
        """
        with self._changed:
            self._loadings.fail("The model was unloaded meanwhile.")
            self._forget()
            if self._state is State.FAILED or (self._state is State.WAKING and not (self._process or len(self._in_flight))):
                self._enter(State.IDLE)
            elif self._process or self._state in LOADS:
                self._leaving = Leaving.MUST_GO
                self._tell()

    def unloaded(self, timeout_s: float | None = None) -> bool:
        """Waits until the worker that is to go has gone; whether it has in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._leaving or self._state is State.STOPPING, timeout_s)

    def wait(self, timeout_s: float | None = None) -> Status:
        """Blocks while the model is being loaded."""
        with self._changed:
            self._changed.wait_for(lambda: self._state not in LOADS, timeout_s)
        return self.status()

    def drain(self, timeout_s: float) -> bool:
        """Takes no new requests and waits for those that run; whether all of them ended in time."""
        with self._changed:
            self._enter(State.STOPPING)
            self._in_flight.fail_held(*refusal(State.STOPPING))
            return self._changed.wait_for(lambda: not len(self._in_flight), timeout_s)

    def _may_try_again(self) -> bool:
        """A file that has changed may be a better one, and one that was loaded before may have lacked memory."""
        changed = stamp(self.config.model_path) != self._failed_file
        return changed or (self._ready is not None and time.monotonic() >= self._again_at)

    def _resize(self, n_ctx: int, force: bool) -> None:
        """The next worker has another context; one that is there is to go. The lock is held."""
        state = {State.IDLE: State.IDLE, State.WAKING: State.IDLE, State.FAILED: State.FAILED}.get(self._state, State.READY)
        self._former = self._former or Former(self.config, self.forced, state)
        self.config, self.forced = replace(self.config, n_ctx=n_ctx), force
        if self._process:
            self._leaving = Leaving.MUST_GO
        self._tell()
