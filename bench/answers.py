"""The answer cache over HTTP: what a hit costs, in quiet, with a full disk tier, beside running answers; and kill -9.

python -m bench.answers MODEL.gguf [quiet disk beside killed ...]     the last line is JSON
"""

from __future__ import annotations

import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bench import parts, stream
from bench.figure import Taken, taken
from bench.hits import Connection, clients, hits, said
from bench.plan import Plan
from cache import keys
from cache.disk import Shelf

N_HITS = 2000
N_CLIENTS = 4
N_ENTRIES = 100_000
N_COLD = 200
N_KILLS = 30
ENTRY_BYTES = 1500


def quiet(model: str) -> dict[str, float]:
    """One connection's median, and hits a second of four together."""
    with tempfile.TemporaryDirectory() as folder, stream.linnet(model, "--cache-dir", folder) as url:
        connection = Connection(url)
        choices = said(connection.ask("hello")[2])
        one = hits(connection, N_HITS, choices)
        with clients(url, N_CLIENTS) as four:
            per_s = four.per_s(N_HITS, choices)
        return {"p50_ms": 1000 * statistics.median(one), "p95_ms": 1000 * stream.percentile(one, 95), "hits_per_s": per_s}


def values(url: str, plan: Plan) -> Iterator[Taken]:
    """For `make bench`: new answers, and each of them again."""
    with Connection(url) as connection, clients(url, N_CLIENTS) as four:
        connection.ask(f"{time.time_ns()}", 2)  # the first one is not counted
        for _ in plan.turns():
            question = f"{time.time_ns()}: tell me a long story about a lantern."
            started = time.perf_counter()
            cold_s, how, body = connection.ask(question, plan.n_answer)
            check(how, body, plan.n_answer)
            yield from taken(started, answers__cold_s=cold_s)
            started = time.perf_counter()
            hit_s = statistics.median(hits(connection, plan.n_hits, said(body), question, plan.n_answer))
            yield from taken(started, answers__hit_ms=1000 * hit_s, answers__ratio=cold_s / hit_s)
            started = time.perf_counter()
            per_s = four.per_s(plan.n_hits, said(body), question, plan.n_answer)
            yield from taken(started, answers__hits_per_s=per_s)


def check(how: str, body: bytes, n_most: int) -> None:
    """A new answer, as it should be. Raises stream.WrongAnswerError."""
    answer = json.loads(body)
    message, n = answer["choices"][0]["message"], answer["usage"]["completion_tokens"]
    text = message["content"] or message.get("reasoning_content")
    if how == "hit" or not text or not 0 < n <= n_most:
        raise stream.WrongAnswerError(f"A new answer came as {how!r}, with {n} tokens of {n_most}.")


def disk(model: str) -> dict[str, float]:
    """Hits of a server that has just started, each answer read from disk, among many."""
    questions = [f"What is {i} + {i % 7}?" for i in range(N_COLD)]
    options = ("--answer-disk", "2000", "--answer-ram", "64")
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf(Path(folder) / "answers", 2000 * 2**20)
        shelf.open()
        for i in range(N_ENTRIES):
            shelf.put(keys.key(i), keys.key(-i).encode() * (ENTRY_BYTES // 64))
        shelf.close()
        with stream.linnet(model, "--cache-dir", folder, *options) as url:
            connection = Connection(url)
            for question in questions:
                connection.ask(question, 8)
        started = time.perf_counter()
        with stream.linnet(model, "--cache-dir", folder, *options) as url:
            ready_s = time.perf_counter() - started
            connection = Connection(url)
            found = [connection.ask(question, 8) for question in questions]
    if any(how != "hit" for _, how, _ in found[1:]):
        raise RuntimeError("an answer was not found on disk")
    seconds = [took for took, _, _ in found]
    return {"p50_ms": 1000 * statistics.median(seconds), "p95_ms": 1000 * stream.percentile(seconds, 95), "start_s": ready_s}


def beside(model: str) -> dict[str, float]:
    """Hits while four answers are generated."""
    with tempfile.TemporaryDirectory() as folder, stream.linnet(model, "--cache-dir", folder, "--no-draft") as url:
        connection = Connection(url)
        choices = said(connection.ask("hello")[2])
        chats = [[{"role": "user", "content": stream.text(10, f"{i} {time.time_ns()}")}] for i in range(4)]
        begun = [threading.Event() for _ in chats]
        streams = [threading.Thread(target=stream.ask, args=(url, c, 200, b)) for c, b in zip(chats, begun, strict=True)]
        for thread in streams:
            thread.start()
        for event in begun:
            event.wait()
        seconds = []
        while all(thread.is_alive() for thread in streams):
            seconds += hits(connection, 10, choices)
            time.sleep(0.05)  # a few hits a second, as clients would ask, and not as fast as can be
        for thread in streams:
            thread.join()
    return {"n": len(seconds), "p50_ms": 1000 * statistics.median(seconds), "p95_ms": 1000 * stream.percentile(seconds, 95)}


def killed(model: str) -> dict[str, float]:
    """Servers killed while they keep answers: wrong answers after that (there must be none), and the slowest start."""
    known: dict[str, Any] = {}
    wrong, starts = 0, []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(N_KILLS):
            started = time.perf_counter()
            port = stream.free_port()
            command = [sys.executable, str(stream.ROOT / "server.py"), "--port", str(port), "--model", model]
            process = subprocess.Popen([*command, "--cache-dir", folder], stderr=subprocess.DEVNULL)
            url = f"http://127.0.0.1:{port}"
            stream.wait_for(url, process)
            starts.append(time.perf_counter() - started)
            connection = Connection(url)
            stop_at = time.perf_counter() + 0.2 + 0.02 * turn
            for i in itertools.count():
                question = f"What is {i % 30} + {turn % 3}?"
                _, how, body = connection.ask(question, 8)
                choices = said(body)
                wrong += how == "hit" and known.get(question, choices) != choices
                known[question] = choices
                if time.perf_counter() > stop_at:
                    break
            children = psutil.Process(process.pid).children()
            process.send_signal(signal.SIGKILL)
            process.wait()
            psutil.wait_procs(children)
    return {"kills": N_KILLS, "wrong": wrong, "slowest_start_s": max(starts)}


PARTS: parts.Parts = {"quiet": quiet, "disk": disk, "beside": beside, "killed": killed}


if __name__ == "__main__":
    sys.exit(parts.run(PARTS, __doc__, sys.argv[1:]))
