"""Answers of chats that are being made: each goes on by itself, whoever reads it, and is kept as it grows.

A thread reads the stream, the very one of /v1/chat/completions. Its events are numbered, so that a reader who comes back
goes on where it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Self

from api.answer import POLL_S, SILENCE_S
from api.chunks import DONE, comment
from api.errors import ApiError, ours
from api.said import Said
from api.stream import EventStream
from api.titles import Titles, Wish
from web.chats import Chats
from web.database import ChatsError

log = logging.getLogger("linnet")
KEEP_S = 1.0  # between two times that a growing message is kept
TRIES = 60  # to keep one that has ended, while the disk does not let it
FIRST_READER_S = 10.0  # who has asked gets so long to begin to read
STAYS_S = 60.0  # an ended answer can still be read for so long
STOPS_S = 5.0  # a stopped answer ends sooner than that
MOST_READERS = 32  # each keeps a thread of the server; see api.wsgi


class Run:
    """One answer, and who reads it. `abandoned` tells its engine whether anybody still wants it."""

    def __init__(self, owner: str, chat: str, unwatched_s: float) -> None:
        self.owner, self.chat = owner, chat
        self.began = time.monotonic()
        self.ended_at: float | None = None
        self.kept = False  # whole, as it ended
        self._unwatched_s = unwatched_s
        self._stopped, self._ended = threading.Event(), threading.Event()
        self._news = threading.Condition()  # guards what follows
        self._events: list[bytes] = []
        self.comment = b""  # why there is no news: the model is being loaded, perhaps
        self._n_readers, self._patience_s, self._left_at = 0, max(unwatched_s, FIRST_READER_S), self.began

    def start(
        self,
        message: dict[str, Any],
        facts: dict[str, Any],
        stream: EventStream,
        chats: Chats,
        then: Callable[[dict[str, Any]], None],
    ) -> None:
        """`message`: what the answer is to become, as it is now; `then` is told what it has come to."""
        self.id: str = message["id"]
        self._said, self._stream, self._chats, self._then = Said(message, facts, self.began), stream, chats, then
        self.thread = threading.Thread(target=self._read, name=self.id, daemon=True)
        self.thread.start()

    def abandoned(self) -> bool:
        """Whether it was stopped, or nobody has read it for too long."""
        with self._news:
            unread = not self._n_readers and time.monotonic() - self._left_at > self._patience_s
        return unread or self._stopped.is_set()

    def stop(self) -> None:
        """It ends very soon."""
        self._stopped.set()

    def wait(self, timeout_s: float = STOPS_S) -> None:
        """Until it has ended."""
        self._ended.wait(timeout_s)

    def message(self) -> dict[str, Any]:
        """As it is now; as long as it runs with the number of the last event that is in it."""
        with self._news:
            message = self._said.message()
            return message if self.ended_at is not None else message | {"events": self._said.n_events}

    def enter(self) -> None:
        """A reader comes."""
        with self._news:
            self._n_readers += 1
            self._patience_s = self._unwatched_s

    def leave(self) -> None:
        """A reader goes."""
        with self._news:
            self._n_readers -= 1
            self._left_at = time.monotonic()

    def events(self, after: int, timeout_s: float) -> list[bytes] | None:
        """Those after so many; none when none came for so long; None when there will be no more."""
        with self._news:
            self._news.wait_for(lambda: len(self._events) > after or self.ended_at is not None, timeout_s)
            return None if self.ended_at is not None and len(self._events) <= after else self._events[after:]

    def _read(self) -> None:
        whole, keep_at = False, self.began + KEEP_S
        try:
            with closing(self._stream):
                for piece in self._stream:
                    whole |= piece.endswith(DONE)
                    self._add(piece)
                    if time.monotonic() >= keep_at:
                        self._keep()
                        keep_at = time.monotonic() + KEEP_S
        except Exception:  # its readers must not wait for what will not come
            log.exception("A fault of ours in an answer of a chat")
            with self._news:
                self._said.fail(ours())
        with self._news:
            self._said.end(whole)
            self.ended_at = time.monotonic()
            self._news.notify_all()
        self._ended.set()
        self._keep_at_last()
        self._then(self.message())

    def _add(self, piece: bytes) -> None:
        *parts, _ = piece.removesuffix(DONE).split(b"\n\n")
        events = [part for part in parts if part.startswith(b"data: ")]
        with self._news:
            self.comment = piece if piece.startswith(b":") else b""
            for event in events:
                self._events.append(event)
                self._said.add(event)
            self._news.notify_all()

    def _keep(self) -> bool:
        """False when the disk does not let it now."""
        try:
            if not self._chats.keep(self.message()):
                self.stop()  # it was deleted
        except ChatsError:
            return False
        return True

    def _keep_at_last(self) -> None:
        for _ in range(TRIES):
            if self._keep():
                break
            time.sleep(KEEP_S)
        self.kept = True


class Runs:
    """All of them. Any thread may ask."""

    def __init__(self, chats: Chats, titles: Titles, unwatched_s: float) -> None:
        """`unwatched_s`: an answer goes on for so long without a reader."""
        self._chats, self._titles, self._unwatched_s = chats, titles, unwatched_s
        self._lock = threading.Lock()  # guards what follows
        self._runs: dict[str, Run] = {}

    def prepare(self, owner: str, chat: str) -> Run:
        """For an answer that is about to be asked for."""
        return Run(owner, chat, self._unwatched_s)

    def start(
        self, run: Run, message: dict[str, Any], facts: dict[str, Any], stream: EventStream, asked: list[dict[str, Any]]
    ) -> None:
        """From now on it can be read. `asked`: the messages that it answers, for the chat's title."""

        def entitle(ended: dict[str, Any]) -> None:
            if ended["state"] == "done":
                said = [*asked, {"role": "assistant", "content": ended["content"]}]
                self._titles.wish(Wish(run.owner, run.chat, facts["model"], said))

        with self._lock:
            run.start(message, facts, stream, self._chats, entitle)
            self._runs[run.id] = run

    def get(self, owner: str, id: str) -> Run:
        """Raises ApiError 404 when it ended long ago; the chat has it then."""
        with self._lock:
            self._forget()
            run = self._runs.get(id)
        if not run or run.owner != owner:
            raise ApiError(404, "This answer is not being made; its chat has it.", code="answer_not_running")
        return run

    def has(self, id: str) -> bool:
        """Whether the message is being made, or not yet kept as it ended."""
        run = self._runs.get(id)
        return run is not None and not run.kept

    def live(self, message: dict[str, Any]) -> dict[str, Any]:
        """The message as it is now, if it is newer than what is kept of it."""
        run = self._runs.get(message["id"])
        return run.message() if run and not run.kept else message

    def stop(self, wanted: Callable[[Run], bool]) -> None:
        """Those that are meant."""
        with self._lock:
            for run in filter(wanted, self._runs.values()):
                run.stop()

    def close(self) -> None:
        """Stops all and waits until they are kept."""
        self._titles.close()
        self.stop(lambda _: True)
        deadline = time.monotonic() + STOPS_S
        for run in list(self._runs.values()):
            run.thread.join(max(0.0, deadline - time.monotonic()))

    def _forget(self) -> None:
        now = time.monotonic()
        for id, run in list(self._runs.items()):
            if run.kept and run.ended_at and now - run.ended_at > STAYS_S:
                del self._runs[id]


class Reader:
    """The body of a stream. An object with `close`, which is called for a stream that never began, too."""

    def __init__(self, run: Run, after: int, gone: Callable[[], bool], leave: Callable[[], None]) -> None:
        """`after` so many events that the reader has already; `leave` is called when it needs no more."""
        self._run, self._gone, self._leave = run, gone, leave
        self._open = True
        run.enter()
        self._events = self._generate(after)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        """The reader has all, or has gone. The answer goes on."""
        if self._open:
            self._open = False
            self._run.leave()
            self._leave()

    def _generate(self, n: int) -> Iterator[bytes]:
        told, beat_at = b"", time.monotonic() + SILENCE_S
        while not self._gone():
            events = self._run.events(n, POLL_S)
            if events is None:
                yield DONE
                return
            if events:
                yield b"".join(b"id: %d\n%b\n\n" % (n + i, event) for i, event in enumerate(events, 1))
                n += len(events)
            elif self._run.comment not in (told, b""):
                yield (told := self._run.comment)
            elif time.monotonic() >= beat_at:
                yield comment("still here")
            else:
                continue
            beat_at = time.monotonic() + SILENCE_S
