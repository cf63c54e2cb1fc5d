"""The models a client can name: the one this server was started with, and every other that is installed.

Each has an engine of its own, which is loaded when it is first asked something and unloaded when others need the memory
(engine.room). Knows nothing of files: what is installed, and what is known of a model beforehand, is told from outside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from api.errors import ApiError
from api.source import Source
from cache.store import Store
from engine.client import Engine
from engine.loading import Loading
from engine.request import Config
from engine.stream import LOADS, State
from engine.tally import Tally

DEFAULT = "default"
AT_HOME = (State.READY, *LOADS)
STATES = {State.READY: "loaded", State.IDLE: "unloaded", State.FAILED: "failed", State.STOPPING: "unloaded"}  # else: loading
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

    def working(self) -> Engine:
        """The same, to be asked something. Raises ApiError when the model should not be loaded for it."""
        self.source.may_make()
        return self.engine


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
        """Answers of this model; its engine is not started."""
        raise FileNotFoundError(path)

    def doubt(self, config: Config) -> Doubt | None:
        """What is to be said before it is loaded. It may take some seconds."""
        return None

    def remove(self, name: str) -> None:
        """Deletes its file. Raises OSError."""
        raise FileNotFoundError(name)

    def catalog(self, opened: Sequence[Config] = ()) -> list[dict[str, Any]]:
        """What is installed or recommended, and how it would run here, as clients are told. It may take some seconds."""
        return []


class Pool:
    """Any thread may ask."""

    def __init__(self, default: Model, shelf: Shelf | None = None) -> None:
        self.default = default
        self.tally = Tally()  # of all engines together
        self._shelf = shelf or Shelf()
        self._lock = threading.Lock()  # guards what follows
        self._opened: dict[str, Model] = {}
        self._deleting: set[str] = set()
        self._stopping = False
        self._add(default)

    @property
    def store(self) -> Store | None:
        """Where the answers of all of them are kept."""
        return self.default.source.store

    def names(self) -> list[str]:
        """Of all models, the default first."""
        return [self.default.name, *self._others()]

    def get(self, name: str | None) -> Model:
        """The model meant; it is not loaded yet. Raises ApiError 404 for one that is not there."""
        if name is None or name in (DEFAULT, self.default.name):
            return self.default
        model = self._opened.get(name)
        if model and name not in self._deleting and model.engine.status().state in AT_HOME:
            return model
        path = self._others().get(name)
        if path:
            return self._open(name, path)
        if self._is_default(self._shelf.installed().get(name)):
            return self.default
        self._forget(name)
        raise self.unknown(name)

    def state(self, name: str) -> str:
        """What it is doing, as clients are told."""
        model = self._opened.get(name)
        state = model.engine.status().state if model else State.IDLE
        return STATES.get(state, "loading")

    def catalog(self) -> list[dict[str, Any]]:
        """What there is to be had; see Shelf."""
        return self._shelf.catalog([model.engine.config for model in self.opened()])

    def load(self, name: str | None, force: bool, n_ctx: int | None = None) -> tuple[Model, Loading]:
        """Begins to load a model, perhaps with another context. Raises ApiError; then it stays as it is.

        404: it is not there; 409: it should not be loaded; 422: it cannot be.
        """
        model = self.get(name)
        if n_ctx and n_ctx != model.engine.n_ctx:
            self._doubt(model, replace(model.engine.config, n_ctx=n_ctx), force)
        else:
            self._check(model, force)
        return model, model.engine.load(force, n_ctx)

    def remove(self, name: str) -> None:
        """Deletes a model's file and unloads it. Raises ApiError."""
        if self.get(name) is self.default:
            raise ApiError(409, "This server was started with this model: it stays.", code="model_in_use", param="model")
        with self._lock:
            model = self._opened.get(name)
            if model and model.engine.status().n_requests:
                raise ApiError(409, "The model is answering just now.", code="model_in_use", param="model")
            self._deleting.add(name)  # from now on it is not there
        try:
            self._shelf.remove(name)
            self._forget(name)
        except OSError as error:
            message = f"The model '{name}' cannot be deleted: {error.strerror or error}."
            raise ApiError(409, message, code="model_not_deleted", param="model") from error
        finally:
            with self._lock:
                self._deleting.discard(name)

    @property
    def n_requests(self) -> int:
        """In all engines."""
        return sum(model.engine.status().n_requests for model in self.opened())

    def drain(self, timeout_s: float) -> None:
        """Takes no new requests and lets those that run end, for so long."""
        self._stopping = True
        deadline = time.monotonic() + timeout_s
        for model in self.opened():
            model.engine.drain(0)
        for model in self.opened():
            model.engine.drain(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Ends all engines, together: one may wait for the other's memory."""
        self._stopping = True
        closing = [threading.Thread(target=model.engine.close) for model in self.opened()]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    def opened(self) -> list[Model]:
        """Those that have an engine, the default first."""
        with self._lock:
            return list(self._opened.values())

    def _others(self) -> dict[str, Path]:
        """Those that are installed beside the default."""
        found = {name: path for name, path in self._shelf.installed().items() if name not in self._deleting}
        return {name: path for name, path in found.items() if name != self.default.name and not self._is_default(path)}

    def _is_default(self, path: Path | None) -> bool:
        return path is not None and str(path) == self.default.engine.config.model_path

    def _open(self, name: str, path: Path) -> Model:
        with self._lock:
            if self._stopping:
                raise ApiError(503, "The server is shutting down.", "server_error", "server_stopping")
            if name not in self._opened:
                if name in self._deleting:
                    raise self.unknown(name)
                model = Model(name, self._shelf.open(path))
                model.engine.start(load=False)
                self._add(model)
            return self._opened[name]

    def _add(self, model: Model) -> None:
        model.source.may_make = lambda: self._check(model)
        model.engine.tally = self.tally
        self._opened[model.name] = model

    def _check(self, model: Model, force: bool = False) -> None:
        """Raises ApiError for a model that is not loaded, and should not be."""
        if model.engine.status().state not in AT_HOME:
            self._doubt(model, model.engine.config, force)

    def _doubt(self, model: Model, config: Config, force: bool) -> None:
        doubt = self._shelf.doubt(config)
        if doubt and doubt.firm:
            raise ApiError(422, doubt.sentence, code="model_broken", param="model")
        if doubt and not force:
            resized = "" if config == model.engine.config else f', "ctx": {config.n_ctx}'
            advice = f'POST /models/load {{"model": "{model.name}", "force": true{resized}}} loads it all the same.'
            raise ApiError(409, f"{doubt.sentence} {advice}", code="model_needs_force", param="model")

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
