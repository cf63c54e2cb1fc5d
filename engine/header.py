"""What a GGUF file says of itself: the values and the list of tensors at its head. The weights are never read.

    header = read_header(path)     raises HeaderError, whose message is one sentence

The file is a stranger's: no number in it is believed before it was compared with the size of the file. What llama.cpp
would refuse (offsets with gaps, names of 64 bytes, lists of lists) is refused here too, but with a reason and without it.
Needs nothing but Python, for the server reads headers too.
"""

from __future__ import annotations

import os
import stat
from array import array
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from engine.fields import TYPES, Fields, HeaderError, Texts, shown

__all__ = ["Header", "HeaderError", "Tensor", "read_header"]

N_ENTRIES = 2**16  # values, and tensors: the largest models have some thousand
N_DIMS = 4
NAME_BYTES = 63  # of a tensor
KEY_BYTES = 2**16 - 1
VERSIONS = (2, 3)
INTEGERS = "bBhHiIlLqQ"  # of Python's arrays
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32  # bytes


@dataclass(frozen=True)
class Tensor:
    """Where some weights lie."""

    name: str
    shape: tuple[int, ...]  # the dimension whose elements are neighbours first, as in the file
    type: str  # "F16", "Q4_K", ...
    offset: int  # bytes from the start of the file
    n_bytes: int

    @property
    def n_elements(self) -> int:
        """How many weights it has."""
        return prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The head of a GGUF file. What it does not say, or says as the wrong kind of value, is None."""

    version: int
    values: dict[str, Any]  # numbers, bools, str; lists are arrays of numbers or Texts
    tensors: list[Tensor]
    n_bytes: int  # of the whole file

    @property
    def architecture(self) -> str | None:
        """For example "llama" or "qwen2"."""
        return self.text("general.architecture")

    @property
    def name(self) -> str | None:
        """The model's name in words."""
        return self.text("general.name")

    @property
    def file_type(self) -> int | None:
        """llama.cpp's number of the quantization that was asked for."""
        return self.count("general.file_type")

    @property
    def n_layers(self) -> int | None:
        """Blocks of attention and feed-forward."""
        return self.of_model("block_count")

    @property
    def n_heads(self) -> int | None:
        """Of the queries; the most of any layer."""
        return self.of_model("attention.head_count")

    @property
    def n_kv_heads(self) -> int | None:
        """Of the keys and values; the most of any layer."""
        return self.of_model("attention.head_count_kv") or self.n_heads

    @property
    def n_embd(self) -> int | None:
        """Elements of an embedding."""
        return self.of_model("embedding_length")

    @property
    def key_length(self) -> int | None:
        """Elements of one head's key."""
        return self.of_model("attention.key_length") or self._head_size

    @property
    def value_length(self) -> int | None:
        """Elements of one head's value."""
        return self.of_model("attention.value_length") or self._head_size

    @property
    def _head_size(self) -> int | None:
        return self.n_embd // self.n_heads if self.n_embd and self.n_heads else None

    @property
    def n_ctx(self) -> int | None:
        """Tokens of context the model was trained for."""
        return self.of_model("context_length")

    @property
    def n_vocab(self) -> int | None:
        """Tokens there are."""
        tokens = self.values.get("tokenizer.ggml.tokens")
        return len(tokens) if isinstance(tokens, Texts) else self.of_model("vocab_size")

    @property
    def kv_elements(self) -> int | None:
        """Elements that one token takes in the KV cache of a plain transformer; times 2 bytes for F16.

        Layers with a sliding window or without attention take less.
        """
        sizes = (self.n_layers, self.n_kv_heads, self.key_length, self.value_length)
        if any(size is None for size in sizes):
            return None
        n_layers, n_kv_heads, key_length, value_length = (size or 0 for size in sizes)
        per_layer = self.values.get(f"{self.architecture}.attention.head_count_kv")
        n_heads = n_layers * n_kv_heads
        if isinstance(per_layer, array) and per_layer.typecode in INTEGERS and len(per_layer) == n_layers:
            n_heads = sum(per_layer)
        return n_heads * (key_length + value_length)

    @property
    def tokenizer(self) -> str | None:
        """The kind of tokenizer: "llama" (SentencePiece), "gpt2" (byte-level BPE), ..."""
        return self.text("tokenizer.ggml.model")

    @property
    def tokenizer_pre(self) -> str | None:
        """The rule that splits text into words."""
        return self.text("tokenizer.ggml.pre")

    @property
    def has_template(self) -> bool:
        """Whether it says how a chat is written."""
        return bool(self.text("tokenizer.chat_template"))

    @cached_property
    def n_parameters(self) -> int:
        """Weights of all tensors in this file."""
        return sum(tensor.n_elements for tensor in self.tensors)

    @cached_property
    def mix(self) -> dict[str, int]:
        """Bytes of each type of weights, the most first."""
        sums: dict[str, int] = {}
        for tensor in self.tensors:
            sums[tensor.type] = sums.get(tensor.type, 0) + tensor.n_bytes
        return dict(sorted(sums.items(), key=lambda entry: -entry[1]))

    def text(self, key: str) -> str | None:
        """The value, if it is a text."""
        value = self.values.get(key)
        return value if isinstance(value, str) else None

    def count(self, key: str) -> int | None:
        """The value, if it is a whole number from 0 on; of a list of numbers the largest."""
        value = self.values.get(key)
        if isinstance(value, array) and value:
            value = max(value)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    def of_model(self, key: str) -> int | None:
        """A count that the model's architecture has."""
        return self.count(f"{self.architecture}.{key}")


def read_header(path: Path) -> Header:
    """Reads the head of the file and no more. Raises HeaderError; never hangs."""
    try:
        # A pipe that nobody writes to would wait when opened.
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise HeaderError(f"There is no file {path}.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise HeaderError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    try:
        state = os.fstat(number)
        if stat.S_ISDIR(state.st_mode):
            raise HeaderError(f"{path} is a directory, not a GGUF file.")
        if not stat.S_ISREG(state.st_mode):
            raise HeaderError(f"{path} is not a regular file.")
        with os.fdopen(number, "rb", buffering=0, closefd=False) as file:
            return _header(Fields(path, file, state.st_size))
    except OSError as error:
        raise HeaderError(f"{path} cannot be read: {error.strerror or error}.") from error
    finally:
        os.close(number)


def _header(fields: Fields) -> Header:
    _check_start(fields)
    version = fields.number("I")
    if version not in VERSIONS:
        why = "written for the other byte order" if version & 0xFFFF == 0 else f"of version {version}"
        raise HeaderError(f"{fields.path} is a GGUF file {why}; readable are versions 2 and 3 in little-endian.")
    n_tensors, n_values = fields.number("Q"), fields.number("Q")
    for n, what in ((n_tensors, "tensors"), (n_values, "values")):
        if n > N_ENTRIES:
            raise fields.bad(f"it claims to have {n} {what}")
    values: dict[str, Any] = {}
    for _ in range(n_values):
        key = fields.text(KEY_BYTES)
        if not key:
            raise fields.bad("a key is empty")
        if key in values:
            raise fields.bad(f"the key {shown(key)} is there twice")
        values[key] = fields.value(key)
    return Header(version, values, _tensors(fields, n_tensors, _alignment(fields, values)), fields.n_bytes)


def _check_start(fields: Fields) -> None:
    if not fields.n_bytes:
        raise HeaderError(f"{fields.path} is empty.")
    start = fields.peek(512)
    if start.lstrip()[:1] == b"<":
        raise HeaderError(f"{fields.path} is a web page, not a GGUF file; the download went wrong, fetch it again.")
    if fields.take(min(4, fields.n_bytes)) != b"GGUF":
        raise HeaderError(f"{fields.path} is not a GGUF file.")


def _alignment(fields: Fields, values: dict[str, Any]) -> int:
    alignment = values.get(ALIGNMENT, DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise fields.bad(f"{ALIGNMENT} is {shown(str(alignment))}, not a power of two")
    return alignment


def _tensors(fields: Fields, n: int, alignment: int) -> list[Tensor]:
    """The list of tensors: one lies behind the other, each begins at a multiple of `alignment`, all lie in the file."""
    found: dict[str, Tensor] = {}
    expected = 0
    for _ in range(n):
        tensor = _tensor(fields)
        name = shown(tensor.name)
        if tensor.name in found:
            raise fields.bad(f"the tensor {name} is there twice")
        if tensor.offset != expected:
            raise fields.bad(f"the tensor {name} begins at {tensor.offset} where {expected} is expected")
        found[tensor.name] = tensor
        expected = _padded(expected + tensor.n_bytes, alignment)
    start = _padded(fields.at, alignment)  # the offsets in the file count from here
    tensors = [replace(tensor, offset=start + tensor.offset) for tensor in found.values()]
    end = tensors[-1].offset + tensors[-1].n_bytes if tensors else 0
    if end > fields.n_bytes:
        raise fields.bad(f"it has {fields.n_bytes} of {end} bytes; fetch or make it again")
    return tensors


def _tensor(fields: Fields) -> Tensor:
    name, n_dims = fields.text(NAME_BYTES), fields.number("I")
    if not 1 <= n_dims <= N_DIMS:
        raise fields.bad(f"the tensor {shown(name)} has {n_dims} dimensions")
    shape = tuple(fields.number("Q") for _ in range(n_dims))
    if not 0 < prod(shape) < 2**63:
        raise fields.bad(f"the tensor {shown(name)} has the impossible shape {list(shape)}")
    number = fields.number("I")
    if number not in TYPES:
        raise fields.bad(f"the tensor {shown(name)} has the unknown type {number}")
    kind, n_block, block_bytes = TYPES[number]
    if shape[0] % n_block:
        raise fields.bad(f"the tensor {shown(name)} has rows of {shape[0]}, which {kind} cannot hold")
    return Tensor(name, shape, kind, fields.number("Q"), prod(shape) // n_block * block_bytes)


def _padded(n_bytes: int, alignment: int) -> int:
    return -(-n_bytes // alignment) * alignment
