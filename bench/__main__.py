"""How fast is a model on this machine?

    make bench                      the built-in demo model
    make bench MODEL=path-or-name   another one

Prompt reading and answering in tokens/s, for 1 and 4 clients at once, each the median of several turns with its spread.
The engine runs in its own process, as it does in the server. The last line is JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time

from engine import threads
from engine.client import Engine
from engine.request import Config, Delta, Event, Failed, Finished, Request
from engine.stream import State
from models import store

N_TURNS = 3
N_CLIENTS = (1, 4)
N_PROMPT_WORDS = 200
N_ANSWER_TOKENS = 64


def main(arguments: list[str]) -> int:
    """The exit code."""
    try:
        path = store.find(arguments[0] if arguments else None)
    except store.StoreError as error:
        print(error, file=sys.stderr)
        return 2
    engine = Engine(Config(str(path), None, max(N_CLIENTS), threads.count()), max_queue=0)
    engine.start()
    status = engine.wait()
    try:
        if status.state is not State.READY or not status.ready:
            print(status.failure, file=sys.stderr)
            return 1
        print(f"{path.stem}: {status.ready.description}, {status.ready.size_bytes / 1e6:,.0f} MB, {threads.count()} threads")
        print(f"{'':12}{'reading':>32}{'each answer':>32}{'all answers':>32}{'first text':>20}")
        figures = {n: clients(engine, n) for n in N_CLIENTS}
        print(json.dumps({"model": path.stem, "load_s": round(status.ready.load_s, 3), "clients": figures}))
        return 0
    finally:
        engine.close()


def clients(engine: Engine, n: int) -> dict[str, list[float]]:
    """[median, least, most] over the turns of each figure with n clients at once; prints them."""
    turns = [turn(engine, n, seed) for seed in range(N_TURNS)]
    figures = {}
    for name in turns[0]:
        values = [t[name] for t in turns]
        figures[name] = [round(v, 3) for v in (statistics.median(values), min(values), max(values))]
    cells = [f"{m:,.0f} ({low:,.0f}-{high:,.0f}) tokens/s".rjust(32) for m, low, high in list(figures.values())[:3]]
    print(f"{n} client{'s' if n > 1 else ' '}   {''.join(cells)}{figures['first_s'][0]:18.3f} s")
    return figures


def turn(engine: Engine, n: int, seed: int) -> dict[str, float]:
    """n clients ask at once, each something of its own."""
    results: list[tuple[Event, float]] = []
    started = time.perf_counter()
    askers = [threading.Thread(target=lambda i=i: results.append(ask(engine, f"{seed} {i}"))) for i in range(n)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    wall_s = time.perf_counter() - started
    ends = [end for end, _ in results if isinstance(end, Finished)]
    if len(ends) < n:
        raise SystemExit(next(f.message for f, _ in results if isinstance(f, Failed)))
    return {
        "reading_per_s": sum(e.n_prompt for e in ends) / max(e.queue_s + e.prompt_s for e in ends),
        "each_per_s": statistics.median((e.n_answer - 1) / e.answer_s for e in ends if e.n_answer > 1),
        "all_per_s": sum(e.n_answer for e in ends) / wall_s,
        "first_s": statistics.median(first_s for _, first_s in results),
    }


def ask(engine: Engine, name: str) -> tuple[Event, float]:
    """How one answer ended, and the seconds to its first text."""
    words = " ".join(f"{name} word {i}" for i in range(N_PROMPT_WORDS // 3))
    request = Request(name, [{"role": "user", "content": f"{words} Tell me a story."}], max_tokens=N_ANSWER_TOKENS)
    started, first_s = time.perf_counter(), 0.0
    stream = engine.submit(request)
    while not isinstance(event := stream.next(), Finished | Failed):
        if isinstance(event, Delta) and not first_s:
            first_s = time.perf_counter() - started
    return event, first_s


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
