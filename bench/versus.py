"""Linnet against llama-server: the same model, slots, context, threads and client, by turns in one run.

    python -m bench.versus LLAMA_SERVER MODEL.gguf [SCENARIO ...]     scenarios: one four eight shared busy

LLAMA_SERVER is the program built from the llama.cpp of the same commit (vendor/llama.cpp in llama-cpp-python's source
package). Guesses and early ends are off, so both compute the same: a model of random weights repeats itself, and guesses
would win without merit. All prompts are new, so nothing is known before. The last line is JSON: medians and their ratio.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from bench import stream
from engine import threads

N_TURNS = 5  # machines are noisy: the median of so many
N_SLOTS, N_CTX = 8, 1024
N_ANSWER = 64


def talk(n_words: int, salt: object) -> list[stream.Message]:
    """A chat of one question."""
    return [{"role": "user", "content": stream.text(n_words, salt)}]


def streams(n: int) -> Callable[[str, int], float]:
    """Total tokens/s of n clients with prompts of about 95 tokens of their own."""

    def run(url: str, turn: int) -> float:
        return stream.tokens_per_s(
            stream.ask_all(url, [talk(6, f"{turn} {i} {time.time_ns()}") for i in range(n)], N_ANSWER)
        )

    return run


def shared(url: str, turn: int) -> float:
    """p95 seconds to the first text of 8 clients at once: the same system prompt of about 700 tokens, short questions."""
    system = {"role": "system", "content": stream.text(125, f"{turn} {time.time_ns()}")}
    chats = [[system, *talk(2, i)] for i in range(8)]
    return stream.percentile([a.first_s for a in stream.ask_all(url, chats, 16)], 95)


def busy(url: str, turn: int) -> float:
    """tokens/s of one answer, from its first token on, while another program keeps one core busy."""
    with stream.busy_neighbour():
        answer = stream.ask(url, talk(5, f"{turn} {time.time_ns()}"), 2 * N_ANSWER)
    return (answer.n_tokens - 1) / (answer.tokens[-1] - answer.tokens[0])


SCENARIOS: dict[str, tuple[Callable[[str, int], float], str]] = {
    "one": (streams(1), "tokens/s"),
    "four": (streams(4), "tokens/s"),
    "eight": (streams(8), "tokens/s"),
    "shared": (shared, "s to first text, p95"),
    "busy": (busy, "tokens/s"),
}


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) < 2 or set(arguments[2:]) - set(SCENARIOS):
        print(__doc__, file=sys.stderr)
        return 2
    program, model, *names = arguments
    n_threads = threads.count()
    results = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        stream.linnet(model, "--cache-dir", folder, "--no-draft", "--slots", str(N_SLOTS), "--ctx", str(N_CTX)) as ours,
        stream.llama_server(program, model, N_SLOTS, N_CTX, n_threads) as theirs,
    ):
        for name in names or SCENARIOS:
            run, unit = SCENARIOS[name]
            pairs = [(run(ours, turn), run(theirs, turn)) for turn in range(N_TURNS)]
            us, them = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(b / a if unit.startswith("s ") else a / b for a, b in pairs)
            print(f"{name:8} Linnet {us:8.2f}   llama-server {them:8.2f} {unit:22} {ratio:6.2f} x", flush=True)
            results[name] = {"linnet": round(us, 3), "llama_server": round(them, 3), "unit": unit, "ratio": round(ratio, 3)}
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
