"""The whole server over an engine that says what a test wants it to say, for real browsers and clients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from api import wsgi
from api.app import create_app, n_seats
from api.pool import Model, Pool
from api.source import Source
from engine.request import Accepted, Delta, Event, Finished, Request
from engine.stream import NOTHING, Begun, Sink, Stream, Work
from server import listen
from settings import Settings
from tests.test_api import ScriptedEngine

Script = Callable[[Request], Iterable[Event | str]]
END = Finished("", "stop", "end_of_turn", 3, 1, 2, 0.0, 0.1, 0.2)


class TellingEngine(ScriptedEngine):
    """Says what `script` makes of a request: pieces of text, or any events; it ends when the script does."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script

    def submit(self, request: Request, begun: Begun = NOTHING, listener: Sink | None = None) -> Stream:
        left = threading.Event()
        work = Work(request, lambda _: left.set(), begun, listener)
        self.requests.append(work.request)
        stream = Stream(work)
        threading.Thread(target=self._tell, args=(work, left), daemon=True).start()
        return stream

    def _tell(self, work: Work, left: threading.Event) -> None:
        work.put(Accepted(work.id, 3))
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
def stub(script: Script, name: str = "stub", **settings: Any) -> Iterator[StubServer]:
    """Serves until the block ends."""
    listener = listen("127.0.0.1", 0)
    engine = TellingEngine(script)
    chosen = Settings(**settings)
    app = create_app(chosen, Pool(Model(name, Source(engine))))  # type: ignore[arg-type]
    server = wsgi.create_server(app, listener, n_seats(chosen))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield StubServer(f"http://127.0.0.1:{listener.getsockname()[1]}", engine)
    finally:
        server.close()
        thread.join(10)
