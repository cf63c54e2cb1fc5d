"""Does a model fit into memory: weights, context (KV) and buffers, known from its file's header, against what is free."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine import cgroup
from engine.header import HeaderError, read_header
from engine.request import DEFAULT_CTX, Config, stamp
from engine.scheduler import step_size

BASE_BYTES = 90 * 2**20  # the interpreter, llama.cpp and the worker's own things
KV_BYTES = {"f16": 2.0, "q8_0": 34 / 32}  # of one number in the context
MASK_BYTES = 4 + 2  # of the mask and its copy, by token in a step and token of context
STEP = 256  # a context is offered in multiples of so many tokens


class DoesNotFitError(Exception):
    """The model would not fit; the message says how much is missing and what would fit."""


@dataclass(frozen=True)
class Need:
    """What a model takes when it is loaded."""

    weights_bytes: int
    kv_bytes: int  # the context of all slots
    buffer_bytes: int
    token_bytes: int  # of the last two, what each token of context takes
    n_ctx: int  # tokens of context for each slot

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_bytes + self.buffer_bytes


@dataclass(frozen=True)
class Sizes:
    """What a model's needs follow from."""

    n_bytes: int  # of its file
    n_ctx_train: int
    n_kv: int  # numbers for a token of context, in all layers
    n_embd: int
    n_ff: int  # of the widest layer
    n_vocab: int


def sizes(path: Path) -> Sizes | None:
    """Of a model file; None where its header does not tell them. Raises HeaderError, OSError."""
    return _sizes(path, stamp(path))


@functools.lru_cache(64)
def _sizes(path: Path, _state: str) -> Sizes | None:
    """A header is read once for each state of its file: a large vocabulary takes a tenth of a second."""
    header = read_header(path)
    n_kv, n_ff, n_embd = header.kv_elements, header.of_model("feed_forward_length"), header.n_embd
    if not (n_kv and n_ff and n_embd and header.n_ctx):
        return None
    return Sizes(header.n_bytes, header.n_ctx, n_kv, n_embd, n_ff, header.n_vocab or 0)


def need(config: Config) -> Need | None:
    """What the model takes as it is set up here; None where its header does not tell: the loader says it better."""
    try:
        found = sizes(Path(config.model_path))
    except (HeaderError, OSError):
        return None
    return needed(found, config) if found else None


def needed(sizes: Sizes, config: Config) -> Need:
    """The same of a model whose sizes are known."""
    n_batch, n_outputs = step_size(config)
    n_ctx = config.n_ctx or min(sizes.n_ctx_train, DEFAULT_CTX)
    n_tokens = config.n_slots * n_ctx
    kv, mask = sizes.n_kv * KV_BYTES[config.kv_type], MASK_BYTES * n_batch  # by token of context
    widest = 2 * sizes.n_ff + 4 * sizes.n_embd  # numbers for a token in the widest layer
    fixed = BASE_BYTES + 4 * n_batch * widest + 4 * n_outputs * sizes.n_vocab
    return Need(sizes.n_bytes, int(kv * n_tokens), fixed + mask * n_tokens, int(kv + mask), n_ctx)


def check(config: Config, freed: int = 0) -> None:
    """Raises DoesNotFitError. So many bytes can be freed beside what is."""
    wanted, free = need(config), available() + freed
    if wanted and wanted.total_bytes > free:
        raise DoesNotFitError(_refusal(Path(config.model_path).name, wanted, config.n_slots, free))


def _refusal(name: str, wanted: Need, n_slots: int, free: int) -> str:
    too_much = (wanted.total_bytes - free) / wanted.token_bytes / n_slots  # tokens of context
    largest = int(wanted.n_ctx - too_much) // STEP * STEP
    advice = f"a --ctx of {largest} would fit" if largest >= STEP else "no context would fit"
    if n_slots > 1:
        advice += "; fewer --slots take less"
    sizes = (
        f"{wanted.weights_bytes / 1e6:,.0f} MB of weights + {wanted.kv_bytes / 1e6:,.0f} MB for {n_slots} x {wanted.n_ctx:,}"
    )
    sizes += f" tokens of context + {wanted.buffer_bytes / 1e6:,.0f} MB of buffers, and {free / 1e6:,.0f} MB are free"
    return f"{name} does not fit into memory: {sizes}. {advice.capitalize()}."


def resident(pid: int | None = None) -> int:
    """Bytes of memory that a process has, mapped weights among them; without a number this one. 0: it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def own(pid: int | None) -> int:
    """Bytes that a process has for itself: of mapped weights, only what llama.cpp has copied into another order."""
    try:
        info = psutil.Process(pid).memory_info() if pid else None
    except psutil.Error:  # it has just ended
        return 0
    return info.rss - getattr(info, "shared", 0) if info else 0


def available() -> int:
    """Bytes that can be had without swapping, in this container. What only caches files counts as free."""
    free = psutil.virtual_memory().available
    for folder in cgroup.folders("memory"):
        for limit, usage, prefix in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            try:
                most, used = (int((folder / name).read_text()) for name in (limit, usage))
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # another version, or "max": no limit
                continue
            # A model file that was used often is "active", and still only a cache of the disk.
            files = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
            free = min(free, most - used + files)
    return max(0, free)
