"""What guessing brings: the same scripted answer with and without it, by turns in one process.

    python -m bench.drafts MODEL.gguf     the last line is JSON

The steps are real; what the model says is scripted (speed does not depend on it), for a model of random weights cannot
copy a text. `copy`: a text of 250 tokens is to be repeated with one word changed. `ordinary`: prose that repeats nothing
but what prose repeats: this project's docs.
"""

from __future__ import annotations

import json
import os
import queue
import statistics
import sys
import time
from pathlib import Path

from bench import stream
from bench.steps import again_with_environment, loop_alone
from engine import threads
from engine.constraint import Grammar
from engine.costs import Costs
from engine.native.model import Model
from engine.native.sampler import Sampler
from engine.request import Command, Config, Request
from engine.scheduler import step_size

N_TURNS = 3
N_ANSWER = 250


class Scripted(Model):
    """Says what it is told, at the price of computing what it would have said."""

    script: list[int]
    n_said = 0

    def sample(self, sampler: Sampler, row: int, grammar: Grammar | None = None) -> int:
        """As Model's, but another token comes of it."""
        super().sample(sampler, row)
        self.n_said += 1
        return self.script[self.n_said - 1]


def tokens_per_s(model: Scripted, config: Config, costs: Costs, prompt: str, script: list[int]) -> float:
    """Of one answer, without the reading of its prompt."""
    inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
    loop = loop_alone(model, config, costs, inbox, lambda _: None)
    model.script, model.n_said = script, 0
    inbox.put(Request("x", [{"role": "user", "content": prompt}], max_tokens=len(script), loop_stop=False))
    loop.take()
    while model.n_said == 0:
        loop.step()
    started = time.perf_counter()
    while loop.answers:
        loop.step()
    return (len(script) - 1) / (time.perf_counter() - started)


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    plain = Config(arguments[0], 2048, 1, threads.count(), draft=False)
    guessing = Config(arguments[0], 2048, 1, threads.count())
    model = Scripted(plain, *step_size(plain))
    costs = Costs.measure(model.seconds, model.batch.size)
    print("a step of n tokens costs, in steps of one:", {n: round(costs(n) / costs(1), 2) for n in (2, 4, 8, 12, 16)})
    text = stream.text(110, "A text:")
    tokens = model.vocabulary.tokenize(text, add_bos=False)[:N_ANSWER]
    tokens[N_ANSWER // 2] = 100  # the one change
    prose = " ".join(line for path in sorted(Path("docs").glob("*.md")) for line in path.read_text().splitlines())
    ordinary = model.vocabulary.tokenize(prose, add_bos=False)[:N_ANSWER]
    results = {}
    for name, prompt, script in (
        ("copy", f"Repeat this text with one change: {text}", tokens),
        ("ordinary", "Explain.", ordinary),
    ):
        ratios = []
        for _ in range(N_TURNS):
            without, with_ = (tokens_per_s(model, config, costs, prompt, script) for config in (plain, guessing))
            ratios.append(with_ / without)
            print(f"{name:9} {without:6.1f} tokens/s without, {with_:6.1f} with: {ratios[-1]:.2f} x", flush=True)
        results[name] = round(statistics.median(ratios), 3)
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    again_with_environment("bench.drafts", os.environ | threads.environment())
    sys.exit(main(sys.argv[1:]))
