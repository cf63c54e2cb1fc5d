"""A streaming client of any OpenAI-compatible server, with a clock at each token; and servers to point it at."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from bench.figure import BenchError

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 600.0  # for an answer, and for a server that starts: a big model on a slow disk takes minutes
END_S = 30.0  # for a server to end when it is asked to
TAIL = 500  # bytes of what it wrote before it failed
WORDS = "stone river lantern meadow copper winter thunder basket orchard needle harbour velvet candle pebble".split()

Message = dict[str, str]


class WrongAnswerError(BenchError):
    """An answer is not what was asked for, so its time means nothing."""


@dataclass
class Answer:
    """When things came, in seconds of time.perf_counter(), and what."""

    asked: float
    tokens: list[float]  # one entry for each piece of text: a token, or a few whose bytes belong together
    n_tokens: int = 0  # of the answer, as the server counts them
    n_prompt: int = 0
    text: str = ""
    reason: str = ""  # why it ended
    ended: float = 0.0

    @property
    def first_s(self) -> float:
        """To the first text."""
        return self.tokens[0] - self.asked

    @property
    def gaps_s(self) -> list[float]:
        """Between one piece of text and the next."""
        return gaps_s(self.tokens)

    @property
    def per_s(self) -> float:
        """Tokens a second from the first text on."""
        return (self.n_tokens - 1) / (self.tokens[-1] - self.tokens[0]) if len(self.tokens) > 1 else math.nan

    def checked(self, n_most: int, n_prompt: int | None = None, least: int = 2) -> Answer:
        """Itself, if its counts can be true. Raises WrongAnswerError."""
        if not self.text:
            raise WrongAnswerError("The server gave an answer without text.")
        if n_prompt is not None and self.n_prompt != n_prompt:
            raise WrongAnswerError(f"The server counted {self.n_prompt} tokens in a prompt of {n_prompt}.")
        if self.reason not in ("stop", "length"):
            raise WrongAnswerError(f"An answer ended for the reason {self.reason!r}.")
        if self.n_tokens > n_most or (self.reason == "length" and self.n_tokens < n_most):
            raise WrongAnswerError(f"An answer of {n_most} tokens was wanted, and {self.n_tokens} came.")
        if len(self.tokens) > self.n_tokens:
            raise WrongAnswerError(f"{len(self.tokens)} pieces of text came, and the server counted {self.n_tokens} tokens.")
        if len(self.tokens) < least:
            raise WrongAnswerError("An answer ended with its first token: nothing can be measured with this model.")
        return self


def ask(
    url: str, messages: list[Message], max_tokens: int, started: threading.Event | None = None, **options: Any
) -> Answer:
    """One streamed answer; `started` is set at its first text. Raises RuntimeError when the server refuses."""
    asked = time.perf_counter()
    return follow(begin(url, messages, max_tokens, **options), asked, started.set if started else None)


def go_on(url: str, tokens: list[int], max_tokens: int, begun: Callable[[], None] | None = None) -> Answer:
    """The same of a text as it is, of which the tokens are given; `begun` is called at the first text of the answer."""
    asked = time.perf_counter()
    return follow(post(url, "/v1/completions", {"prompt": tokens, "max_tokens": max_tokens}), asked, begun)


def follow(connection: http.client.HTTPConnection, asked: float, begun: Callable[[], None] | None = None) -> Answer:
    """Reads a streamed answer; calls `begun` at its first text."""
    answer = Answer(asked, [])
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(response.read().decode())
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        now, chunk = time.perf_counter(), json.loads(line[6:])
        if usage := chunk.get("usage"):
            answer.n_tokens, answer.n_prompt = usage["completion_tokens"], usage["prompt_tokens"]
        for choice in chunk.get("choices", ()):
            answer.reason = choice.get("finish_reason") or answer.reason
            if piece := _said(choice):
                answer.text += piece
                answer.tokens.append(now)
                if begun and len(answer.tokens) == 1:
                    begun()
    answer.ended = time.perf_counter()
    connection.close()
    return answer


def _said(choice: dict[str, Any]) -> str:
    """Thoughts are text, too."""
    if "text" in choice:
        return str(choice["text"])
    delta = choice["delta"]
    return delta.get("content") or delta.get("reasoning_content") or ""


def begin(url: str, messages: list[Message], max_tokens: int, **options: Any) -> http.client.HTTPConnection:
    """Asks for a streamed answer and does not wait for it."""
    return post(url, "/v1/chat/completions", {"messages": messages, "max_tokens": max_tokens, **options})


def post(url: str, path: str, fields: dict[str, Any]) -> http.client.HTTPConnection:
    """Asks for a stream, greedy unless the fields say otherwise."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
    body = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}} | fields
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}  # computing is what is measured
    connection.request("POST", path, json.dumps(body), headers)
    return connection


def tokenized(url: str, text: str) -> list[int]:
    """The tokens of a text, with the one that begins texts where the model has one."""
    body = json.dumps({"content": text, "add_special": True}).encode()
    request = urllib.request.Request(f"{url}/v1/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return list(json.load(response)["tokens"])


def ask_all(url: str, chats: list[list[Message]], max_tokens: int, **options: Any) -> list[Answer]:
    """All at once, each from a client of its own; the answers in the order of the chats."""
    with ThreadPoolExecutor(len(chats)) as clients:
        return list(clients.map(lambda chat: ask(url, chat, max_tokens, **options), chats))


def gaps_s(times: list[float]) -> list[float]:
    """Between each time and the next."""
    return [b - a for a, b in itertools.pairwise(times)]


def wall_s(answers: list[Answer]) -> float:
    """Of all together, from the first question to the last token."""
    return max(a.tokens[-1] for a in answers) - min(a.asked for a in answers)


def tokens_per_s(answers: list[Answer]) -> float:
    """Of all together in that time."""
    return sum(a.n_tokens for a in answers) / wall_s(answers)


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
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        try:
            try:
                wait_for(url, process)
            except RuntimeError as error:
                raise RuntimeError(f"{error} {_tail(log)}".strip()) from error
            yield url
            if process.poll() is not None:
                print(f"The server ended before it was asked to. {_tail(log)}".strip(), file=sys.stderr)
        finally:
            end(process)


def _tail(log: IO[bytes]) -> str:
    log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
    return log.read().decode(errors="replace").strip()


def end(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, and waits no longer than is decent."""
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], health: str = "/health", patience_s: float = PATIENCE_S) -> None:
    """Until the server says that it would serve. Raises RuntimeError when it ends instead, or takes too long."""
    parts, until = urlsplit(url), time.perf_counter() + patience_s
    while process.poll() is None:
        if time.perf_counter() > until:
            raise RuntimeError(f"The server was not ready after {patience_s:,.0f} s.")
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        try:
            connection.request("GET", health)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass  # it does not listen yet
        finally:
            connection.close()
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
def busy_neighbour() -> Iterator[None]:
    """Another program that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
