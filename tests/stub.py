"""The whole server over an engine that says what a test wants it to say, for real browsers and clients."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from api import wsgi
from api.app import create_app, n_seats
from api.pool import Model, Pool, Shelf
from api.source import Source
from engine.request import Accepted, Delta, Event, Finished, Request
from engine.stream import NOTHING, Begun, Sink, Stream, Work
from server import listen
from settings import Settings
from tests.test_api import ScriptedEngine
from web.chats import Chats

Script = Callable[[Request], Iterable[Event | str]]
LETTERS = 4  # of a token
END = Finished("", "stop", "end_of_turn", 3, 1, 2, 0.0, 0.1, 0.2)


class TellingEngine(ScriptedEngine):
    """Says what `script` makes of a request: pieces of text, or any events; it ends when the script does."""

    def __init__(self, script: Script, thinking: str = "") -> None:
        """`thinking`: how its answers begin; see engine.thinking.Thinking."""
        super().__init__()
        self.script, self.thinking = script, thinking
        self.loaded = threading.Event()  # it takes no request before
        self.loaded.set()

    def submit(self, request: Request, begun: Begun = NOTHING, listener: Sink | None = None) -> Stream:
        left = threading.Event()
        work = Work(request, lambda _: left.set(), begun, listener)
        self.requests.append(work.request)
        stream = Stream(work)
        threading.Thread(target=self._tell, args=(work, left), daemon=True).start()
        return stream

    def _tell(self, work: Work, left: threading.Event) -> None:
        self.loaded.wait()
        work.put(Accepted(work.id, 3, self.thinking))
        n = 0
        for what in self.script(work.request):
            if left.is_set():
                self.closed += 1
                return
            if isinstance(what, str):
                n += 1
                what = Delta(work.id, what, [n])
            work.put(what)
            if isinstance(what, Finished):
                return
        work.put(replace(END, n_answer=n))


class StubServer:
    """Has an address, as tests.conftest.Server has."""

    def __init__(self, url: str, engine: TellingEngine) -> None:
        self.url, self.engine = url, engine


@contextmanager
def stub(
    script: Script,
    name: str = "stub",
    chats: Path | None = None,
    thinking: str = "",
    shelf: Shelf | None = None,
    **settings: Any,
) -> Iterator[StubServer]:
    """Serves until the block ends. `chats`: the file where they are kept; else none are."""
    listener = listen("127.0.0.1", 0)
    engine = TellingEngine(script, thinking)
    chosen = Settings(**settings)
    kept = Chats(chats) if chats else None
    app = create_app(chosen, Pool(Model(name, Source(engine)), shelf), kept=kept)  # type: ignore[arg-type]
    server = wsgi.create_server(app, listener, n_seats(chosen))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield StubServer(f"http://127.0.0.1:{listener.getsockname()[1]}", engine)
    finally:
        server.close()
        thread.join(0.5)  # a browser may still be connected
        server.task_dispatcher.set_thread_count(0)
        if kept:
            app.extensions["linnet.runs"].close()
            kept.close()


def main(file: str, tokens_per_s: float) -> None:
    """Says a file's text at a steady pace to everybody who asks, until standard input ends; prints its address."""
    text = Path(file).read_text()

    def script(_: Request) -> Iterator[str]:
        began = time.monotonic()
        for i, at in enumerate(range(0, len(text), LETTERS), 1):
            time.sleep(max(0.0, began + i / tokens_per_s - time.monotonic()))
            yield text[at : at + LETTERS]

    with stub(script) as server:
        print(server.url, flush=True)  # noqa: T201
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
