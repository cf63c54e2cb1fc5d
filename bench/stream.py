"""A streaming client of any OpenAI-compatible server, with a clock at each token; and servers to point it at."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 600.0
WORDS = "stone river lantern meadow copper winter thunder basket orchard needle harbour velvet candle pebble".split()

Message = dict[str, str]


@dataclass
class Answer:
    """When things came, in seconds of time.perf_counter()."""

    asked: float
    tokens: list[float]  # one entry for each piece of text: a token, or a few whose bytes belong together
    n_tokens: int = 0  # of the answer, as the server counts them

    @property
    def first_s(self) -> float:
        """To the first text."""
        return self.tokens[0] - self.asked

    @property
    def gaps_s(self) -> list[float]:
        """Between one piece of text and the next."""
        return gaps_s(self.tokens)


def ask(url: str, messages: list[Message], max_tokens: int, started: threading.Event | None = None) -> Answer:
    """One streamed answer; `started` is set at its first text. Raises RuntimeError when the server refuses."""
    answer = Answer(time.perf_counter(), [])
    connection = begin(url, messages, max_tokens)
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(response.read().decode())
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        if usage := chunk.get("usage"):
            answer.n_tokens = usage["completion_tokens"]
        if (choices := chunk.get("choices")) and choices[0]["delta"].get("content"):
            answer.tokens.append(time.perf_counter())
            if started:
                started.set()
    connection.close()
    return answer


def begin(url: str, messages: list[Message], max_tokens: int) -> http.client.HTTPConnection:
    """Asks for a streamed answer and does not wait for it."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
    body = {"messages": messages, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}  # computing is what is measured
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return connection


def ask_all(url: str, chats: list[list[Message]], max_tokens: int) -> list[Answer]:
    """All at once, each from a client of its own."""
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda chat=chat: answers.append(ask(url, chat, max_tokens))) for chat in chats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(answers) < len(chats):
        raise RuntimeError("Some answers failed; see above.")
    return answers


def gaps_s(times: list[float]) -> list[float]:
    """Between each time and the next."""
    return [b - a for a, b in itertools.pairwise(times)]


def tokens_per_s(answers: list[Answer]) -> float:
    """Of all together, from the first question to the last token."""
    wall_s = max(a.tokens[-1] for a in answers) - min(a.asked for a in answers)
    return sum(a.n_tokens for a in answers) / wall_s


def percentile(values: list[float], p: int) -> float:
    """The p-th of a hundred."""
    return statistics.quantiles(values, n=100, method="inclusive")[p - 1] if len(values) > 1 else values[0]


def text(n_words: int, salt: object) -> str:
    """Words that no other salt begins with."""
    return f"{salt} " + " ".join(f"{WORDS[i % len(WORDS)]}{(i * 7) % 10}" for i in range(n_words))


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def serve(command: list[str], port: int) -> Iterator[str]:
    """Runs a server until the block ends; yields its address once /health says yes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until the server says that it would serve. Raises RuntimeError when it ends instead."""
    parts = urlsplit(url)
    while process.poll() is None:
        try:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.02)
    raise RuntimeError(f"The server ended with exit code {process.returncode}.")


@contextmanager
def linnet(model: str, *options: str) -> Iterator[str]:
    """Our own server."""
    port = free_port()
    command = [sys.executable, str(ROOT / "server.py"), "--port", str(port), "--model", model, "--keep-loops", *options]
    with serve(command, port) as url:
        yield url


@contextmanager
def llama_server(program: str, model: str, n_slots: int, n_ctx: int, n_threads: int) -> Iterator[str]:
    """llama-server with the same slots, context and threads."""
    port = free_port()
    sizes = ["--parallel", str(n_slots), "-c", str(n_ctx * n_slots), "-t", str(n_threads)]
    with serve([program, "-m", model, "--port", str(port), *sizes], port) as url:
        yield url


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """Another program that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
