"""Makes GGUF files of a real model's exact shape with random weights: speed does not depend on the values.

    python -m bench.shapes tinyllama build/tinyllama-shape.gguf     668 MB in a few seconds, nothing downloaded

Blocks of random bits are written in the quantized formats directly, mixed as llama.cpp's Q4_K_M mixes them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Quant

# Bytes of a block of 256 weights, and where in it the half-precision scales stand: random bits there could be infinite.
BLOCK_WEIGHTS = 256
BLOCKS = {Quant.Q4_K: (144, (0, 2)), Quant.Q6_K: (210, (208,))}
WORDS = """
the of and to in is that it for was on are with as be this have from or one had by but not what all were when we there
can an your which their said if do will each about how up out them then she many some so these would other into has
more her two like him see time could no make than first been its who now people my made over did down only way find
use may water long little very after words called just where most know river stone cloud market engine garden paper
winter signal copper orange valley doctor planet harbor violin timber rocket candle bridge
""".split()


@dataclass(frozen=True)
class Shape:
    """The numbers that decide a llama model's speed."""

    n_vocab: int
    n_embd: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    n_ff: int
    n_ctx: int


SHAPES = {
    "tinyllama": Shape(32000, 2048, 22, 32, 4, 5632, 2048),
    "r1-qwen-1.5b": Shape(151936, 1536, 28, 12, 2, 8960, 131072),  # without Qwen's small biases
    "small": Shape(2048, 256, 4, 4, 2, 768, 2048),  # for trying this program out
}


def make(shape: Shape, path: Path, seed: int = 0) -> None:
    """Writes the file beside and renames it last."""
    part = path.with_suffix(".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(part, "llama", use_temp_file=False)
    _describe(writer, shape)
    rng = np.random.default_rng(seed)
    for name, (rows, columns), quant in tensors(shape):
        if quant is Quant.F32:
            writer.add_tensor(name, np.ones(columns, np.float32))
        else:
            writer.add_tensor(name, _random_blocks(rng, rows, columns, quant), raw_dtype=quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(path)


def tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, int], Quant]]:
    """Every tensor's name, (rows, columns) and type."""
    embd, kv = shape.n_embd, shape.n_embd // shape.n_heads * shape.n_kv_heads
    yield "token_embd.weight", (shape.n_vocab, embd), Quant.Q4_K
    yield "output_norm.weight", (1, embd), Quant.F32
    yield "output.weight", (shape.n_vocab, embd), Quant.Q6_K
    for i in range(shape.n_layers):
        better = Quant.Q6_K if _more_bits(i, shape.n_layers) else Quant.Q4_K
        yield f"blk.{i}.attn_norm.weight", (1, embd), Quant.F32
        yield f"blk.{i}.ffn_norm.weight", (1, embd), Quant.F32
        yield f"blk.{i}.attn_q.weight", (embd, embd), Quant.Q4_K
        yield f"blk.{i}.attn_k.weight", (kv, embd), Quant.Q4_K
        yield f"blk.{i}.attn_v.weight", (kv, embd), better
        yield f"blk.{i}.attn_output.weight", (embd, embd), Quant.Q4_K
        yield f"blk.{i}.ffn_gate.weight", (shape.n_ff, embd), Quant.Q4_K
        yield f"blk.{i}.ffn_up.weight", (shape.n_ff, embd), Quant.Q4_K
        yield f"blk.{i}.ffn_down.weight", (embd, shape.n_ff), better


def _more_bits(layer: int, n_layers: int) -> bool:
    """Q4_K_M gives the first and last eighth of the layers, and each third between, more bits (llama-quant.cpp)."""
    first, last = n_layers // 8, 7 * n_layers // 8
    return layer < first or layer >= last or (layer - first) % 3 == 2


def _random_blocks(rng: np.random.Generator, rows: int, columns: int, quant: Quant) -> np.ndarray:
    n_bytes, scales = BLOCKS[quant]
    blocks = rng.integers(0, 256, (rows * columns // BLOCK_WEIGHTS, n_bytes), dtype=np.uint8)
    for at in scales:
        blocks[:, at : at + 2] = np.frombuffer(np.float16(1e-4).tobytes(), np.uint8)
    return blocks.reshape(rows, -1)  # (rows, bytes of a row)


def _describe(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name("random weights")
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_rope_dimension_count(shape.n_embd // shape.n_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    tokens = vocabulary(shape.n_vocab)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def vocabulary(n: int) -> list[tuple[str, gguf.TokenType]]:
    """A SentencePiece vocabulary: bytes, letters, and each word with all its beginnings, so that merges can reach it."""
    tokens = [("<unk>", gguf.TokenType.UNKNOWN), ("<s>", gguf.TokenType.CONTROL), ("</s>", gguf.TokenType.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", gguf.TokenType.BYTE) for byte in range(256)]
    texts = ["▁", *map(chr, range(33, 127))]
    texts += [f"▁{word[:length]}" for word in WORDS for length in range(1, len(word) + 1)]
    tokens += [(text, gguf.TokenType.NORMAL) for text in dict.fromkeys(texts)]
    tokens += [(f"▁filler{i}", gguf.TokenType.NORMAL) for i in range(n - len(tokens))]
    return tokens[:n]


def main(arguments: list[str]) -> int:
    """The exit code."""
    if len(arguments) != 2 or arguments[0] not in SHAPES:
        print(f"usage: python -m bench.shapes {'|'.join(SHAPES)} FILE", file=sys.stderr)
        return 2
    make(SHAPES[arguments[0]], Path(arguments[1]))
    print(arguments[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
