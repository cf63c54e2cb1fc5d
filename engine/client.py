"""The engine as the front process sees it: requests go in, each comes back as a stream of events.

Behind it stands one worker process (engine.process). llama.cpp can crash, and Python HTTP work must not take time from
the decode loop; so the worker is started, watched and started again here, and nobody else knows where it lives.

    LOADING -> READY <-> IDLE (unloaded after keep_alive_s) ; READY -> RESTARTING -> READY ; any -> STOPPING
"""

from __future__ import annotations

import logging
import threading
import time

from engine.process import Process
from engine.request import (
    Accepted,
    Cancel,
    Config,
    Delta,
    Failed,
    Finished,
    LoadFailed,
    Progress,
    Ready,
    Request,
    Result,
    Trouble,
    Word,
    stamp,
)
from engine.stream import NOTHING, OPEN, REFUSALS, Begun, Sink, State, Status, Stream, Work

log = logging.getLogger("engine")
LONGEST_PAUSE_S = 30.0  # between attempts to load a model that does not load any more
BEAT_S = 0.25  # how often the worker's heartbeat is looked at
DIED = (Trouble.ENGINE_DIED, "The engine crashed or stalled while it worked on this request.")
FULL = (Trouble.QUEUE_FULL, "Too many requests are waiting; try again later.")
STRIKES = 2  # workers that may end with a request in them before it is refused


class Engine:
    """Starts and watches the worker. All methods may be called from any thread."""

    def __init__(self, config: Config, max_queue: int, keep_alive_s: float | None = None) -> None:
        self.config = config
        self._n_open = config.n_slots + max_queue  # requests that may be in here at once
        self._keep_alive_s = keep_alive_s
        self._changed = threading.Condition()  # guards everything below
        self._state = State.LOADING
        self._work: dict[str, Work] = {}
        self._process: Process | None = None
        self._ready: Ready | None = None
        self._failure: str | None = None
        self._n_restarts = 0
        self._idle_since = time.monotonic()
        self._stalled: str | None = None  # the request at which a worker stalled; "": all that ran
        watches = {"engine-watch": self._watch, "engine-beat": self._watch_beat}
        self._threads = [threading.Thread(target=watch, name=name, daemon=True) for name, watch in watches.items()]
        if keep_alive_s is not None:
            self._threads.append(threading.Thread(target=self._unload_when_idle, name="engine-idle", daemon=True))

    def start(self) -> None:
        """Begins to load the model; `wait` tells how it went."""
        for thread in self._threads:
            thread.start()

    def wait(self, timeout_s: float | None = None) -> Status:
        """Blocks while the model is being loaded."""
        with self._changed:
            self._changed.wait_for(lambda: self._state not in (State.LOADING, State.RESTARTING, State.WAKING), timeout_s)
        return self.status()

    def status(self) -> Status:
        """How things are."""
        with self._changed:
            pid = self._process.pid if self._process else None
            return Status(self._state, self._ready, self._failure, len(self._work), self._n_restarts, pid)

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
            if self._state not in OPEN:
                work.put(Failed(request.id, *REFUSALS[self._state]))
                return stream
            if self._is_full(request.background):
                work.put(Failed(request.id, *FULL))
                return stream
            self._work[request.id] = work
            self._changed.notify_all()  # now there is a heartbeat to watch
            if self._state is State.IDLE:
                self._enter(State.WAKING)
            process = self._process
        if process:  # else _spawn sends it
            process.send(work.request)
        return stream

    def join(self, stream: Stream) -> Stream | None:
        """The same answer once more, refused like any other request where too many wait; None when it was cancelled."""
        with self._changed:
            return stream.refused(*FULL) if self._is_full(background=False) else stream.join()

    def _is_full(self, background: bool) -> bool:
        # Those that read ahead take no room in the queue: one for each slot at most, and the others do not see them.
        n = sum(work.n_readers for work in self._work.values() if work.background == background)
        return n >= (self.config.n_slots if background else self._n_open)

    def cancel(self, id: str) -> None:
        """Ends a request if it still runs or waits."""
        with self._changed:
            process = self._process
            if not self._work.pop(id, None):
                return
            self._idle_since = time.monotonic()
            self._changed.notify_all()
        if process:
            process.send(Cancel(id))

    def drain(self, timeout_s: float) -> bool:
        """Takes no new requests and waits for those that run; whether all of them ended in time."""
        with self._changed:
            self._enter(State.STOPPING)
            return self._changed.wait_for(lambda: not self._work, timeout_s)

    def close(self) -> None:
        """Ends the worker. Requests that still run get a Failed event."""
        with self._changed:
            self._enter(State.STOPPING)
            self._fail_all(*REFUSALS[State.STOPPING])
            process, self._process = self._process, None
        if process:
            process.end()
        for thread in self._threads:
            if thread.is_alive():  # else a signal came before `start`
                thread.join()

    def _enter(self, state: State) -> None:
        self._state = state
        self._changed.notify_all()

    def _fail_all(self, trouble: Trouble, message: str) -> None:
        for work in list(self._work.values()):
            self._fail(work, trouble, message)

    def _watch(self) -> None:
        """The thread that starts workers, hears their events and sees them end."""
        n_failures = 0  # to load, in a row
        while self._may_spawn():
            process = None
            try:
                process = self._spawn()
                for word in process.words():
                    self._on(word)
                ending = process.ending
            except OSError as error:  # no memory or no number left for another process
                ending = str(error)
            n_failures = 0 if self._ended(process, ending) else n_failures + 1
            if n_failures:
                pause_s = min(2.0 ** min(n_failures, 10), LONGEST_PAUSE_S)
                with self._changed:
                    self._changed.wait_for(lambda: self._state is State.STOPPING, pause_s)

    def _may_spawn(self) -> bool:
        """Waits while no worker is wanted; False once the engine is stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._state is not State.IDLE)
            if self._state is State.STOPPING:
                self._fail_all(*REFUSALS[State.STOPPING])
                return False
            if self._state is State.FAILED:
                self._enter(State.RESTARTING)
            return True

    def _spawn(self) -> Process:
        """A new worker, told what to load and what already waits. Raises OSError."""
        with self._changed:
            process = self._process = Process()
            process.send(self.config)  # with the lock held: nothing may be said before it
            waiting = [work.request for work in self._work.values()]
        for request in waiting:
            process.send(request)
            with self._changed:
                cancelled = request.id not in self._work
            if cancelled:  # its Cancel may have come before it
                process.send(Cancel(request.id))
        return process

    def _ended(self, process: Process | None, ending: str) -> bool:
        """What it means that a worker ended; False when it could not load the model."""
        with self._changed:
            if self._process is not process:
                return True  # it was let go on purpose
            self._process = None
            if self._state in (State.READY, State.STOPPING, State.STALLED):
                self._lost(ending)
                return True
            if not self._failure:
                self._failure = f"The engine process ended ({ending}) while it loaded {self.config.model_path}."
            if self._ready:  # else whoever started it all says so
                log.error("%s", self._failure)
            self._fail_all(*REFUSALS[State.FAILED])
            self._enter(State.FAILED)
            return False

    def _lost(self, ending: str) -> None:
        """A worker ended with requests in it: some are told so, the others wait for the next one. The lock is held."""
        log.error("The engine process ended (%s) with %d requests in it.", ending, len(self._work))
        for id, work in list(self._work.items()):
            work.n_strikes += not self._stalled  # else it is known whose fault it was
            if self._stalled == id:
                message = f"The engine did not come back from a step of this request within {self.config.limits.step_s:g} s."
                self._fail(work, Trouble.STALLED, message)
            elif self._state is State.STOPPING or (work.begun and self._stalled is None) or work.n_strikes >= STRIKES:
                self._fail(work, *DIED)
        self._stalled = None
        if self._state is not State.STOPPING:
            self._n_restarts += 1
            self._enter(State.RESTARTING)

    def _watch_beat(self) -> None:
        """The thread that sees a step which does not come back, and ends the worker that is stuck in it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._state is State.STOPPING or self._work)
                if self._state is State.STOPPING:
                    return
                process = self._process
                seconds, id = process.beat.inside() if process and self._state is State.READY else (0.0, "")
                if process and seconds > self.config.limits.step_s:
                    log.error("A step of the engine has not come back for %.1f s; the engine is replaced.", seconds)
                    self._stalled = id
                    self._enter(State.STALLED)
                    process.kill()
                self._changed.wait_for(lambda: self._state is State.STOPPING, BEAT_S)

    def _fail(self, work: Work, trouble: Trouble, message: str) -> None:
        work.put(Failed(work.id, trouble, message))
        del self._work[work.id]
        self._changed.notify_all()

    def _on(self, word: Word) -> None:
        with self._changed:
            match word:
                case Ready():
                    self._ready, self._failure = word, None
                    self._idle_since = time.monotonic()
                    if self._state is State.RESTARTING:
                        log.info("The engine runs again.")
                    if self._state is not State.STOPPING:
                        self._enter(State.READY)
                case LoadFailed(message):
                    self._failure = message
                case Finished(id) | Failed(id):
                    if work := self._work.pop(id, None):
                        work.put(word)
                    self._idle_since = time.monotonic()
                    self._changed.notify_all()
                case Accepted(id) | Progress(id) | Delta(id) | Result(id):
                    if work := self._work.get(id):  # else it was cancelled meanwhile
                        work.put(word)

    def _unload_when_idle(self) -> None:
        """The thread that ends the worker after keep_alive_s without a request: only so memory really comes back."""
        assert self._keep_alive_s is not None
        while True:
            with self._changed:
                if self._state is State.STOPPING:
                    return
                idle = self._state is State.READY and not self._work
                rest_s = self._idle_since + self._keep_alive_s - time.monotonic()
                if not idle or rest_s > 0:
                    self._changed.wait(rest_s if idle else None)
                    continue
                process, self._process = self._process, None
                self._enter(State.IDLE)
            if process:
                log.info("No request for %g s: the model is unloaded.", self._keep_alive_s)
                process.end()
