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

from engine.request import DEFAULT_CTX, Config

CGROUP_FOLDER = Path("/sys/fs/cgroup")
BASE_BYTES = 90 * 2**20  # the interpreter, llama.cpp and the worker's own things
KV_BYTES = {"f16": 2.0, "q8_0": 34 / 32}  # of one number in the context
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


def check(path: Path, config: Config, n_batch: int) -> None:
    """Raises DoesNotFitError. A file that is no GGUF passes: the loader says it better."""
    shape = read(path)
    if not shape:
        return
    ctx, n_slots = config.n_ctx or min(shape.n_ctx_train, DEFAULT_CTX), config.n_slots
    free = available()
    kv_token = shape.n_kv * KV_BYTES[config.kv_type] * n_slots
    rest = shape.file_bytes + BASE_BYTES + 4 * n_batch * shape.n_widest
    if rest + kv_token * ctx <= free:
        return
    largest = int((free - rest) / kv_token) // STEP * STEP
    advice = f"a --ctx of {largest} would fit" if largest >= STEP else "no context would fit"
    if n_slots > 1:
        advice += "; fewer --slots take less"
    context = f"{kv_token * ctx / 1e6:,.0f} MB for {n_slots} x {ctx:,} tokens of context"
    sizes = f"{shape.file_bytes / 1e6:,.0f} MB of weights + {context} + {(rest - shape.file_bytes) / 1e6:,.0f} MB of buffers"
    free_mb = f"{free / 1e6:,.0f} MB"
    raise DoesNotFitError(f"{path.name} does not fit into memory: {sizes}, and {free_mb} are free. {advice.capitalize()}.")


def available() -> int:
    """Bytes that can be had without swapping, in this container. What only caches files counts as free."""
    free = psutil.virtual_memory().available
    for limit, usage, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, used = (int((CGROUP_FOLDER / name).read_text()) for name in (limit, usage))
            lines = (CGROUP_FOLDER / limit).with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # another version, or "max": no limit
            continue
        free = min(free, most - used + sum(int(line.split()[1]) for line in lines if line.split()[0] == cached))
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
        return Shape(size, found["context_length"], n_heads_kv * per_head, widest)
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
        value = _value(file, *struct.unpack("<I", file.read(4)))
        if key == "general.architecture":
            arch = f"{value}."
        elif arch and key.startswith(arch):
            found[key.removeprefix(arch)] = value
        elif key.startswith("tokenizer.") and all(name in found for name in KEYS):
            break  # the vocabulary: long, and after the architecture in every file that llama.cpp's converter wrote
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
