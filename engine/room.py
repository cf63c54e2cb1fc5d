"""Memory for the workers of several engines: who has some, and who must go for whom.

A model is loaded beside the others while all fit. When one more does not, those used least recently are unloaded, each
when it has finished what it has; so models that are asked in turns take turns.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from engine import memory
from engine.request import Config

if TYPE_CHECKING:
    from engine.client import Engine


class Room:
    """All methods may be called from any thread."""

    def __init__(self) -> None:
        self._taking = threading.Lock()  # one at a time makes room for itself, however long that takes
        self._guard = threading.Lock()
        self._inside: dict[Engine, memory.Need | None] = {}

    def take(self, engine: Engine) -> None:
        """Waits until there is room. Raises DoesNotFitError when there is none even with all others gone."""
        with self._taking:
            if engine in self._others(None):
                return  # its worker crashed, and what it had is there for the next
            need = memory.need(engine.config)
            while (others := self._others(engine)) and need and need.total_bytes > self._free():
                min(others, key=lambda other: other.last_used).unload()
            if not engine.forced:
                memory.check(engine.config)
            with self._guard:
                self._inside[engine] = need

    def check(self, config: Config) -> None:
        """Raises DoesNotFitError for a model that would not fit even with all others gone."""
        memory.check(config, sum(memory.own(other.status().worker_pid) for other in self._others(None)))

    def leave(self, engine: Engine) -> None:
        """Its worker is gone."""
        with self._guard:
            self._inside.pop(engine, None)

    def _others(self, engine: Engine | None) -> list[Engine]:
        with self._guard:
            return [other for other in self._inside if other is not engine]

    def _free(self) -> int:
        """Bytes nobody has or is about to have. To the system mapped weights are free, and loading takes a while."""
        with self._guard:
            inside = dict(self._inside)
        unseen = sum(
            max(0, need.total_bytes - memory.own(engine.status().worker_pid)) for engine, need in inside.items() if need
        )
        return memory.available() - unseen
