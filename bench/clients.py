"""Several clients at once, each with a chat of its own; and the memory that serving them takes."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator

import psutil

from bench import prompts, stream
from bench.figure import Remark, Taken, taken
from bench.plan import Plan

TASKS = ("chat-05", "copy-05", "code-06", "chat-18")  # no summary: reading its long text would be all that is seen


def clients(url: str, plan: Plan) -> Iterator[Taken | Remark]:
    """All ask at the same moment. What they ask is new each time, else it would be known. However many they are, they get
    the same tasks, the fewer clients in the more rounds.
    """
    tasks = prompts.named(*TASKS)
    stream.ask(url, _chat("The first one is not counted:", tasks[0]), 2)
    firsts: dict[int, list[float]] = {n: [] for n in plan.clients}
    begun = time.perf_counter()
    for turn in plan.turns():
        for n in plan.clients:
            started = time.perf_counter()
            chats = [_chat(f"{turn} {n} {i}", tasks[i % len(tasks)]) for i in range(max(n, len(tasks)))]
            rounds = [stream.ask_all(url, chats[at : at + n], plan.n_answer) for at in range(0, len(chats), n)]
            answers = [answer.checked(plan.n_answer) for together in rounds for answer in together]
            gaps = [gap for answer in answers for gap in answer.gaps_s]
            seconds = [answer.first_s for answer in answers]
            firsts[n] += seconds
            values = {
                "total_per_s": sum(answer.n_tokens for answer in answers) / sum(map(stream.wall_s, rounds)),
                "each_per_s": statistics.median(answer.per_s for answer in answers),
                "first_p50_s": statistics.median(seconds),
                "gap_p95_ms": 1000 * stream.percentile(gaps, 95),
            }
            yield from taken(started, **{f"clients.{n}.{name}": value for name, value in values.items()})
    for n, seconds in firsts.items():  # one turn has too few of them to tell what one in twenty waits for
        yield from taken(begun, **{f"clients.{n}.first_p95_s": stream.percentile(seconds, 95)})
        yield Remark(f"clients.{n}.first_p95_s", f"of {len(seconds)} answers in all turns")


def _chat(salt: str, task: prompts.Task) -> list[stream.Message]:
    """With a beginning of its own."""
    first, *others = task.messages
    return [first | {"content": f"{salt} {first['content']}"}, *others]


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
