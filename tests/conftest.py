"""A real server, started as a user starts it, and the client that people use."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import openai
import psutil
import pytest

from bench import shapes
from engine.client import Engine
from engine.request import Config
from engine.room import Room
from web.chats import Chats

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "models/demo/demo.gguf"
PATIENCE_S = 60.0  # for what takes a second on a quiet machine
hypothesis.settings.register_profile("linnet", deadline=None)  # this machine may be busy with other tests
hypothesis.settings.load_profile("linnet")


def until(condition: Callable[[], object]) -> None:
    """Waits for what no event tells."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.01)


class Server:
    """`python server.py OPTIONS` in a process of its own; its log is kept and can be waited for."""

    def __init__(self, *options: str, model: Path = DEMO, keep: bool = False) -> None:
        """`keep`: what is computed may be kept; else each answer is made anew."""
        options = options if keep else ("--no-cache", *options)
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "server.py"), "--port", "0", "--model", str(model), *options],
            stderr=subprocess.PIPE,
            text=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("LINNET_")},
        )
        self.log: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = re.findall(r"chat at (\S+)", self.wait_for("Linnet is ready"))[0]

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self._news:
                self.log.append(line.rstrip("\n"))
                self._news.notify_all()

    def wait_for(self, text: str, start: int = 0) -> str:
        """The first log line since line number `start` that holds the text."""

        def found() -> list[str]:
            return [line for line in self.log[start:] if text in line]

        with self._news:
            assert self._news.wait_for(found, PATIENCE_S), f"no {text!r} in the log:\n" + "\n".join(self.log)
            return found()[0]

    @property
    def worker(self) -> psutil.Process:
        """The engine process; there is exactly one."""
        (worker,) = psutil.Process(self.process.pid).children()
        return worker

    def client(self, **options: object) -> openai.OpenAI:
        """OpenAI's client for this server; it does not try again by itself unless told so."""
        return openai.OpenAI(**{"base_url": f"{self.url}/v1", "api_key": "none", "max_retries": 0} | options)  # type: ignore[arg-type]

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(how)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self.process.stderr
        self.process.stderr.close()
        return code


@pytest.fixture(scope="session", autouse=True)
def data_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The chats of whoever runs the tests are none of their business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Chats]:
    """A store of chats of its own."""
    with closing(Chats(tmp_path / "linnet/chats.db")) as chats:
        yield chats


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights: it says one word until its context is full, so answers still run when wanted."""
    path = tmp_path_factory.mktemp("endless") / "endless.gguf"
    shapes.make(shapes.SHAPES["small"], path)
    return path


@pytest.fixture
def engines() -> Iterator[Callable[..., list[Engine]]]:
    """Makes so many engines in a room, none of them loaded, and closes them after the test."""
    made: list[Engine] = []

    def make(n: int, room: Room, model: Path = DEMO, n_ctx: int | None = None) -> list[Engine]:
        new = [Engine(Config(str(model), n_ctx, 2, 1, draft=False), 8, room=room) for _ in range(n)]
        for engine in new:
            engine.start(load=False)
        made.extend(new)
        return new

    yield make
    for engine in made:
        engine.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests that leave it as it is. Fewer threads in a busy moment would round otherwise: it has one."""
    server = Server("--threads", "1")
    yield server
    server.end()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    """OpenAI's client."""
    with server.client() as client:
        yield client


def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: many tests wait for a server or a browser."""
    return (os.cpu_count() or 1) + 1
