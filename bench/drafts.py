"""What guessing brings: the same scripted answer with and without it, by turns in one process.

    python -m bench.drafts MODEL.gguf     the last line is JSON

The steps are real; what the model says is scripted (speed does not depend on it), for a model of random weights cannot
copy a text. `copy`: a text of bench.prompts is to be repeated with one change. `ordinary`: a question is answered with prose
that repeats nothing but what prose repeats. Each turn takes other texts.
"""

from __future__ import annotations

import functools
import json
import math
import os
import queue
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from bench import prompts
from bench.figure import Taken, medians, taken
from bench.plan import Plan, pair
from bench.steps import ANY, again_with_environment, loop_alone
from engine import threads
from engine.constraint import Grammar
from engine.costs import Costs
from engine.native.model import Model
from engine.native.sampler import Sampler
from engine.request import Command, Config, Request
from engine.scheduler import step_size

N_TURNS = 3
N_ANSWER = 250
COPIES = ("copy-05", "copy-06", "copy-04")  # settings, a poem, a table
QUESTION, PROSE = "chat-05", ("summary-03", "summary-05", "summary-12")  # the texts that are to be summarized


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
    model.script, model.n_said = script, 0
    inbox.put(Request("x", [{"role": "user", "content": prompt}], max_tokens=len(script), loop_stop=False))
    with loop_alone(model, config, costs, inbox, lambda _: None) as loop:
        loop.take()
        while model.n_said == 0:
            loop.step()
        started = time.perf_counter()
        while loop.answers:
            loop.step()
        seconds = time.perf_counter() - started
    model.script = None
    return (len(script) - 1) / seconds


def cases(model: Scripted, turn: int, n_answer: int) -> dict[str, tuple[str, list[int]]]:
    """By name: what is asked, and the tokens of the answer."""
    tasks = prompts.named(COPIES[turn % len(COPIES)], QUESTION, PROSE[turn % len(PROSE)])
    copied, question, prose = (task.messages[0]["content"] for task in tasks)
    found = {}
    for name, asked, text in (("copy", copied, copied), ("ordinary", question, prose)):
        _, _, said = text.partition("\n\n")
        found[name] = asked, model.vocabulary.tokenize(said, add_bos=False)[:n_answer]
    script = found["copy"][1]
    script[len(script) // 2] = ANY  # the one change
    return found


def values(model: Scripted, config: Config, costs: Costs, plan: Plan) -> Iterator[Taken]:
    """For `make bench`."""
    for turn in plan.turns():
        for name, (prompt, script) in cases(model, turn, plan.n_script).items():
            started = time.perf_counter()
            without, with_ = pair(
                turn,
                functools.partial(tokens_per_s, model, replace(config, draft=False), costs, prompt, script),
                functools.partial(tokens_per_s, model, replace(config, draft=True), costs, prompt, script),
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
    found = []
    for one in values(model, plain, costs, Plan(n_turns=N_TURNS, turns_s=math.inf, n_script=N_ANSWER)):
        print(f"{one.key}: {one.value:.2f} times", flush=True)
        found.append(one)
    print(json.dumps({key: round(value, 3) for key, value in medians(found).items()}))
    return 0


if __name__ == "__main__":
    again_with_environment("bench.drafts", os.environ | threads.environment())
    sys.exit(main(sys.argv[1:]))
