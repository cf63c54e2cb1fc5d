"""Linnet beside one other: what is run with each kind of peer, and the row of the table that comes of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figure import rounded
from bench.peers import build, original, peer, scenarios
from bench.peers.pairs import Pairs, Turns, spread
from bench.peers.peer import PEERS, AbsentError, Sizes
from bench.peers.scenarios import RATE, SCENARIOS, Sample, Scenario, Server
from bench.table import short

BARE = "llama-bench"
N_READ, N_WRITE = 256, 64  # tokens of llama-bench


@dataclass(frozen=True)
class Row:
    """One scenario with one peer."""

    name: str
    scenario: str
    title: str
    pairs: Pairs
    note: str

    def plain(self) -> dict[str, Any]:
        """As it stands in the file of results."""
        names = {"name": self.name, "scenario": self.scenario, "title": self.title}
        return names | self.pairs.plain() | {"note": self.note}

    def __str__(self) -> str:
        plain, n = self.pairs.plain(), len(self.pairs.ours)
        us, them, ratio = (in_words(plain[side]) for side in ("ours", "theirs", "ratio"))
        marks = [f"{self.pairs.disturbed} of {n} turns disturbed" if self.pairs.disturbed else "", self.note]
        return (
            f"{self.title:48} {us:>23} {them:>23} {self.pairs.unit:8} {ratio:>21}  {'; '.join(filter(None, marks))}".rstrip()
        )


def heading(name: str) -> str:
    """Of a table of rows."""
    return f"\n{name:48} {'Linnet':>23} {name:>23} {'':8} {'times better':>21}"


def in_words(spread: dict[str, float]) -> str:
    """Such as "14.2 (14.0 - 14.4)"."""
    around = f" ({short(spread['low'])} - {short(spread['high'])})" if spread["low"] < spread["high"] else ""
    return f"{short(spread['median'])}{around}"


def servers(name: str, model: Path, sizes: Sizes, turns: Turns, keys: list[str]) -> Iterator[Row]:
    """A row for each scenario with a server. Raises AbsentError, BenchError, RuntimeError."""
    other = PEERS[name]
    program = other.find()
    turns.tell(f"{name}: starting")
    with peer.linnet(str(model), sizes) as ours, other.serve(program, str(model), sizes) as theirs:
        for server in (ours, theirs):
            scenarios.warm_up(server)
        for key in keys:
            scenario = SCENARIOS[key]
            pairs = turns.take(name, key, scenario.unit, _at(scenario, ours), _at(scenario, theirs))
            yield Row(name, key, scenario.title, pairs, "; ".join(filter(None, (other.note, pairs.uneven))))


def _at(scenario: Scenario, server: Server) -> Callable[[str], Sample]:
    return lambda salt: scenario.run(server, salt)


def baseline(model: Path, sizes: Sizes, turns: Turns) -> Iterator[Row]:
    """One row: one client, short answers. Raises AbsentError, BenchError, RuntimeError."""
    run = scenarios.clients(1, original.N_ANSWER)
    turns.tell(f"{original.NAME}: making its model")
    with original.run(model, sizes.n_threads) as theirs, peer.linnet(str(model), sizes) as ours:
        n_prompt = run(ours, "warm-up").n_prompt  # the first of each is not counted
        theirs.answer(n_prompt)
        pairs = turns.take(original.NAME, "one", RATE, lambda salt: run(ours, salt), lambda _: theirs.answer(n_prompt))
    yield Row(original.NAME, "one", SCENARIOS["one"].title, pairs, f"float32; answers of {original.N_ANSWER} tokens")


def bare(model: Path, sizes: Sizes, n_turns: int) -> list[dict[str, Any]]:
    """llama.cpp without any server, as its own bench measures it. Raises AbsentError."""
    command = bare_command(peer.made(build.programs, build.LLAMA_BENCH), model, sizes, n_turns)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AbsentError(f"{BARE} failed: {done.stderr.strip()[-200:]}")
    found = []
    for test in json.loads(done.stdout):
        title = f"reading {test['n_prompt']} tokens" if test["n_prompt"] else f"writing {test['n_gen']} tokens"
        found.append({"name": BARE, "title": title, "unit": RATE, **rounded(spread(test["samples_ts"]))})
    return found


def bare_command(program: str, model: Path, sizes: Sizes, n_turns: int) -> list[str]:
    """How llama-bench is called."""
    counts = {"-t": sizes.n_threads, "-p": N_READ, "-n": N_WRITE, "-r": n_turns}
    return [program, "-m", str(model), "-o", "json", *(str(part) for option in counts.items() for part in option)]
