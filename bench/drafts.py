"""What guessing brings: the same scripted answer with and without it, by turns in one process.

    python -m bench.drafts MODEL.gguf     the last line is JSON

The steps are real; what the model says is scripted (speed does not depend on it), for a model of random weights cannot
copy a text. `copy`: a text is to be repeated with one word changed. `ordinary`: prose that repeats nothing
but what prose repeats: this project's docs.
"""

from __future__ import annotations

import json
import os
import queue
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench import stream
from bench.figure import Taken, taken
from bench.plan import Plan
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
ROOT = Path(__file__).resolve().parent.parent


class Scripted(Model):
    """Says what it is told, at the price of computing what it would have said; without a script, what it would say."""

    script: list[int] | None = None
    n_said = 0

    def sample(self, sampler: Sampler, row: int, grammar: Grammar | None = None) -> int:
        """As Model's, but another token comes of it."""
        token = super().sample(sampler, row, grammar)
        self.n_said += 1
        return self.script[self.n_said - 1] if self.script else token


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
    model.script = None
    return (len(script) - 1) / (time.perf_counter() - started)


def cases(model: Scripted, n_answer: int) -> dict[str, tuple[str, list[int]]]:
    """By name: what is asked, and the tokens of the answer."""
    text = stream.text(n_answer * 110 // N_ANSWER + 1, "A text:")
    tokens = model.vocabulary.tokenize(text, add_bos=False)[:n_answer]
    tokens[n_answer // 2] = 100  # the one change
    prose = " ".join(line for path in sorted((ROOT / "docs").glob("*.md")) for line in path.read_text().splitlines())
    ordinary = model.vocabulary.tokenize(prose[: 20 * n_answer], add_bos=False)[:n_answer]
    return {"copy": (f"Repeat this text with one change: {text}", tokens), "ordinary": ("Explain.", ordinary)}


def values(model: Scripted, config: Config, costs: Costs, plan: Plan) -> Iterator[Taken]:
    """For `make bench`."""
    scripts = cases(model, plan.n_script)
    for _ in plan.turns():
        for name, (prompt, script) in scripts.items():
            started = time.perf_counter()
            without, with_ = (
                tokens_per_s(model, replace(config, draft=draft), costs, prompt, script) for draft in (False, True)
            )
            yield from taken(started, **{f"draft.{name}.ratio": with_ / without})


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    plain = Config(arguments[0], 2048, 1, threads.count(), draft=False)
    model = Scripted(plain, *step_size(plain))
    costs = Costs.measure(model.seconds, model.batch.size)
    print("a step of n tokens costs, in steps of one:", {n: round(costs(n) / costs(1), 2) for n in (2, 4, 8, 12, 16)})
    results = {}
    for name, (prompt, script) in cases(model, N_ANSWER).items():
        ratios = []
        for _ in range(N_TURNS):
            without, with_ = (
                tokens_per_s(model, replace(plain, draft=draft), costs, prompt, script) for draft in (False, True)
            )
            ratios.append(with_ / without)
            print(f"{name:9} {without:6.1f} tokens/s without, {with_:6.1f} with: {ratios[-1]:.2f} x", flush=True)
        results[name] = round(statistics.median(ratios), 3)
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    again_with_environment("bench.drafts", os.environ | threads.environment())
    sys.exit(main(sys.argv[1:]))
