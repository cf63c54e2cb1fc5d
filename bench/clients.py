"""Several clients at once, each with a chat of its own; and the memory that serving them takes."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator

import psutil

from bench import prompts, stream
from bench.figure import Taken, taken
from bench.plan import Plan


def clients(url: str, plan: Plan) -> Iterator[Taken]:
    """All ask at the same moment. What they ask is new each time, else it would be known."""
    tasks = [task for task in prompts.load("chat") if len(task.messages) == 1]
    for turn in plan.turns():
        for n in plan.clients:
            chats = [_chat(f"{turn} {n} {i}", tasks[i % len(tasks)]) for i in range(n)]
            started = time.perf_counter()
            answers = [answer.checked(plan.n_answer) for answer in stream.ask_all(url, chats, plan.n_answer)]
            firsts = [answer.first_s for answer in answers]
            gaps = [gap for answer in answers for gap in answer.gaps_s]
            values = {
                "total_per_s": stream.tokens_per_s(answers),
                "each_per_s": statistics.median(answer.per_s for answer in answers),
                "first_p50_s": statistics.median(firsts),
                "first_p95_s": stream.percentile(firsts, 95),
                "gap_p95_ms": 1000 * stream.percentile(gaps, 95),
            }
            yield from taken(started, **{f"clients.{n}.{name}": value for name, value in values.items()})


def _chat(salt: str, task: prompts.Task) -> list[stream.Message]:
    return [{"role": "user", "content": f"{salt} {task.messages[0]['content']}"}]


def memory(url: str) -> Iterator[Taken]:
    """Of the processes of the server at this address. What several processes share is divided among them."""
    started, server = time.perf_counter(), front(url)
    yield from taken(started, memory__front_mb=_mb(server), memory__worker_mb=sum(map(_mb, server.children())))


def front(url: str) -> psutil.Process:
    """The process that listens at this address; it is a child of this one."""
    port = ["--port", url.rpartition(":")[2]]
    commands = {child: child.cmdline() for child in psutil.Process().children()}
    return next(child for child, words in commands.items() if port in map(list, itertools.pairwise(words)))


def _mb(process: psutil.Process) -> float:
    info = process.memory_full_info()
    return float(getattr(info, "pss", info.uss)) / 1e6  # only Linux knows shares
