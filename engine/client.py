"""The engine as the front process sees it: requests go in, each comes back as a stream of events.

Behind it stands one worker process (engine.process). llama.cpp can crash, and Python HTTP work must not take time from
the decode loop; so the worker is started, watched and started again here, and nobody else knows where it lives.

    LOADING -> READY -> IDLE (unloaded) -> WAKING -> READY ; READY -> RESTARTING -> READY ; any -> FAILED, STOPPING

Before it starts a worker it asks for room in the memory, which it may share with other engines (engine.room).
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from engine.inflight import InFlight
from engine.memory import DoesNotFitError
from engine.process import Process
from engine.request import Cancel, Config, Event, Failed, LoadFailed, Ready, Request, Trouble, Word, stamp
from engine.room import Room
from engine.stream import LOADS, NOTHING, OPEN, Begun, Sink, State, Status, Stream, Work, refusal

log = logging.getLogger("engine")
FULL = (Trouble.QUEUE_FULL, "Too many requests are waiting; try again later.")
PAUSE_S = 2.0  # before a model that was loaded once is tried again, twice that before the next time
MOST_FAILURES = 5  # to load it, in a row; then it rests until its file changes or somebody asks for it
WANTS = (State.LOADING, State.WAKING, State.RESTARTING)  # a worker
BEAT_S = 0.25  # how often the worker's heartbeat is looked at


class Engine:
    """Starts and watches the worker. All methods may be called from any thread."""

    def __init__(self, config: Config, max_queue: int, keep_alive_s: float | None = None, room: Room | None = None) -> None:
        self.config = config
        self.forced = False  # to be loaded whether it fits or not
        self._keep_alive_s = keep_alive_s
        self._room = room or Room()
        self._changed = threading.Condition()  # guards everything below
        self._state = State.LOADING
        self._in_flight = InFlight(config.n_slots, config.n_slots + max_queue)
        self._leaving = False  # the worker finishes what it has, and gets nothing more
        self._gone = True  # else it is ending; another one has to wait for the memory
        self._process: Process | None = None
        self._ready: Ready | None = None
        self._failure: str | None = None
        self._file = Path(config.model_path).name  # where it lies is not for everybody
        self._failed_file = ""  # the state of the file that could not be loaded
        self._n_restarts = 0
        self._idle_since = time.monotonic()
        self._stalled: str | None = None  # the request at which a worker stalled; "": all that ran
        watches = {"engine-watch": self._watch, "engine-care": self._care}
        self._threads = [threading.Thread(target=watch, name=name, daemon=True) for name, watch in watches.items()]

    def start(self, load: bool = True) -> None:
        """Begins to load the model, or waits for a request to do so; `wait` tells how it went."""
        self._state = State.LOADING if load else State.IDLE
        for thread in self._threads:
            thread.start()

    def load(self, force: bool = False) -> None:
        """Begins to load a model that is not loaded, also one that could not be. `force`: also if it does not fit."""
        with self._changed:
            self.forced = self.forced or force
            if self._state in (State.IDLE, State.FAILED):
                self._enter(State.WAKING)

    def unload(self) -> None:
        """Ends the worker once it has finished what it has. What comes meanwhile waits until it is loaded again."""
        with self._changed:
            self._changed.wait_for(lambda: not self._leaving)
            self._leaving = True
            self._changed.wait_for(lambda: self._state not in LOADS and not (self._process and self._in_flight.at_work))
            process, self._process, self._gone = self._process, None, False
            if self._state is State.READY:
                self._enter(State.WAKING if len(self._in_flight) else State.IDLE)
        if process:
            process.end()
        self._room.leave(self)
        with self._changed:
            self._leaving, self._gone = False, True
            self._changed.notify_all()

    def wait(self, timeout_s: float | None = None) -> Status:
        """Blocks while the model is being loaded."""
        with self._changed:
            self._changed.wait_for(lambda: self._state not in LOADS, timeout_s)
        return self.status()

    def status(self) -> Status:
        """How things are."""
        with self._changed:
            pid = self._process.pid if self._process else None
            return Status(self._state, self._ready, self._failure, len(self._in_flight), self._n_restarts, pid)

    @property
    def last_used(self) -> float:
        """When its last request ended, in time.monotonic's seconds; now, while there are any."""
        with self._changed:
            return time.monotonic() if len(self._in_flight) else self._idle_since

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
            if self._state is State.FAILED and stamp(self.config.model_path) != self._failed_file:
                self._enter(State.WAKING)  # it may be a better one
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
            self._changed.notify_all()
        if process:
            process.send(Cancel(id))

    def drain(self, timeout_s: float) -> bool:
        """Takes no new requests and waits for those that run; whether all of them ended in time."""
        with self._changed:
            self._enter(State.STOPPING)
            return self._changed.wait_for(lambda: not len(self._in_flight), timeout_s)

    def close(self) -> None:
        """Ends the worker. Requests that still run get a Failed event."""
        with self._changed:
            self._enter(State.STOPPING)
            self._in_flight.fail_all(*refusal(State.STOPPING))
            self._changed.notify_all()
            process, self._process = self._process, None
        if process:
            process.end()
        self._room.leave(self)
        for thread in self._threads:
            if thread.is_alive():  # else a signal came before `start`
                thread.join()

    def _enter(self, state: State) -> None:
        self._state = state
        self._changed.notify_all()

    def _watch(self) -> None:
        """The thread that starts workers, hears their events and sees them end."""
        n_failures = 0  # to load, in a row
        while self._may_spawn():
            process = None
            try:
                self._room.take(self)
                process = self._spawn()
                for word in process.words() if process else ():
                    self._on(word)
                ending = process.ending if process else ""
            except (OSError, DoesNotFitError) as error:  # OSError: no memory or no number left for another process
                ending = str(error)
            n_failures = 0 if self._ended(process, ending) else n_failures + 1
            if n_failures:
                self._room.leave(self)
                self._pause(n_failures)

    def _may_spawn(self) -> bool:
        """Waits while no worker is wanted; False once the engine is stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._state is State.STOPPING or (self._state in WANTS and self._gone))
            if self._state is State.STOPPING:
                self._in_flight.fail_all(*refusal(State.STOPPING))
            return self._state is not State.STOPPING

    def _spawn(self) -> Process | None:
        """A new worker, told what to load and what already waits; None: the engine is stopping. Raises OSError."""
        with self._changed:
            if self._state is State.STOPPING:
                return None
            process = self._process = Process()
            process.send(self.config)  # with the lock held: nothing may be said before it
            waiting = self._in_flight.hand_over()
        for request in waiting:
            process.send(request)
            with self._changed:
                cancelled = request.id not in self._in_flight
            if cancelled:  # its Cancel may have come before it
                process.send(Cancel(request.id))
        return process

    def _ended(self, process: Process | None, ending: str) -> bool:
        """What it means that a worker ended; False when it could not load the model."""
        with self._changed:
            if self._process is not process or not (process or ending):
                return True  # it was let go on purpose, or never began
            self._process = None
            if self._state in (State.READY, State.STOPPING, State.STALLED):
                self._lost(ending)
                return True
            if not process:
                self._failure = ending
            elif not self._failure:
                self._failure = f"The engine process ended ({ending}) while it loaded {self._file}."
            if self._state is not State.LOADING:  # else whoever started it all says so
                log.error("%s", self._failure)
            self._failed_file = stamp(self.config.model_path)
            self._enter(State.FAILED)
            self._in_flight.fail_all(*refusal(self._state, self._failure))
            return False

    def _pause(self, n_failures: int) -> None:
        """A model that was loaded once is tried again: there may have been no memory for a moment. Others rest."""
        with self._changed:
            again = self._ready and n_failures < MOST_FAILURES
            self._changed.wait_for(lambda: self._state is not State.FAILED, PAUSE_S * 2**n_failures if again else None)
            if self._state is State.FAILED:
                self._enter(State.RESTARTING)

    def _lost(self, ending: str) -> None:
        """A worker ended with requests in it. The lock is held."""
        log.error("The engine process ended (%s) with %d requests in it.", ending, len(self._in_flight))
        stopping = self._state is State.STOPPING
        self._in_flight.worker_ended(stopping, self._stalled, self.config.limits.step_s)
        self._stalled = None
        if not stopping:
            self._n_restarts += 1
            self._enter(State.RESTARTING)

    def _care(self) -> None:
        """The thread that ends a worker stuck in a step, and one that nobody has needed for keep_alive_s."""
        while True:
            with self._changed:
                rest_s = self._rest_s()
                if self._state is State.STOPPING:
                    return
                if rest_s is None or rest_s > 0:
                    if self._process and self._state is State.READY and len(self._in_flight):
                        self._look_at_beat(self._process)
                    self._changed.wait(BEAT_S if len(self._in_flight) else rest_s)
                    continue
            log.info("No request for %g s: the model is unloaded.", self._keep_alive_s)
            self.unload()

    def _rest_s(self) -> float | None:
        """Seconds for which a worker that has nothing to do stays; None: for ever, or it has."""
        if self._keep_alive_s is None or self._state is not State.READY or len(self._in_flight) or self._leaving:
            return None
        return self._idle_since + self._keep_alive_s - time.monotonic()

    def _look_at_beat(self, process: Process) -> None:
        seconds, id = process.beat.inside()
        if seconds > self.config.limits.step_s:
            log.error("A step of the engine has not come back for %.1f s; the engine is replaced.", seconds)
            self._stalled = id
            self._enter(State.STALLED)
            process.kill()

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
                    self._failure = message.replace(self.config.model_path, self._file)
                case _ if isinstance(word, Event) and self._in_flight.deliver(word):
                    self._idle_since = time.monotonic()
                    self._changed.notify_all()
