"""A streaming client of any OpenAI-compatible server, with a clock at each token; and servers to point it at."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.figure import BenchError

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 600.0
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
    return follow(begin(url, messages, max_tokens, **options), asked, started)


def go_on(url: str, tokens: list[int], max_tokens: int) -> Answer:
    """The same of a text as it is, of which the tokens are given."""
    asked = time.perf_counter()
    return follow(post(url, "/v1/completions", {"prompt": tokens, "max_tokens": max_tokens}), asked)


def follow(connection: http.client.HTTPConnection, asked: float, started: threading.Event | None = None) -> Answer:
    """Reads a streamed answer."""
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
                if started:
                    started.set()
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


def wait_for(url: str, process: subprocess.Popen[bytes], health: str = "/health") -> None:
    """Until the server says that it would serve. Raises RuntimeError when it ends instead."""
    parts = urlsplit(url)
    while process.poll() is None:
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
