"""The network: a llama of a few million parameters, in plain PyTorch.

Weights carry the names and the layout that llama.cpp wants, so that export.py only copies them. It knows nothing of
text: tokens go in, scores for the next token come out.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The size of the network; it is written into the checkpoint and the GGUF."""

    n_vocab: int
    width: int = 256
    n_layers: int = 6
    n_heads: int = 4
    ffn_width: int = 704
    n_context: int = 2048  # tokens
    rope_base: float = 10000.0
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.width % self.n_heads or self.width % 32 or self.ffn_width % 32:
            raise ValueError("every row must be a multiple of 32: Q8_0 packs 32 weights to a block")


def rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosine and sine for each position, (n_context, head_width / 2)."""
    head_width = shape.width // shape.n_heads
    frequencies = shape.rope_base ** (-torch.arange(0, head_width, 2).float() / head_width)
    angles = torch.outer(torch.arange(shape.n_context).float(), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs (0,1), (2,3)...: llama.cpp's pairing for `llama`, not the half-split of transformers."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, (rows, heads, tokens, head width). Spelled out for short rows: torch's own is slower there."""
    n_tokens = q.shape[2]
    if n_tokens > 640:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    later = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).masked_fill(later, float("-inf"))
    weights: Tensor = scores.softmax(dim=-1, dtype=v.dtype)
    return weights @ v


class Block(nn.Module):
    """Attention, then the gated feed-forward part; both add to the stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.n_heads = shape.n_heads
        self.attn_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_v = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.ffn_gate = nn.Linear(shape.width, shape.ffn_width, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.ffn_width, bias=False)
        self.ffn_down = nn.Linear(shape.ffn_width, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The stream (rows, tokens, width) with this layer's part added."""
        n_rows, n_tokens, width = x.shape
        heads = (n_rows, n_tokens, self.n_heads, width // self.n_heads)
        h = self.attn_norm(x)
        q = rotate(self.attn_q(h).view(heads).transpose(1, 2), cos, sin)  # (rows, heads, tokens, head width)
        k = rotate(self.attn_k(h).view(heads).transpose(1, 2), cos, sin)
        v = self.attn_v(h).view(heads).transpose(1, 2)
        mixed = attend(q.to(v.dtype), k.to(v.dtype), v)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(n_rows, n_tokens, width))
        h = self.ffn_norm(x)
        added: Tensor = self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))
        return x + added


class Llama(nn.Module):
    """Token ids (rows, tokens) -> the stream after the last norm; `scores` turns chosen places of it into logits."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.n_vocab, shape.width)
        blocks = [Block(shape) for _ in range(shape.n_layers)]
        self.blk = nn.ModuleList(blocks)
        self.output_norm = nn.RMSNorm(shape.width, eps=shape.norm_epsilon)
        self.output = nn.Linear(shape.width, shape.n_vocab, bias=False)
        cos, sin = rope_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        # As large as what the layers add: small ones drown in the stream, and then the model never learns to copy a word.
        nn.init.normal_(self.token_embd.weight, std=1.0)
        nn.init.zeros_(self.output.weight)
        for block in blocks:  # each block starts as "add nothing", which lets a high learning rate be used at once
            nn.init.zeros_(block.attn_output.weight)
            nn.init.zeros_(block.ffn_down.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """The stream at the end, (rows, tokens, width)."""
        x: Tensor = self.token_embd(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for block in self.blk:
            x = block(x, cos, sin)
        out: Tensor = self.output_norm(x)
        return out

    def scores(self, x: Tensor) -> Tensor:
        """How likely each token is next, (places, n_vocab)."""
        out: Tensor = self.output(x)
        return out

    def n_parameters(self) -> int:
        """All weights."""
        return sum(p.numel() for p in self.parameters())
