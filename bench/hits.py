"""Answers given before, asked for over one kept-alive connection with as little work of the client's own as can be.

python -m bench.hits URL     a client that is a process of its own: a line of JSON in, one out
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, Any
from urllib.parse import urlsplit

from bench import stream


class Connection:
    """Asks, and waits for the answer."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=stream.PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = parts.netloc

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, question: str, max_tokens: int = 32) -> tuple[float, str, bytes]:
        """Seconds, how it was found, and the body."""
        messages = [{"role": "user", "content": question}]
        body = json.dumps({"messages": messages, "max_tokens": max_tokens}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        started = time.perf_counter()
        self._socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        data = self._more()
        while b"\r\n\r\n" not in data:
            data += self._more()
        top, _, body = data.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in top.decode().split("\r\n")[1:])
        while len(body) < int(headers["Content-Length"]):
            body += self._more()
        return time.perf_counter() - started, headers.get("X-Linnet-Cache", "no answer"), body

    def _more(self) -> bytes:
        data = self._socket.recv(2**16)
        if not data:
            raise stream.WrongAnswerError("The server closed a connection in the middle of an answer.")
        return data


def said(body: bytes) -> Any:
    """What an answer says; the rest (its id, the time) is new each time."""
    return json.loads(body).get("choices")


def hits(connection: Connection, n: int, choices: Any, question: str = "hello", max_tokens: int = 32) -> list[float]:
    """Seconds of each; all must be hits and say the same as the new answer. Raises WrongAnswerError."""
    return checked([connection.ask(question, max_tokens) for _ in range(n)], choices)


def checked(found: list[tuple[float, str, bytes]], choices: Any) -> list[float]:
    """The same of what was found already: looking at it is not to be in the time of anything."""
    for _, how, body in found:
        if how != "hit":
            raise stream.WrongAnswerError(f"An answer given before came as {how!r} and not as a hit.")
        if said(body) != choices:
            raise stream.WrongAnswerError("An answer given before came again with other words.")
    return [seconds for seconds, _, _ in found]


class Clients:
    """Several at once. Threads of one process would wait for each other, and that would be measured."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def per_s(self, n: int, choices: Any, question: str = "hello", max_tokens: int = 32) -> float:
        """Hits a second of all together, each asking n times. Raises WrongAnswerError."""
        asked = {"n": n, "choices": choices, "question": question, "max_tokens": max_tokens}
        for process in self._processes:
            print(json.dumps(asked), file=_pipe(process.stdin), flush=True)
        lines = [_pipe(process.stdout).readline() for process in self._processes]
        if not all(lines):
            raise stream.WrongAnswerError("A client that asked for answers given before did not get them.")
        times: list[tuple[float, float]] = [json.loads(line) for line in lines]
        return n * len(times) / (max(ended for _, ended in times) - min(started for started, _ in times))


@contextmanager
def clients(url: str, n: int) -> Iterator[Clients]:
    """So many processes, each connected already."""
    command = [sys.executable, "-m", "bench.hits", url]
    with ExitStack() as stack:
        processes = []
        for _ in range(n):
            process = subprocess.Popen(command, cwd=stream.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)  # closes its pipes, which ends it
            processes.append(process)
        for process in processes:
            _pipe(process.stdout).readline()
        yield Clients(processes)


def _pipe(end: IO[str] | None) -> IO[str]:
    assert end
    return end


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with Connection(arguments[0]) as connection:
            print("connected", flush=True)
            for line in sys.stdin:
                print(json.dumps(_times(connection, **json.loads(line))), flush=True)
    except (stream.WrongAnswerError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _times(connection: Connection, n: int, choices: Any, question: str, max_tokens: int) -> tuple[float, float]:
    """When it began and ended to ask so often."""
    connection.ask(question, max_tokens)  # the first one is not counted
    started = time.perf_counter()
    found = [connection.ask(question, max_tokens) for _ in range(n)]
    ended = time.perf_counter()
    checked(found, choices)
    return started, ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
