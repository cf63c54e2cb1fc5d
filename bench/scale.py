"""What the engine's bookkeeping costs as its work grows: 1,000 sequences, 100,000 queued requests, 1,000,000 entries.

    python -m bench.scale [scheduler answers memory prefixes ...]     two minutes for all; the last line is JSON

Simulated, for no machine at hand is that large. The scheduler is real and its kernel fake; the answer cache is real, its
database filled in bulk with copies of one row; the tree of prefixes is real, the files behind it are fake. Each part has a
process of its own, so that what memory it takes is its own: all that the process does not share with others.

Bars: 2 ms a step and 3 ms a look-up, for 99 of 100; 300 bytes of memory an entry. One that is exceeded means exit code 1.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil

from bench.stream import percentile
from cache import keys
from cache.store import Store
from engine.costs import Costs
from engine.prefix import Prefixes, identity
from engine.scheduler import Scheduler, Sequence, Slice
from engine.states import Record, States

N_SEQUENCES, N_QUEUED = 1000, 100_000
N_STEPS = 2000
N_ENTRIES = 1_000_000
N_LOOKUPS = 20_000
N_THREADS = 40  # that look answers up: as many as the server has with its defaults
N_ANSWER = 100  # tokens
VALUE = bytes(600)  # an answer of some sentences
ROOMY = 2**50  # bytes: nothing has to go
BARS = {"step_p99_ms": 2.0, "hit_p99_ms": 3.0, "miss_p99_ms": 3.0, "bytes_an_entry": 300.0}
STATE_BYTES = 22 * 2**10  # of one token, as in a model of a billion weights
LAST_USE = 1_800_000_000 * 10**9  # of a file, in ns
N_CONVERSATIONS, N_TURNS = 33, 3  # that begin with the same system prompt
N_FAMILIES = N_ENTRIES // (1 + N_CONVERSATIONS * N_TURNS)
COPY = """INSERT INTO Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value)
    SELECT ?, raw, store_time, expire_time, access_time - ?, access_count, tag, size, mode, filename, value
    FROM Cache WHERE rowid = 1"""

# The more answers in a step the better: all take part in each step, which is the dearest case to plan.
ALIKE = Costs({1: 0.02, 128: 0.03})


class Crowd:
    """As many sequences as there are slots, and behind them a queue that never gets shorter."""

    def __init__(self, n_sequences: int, n_queued: int) -> None:
        self._random = random.Random(7)
        self._n_made = 0
        self.scheduler: Scheduler[Sequence] = Scheduler(n_sequences, ALIKE)
        for _ in range(n_sequences + n_queued):
            self._arrive()

    def step(self) -> tuple[float, float]:
        """Seconds of this thread that the scheduler and the fake kernel took."""
        giving_up = self.scheduler.find(str(self._n_made - self._random.randrange(N_QUEUED // 2)))
        started = time.thread_time()
        self.scheduler.some_waiting()
        self.scheduler.in_the_way()
        self.scheduler.admit()
        batch = self.scheduler.next(self.scheduler.answering())
        planned = time.thread_time()
        ended = compute(batch)
        computed = time.thread_time()
        self._change([*ended, *([giving_up] if giving_up and giving_up.slot is None else [])])
        return time.thread_time() - computed + planned - started, computed - planned

    def _change(self, gone: list[Sequence]) -> None:
        for sequence in gone:
            self.scheduler.remove(sequence)
            self._arrive()

    def _arrive(self) -> None:
        self._n_made += 1
        n_prompt, background = 20 + self._n_made * 7 % 380, self._n_made % 10 == 0
        self.scheduler.add(Sequence(str(self._n_made), [1] * n_prompt, background=background))


def compute(batch: list[Slice[Sequence]]) -> list[Sequence]:
    """The fake kernel: each token is the same. The sequences whose answer has ended with it."""
    ended = []
    for s in batch:
        s.sequence.n_read = s.stop
        if s.complete:
            s.sequence.tokens.append(1)
            if len(s.sequence.tokens) == s.sequence.n_given + N_ANSWER:
                ended.append(s.sequence)
    return ended


def scheduler() -> dict[str, float]:
    """A step of a thousand sequences; in each, one of those who wait gives up, and whoever went is replaced."""
    crowd = Crowd(N_SEQUENCES, N_QUEUED)
    steps, kernels = zip(*(crowd.step() for _ in range(N_STEPS)), strict=True)
    kernel_s, step_s = statistics.median(kernels), statistics.median(steps)
    return in_ms("step", list(steps)) | {"fake_kernel_share": kernel_s / (kernel_s + step_s)}


def answers() -> dict[str, float]:
    """Look-ups in a full disk tier, hits and misses, by as many threads as a server has; each value is read from disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "answers"
        fill(folder)
        before = memory_bytes()
        store = Store(folder, 0, ROOMY, serving=False)
        store.flush(60.0)  # it is open
        all_there, turn = threading.Barrier(N_THREADS), threading.Lock()

        def looked_up(salt: int) -> tuple[list[float], list[float]]:
            all_there.wait()  # so that each has a thread, and with it a connection, of its own
            with turn:  # one after the other: all are measured alike
                return look_up(store, salt)

        with ThreadPoolExecutor(N_THREADS) as pool:
            results = list(pool.map(looked_up, range(N_THREADS)))
            n_bytes = (memory_bytes() - before) / N_ENTRIES  # while the threads and their connections are there
        store.close()
    hits, misses = ([s for result in results for s in result[i]] for i in range(2))
    return in_ms("hit", hits) | in_ms("miss", misses) | {"bytes_an_entry": n_bytes}


def fill(folder: Path) -> None:
    """A million answers: one put as always, the others copies of its row under other keys, all in one transaction."""
    store = Store(folder, 0, ROOMY)
    store.put(keys.key(0), VALUE)
    store.flush(60.0)
    store.close()
    with sqlite3.connect(folder / "cache.db") as database:
        database.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144")
        database.executemany(COPY, ((keys.key(i), i) for i in range(1, N_ENTRIES)))
    database.close()


def look_up(store: Store, salt: int) -> tuple[list[float], list[float]]:
    """Seconds of hits and of misses, in random order over all entries."""
    chance = random.Random(salt)
    hits: list[float] = []
    misses: list[float] = []
    for _ in range(N_LOOKUPS // N_THREADS):
        i = chance.randrange(2 * N_ENTRIES)
        key = keys.key(i)
        started = time.perf_counter()
        entry = store.get(key)
        (hits if i < N_ENTRIES else misses).append(time.perf_counter() - started)
        if bool(entry) != (i < N_ENTRIES):
            raise RuntimeError("an answer was not found, or one that is not there was")
    return hits, misses


def memory() -> dict[str, float]:
    """What the memory tier takes for an entry beside the bytes of its value, and its look-ups."""
    store = Store(Path("unused"), ROOMY, 0)
    before = memory_bytes()
    for i in range(N_ENTRIES):
        store.put(keys.key(i), bytes(len(VALUE)))
    n_bytes = (memory_bytes() - before) / N_ENTRIES - len(VALUE)
    hits, misses = look_up(store, 0)
    return in_ms("hit", hits) | in_ms("miss", misses) | {"bytes_an_entry": n_bytes}


class Files(States):
    """As many as a very large disk would hold; none of them is there."""

    def __init__(self) -> None:
        super().__init__(None, "", ROOMY)
        self._n_made = 0

    def records(self) -> Iterator[Record]:
        """Families of conversations, parents first; no list of them, for it would take the memory that is measured."""
        for number in range(N_FAMILIES):
            system, conversations = family(number)
            yield (root := self._made("", 0, system))
            for turns in conversations:
                parent, start = root.id, len(system)
                for turn in turns:
                    yield (record := self._made(parent, start, turn))
                    parent, start = record.id, start + len(turn)

    def _made(self, parent: str, start: int, tokens: list[int]) -> Record:
        self._n_made += 1  # parents come first and are used later than what hangs on them
        n_bytes, used = len(tokens) * STATE_BYTES, LAST_USE - self._n_made
        record = Record(identity(parent, start, tokens), parent, start, tokens, n_bytes, used)
        self._count(record.id, record.n_bytes)
        return record


def family(number: int) -> tuple[list[int], list[list[list[int]]]]:
    """A system prompt, and the turns of each conversation that begins with it; the same for the same number."""
    chance = random.Random(number)
    system = [number, *some_tokens(chance, 150)]
    return system, [[[i, *some_tokens(chance, 180)] for _ in range(N_TURNS)] for i in range(N_CONVERSATIONS)]


def some_tokens(chance: random.Random, n_most: int) -> list[int]:
    """Tens or hundreds, some 100 on average."""
    return array("H", chance.randbytes(2 * chance.randint(20, n_most))).tolist()


def prefixes() -> dict[str, float]:
    """Look-ups of a conversation's next turn, of another beginning of its last turn, and of prompts that nobody knows."""
    before = memory_bytes()
    with closing(Prefixes(2**20, Files())) as tree:
        n_bytes = (memory_bytes() - before) / N_ENTRIES
        known, unknown, adding = prefix_look_ups(tree)
    return in_ms("hit", known) | in_ms("miss", unknown) | in_ms("add", adding) | {"bytes_an_entry": n_bytes}


def prefix_look_ups(tree: Prefixes) -> tuple[list[float], list[float], list[float]]:
    """Seconds of those that find something, of those that do not, and of additions."""
    known, unknown, adding = [], [], []
    chance = random.Random(7)
    for _ in range(N_LOOKUPS // 10):
        system, conversations = family(chance.randrange(N_FAMILIES))
        turns = chance.choice(conversations)
        tokens = sum(turns, system)
        n_cut = chance.randrange(len(turns[-1]) - 1)  # of the last turn's tokens; others follow
        known.append(seconds_to_find(tree, [*tokens, *some_tokens(chance, 180)], len(tokens)))
        known.append(seconds_to_find(tree, [*tokens[: len(tokens) - n_cut], -1], len(tokens) - n_cut))
        unknown.append(seconds_to_find(tree, [-1, *tokens], 0))
        started = time.perf_counter()
        tree.add([*tokens, -2, *some_tokens(chance, 180)], lambda start, stop: b"x")
        adding.append(time.perf_counter() - started)
    return known, unknown, adding


def seconds_to_find(tree: Prefixes, tokens: list[int], n_known: int) -> float:
    """Seconds to find what is known of a prompt and to note its use. Raises RuntimeError when something else is found."""
    started = time.perf_counter()
    path = tree.match(tokens)
    tree.use(path)
    seconds = time.perf_counter() - started
    if (path[-1].stop if path else 0) != n_known:
        raise RuntimeError("a prefix was not found, or one that is not there was")
    return seconds


def memory_bytes() -> int:
    """Of this process alone."""
    return int(psutil.Process().memory_full_info().uss)


def in_ms(name: str, seconds: list[float]) -> dict[str, float]:
    """The median, the 99th of a hundred, and the longest, in milliseconds."""
    figures = {"ms": statistics.median(seconds), "p99_ms": percentile(seconds, 99), "longest_ms": max(seconds)}
    return {f"{name}_{what}": 1000 * value for what, value in figures.items()}


def exceeded(figures: dict[str, float]) -> list[str]:
    """The bars that are, each with what there was."""
    return [f"{name} {figures[name]:g} of {bar:g}" for name, bar in BARS.items() if figures.get(name, 0.0) > bar]


PARTS: dict[str, Callable[[], dict[str, float]]] = {
    "scheduler": scheduler,
    "answers": answers,
    "memory": memory,
    "prefixes": prefixes,
}


def measured(name: str) -> dict[str, float]:
    """Of one part, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return {what: round(value, 4) for what, value in pool.apply(PARTS[name]).items()}


def main(arguments: list[str]) -> int:
    """The exit code."""
    if set(arguments) - set(PARTS):
        print(__doc__, file=sys.stderr)
        return 2
    figures: dict[str, dict[str, float]] = {}
    for name in arguments or PARTS:
        started = time.perf_counter()
        figures[name] = measured(name)
        over = exceeded(figures[name])
        print(f"{name:10} {figures[name]} ({time.perf_counter() - started:.0f} s)")
        print(f"{name:10} {'exceeded: ' + ', '.join(over) if over else 'ok'}", flush=True)
    print(json.dumps(figures))
    return int(any(map(exceeded, figures.values())))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
