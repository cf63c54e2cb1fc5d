"""One worker from the front: started when it is wanted, watched, started again when it crashes, ended when it is to go.

    LOADING -> READY -> IDLE (unloaded) -> WAKING -> READY ; READY -> RESTARTING -> READY ; any -> FAILED, STOPPING

Before it starts a worker it asks for room in the memory, which it may share with others (engine.room).
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from engine.inflight import InFlight
from engine.loading import Former, Loading, Loadings
from engine.memory import DoesNotFitError
from engine.process import Process
from engine.request import Cancel, Config, Event, LoadFailed, Ready, Request, Word, stamp
from engine.room import Room
from engine.stream import LOADS, Leaving, State, Status, refusal
from engine.tally import Tally

log = logging.getLogger("engine")
PAUSE_S = 2.0  # before a model that was loaded once may be tried again, twice that before the next time
WANTS = (State.LOADING, State.WAKING, State.RESTARTING)  # a worker
BEAT_S = 0.25  # how often the worker's heartbeat is looked at


class Supervisor:
    """All methods may be called from any thread. What is asked of it is engine.client's part."""

    def __init__(self, config: Config, max_queue: int, keep_alive_s: float | None = None, room: Room | None = None) -> None:
        self.config = config
        self.forced = False  # to be loaded whether it fits or not
        self.tally = Tally()  # of its workers; may be exchanged for one of several engines before it starts
        self._keep_alive_s = keep_alive_s
        self._room = room or Room()
        self._changed = threading.Condition()  # guards everything below
        self._state = State.LOADING
        self._in_flight = InFlight(config.n_slots, config.n_slots + max_queue)
        self._loadings = Loadings()
        self._former: Former | None = None  # until a worker has the new context
        self._leaving = Leaving.NO
        self._gone = True  # else it is ending; another one has to wait for the memory
        self._process: Process | None = None
        self._ready: Ready | None = None
        self._failure: str | None = None
        self._file = Path(config.model_path).name  # where it lies is not for everybody
        self._failed_file = ""  # the state of the file that could not be loaded
        self._n_failures = 0  # to load it, in a row
        self._again_at = 0.0  # when it may be tried again
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

    def leave(self) -> None:
        """For another's sake: the worker goes once it has finished what it has. What comes meanwhile waits for the next."""
        with self._changed:
            if not self._leaving and (self._process or self._state in LOADS):
                self._leaving = Leaving.MAY_STAY
                self._tell()

    def stay(self) -> None:
        """Nobody needs its room any more."""
        with self._changed:
            process = self._process
            if not process or self._leaving is not Leaving.MAY_STAY or self._state is State.STALLED:
                return
            self._leaving = Leaving.NO
            held = self._in_flight.hand_over_held()
            self._tell()
        self._send(process, held)

    def status(self) -> Status:
        """How things are."""
        with self._changed:
            n, busy = len(self._in_flight), self._in_flight.at_work
            return Status(
                self._state,
                self._ready,
                self._failure,
                n,
                self._n_restarts,
                self._process.pid if self._process else None,
                busy,
                bool(self._leaving),
                time.monotonic() if n else self._idle_since,
            )

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for a worker that is not there yet."""
        with self._changed:
            return self._state in WANTS and (self._state is not State.WAKING or self._awaited)

    @property
    def _awaited(self) -> bool:
        return len(self._loadings) + len(self._in_flight) > 0

    def close(self) -> None:
        """Ends the worker. Requests that still run get a Failed event."""
        with self._changed:
            self._enter(State.STOPPING)
            self._in_flight.fail_all(*refusal(State.STOPPING))
            process, self._process = self._process, None
        if process:
            process.end()
        for thread in filter(threading.Thread.is_alive, self._threads):  # none, if a signal came before `start`
            thread.join()

    def _enter(self, state: State) -> None:
        self._state = state
        if state is State.STOPPING:
            self._loadings.fail(refusal(state)[1])
        if state is State.IDLE:
            self.forced = False
            self._forget()
        self._tell()

    def _forget(self) -> None:
        """That the model was loaded before its context was changed: it need not come back by itself."""
        self._former = self._former and self._former._replace(state=State.IDLE)

    def _tell(self) -> None:
        self._changed.notify_all()
        self._room.wake()  # it may be free to go, or not wanted any more

    def _watch(self) -> None:
        """The thread that starts workers, hears their events and sees them end."""
        while self._may_spawn():
            process, ending, tried = None, "", self.config
            try:
                if config := self._room.take(self):
                    tried = config
                    process = self._spawn(config)
                for word in process.words() if process else ():
                    self._on(word)
                ending = process.ending if process else ""
            except (OSError, DoesNotFitError) as error:  # OSError: no memory or no number left for another process
                ending = str(error)
            except Exception as error:  # whatever it is, those who wait must hear of it
                log.exception("A fault of ours: a model was not loaded.")
                ending = f"It could not be loaded ({type(error).__name__})."
            if not self._ended(process, ending, tried):
                self._room.leave(self)
        self._room.leave(self)

    def _may_spawn(self) -> bool:
        """Waits while no worker is wanted; False once the engine is stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._state is State.STOPPING or (self._state in WANTS and self._gone))
            if self._state is State.STOPPING:
                self._in_flight.fail_all(*refusal(State.STOPPING))
            return self._state is not State.STOPPING

    def _spawn(self, config: Config) -> Process | None:
        """A new worker, told what to load and what already waits; None: it is not wanted any more. Raises OSError."""
        with self._changed:
            if self._state not in WANTS or config is not self.config:
                return None
            process = Process(self.tally)
            process.send(config)  # with the lock held: nothing may be said before it
            self._process, self._failure = process, None
            waiting = self._in_flight.hand_over()
        self._send(process, waiting)
        return process

    def _send(self, process: Process, requests: list[Request]) -> None:
        for request in requests:
            process.send(request)
            with self._changed:
                cancelled = request.id not in self._in_flight
            if cancelled:  # its Cancel may have come before it
                process.send(Cancel(request.id))

    def _ended(self, process: Process | None, ending: str, tried: Config) -> bool:
        """What it means that a worker ended or was not started; whether what it had is kept for the next."""
        with self._changed:
            if self._process is not process or (not process and self._state is State.STOPPING):
                return True  # it was let go on purpose
            self._process = None
            if process and self._state in (State.READY, State.STOPPING, State.STALLED):
                return self._lost(ending)
            self._leaving = Leaving.NO
            if ending and tried is self.config:
                self._not_loaded(process, ending)
            else:  # nobody waits any more, or for another context than the one that was tried
                self._enter(self._state if self.wanted else State.IDLE)
            return False

    def _lost(self, ending: str) -> bool:
        """A worker ended with requests in it. The lock is held."""
        log.error("The engine process ended (%s) with %d requests in it.", ending, len(self._in_flight))
        stopping = self._state is State.STOPPING
        self._in_flight.worker_ended(stopping, self._stalled, self.config.limits.step_s)
        self._stalled = None
        leaving, self._leaving = self._leaving, Leaving.NO
        if not stopping:
            self._n_restarts += 1
            self._enter(State.RESTARTING if not leaving else State.WAKING if self._awaited else State.IDLE)
        return not leaving

    def _not_loaded(self, process: Process | None, ending: str) -> None:
        """A model could not be loaded; where only room was missing, the next request tries again. The lock is held."""
        if not process:
            self._failure = ending
        elif not self._failure:
            self._failure = f"The engine process ended ({ending}) while it loaded {self._file}."
        if self._state is not State.LOADING:  # else whoever started it all says so
            log.error("%s", self._failure)
        if self._former:
            self._restore(self._former, self._failure)
            return
        self._n_failures += 1
        self._again_at = time.monotonic() + PAUSE_S ** min(self._n_failures, 6)
        self._failed_file = stamp(self.config.model_path)
        self._in_flight.fail_all(*refusal(State.FAILED, self._failure))
        self._loadings.fail(self._failure)
        self._enter(State.FAILED if process else State.IDLE)

    def _restore(self, former: Former, failure: str) -> None:
        """No worker could be had with another context; what waits is answered with the one there was. The lock is held."""
        self.config, self.forced, self._former = former.config, former.forced, None
        self._loadings.fail_resized(failure)
        if former.state is State.READY:
            self._loadings.add(Loading())
        self._enter(State.WAKING if self._awaited else former.state)

    def _care(self) -> None:
        """The thread that ends a worker stuck in a step, one that is to leave, and one that nobody has needed for long."""
        while True:
            with self._changed:
                if self._state is State.STOPPING:
                    return
                rest_s = self._rest_s()
                if rest_s is not None and rest_s <= 0:
                    log.info("No request for %g s: the model is unloaded.", self._keep_alive_s)
                    self._leaving = Leaving.MUST_GO
                if not self._leaving or self._state in LOADS or self._in_flight.at_work:
                    if self._process and self._state is State.READY and len(self._in_flight):
                        self._look_at_beat(self._process)
                    self._changed.wait(BEAT_S if len(self._in_flight) else rest_s)
                    continue
                process, self._process, self._gone = self._process, None, False
                if self._state is State.READY:
                    self._enter(State.WAKING if self._awaited else State.IDLE)
            if process:
                process.end()
            self._room.leave(self)
            with self._changed:
                self._leaving, self._gone = Leaving.NO, True
                self._changed.notify_all()

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
                    self._ready, self._failure, self._n_failures = word, None, 0
                    if self._leaving is not Leaving.MUST_GO:
                        self._former = None
                        self._loadings.succeed()
                    self._idle_since = time.monotonic()
                    if self._state is State.RESTARTING:
                        log.info("The engine runs again.")
                    if self._state is not State.STOPPING:
                        self._enter(State.READY)
                case LoadFailed(message):
                    self._failure = message.replace(self.config.model_path, self._file)
                case _ if isinstance(word, Event) and self._in_flight.deliver(word):
                    self._idle_since = time.monotonic()
                    self._tell()
