"""What reuse saves, and what a long prompt costs those who read along.

python -m bench.reuse MODEL.gguf     restart, second turn, prompt read ahead, gaps; the last line is JSON
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from bench import stream
from bench.chats import Chats
from bench.figure import medians
from bench.plan import Plan

N_TURNS = 3
N_CHAT = 1000  # tokens


def restart(model: str) -> dict[str, float]:
    """Seconds to the first text of a conversation of about 1,000 tokens: cold, its second turn, and after a restart."""
    chats = Chats(Plan(n_turns=N_TURNS, turns_s=math.inf, n_chat=N_CHAT))
    with tempfile.TemporaryDirectory() as folder:
        with stream.linnet(model, "--cache-dir", folder) as url:
            values = list(chats.new(url))
        values += chats.restarts(Path(model), ("--cache-dir", folder))
    return medians(values)


def ahead(url: str) -> dict[str, float]:
    """Decode steps to the first text of a prompt that was read ahead."""
    chat = [{"role": "user", "content": stream.text(100, time.time_ns())}]
    body = json.dumps({"messages": chat}).encode()
    request = urllib.request.Request(f"{url}/api/prefill", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        response.read()
    answer = stream.ask(url, chat, 32)
    return {"first_s": answer.first_s, "steps": answer.first_s / statistics.median(answer.gaps_s)}


def gaps(url: str) -> dict[str, float]:
    """The gap between two tokens of a running answer: p50 on a quiet server, p95 while a prompt of 1,500 tokens is read."""
    started = threading.Event()
    answers: list[stream.Answer] = []
    quiet = stream.ask(url, [{"role": "user", "content": stream.text(5, time.time_ns())}], 96)
    chat = [{"role": "user", "content": stream.text(6, time.time_ns())}]
    reader = threading.Thread(target=lambda: answers.append(stream.ask(url, chat, 900, started)))
    reader.start()
    started.wait()
    asked = time.perf_counter()
    long = stream.ask(url, [{"role": "user", "content": stream.text(290, time.time_ns())}], 2)
    reader.join()
    (running,) = answers
    during = stream.gaps_s([t for t in running.tokens if asked <= t <= asked + long.first_s])
    quiet_s = statistics.median(quiet.gaps_s)
    result = {"quiet_ms": quiet_s * 1e3, "during_p50_ms": statistics.median(during) * 1e3}
    result["during_p95_ms"] = stream.percentile(during, 95) * 1e3
    return result | {
        "p95_ratio": result["during_p95_ms"] / result["quiet_ms"],
        "n": len(during),
        "long_first_s": long.first_s,
    }


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    model = arguments[0]
    results = {"restart": restart(model)}
    print(results["restart"], flush=True)
    with stream.linnet(model, "--no-cache", "--no-draft", "--ctx", "2048") as url:
        for name, measure in (("ahead", ahead), ("gaps", gaps)):
            turns = [measure(url) for _ in range(N_TURNS)]
            results[name] = {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
            print(name, {key: round(value, 4) for key, value in results[name].items()}, flush=True)
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
