"""The figures there are: what each is called, which group it belongs to, its unit, and what must be known to read it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.plan import Plan


@dataclass(frozen=True)
class Kind:
    """Of a figure. `{n}` in a title is a number of tokens, clients or sequences."""

    group: str
    title: str
    unit: str
    note: str = ""


START, READ, WRITE, MANY = "Starting", "Reading", "Writing", "Clients at once"
CHAT, CHOICE, REPEAT, COST = "Chats", "Choices", "Answers given before", "Memory and energy"
LIMIT, STEP = "The limit", "Where a token's time goes"
SCRIPTED = "what the model says is scripted; the steps are real"

KINDS = {
    "load.cold_s": Kind(
        START,
        "loading the model from disk",
        "s",
        "its file is not in the file cache; a virtual machine's host may still have it",
    ),
    "load.warm_s": Kind(START, "loading it again", "s", "its file is in the file cache"),
    "load.warm_up_s": Kind(START, "measuring what steps cost", "s", "at the first start with a model only"),
    "load.ready_s": Kind(START, "from the start of the server until it would answer", "s", "not the first start"),
    "reading.{n}.tokens_per_s": Kind(READ, "a prompt of {n} tokens", "tokens/s"),
    "reading.{n}.first_s": Kind(READ, "first text after a prompt of {n} tokens", "s"),
    "decode.{n}.tokens_per_s": Kind(WRITE, "one answer after a prompt of {n} tokens", "tokens/s"),
    "clients.{n}.total_per_s": Kind(MANY, "{n} together", "tokens/s", "reading the prompts included"),
    "clients.{n}.each_per_s": Kind(MANY, "each of {n}", "tokens/s", "from its first text on"),
    "clients.{n}.first_p50_s": Kind(MANY, "first text of {n}, median", "s"),
    "clients.{n}.first_p95_s": Kind(MANY, "first text of {n}, 19 of 20", "s", "of all turns together"),
    "clients.{n}.gap_p95_ms": Kind(MANY, "between two pieces of text of {n}, 19 of 20", "ms"),
    "turn.cold_first_s": Kind(CHAT, "first text of a new chat", "s"),
    "turn.second_first_s": Kind(CHAT, "first text of its second turn", "s"),
    "turn.ratio": Kind(CHAT, "second turn faster", "times"),
    "restart.known_first_s": Kind(CHAT, "first text of the new chat after a restart of the server", "s"),
    "restart.ratio": Kind(CHAT, "after a restart faster", "times"),
    "sampling.greedy_per_s": Kind(CHOICE, "always the likeliest token", "tokens/s"),
    "sampling.sampled_per_s": Kind(CHOICE, "at a temperature of 0.8", "tokens/s"),
    "sampling.ratio": Kind(CHOICE, "greedy faster", "times"),
    "early_stop.off_s": Kind(CHOICE, "a whole answer", "s"),
    "early_stop.on_s": Kind(CHOICE, "the same with early_stop", "s"),
    "early_stop.ratio": Kind(CHOICE, "with early_stop sooner done", "times"),
    "draft.copy.ratio": Kind(CHOICE, "guessing, a text repeated with one change: faster", "times", SCRIPTED),
    "draft.ordinary.ratio": Kind(CHOICE, "guessing, ordinary prose: faster", "times", SCRIPTED),
    "answers.cold_s": Kind(REPEAT, "a new answer", "s"),
    "answers.hit_ms": Kind(REPEAT, "the same again", "ms"),
    "answers.ratio": Kind(REPEAT, "the same again faster", "times"),
    "answers.hits_per_s": Kind(REPEAT, "the same again for four clients at once", "answers/s"),
    "memory.front_mb": Kind(COST, "memory of the server's front", "MB", "once, after the clients"),
    "memory.worker_mb": Kind(COST, "memory of its worker", "MB", "once, after the clients; weights and context included"),
    "energy.joule_per_token": Kind(
        COST, "energy of a token of one answer", "J", "of the whole processor; without reading the prompt"
    ),
    "limit.read_gb_per_s": Kind(LIMIT, "weights multiplied with one vector, read from memory", "GB/s"),
    "limit.bare.{n}.step_ms": Kind(LIMIT, "llama_decode alone, a step of {n}", "ms"),
    "limit.after.{n}.step_ms": Kind(LIMIT, "llama_decode alone, a step of 1 after {n} tokens", "ms"),
    "limit.reading.{n}.tokens_per_s": Kind(LIMIT, "llama_decode alone, a prompt of {n} tokens", "tokens/s"),
    "step.{n}.native_ms": Kind(STEP, "a step of {n}: llama_decode", "ms"),
    "step.{n}.sampling_ms": Kind(STEP, "a step of {n}: choosing the token", "ms"),
    "step.{n}.outside_ms": Kind(STEP, "a step of {n}: all else in the engine", "ms"),
}
SEQUENCES = (1, 4)  # in a step whose time is looked at


def kinds(plan: Plan) -> dict[str, Kind]:
    """By key, in order."""
    found = {}
    for pattern, kind in KINDS.items():
        for n in _numbers(pattern, plan):
            found[pattern.replace("{n}", str(n))] = replace(kind, title=kind.title.replace("{n}", f"{n:,}"))
    return found


def _numbers(pattern: str, plan: Plan) -> tuple[int, ...]:
    if "{n}" not in pattern:
        return (0,)
    counts = dict.fromkeys(("reading", "decode", "limit.after", "limit.reading"), plan.lengths) | {"clients": plan.clients}
    return counts.get(pattern.partition(".{n}")[0], SEQUENCES)
