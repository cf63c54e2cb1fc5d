"""Those who wait for a model to be loaded without asking it anything yet; some want it to have another context.

No locks here: the engine holds its own around every call.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import NamedTuple

from engine.request import Config
from engine.stream import State


class Former(NamedTuple):
    """What a model was before its context was changed; it becomes that again when it cannot be loaded with the other one."""

    config: Config
    forced: bool
    state: State  # READY, IDLE or FAILED


class NotLoadedError(Exception):
    """Why, in a sentence."""


class Loading(Future[None]):
    """How it goes for one of them: a result without a value once the model is loaded, or NotLoadedError."""

    def __init__(self, n_ctx: int | None = None) -> None:
        """`n_ctx`: the context it is to have; None: whichever it has."""
        super().__init__()
        self.n_ctx = n_ctx


class Loadings:
    """All of them."""

    def __init__(self) -> None:
        self._waiting: list[Loading] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, loading: Loading) -> None:
        """One more. Those who want another context than this one hear that they come second."""
        if loading.n_ctx:
            others = [other for other in self._waiting if other.n_ctx not in (None, loading.n_ctx)]
            self._fail(others, f"Meanwhile a context of {loading.n_ctx} was asked for.")
        self._waiting.append(loading)

    def give_up(self, loading: Loading) -> None:
        """It does not wait any more, if it still did."""
        if loading in self._waiting:
            self._waiting.remove(loading)

    def succeed(self) -> None:
        """The model is loaded, as they want it."""
        for loading in self._waiting:
            loading.set_result(None)
        self._waiting.clear()

    def fail(self, message: str) -> None:
        """It will not be."""
        self._fail(list(self._waiting), message)

    def fail_resized(self, message: str) -> None:
        """It will not be with another context than it had; who does not mind that waits on."""
        self._fail([loading for loading in self._waiting if loading.n_ctx], message)

    def _fail(self, loadings: list[Loading], message: str) -> None:
        for loading in loadings:
            self._waiting.remove(loading)
            loading.set_exception(NotLoadedError(message))
