"""Does a model fit into memory: weights, context (KV) and buffers against what is free, known from the file's header alone.

The header is read here, not by llama.cpp or the gguf package: both read the whole vocabulary first, which takes longer
than a refusal may take. GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from engine import cgroup
from engine.request import DEFAULT_CTX, Config
from engine.scheduler import step_size

BASE_BYTES = 90 * 2**20  # the interpreter, llama.cpp and the worker's own things
KV_BYTES = {"f16": 2.0, "q8_0": 34 / 32}  # of one number in the context
MASK_BYTES = 4 + 2  # of the mask and its copy, by token in a step and token of context
STEP = 256  # a context is offered in multiples of so many tokens
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # GGUF's value types
STRING, ARRAY = 8, 9
KEYS = ("block_count", "embedding_length", "feed_forward_length", "context_length", "attention.head_count")


class DoesNotFitError(Exception):
    """The model would not fit; the message says how much is missing and what would fit."""


@dataclass(frozen=True)
class Shape:
    """What the sizes follow from."""

    file_bytes: int
    n_ctx_train: int
    n_kv: int  # numbers per token of context, all layers
    n_widest: int  # numbers per token in the widest layer
    n_vocab: int


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


def need(config: Config) -> Need | None:
    """What the model takes as it is set up here; None for a file that is no GGUF: the loader says it better."""
    shape = read(Path(config.model_path))
    if not shape:
        return None
    n_batch, n_outputs = step_size(config)
    n_ctx = config.n_ctx or min(shape.n_ctx_train, DEFAULT_CTX)
    n_tokens = config.n_slots * n_ctx
    kv, mask = shape.n_kv * KV_BYTES[config.kv_type], MASK_BYTES * n_batch  # by token of context
    fixed = BASE_BYTES + 4 * n_batch * shape.n_widest + 4 * n_outputs * shape.n_vocab
    return Need(shape.file_bytes, int(kv * n_tokens), fixed + mask * n_tokens, int(kv + mask), n_ctx)


def check(config: Config) -> None:
    """Raises DoesNotFitError."""
    wanted, free = need(config), available()
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


def read(path: Path) -> Shape | None:
    """The shape of the model in a GGUF file; None when the header makes no sense."""
    try:
        with path.open("rb") as file:
            found = _header(file)
        size = path.stat().st_size
        n_embd, n_head, n_layer = found["embedding_length"], found["attention.head_count"], found["block_count"]
        n_head = max(n_head) if isinstance(n_head, list) else n_head
        heads = found.get("attention.head_count_kv", n_head)
        n_heads_kv = sum(heads) if isinstance(heads, list) else heads * n_layer
        per_head = sum(found.get(f"attention.{name}_length", n_embd // n_head) for name in ("key", "value"))
        n_ff = found["feed_forward_length"]
        widest = 2 * (max(n_ff) if isinstance(n_ff, list) else n_ff) + 4 * n_embd
        return Shape(size, found["context_length"], n_heads_kv * per_head, widest, found.get("n_vocab", 0))
    except (OSError, KeyError, ValueError, TypeError, ZeroDivisionError, struct.error, OverflowError, MemoryError):
        return None


def _header(file: BinaryIO) -> dict[str, Any]:
    """The architecture's numbers, without its name before them. Ends as soon as nothing more can come."""
    magic, version, _n_tensors, n_pairs = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version < 2:
        raise ValueError(magic)
    arch, found = "", {}
    for _ in range(n_pairs):
        key = _string(file)
        if key == "tokenizer.ggml.tokens":
            found["n_vocab"] = struct.unpack("<IIQ", file.read(16))[2]
            if all(name in found for name in KEYS):
                break  # what follows is long, and the architecture stands before it in every file of llama.cpp's converter
            file.seek(-16, 1)
        value = _value(file, *struct.unpack("<I", file.read(4)))
        if key == "general.architecture":
            arch = f"{value}."
        elif arch and key.startswith(arch):
            found[key.removeprefix(arch)] = value
    return found


def _string(file: BinaryIO) -> str:
    (n,) = struct.unpack("<Q", file.read(8))
    if n > 2**24:
        raise ValueError(n)
    return file.read(n).decode()


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _string(file)
    if kind == ARRAY:
        inner, n = struct.unpack("<IQ", file.read(12))
        if n > 2**24:
            raise ValueError(n)
        return [_value(file, inner) for _ in range(n)]
    form = "<" + SCALARS[kind]
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]
