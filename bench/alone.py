"""One client alone: how fast prompts are read and answers written, by the length of the prompt, and what choices cost."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from bench import stream
from bench.figure import Missing, Remark, Taken, taken
from bench.limit import AFTER, READING
from bench.machine import Meter
from bench.plan import Plan, pair
from engine.header import Header
from models import store

N_TRIES = 8
WARM = 0.8  # a usual temperature
STORY = "Tell me a story about a fox."
RANDOM = "random weights"  # the name that bench.shapes gives


def lengths(url: str, n_ctx: int, plan: Plan) -> Iterator[Taken | Missing]:
    """Prompts of exactly so many tokens, each new, and answers to them."""
    text = stream.tokenized(url, stream.text(max(plan.lengths), "once"))
    stream.go_on(url, text[: plan.lengths[0]], 4)  # the first one is not counted
    meter = Meter.find()
    fitting = [n for n in plan.lengths if n + plan.n_answer <= n_ctx]
    for n in set(plan.lengths) - set(fitting):
        why = f"the model's context is {n_ctx:,} tokens"
        for key in ("reading.{n}.tokens_per_s", "reading.{n}.first_s", "decode.{n}.tokens_per_s", AFTER, READING):
            yield Missing(key.replace("{n}", str(n)), why)
    if not meter:
        yield Missing("energy.joule_per_token", "this machine has no counter of energy that this user may read")
    for _ in plan.turns():
        for n in fitting:
            yield from _one(url, text[:n], plan, meter)


def _one(url: str, text: list[int], plan: Plan, meter: Meter | None) -> list[Taken]:
    n = len(text)
    for _ in range(N_TRIES):
        prompt = (stream.tokenized(url, f"{time.time_ns()}") + text)[:n]
        readings: list[list[int]] = []
        look = functools.partial(_look, meter, readings) if meter else None
        answer = stream.go_on(url, prompt, plan.n_answer, look)
        if answer.reason != "stop" or answer.n_tokens > plan.n_answer / 2:
            break  # else it ended too soon to tell a speed, as trained models may
    answer.checked(plan.n_answer, n)
    first = answer.tokens[0]
    values = [
        Taken(f"reading.{n}.first_s", answer.first_s, answer.asked, first),
        Taken(f"reading.{n}.tokens_per_s", n / answer.first_s, answer.asked, first),
        Taken(f"decode.{n}.tokens_per_s", answer.per_s, first, answer.tokens[-1]),
    ]
    if meter and n == min(plan.lengths):
        joules = meter.joules(readings[0], meter.read())
        values.append(Taken("energy.joule_per_token", joules / (answer.n_tokens - 1), first, answer.ended))
    return values


def _look(meter: Meter, readings: list[list[int]]) -> None:
    readings.append(meter.read())


def sampling(url: str, plan: Plan) -> Iterator[Taken]:
    """The likeliest token against one drawn by chance, by turns after the same prompt."""
    chat = [{"role": "user", "content": f"{time.time_ns()}: {STORY}"}]
    stream.ask(url, chat, 2)  # the prompt is known from here on
    for turn in plan.turns():
        started = time.perf_counter()
        likeliest = functools.partial(stream.ask, url, chat, plan.n_answer)
        answers = pair(turn, likeliest, functools.partial(likeliest, temperature=WARM, seed=turn))
        greedy, sampled = (answer.checked(plan.n_answer).per_s for answer in answers)
        values = {"sampling__greedy_per_s": greedy, "sampling__sampled_per_s": sampled}
        yield from taken(started, **values, sampling__ratio=greedy / sampled)


def stopping(url: str, model: Path, header: Header, plan: Plan) -> Iterator[Taken | Remark]:
    """How much sooner an answer is done that may end with its second sentence."""
    makes_sentences = header.name != RANDOM
    with nullcontext(url) if makes_sentences else stream.linnet(str(store.DEMO), "--no-cache", "--no-draft") as server:
        chat = [{"role": "user", "content": STORY}]
        stream.ask(server, chat, 2)
        if not makes_sentences:
            for what in ("off_s", "on_s", "ratio"):
                yield Remark(f"early_stop.{what}", "of the demo model: random weights make no sentences")
        for turn in plan.turns():
            started = time.perf_counter()
            told = functools.partial(stream.ask, server, chat, plan.n_story)
            answers = pair(turn, functools.partial(told, early_stop=False), functools.partial(told, early_stop=True))
            off_s, on_s = (answer.ended - answer.asked for answer in answers if answer.checked(plan.n_story))
            yield from taken(started, early_stop__off_s=off_s, early_stop__on_s=on_s, early_stop__ratio=off_s / on_s)
