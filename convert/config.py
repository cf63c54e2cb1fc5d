"""config.json: the numbers of the network, checked, and how they are called in a GGUF."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from convert.errors import ConvertError
from convert.folder import CONFIG_BYTES, Folder

ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
N_LAYERS = 512  # llama.cpp has room for so many
N_WIDTH = 2**20  # elements of an embedding, of the feed-forward, heads
N_VOCAB = 2**22
N_CTX = 2**31 - 1
PLAIN_ROPES = ("default", "dynamic")  # dynamic: differs only beyond the context the model was trained for


@dataclass(frozen=True)
class Rope:
    """How positions turn queries and keys."""

    kind: str  # "default", "linear", "yarn" or "llama3"
    theta: float
    factor: float = 1.0
    n_ctx_before: int = 0  # yarn, llama3: tokens of context before it was stretched
    low: float = 1.0  # llama3
    high: float = 4.0
    attention: float = 1.0  # yarn: queries and keys are that much longer than by its usual rule

    def factors(self, head_size: int) -> list[float]:
        """llama3: by what each of the head_size / 2 frequencies is divided; they turn fast, slowly or in between."""
        found = []
        for i in range(0, head_size, 2):
            n_turns = self.n_ctx_before / (2 * math.pi * self.theta ** (i / head_size))
            share = min(1.0, max(0.0, (n_turns - self.low) / (self.high - self.low)))  # of the frequency as it was
            found.append(1 / ((1 - share) / self.factor + share))
        return found


@dataclass(frozen=True)
class Config:
    """The network."""

    architecture: str  # "llama" or "qwen2"
    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    n_kv_heads: int
    head_size: int
    n_vocab: int
    n_ctx: int
    epsilon: float
    is_tied: bool  # the embedding is the output matrix, too
    has_attention_bias: bool
    has_mlp_bias: bool
    rope: Rope
    raw: dict[str, Any]


def read_config(folder: Folder) -> Config:
    """Raises ConvertError."""
    raw = folder.json("config.json", CONFIG_BYTES)
    architecture = _architecture(raw)
    number = _Numbers(raw)
    n_heads = number.count("num_attention_heads", N_WIDTH)
    n_embd = number.count("hidden_size", N_WIDTH)
    n_ctx = number.count("max_position_embeddings", N_CTX)
    if raw.get("use_sliding_window"):  # llama.cpp would look at all: right only where both see the same
        n_ctx = min(n_ctx, number.count("sliding_window", N_CTX, n_ctx))
    is_llama = architecture == "llama"
    config = Config(
        architecture=architecture,
        n_layers=number.count("num_hidden_layers", N_LAYERS),
        n_embd=n_embd,
        n_ff=number.count("intermediate_size", N_WIDTH),
        n_heads=n_heads,
        n_kv_heads=number.count("num_key_value_heads", N_WIDTH, n_heads),
        head_size=number.count("head_dim", N_WIDTH, n_embd // n_heads),
        n_vocab=number.count("vocab_size", N_VOCAB),
        n_ctx=n_ctx,
        epsilon=number.real("rms_norm_eps", 1e-6),
        is_tied=bool(raw.get("tie_word_embeddings", False)),
        has_attention_bias=bool(raw.get("attention_bias", False)) if is_llama else True,
        has_mlp_bias=is_llama and bool(raw.get("mlp_bias", False)),
        rope=_rope(raw, number.count("max_position_embeddings", N_CTX)),
        raw=raw,
    )
    _check(config)
    return config


def _architecture(raw: dict[str, Any]) -> str:
    names = raw.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or name not in ARCHITECTURES:
        known = " and ".join(ARCHITECTURES)
        raise ConvertError(f"The checkpoint's architecture is {str(name)[:80]}; those that can be converted are {known}.")
    if raw.get("quantization_config") is not None:
        raise ConvertError("The checkpoint is quantized already (quantization_config); convert the original.")
    if raw.get("hidden_act", "silu") != "silu":
        raise ConvertError(f"The activation {str(raw['hidden_act'])[:80]} is not silu, which llama.cpp computes.")
    if raw.get("partial_rotary_factor", 1) != 1:
        raise ConvertError("Only a part of each head is turned by position (partial_rotary_factor); that is not supported.")
    return ARCHITECTURES[name]


def _check(config: Config) -> None:
    if config.n_heads % config.n_kv_heads:
        raise ConvertError(f"{config.n_heads} heads cannot share {config.n_kv_heads} key-value heads.")
    if config.head_size % 2:
        raise ConvertError(f"A head has {config.head_size} elements, which is odd and cannot be turned by position.")
    if config.architecture == "qwen2" and config.head_size * config.n_heads != config.n_embd:
        raise ConvertError("The heads of this Qwen2 are not as wide as its embedding, which llama.cpp needs.")


class _Numbers:
    """Takes numbers out of a JSON object, none on trust."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self._raw = raw

    def count(self, key: str, most: int, default: int | None = None) -> int:
        value = self._raw.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ConvertError(f"{key} is {str(value)[:40]} in the configuration; it must be from 1 to {most}.")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self._raw.get(key)
        value = default if value is None else value
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e30:
            return float(value)
        raise ConvertError(f"{key} is {str(value)[:40]} in the configuration; it must be a number above 0.")


def _rope(raw: dict[str, Any], n_ctx: int) -> Rope:
    # Before transformers 5 it was rope_theta and rope_scaling, whose kind was once called type.
    said = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(said, dict):
        raise ConvertError("What the configuration says of rope is no object.")
    said = {"rope_theta": raw.get("rope_theta")} | said
    number = _Numbers(said)
    kind = said.get("rope_type", said.get("type", "default"))
    theta = number.real("rope_theta", 10000.0)
    if kind in PLAIN_ROPES:
        return Rope("default", theta)
    if kind == "linear":
        return Rope("linear", theta, number.real("factor"))
    n_ctx_before = number.count("original_max_position_embeddings", N_CTX, n_ctx)
    if kind == "yarn":
        return Rope("yarn", theta, number.real("factor"), n_ctx_before, attention=_yarn(said))
    if kind == "llama3":
        low, high = number.real("low_freq_factor"), number.real("high_freq_factor")
        if high <= low:
            raise ConvertError("high_freq_factor is not above low_freq_factor in the configuration.")
        return Rope("llama3", theta, number.real("factor"), n_ctx_before, low, high)
    raise ConvertError(f"The rope scaling {str(kind)[:40]!r} is not supported; linear, yarn and llama3 are.")


def _yarn(said: dict[str, Any]) -> float:
    """`Rope.attention`. What llama.cpp would not read for these architectures is refused."""
    if said.get("mscale") is not None or said.get("mscale_all_dim") is not None or said.get("truncate") is False:
        raise ConvertError("The configuration's yarn is of a kind (mscale, truncate) that is not supported.")
    number = _Numbers(said)
    if (number.real("beta_fast", 32.0), number.real("beta_slow", 1.0)) != (32.0, 1.0):
        raise ConvertError("The configuration's yarn has other betas than 32 and 1, which llama.cpp would not read.")
    usual = 1 + 0.1 * math.log(max(1.0, number.real("factor")))
    return number.real("attention_factor", usual) / usual
