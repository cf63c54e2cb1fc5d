"""Does a model fit into this machine's memory, and how fast will it answer: told before it is fetched or loaded.

    machine(cache_dir)              what the machine can do, measured once in about two seconds and then remembered
    fit(config, machine)            one file:  .verdict, .tokens_per_s, .needs_yes, .sentence
    fits(machine, usual)            the catalog and what is installed, one of them recommended

A token takes as long as multiplying all weights with one vector, and some time in each layer besides. Within 25 % of the
measured speed of one short answer; with other programs on the cores it is slower. Knows nothing of llama.cpp.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from engine import memory, threads
from engine.fields import TYPES
from engine.governor import BUSY
from engine.header import Header, HeaderError, read_header
from engine.request import Config
from models import store
from models.catalog import Entry, catalog

log = logging.getLogger("models")
VERSION = 1  # of what is remembered
PROGRAM = "engine.native.speed"
ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0  # for two seconds' work on a machine that has much else to do
GOOD = 10.0  # tokens a second: faster than one reads, and thoughts come before the answer
BAD = 1.0  # nobody waits for it
# Small multiplies' worth of time that a layer takes besides its weights: one for each of its seven matrices, as threads
# begin and wait in each, and three for attention, norms and sums. Measured: 11 on quiet cores, 8 beside a busy neighbour.
LAYER_MULTIPLIES = 10
STEP_S = 2e-4  # seconds of a step outside of the layers: choosing a token, Python, the pipe (docs/log.md)
BLOCK_BYTES = {name: n_bytes / n for name, n, n_bytes in TYPES.values()}  # bytes of one weight
UNPACKING = "Q6_K"  # types that are not measured are taken to be as hard to unpack as this one
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
EXPERTS = "_exps."  # in the names of tensors of which a token uses only a part


@dataclass(frozen=True)
class Machine:
    """What these CPUs can do with llama.cpp. Checks itself: raises ValueError."""

    multiply_bytes_per_s: dict[str, float]  # weights of each measured type times one vector, read from memory
    op_s: float  # seconds of a small multiply
    n_threads: int

    def __post_init__(self) -> None:
        if UNPACKING not in self.multiply_bytes_per_s or self.n_threads < 1:
            raise ValueError("measures are missing")
        if not all(0 < number < math.inf for number in (self.op_s, *self.multiply_bytes_per_s.values())):
            raise ValueError("measures must be positive")

    @property
    def read_bytes_per_s(self) -> float:
        """How fast memory is read: by whatever type of weights is the least work."""
        return max(self.multiply_bytes_per_s.values())

    def rate(self, kind: str) -> float:
        """Bytes of weights of this type a second."""
        if kind in self.multiply_bytes_per_s:
            return self.multiply_bytes_per_s[kind]
        weights_per_s = self.multiply_bytes_per_s[UNPACKING] / BLOCK_BYTES[UNPACKING]
        return min(self.read_bytes_per_s, weights_per_s * BLOCK_BYTES.get(kind, 1.0))

    def tokens_per_s(self, n_bytes: Mapping[str, float], n_layers: int) -> float:
        """Of one answer in a short context, by the weights that a token reads."""
        seconds = sum(n / self.rate(kind) for kind, n in n_bytes.items())
        return 1 / (seconds + n_layers * LAYER_MULTIPLIES * self.op_s + STEP_S)


class Verdict(StrEnum):
    """What a user would say of it."""

    GOOD = "runs well"
    SLOW = "slow"
    BAD = "too slow"
    TOO_BIG = "does not fit"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Fit:
    """How one model would do on this machine."""

    name: str
    need: memory.Need | None  # None: its file does not tell
    available_bytes: int
    tokens_per_s: float | None  # as it would be if it fits; None: not known

    @property
    def verdict(self) -> Verdict:
        """In a word."""
        if self.need and self.need.total_bytes > self.available_bytes:
            return Verdict.TOO_BIG
        if not self.need or self.tokens_per_s is None:
            return Verdict.UNKNOWN
        if self.tokens_per_s < BAD:
            return Verdict.BAD
        return Verdict.GOOD if self.tokens_per_s >= GOOD else Verdict.SLOW

    @property
    def needs_yes(self) -> bool:
        """Whether to load it only if the user insists."""
        return self.verdict in (Verdict.TOO_BIG, Verdict.BAD)

    @property
    def sentence(self) -> str:
        """For the user, beforehand."""
        if self.need and self.verdict is Verdict.TOO_BIG:
            needed, free = gigabytes(self.need.total_bytes), gigabytes(self.available_bytes)
            return f"{self.name} needs {needed} GB and {free} GB are free: it does not fit."
        if self.tokens_per_s is None or not self.need:
            return f"How {self.name} would run here is not known."
        return f"{self.name} would say about {pace(self.tokens_per_s)} tokens a second here."


@dataclass(frozen=True)
class Row:
    """A model of the catalog or an installed one, or both."""

    name: str
    path: Path | None  # None: not installed
    size_bytes: int  # of its file
    n_parameters: int  # 0: not known
    good_for: str
    fit: Fit
    recommended: bool = False


def gigabytes(n_bytes: float) -> str:
    """In units of 10^9, as the hub counts: "0.67", "6.1"."""
    return f"{n_bytes / 1e9:.1f}" if n_bytes >= 9.5e8 else f"{n_bytes / 1e9:.2f}"


def pace(tokens_per_s: float) -> str:
    """No more digits than are true: "0.4", "31"."""
    return f"{tokens_per_s:.0f}" if tokens_per_s >= 9.5 else f"{tokens_per_s:.1f}"


def machine(cache_dir: Path | None, announce: Callable[[str], Any] = log.info) -> Machine | None:
    """What this machine can do: remembered from an earlier run, or measured now. None: it cannot be measured."""
    n_threads = threads.count()
    try:
        build = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        build = "unknown"
    key = f"{VERSION} {build} {sorted(threads.allowed())} {n_threads}"
    path = cache_dir / "speed" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json" if cache_dir else None
    if path and (known := _remembered(path, key)):
        return known
    announce("Measuring how fast this machine is: two seconds, once.")
    try:
        words = _measured(n_threads)
        found = Machine(words["multiply_bytes_per_s"], words["op_s"], n_threads)
        busy = words["others_cores"] >= BUSY
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, KeyError) as error:
        log.warning("This machine's speed cannot be measured: %s", error)
        return None
    if busy:
        announce("Other programs keep the processor busy: so it is now, and it is measured again the next time.")
    elif path:
        _remember(path, key, found)
    return found


def _measured(n_threads: int) -> Any:
    """What the program says. It is a process of its own, as the worker is: native code that fails takes nobody along."""
    command = [sys.executable, "-m", PROGRAM, str(n_threads)]
    environment = os.environ | threads.environment()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=PATIENCE_S, check=True)
    return json.loads(done.stdout)


def _remembered(path: Path, key: str) -> Machine | None:
    """What the file says; None where it is another's, of another time or makes no sense."""
    try:
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            return None
        words = json.loads(path.read_text())
        return Machine(words["multiply_bytes_per_s"], words["op_s"], words["n_threads"]) if words["key"] == key else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _remember(path: Path, key: str, found: Machine) -> None:
    words = {"key": key} | {name: getattr(found, name) for name in ("multiply_bytes_per_s", "op_s", "n_threads")}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.part")
        beside.write_text(json.dumps(words))
        beside.replace(path)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error.strerror)


def fit(config: Config, machine: Machine | None) -> Fit:
    """How an installed model would do as it is set up here. Of a damaged file nothing is known."""
    path = Path(config.model_path)
    try:
        header = read_header(path)
    except (HeaderError, OSError):
        return Fit(path.stem, None, memory.available(), None)
    tokens_per_s = machine.tokens_per_s(bytes_read(header), header.n_layers) if machine and header.n_layers else None
    return Fit(path.stem, memory.need(config), memory.available(), tokens_per_s)


def bytes_read(header: Header) -> dict[str, float]:
    """The weights that one token reads, by type: of the embeddings one row, unless they are the output's weights, too."""
    names = {tensor.name for tensor in header.tensors}
    n_experts, n_used = (header.of_model(key) or 1 for key in ("expert_count", "expert_used_count"))
    sums: dict[str, float] = {}
    for tensor in header.tensors:
        if tensor.name != EMBEDDING or OUTPUT not in names:
            part = min(1.0, n_used / n_experts) if EXPERTS in tensor.name else 1.0
            sums[tensor.type] = sums.get(tensor.type, 0.0) + part * tensor.n_bytes
    return sums


def fit_of_entry(entry: Entry, machine: Machine | None, config: Config) -> Fit:
    """How a model of the catalog would do that is not installed."""
    tokens_per_s = machine.tokens_per_s(bytes_of_entry(entry), entry.layers) if machine else None
    return Fit(entry.name, need_of_entry(entry, config), memory.available(), tokens_per_s)


def need_of_entry(entry: Entry, config: Config) -> memory.Need:
    """As engine.memory.need, which reads the same numbers in the header of a file."""
    n_kv = 2 * entry.layers * entry.kv_heads * entry.head_size
    sizes = memory.Sizes(entry.bytes, entry.context, n_kv, entry.embedding, entry.feed_forward, entry.vocabulary)
    return memory.needed(sizes, config)


def bytes_of_entry(entry: Entry) -> dict[str, float]:
    """As bytes_read, estimated: llama.cpp's mixes "_M" keep the output and, in half of the layers, values and the last
    feed-forward matrix in Q6_K (llama-quant.cpp), and the rest in the type that the file's name says."""
    kv, embeddings = entry.kv_heads * entry.head_size, entry.vocabulary * entry.embedding
    layers = entry.layers * entry.embedding * (2 * entry.embedding + 2 * kv + 3 * entry.feed_forward)
    shared = entry.parameters < layers + 1.5 * embeddings  # the output has no weights of its own
    kinds = sorted(BLOCK_BYTES, key=len, reverse=True)  # BF16 before F16
    kind = next((kind for kind in kinds if kind in entry.file.upper()), UNPACKING)
    n_read = entry.bytes - (0 if shared else embeddings * BLOCK_BYTES[kind])
    better = embeddings + entry.layers / 2 * entry.embedding * (kv + entry.feed_forward)
    n_better = min(n_read, better * BLOCK_BYTES["Q6_K"]) if re.search(r"_M\b", entry.file, re.IGNORECASE) else 0.0
    return {"Q6_K": n_better} | {kind: n_read - (n_better if kind != "Q6_K" else 0.0)}


def fits(machine: Machine | None, usual: Config, folder: Path = store.FOLDER, opened: Sequence[Config] = ()) -> list[Row]:
    """The catalog's models, then the others that are installed; at most one is recommended. Raises OSError, ValueError.

    Each as it is set up as usual, unless it is among those `opened`.
    """
    configs = {config.model_path: config for config in opened}

    def fit_of_file(path: Path) -> Fit:
        return fit(configs.get(str(path)) or replace(usual, model_path=str(path)), machine)

    installed = store.installed(folder)
    files = {path.name: path for path in installed.values()}
    rows = []
    for entry in catalog().values():
        if path := files.pop(entry.file, None):
            found = fit_of_file(path)
            rows.append(Row(entry.name, path, path.stat().st_size, entry.parameters, entry.good_for, found))
        else:
            found = fit_of_entry(entry, machine, usual)
            rows.append(Row(entry.name, None, entry.bytes, entry.parameters, entry.good_for, found))
    for path in files.values():
        found = fit_of_file(path)
        good_for = "trying Linnet out" if path == store.DEMO else ""
        rows.append(Row(path.stem, path, path.stat().st_size, _n_parameters(path), good_for, found))
    best = recommended(rows)
    return [replace(row, recommended=row is best) for row in rows]


def recommended(rows: list[Row]) -> Row | None:
    """The largest of those that run well; the demo only where nothing else does."""
    good = [row for row in rows if row.fit.verdict is Verdict.GOOD]
    return max(good, key=lambda row: (row.path != store.DEMO, row.n_parameters, row.path is not None), default=None)


def _n_parameters(path: Path) -> int:
    try:
        return read_header(path).n_parameters
    except (HeaderError, OSError):
        return 0
