"""Which tensors the GGUF has: their names there and in the checkpoint, their shapes, and what is done to them.

Llama's queries and keys change their order: transformers turns the first half of a head against the second, llama.cpp's
`llama` each element against its neighbour. Its `qwen2` does as transformers does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from convert.config import Config
from convert.errors import ConvertError
from convert.weights import DTYPES, Weight

F16_MOST = 65504.0
UNUSED = ".rotary_emb.inv_freq"  # old checkpoints have it; it follows from the configuration
NUMPY: dict[Kind, np.dtype[Any]] = {Kind.F32: np.dtype("<f4"), Kind.F16: np.dtype("<f2"), Kind.BF16: np.dtype("<u2")}


@dataclass(frozen=True)
class Planned:
    """One tensor of the GGUF and where it comes from."""

    name: str
    weight: Weight
    n_heads: int = 0  # whose halves are interleaved; 0: none

    @property
    def is_vector(self) -> bool:
        """Such stay F32: they are small and llama.cpp wants them so."""
        return len(self.weight.shape) == 1

    def largest(self) -> float:
        """The largest amount of any element. Raises ConvertError for what is no number."""
        most = max((float(np.abs(piece).max()) for piece in self.weight.pieces()), default=0.0)
        if not np.isfinite(most):
            raise ConvertError(f"The checkpoint's tensor for {self.name} has values that are no numbers (NaN or infinite).")
        return most

    def data(self, kind: Kind) -> NDArray[np.generic]:
        """All of it as it is written; BF16 as its bits."""
        data: NDArray[np.generic] = np.empty(self.weight.n_elements, NUMPY[kind])
        done = 0
        for piece in self.weight.pieces():
            data[done : done + piece.size] = _bfloat16(piece) if kind == Kind.BF16 else piece
            done += piece.size
        data = data.reshape(self.weight.shape)
        return interleave(data, self.n_heads) if self.n_heads else data


def _bfloat16(piece: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves, rounded to the nearest and to even."""
    bits = piece.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def interleave(data: NDArray[np.generic], n_heads: int) -> NDArray[np.generic]:
    """(n_heads * head_size, ...): in each head the second half comes between the elements of the first."""
    halves = data.reshape(n_heads, 2, data.shape[0] // n_heads // 2, *data.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(data.shape)


def plan(config: Config, weights: dict[str, Weight]) -> list[Planned]:
    """All tensors, each found with the shape the configuration asks for. Raises ConvertError."""
    unused = {name for name in weights if name.endswith(UNUSED)} | ({"lm_head.weight"} if config.is_tied else set())
    planned = []
    for name, source, shape, n_heads in _expected(config):
        weight = weights.get(source)
        if weight is None:
            raise ConvertError(f"The checkpoint has no tensor {source}, which its configuration asks for.")
        if weight.dtype not in DTYPES:
            raise ConvertError(f"The tensor {source} is {weight.dtype[:20]}; F32, F16 and BF16 can be converted.")
        if weight.shape != shape:
            found, wanted = list(weight.shape), list(shape)
            raise ConvertError(f"The tensor {source} has the shape {found}, but the configuration asks for {wanted}.")
        planned.append(Planned(name, weight, n_heads))
        unused.add(source)
    for name in sorted(weights.keys() - unused):
        raise ConvertError(f"The checkpoint has a tensor {name[:80]!r}, which this architecture does not have.")
    return planned


def _expected(config: Config) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    """Name in the GGUF, name in the checkpoint, shape, heads to interleave."""
    embedding = (config.n_vocab, config.n_embd)
    yield "token_embd.weight", "model.embed_tokens.weight", embedding, 0
    for i in range(config.n_layers):
        for name, source, shape, n_heads in _layer(config):
            yield f"blk.{i}.{name}", f"model.layers.{i}.{source}", shape, n_heads
    yield "output_norm.weight", "model.norm.weight", (config.n_embd,), 0
    if not config.is_tied:
        yield "output.weight", "lm_head.weight", embedding, 0


def _layer(config: Config) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    n_q, n_kv = config.n_heads * config.head_size, config.n_kv_heads * config.head_size
    is_llama = config.architecture == "llama"
    q, k = (config.n_heads, config.n_kv_heads) if is_llama else (0, 0)
    has_bias, has_mlp_bias = config.has_attention_bias, config.has_mlp_bias
    yield "attn_norm.weight", "input_layernorm.weight", (config.n_embd,), 0
    yield "ffn_norm.weight", "post_attention_layernorm.weight", (config.n_embd,), 0
    for name, source, n_out, n_in, n_heads, is_biased in (
        ("attn_q", "self_attn.q_proj", n_q, config.n_embd, q, has_bias),
        ("attn_k", "self_attn.k_proj", n_kv, config.n_embd, k, has_bias),
        ("attn_v", "self_attn.v_proj", n_kv, config.n_embd, 0, has_bias),
        ("attn_output", "self_attn.o_proj", config.n_embd, n_q, 0, has_bias and is_llama),
        ("ffn_gate", "mlp.gate_proj", config.n_ff, config.n_embd, 0, has_mlp_bias),
        ("ffn_up", "mlp.up_proj", config.n_ff, config.n_embd, 0, has_mlp_bias),
        ("ffn_down", "mlp.down_proj", config.n_embd, config.n_ff, 0, has_mlp_bias),
    ):
        yield f"{name}.weight", f"{source}.weight", (n_out, n_in), n_heads
        if is_biased:
            yield f"{name}.bias", f"{source}.bias", (n_out,), n_heads
