"""The models a client can name: the one this server was started with, and every other that is installed.

Each has an engine of its own, which is loaded when it is first asked something and unloaded when others need the memory
(engine.room). Knows nothing of files: what is installed, and what is known of a model beforehand, is told from outside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from api.errors import ApiError
from api.source import Source
from cache.store import Store
from engine.client import Engine
from engine.stream import State

DEFAULT = "default"
AT_HOME = (State.READY, State.LOADING, State.WAKING, State.RESTARTING, State.STALLED)
LONGEST_LIST = 30  # names in an error message


@dataclass(frozen=True)
class Model:
    """One of them."""

    name: str
    source: Source

    @property
    def engine(self) -> Engine:
        """Where its answers are made."""
        return self.source.engine


@dataclass(frozen=True)
class Doubt:
    """Why a model should not be loaded. `firm`: it cannot be, whatever anybody says."""

    sentence: str
    firm: bool


class Shelf:
    """What lies in the folder of models. This one is empty: for a server that has one model only."""

    def installed(self) -> Mapping[str, Path]:
        """By name."""
        return {}

    def open(self, path: Path) -> Source:
        """Answers of this model; its engine is not started. Raises OSError."""
        raise FileNotFoundError(path)

    def doubt(self, path: Path) -> Doubt | None:
        """What is to be said before it is loaded. It may take some seconds."""
        return None

    def remove(self, name: str) -> None:
        """Deletes its file. Raises OSError."""
        raise FileNotFoundError(name)


class Pool:
    """Any thread may ask."""

    def __init__(self, default: Model, shelf: Shelf | None = None) -> None:
        self.default = default
        self._shelf = shelf or Shelf()
        self._lock = threading.Lock()
        self._opened = {default.name: default}
        self._stopping = False

    @property
    def store(self) -> Store | None:
        """Where the answers of all of them are kept."""
        return self.default.source.store

    def names(self) -> list[str]:
        """Of all models, the default first."""
        return [self.default.name, *(name for name in self._shelf.installed() if name != self.default.name)]

    def get(self, name: str | None, force: bool = False) -> Model:
        """The model meant. Raises ApiError 404 for one that is not there, 409 for one that should not be loaded."""
        if name is None or name in (DEFAULT, self.default.name):
            return self.default
        model = self._opened.get(name)
        if model and model.engine.status().state in AT_HOME:
            return model
        path = self._shelf.installed().get(name)
        if not path:
            self._forget(name)
            raise self.unknown(name)
        if not (force or (model and model.engine.forced)) and (doubt := self._shelf.doubt(path)):
            raise _doubtful(name, doubt)
        return self._open(name, path)

    def state(self, name: str) -> str:
        """What it is doing, as clients are told."""
        model = self._opened.get(name)
        state = model.engine.status().state if model else State.IDLE
        return STATES.get(state, "loading")

    def load(self, name: str | None, force: bool) -> Model:
        """Begins to load a model. Raises ApiError."""
        model = self.get(name, force)
        model.engine.load(force)
        return model

    def unload(self, name: str | None) -> Model:
        """Unloads a model, once it has finished what it has. Raises ApiError."""
        model = self._opened.get(self.default.name if name in (None, DEFAULT) else name or "")
        if not model:
            if name not in self.names():
                raise self.unknown(name or "")
            raise ApiError(409, f"The model '{name}' is not loaded.", code="model_not_loaded", param="model")
        model.engine.unload()
        return model

    def remove(self, name: str) -> None:
        """Unloads a model and deletes its file. Raises ApiError."""
        if name in (DEFAULT, self.default.name):
            raise ApiError(409, "This server was started with this model: it stays.", code="model_in_use", param="model")
        if name not in self._shelf.installed():
            raise self.unknown(name)
        model = self._opened.get(name)
        if model and model.engine.status().n_requests:
            raise ApiError(409, "The model is answering just now.", code="model_in_use", param="model")
        self._forget(name)
        try:
            self._shelf.remove(name)
        except OSError as error:
            message = f"The model '{name}' cannot be deleted: {error.strerror or error}."
            raise ApiError(409, message, code="model_not_deleted", param="model") from error

    @property
    def n_requests(self) -> int:
        """In all engines."""
        return sum(model.engine.status().n_requests for model in self._all())

    def drain(self, timeout_s: float) -> None:
        """Takes no new requests and lets those that run end, for so long."""
        self._stopping = True
        deadline = time.monotonic() + timeout_s
        for model in self._all():
            model.engine.drain(0)
        for model in self._all():
            model.engine.drain(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Ends all engines, together: one may wait for the other's memory."""
        self._stopping = True
        closing = [threading.Thread(target=model.engine.close) for model in self._all()]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    def _all(self) -> list[Model]:
        with self._lock:
            return list(self._opened.values())

    def _open(self, name: str, path: Path) -> Model:
        with self._lock:
            if self._stopping:
                raise ApiError(503, "The server is shutting down.", "server_error", "server_stopping")
            if name not in self._opened:
                try:
                    model = Model(name, self._shelf.open(path))
                except OSError as error:
                    raise self.unknown(name) from error
                model.engine.start(load=False)
                self._opened[name] = model
            return self._opened[name]

    def _forget(self, name: str) -> None:
        with self._lock:
            model = self._opened.pop(name, None)
        if model:
            model.engine.close()

    def unknown(self, name: str) -> ApiError:
        """What is said of a model that is not there."""
        there = ", ".join(self.names()[:LONGEST_LIST])
        message = f"The model '{name[:200]}' does not exist; there are: {there}."
        return ApiError(404, message, code="model_not_found", param="model")


STATES = {State.READY: "loaded", State.IDLE: "unloaded", State.FAILED: "failed", State.STOPPING: "unloaded"}


def _doubtful(name: str, doubt: Doubt) -> ApiError:
    if doubt.firm:
        return ApiError(422, doubt.sentence, code="model_broken", param="model")
    advice = f'POST /models/load {{"model": "{name}", "force": true}} loads it all the same.'
    return ApiError(409, f"{doubt.sentence} {advice}", code="model_needs_force", param="model")
