"""Writes the GGUF: what the network and the tokenizer are, then one tensor after the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from tqdm import tqdm  # type: ignore[import-untyped]

from convert.config import Config
from convert.quants import TYPES
from convert.special import Special
from convert.tensors import F16_MOST, NUMPY, Planned
from convert.vocabulary import Vocabulary

FREQUENCIES = "rope_freqs.weight"
ID_NAMES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


@dataclass(frozen=True)
class Contents:
    """All that goes into the file."""

    name: str
    config: Config
    vocabulary: Vocabulary
    special: Special
    planned: list[Planned]


def choose_kinds(planned: list[Planned], kind: Kind, bar: tqdm[None]) -> dict[str, Kind]:
    """The type of each tensor by name; reads all of them. What does not fit into F16 becomes BF16. Raises ConvertError."""
    kinds = {}
    for tensor in planned:
        most = tensor.largest()
        is_too_large = kind == Kind.F16 and most > F16_MOST
        kinds[tensor.name] = Kind.F32 if tensor.is_vector else Kind.BF16 if is_too_large else kind
        bar.update(tensor.weight.n_elements * NUMPY[kinds[tensor.name]].itemsize)
    return kinds


def write(path: Path, contents: Contents, kinds: dict[str, Kind], kind: Kind, bar: tqdm[None]) -> None:
    """Writes the file; no more than one tensor is in memory. Raises ConvertError, OSError."""
    config, planned = contents.config, contents.planned
    writer = gguf.GGUFWriter(path, config.architecture)
    try:
        writer.add_name(contents.name)
        writer.add_file_type(TYPES[kind.name][0])
        _add_network(writer, config)
        _add_tokenizer(writer, contents.vocabulary, contents.special)
        frequencies = None
        if config.rope.kind == "llama3":
            frequencies = np.array(config.rope.factors(config.head_size), np.float32)
            writer.add_tensor_info(FREQUENCIES, frequencies.shape, frequencies.dtype, frequencies.nbytes)
        for tensor in planned:
            chosen, shape = kinds[tensor.name], tensor.weight.shape
            dtype, n_bytes = NUMPY[chosen], tensor.weight.n_elements * NUMPY[chosen].itemsize
            writer.add_tensor_info(tensor.name, shape, dtype, n_bytes, raw_dtype=chosen)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if frequencies is not None:
            writer.write_tensor_data(frequencies)
        for tensor in planned:
            bar.set_postfix_str(tensor.name, refresh=False)
            data = tensor.data(kinds[tensor.name])
            writer.write_tensor_data(data)
            bar.update(data.nbytes)
    finally:
        writer.close()


def _add_network(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_vocab_size(config.n_vocab)
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.n_ff)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    writer.add_layer_norm_rms_eps(config.epsilon)
    writer.add_rope_dimension_count(config.head_size)
    rope = config.rope
    writer.add_rope_freq_base(rope.theta)
    if rope.kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope.kind))
        writer.add_rope_scaling_factor(rope.factor)
    if rope.kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope.n_ctx_before)
        writer.add_rope_scaling_attn_factors(rope.attention)


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: Vocabulary, special: Special) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.has_prefix is not None:
        writer.add_add_space_prefix(vocabulary.has_prefix)
    for kind, number in special.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{ID_NAMES[kind]}_token_id", number)
    if special.adds_bos is not None:
        writer.add_add_bos_token(special.adds_bos)
    if special.adds_eos is not None:
        writer.add_add_eos_token(special.adds_eos)
    if special.template is not None:
        writer.add_chat_template(special.template)
