"""Titles of chats, made by the model when it has nothing else to do.

The model is asked at the end of the very chat that it has just read, so hardly anything is read anew. Whoever asks for an
answer meanwhile goes first: the title is given up and tried again when it is quiet.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from api.errors import ApiError
from api.pool import Pool
from engine.client import Engine
from engine.request import Delta, Failed, Finished, Request
from engine.stream import State
from web.chats import Chats
from web.database import ChatsError

log = logging.getLogger("linnet")
PROMPT = "Give this conversation a title of two to six words, in its language. Answer with the title alone."
N_TOKENS = 24
N_LETTERS = (2, 60)  # what is shorter or longer is no title
N_LEAST_PARAMS = 200_000_000  # smaller models do not understand what is wanted
QUIET_S = 2.0  # the engine has had nothing to do for so long
POLL_S = 0.2
YIELD_S = 0.02  # a title that is being made gives way so soon
MOST_WISHES = 100
DECORATION = " \t\"'“”„«»`*#_.:"


@dataclass(frozen=True)
class Wish:
    """A chat without a title, as the model was asked last, its answer included."""

    owner: str
    chat: str
    model: str | None
    messages: list[dict[str, Any]]


class Titles:
    """One title at a time, in a thread that runs while there are any to be made."""

    def __init__(self, pool: Pool, chats: Chats, n_least_params: int = N_LEAST_PARAMS, quiet_s: float = QUIET_S) -> None:
        self._pool, self._chats = pool, chats
        self._n_least_params, self._quiet_s = n_least_params, quiet_s
        self._wishes: queue.SimpleQueue[Wish | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="titles", daemon=True)
        self._thread.start()

    def wish(self, wish: Wish) -> None:
        """For a chat that may need one; forgotten if too many do."""
        if self._wishes.qsize() < MOST_WISHES:
            self._wishes.put(wish)

    def close(self) -> None:
        """What is not made yet never will be."""
        self._closing.set()
        self._wishes.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (wish := self._wishes.get()) and not self._closing.is_set():
            try:
                self._fulfil(wish)
            except (ApiError, ChatsError):  # the model or the chat is gone: then no title is missed
                continue
            except Exception:
                log.exception("A fault of ours in making a title")

    def _fulfil(self, wish: Wish) -> None:
        engine = self._pool.get(wish.model).engine
        ready = engine.status().ready
        if not ready or ready.n_params < self._n_least_params:
            return
        title: str | None = None
        while title is None:
            if self._chats.find_one(wish.owner, wish.chat)["title"] or not self._quiet(engine):
                return
            title = self._ask(engine, wish)
        if title:
            self._chats.entitle(wish.owner, wish.chat, title)

    def _quiet(self, engine: Engine) -> bool:
        """Waits until the engine has had nothing to do for a while; False when it is not loaded any more."""
        quiet_from = time.monotonic()
        while not self._closing.wait(POLL_S):
            status = engine.status()
            if status.state is not State.READY:
                return False
            if status.n_requests:
                quiet_from = time.monotonic()
            elif time.monotonic() - quiet_from >= self._quiet_s:
                return True
        return False

    def _ask(self, engine: Engine, wish: Wish) -> str | None:
        """What the model says; "" if that is no title, None when somebody else needed the engine."""
        messages = [*wish.messages, {"role": "user", "content": PROMPT}]
        said = ""
        with closing(
            engine.submit(Request(uuid.uuid4().hex, messages, max_tokens=N_TOKENS, stop=["\n\n"], think=0))
        ) as events:
            while not isinstance(event := events.next(YIELD_S), Finished):
                if isinstance(event, Failed):
                    return ""
                if isinstance(event, Delta):
                    said += event.text
                if engine.status().n_requests > 1 or self._closing.is_set():
                    return None
        return cleaned(said)


def cleaned(said: str) -> str:
    """The title in what a model said; "" when there is none."""
    lines = said.strip().splitlines()
    title = lines[0].strip(DECORATION).removeprefix("Title:").strip(DECORATION) if lines else ""
    least, most = N_LETTERS
    return title if least <= len(title) <= most else ""
