"""Memory for the workers of several engines: who has some, and who must go for whom.

A model is loaded beside the others while all fit. When one more does not, another is told to leave: one that has nothing
to do, else the one used least recently, which finishes what it has first. Those that wait for room get it in the order in
which they came; so models that are asked in turns take turns.

The lock here is held for moments only, and nothing is asked of an engine meanwhile: engines call `leave` and `wake` with
their own lock held.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from engine import memory

if TYPE_CHECKING:
    from engine.request import Config
    from engine.supervisor import Supervisor


class Room:
    """All methods may be called from any thread. `force`: whatever fits or not."""

    def __init__(self, force: bool = False) -> None:
        self._force = force
        self._changed = threading.Condition()  # guards everything below
        self._n_changes = 0
        self._waiting: list[Supervisor] = []  # in the order in which they came
        self._inside: dict[Supervisor, memory.Need | None] = {}

    def take(self, engine: Supervisor) -> Config | None:
        """Waits until there is room, and for what: the configuration may change meanwhile. None: nobody wants it any more.

        Raises DoesNotFitError if there will never be any.
        """
        config = engine.config
        told: list[Supervisor] = []  # to leave, for this one
        with self._changed:
            self._waiting.append(engine)
        try:
            while True:
                with self._changed:
                    n_changes, inside, is_next = self._n_changes, dict(self._inside), self._waiting[0] is engine
                if engine.config is not config:
                    self._stay(told)
                config = engine.config
                need = memory.need(config)
                if engine in inside and inside[engine] == need:
                    return config  # its worker crashed, and what it had is there for the next
                if engine in inside:
                    self.leave(engine)
                    continue
                if not engine.wanted:
                    return None
                if is_next:
                    if not engine.forced:
                        self.check(config)
                    if not inside or not need or need.total_bytes <= self._free(inside):
                        with self._changed:
                            self._inside[engine] = need
                        told.clear()
                        return config
                    told += self._make(inside)
                self._await_change(n_changes)
        finally:
            with self._changed:
                self._waiting.remove(engine)
            self._stay(told)
            self.wake()

    def leave(self, engine: Supervisor) -> None:
        """Its worker is gone."""
        with self._changed:
            self._inside.pop(engine, None)
        self.wake()

    def wake(self) -> None:
        """Something has changed: who waits looks again."""
        with self._changed:
            self._n_changes += 1
            self._changed.notify_all()

    def check(self, config: Config) -> None:
        """Raises DoesNotFitError for a model that would not fit even with all others gone."""
        if self._force:
            return
        with self._changed:
            others = dict(self._inside)
        freed = 0
        for other, need in others.items():
            pid = other.status().worker_pid
            freed += memory.own(pid) if pid or not need else need.total_bytes  # its worker begins or ends just now
        memory.check(config, freed)

    def _await_change(self, seen: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._n_changes != seen)

    @staticmethod
    def _stay(told: list[Supervisor]) -> None:
        """Those who were told to leave need not."""
        for other in told:
            other.stay()
        told.clear()

    @staticmethod
    def _make(inside: dict[Supervisor, memory.Need | None]) -> list[Supervisor]:
        """Tells one to leave, unless one is just going; which. Of those that are busy only one at a time is told."""
        now = {engine: engine.status() for engine in inside}
        going = [status for status in now.values() if status.leaving]
        staying = sorted((e for e in inside if not now[e].leaving), key=lambda engine: now[engine].last_used)
        idle = [engine for engine in staying if not now[engine].busy]
        if all(status.busy for status in going) and (idle or not going):
            (idle or staying)[0].leave()
            return (idle or staying)[:1]
        return []

    def _free(self, inside: dict[Supervisor, memory.Need | None]) -> int:
        """Bytes nobody has or is about to have. To the system mapped weights are free, and loading takes a while."""
        unseen = sum(
            max(0, need.total_bytes + engine.config.ram_bytes - memory.own(engine.status().worker_pid))
            for engine, need in inside.items()
            if need
        )
        return memory.available() - unseen
