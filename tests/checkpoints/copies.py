"""Copies of the test checkpoints that may be changed, and larger ones made of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
NO_BIAS = {"attention_bias": False, "mlp_bias": False}


def copied(name, to, **changes):
    """A checkpoint that may be changed, with changes to its configuration."""
    shutil.copytree(FOLDER / name, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | changes))
    return to


def grow(source, n_layers, n_ff):
    """Random weights for a configuration of llama-spm with more layers and a wider feed-forward."""
    shapes = {"model.embed_tokens": (416, 64), "lm_head": (416, 64), "model.norm": (64,)}
    for i in range(n_layers):
        attention = {"q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64), "o_proj": (64, 64)}
        mlp = {"gate_proj": (n_ff, 64), "up_proj": (n_ff, 64), "down_proj": (64, n_ff)}
        shapes |= {f"model.layers.{i}.self_attn.{name}": shape for name, shape in attention.items()}
        shapes |= {f"model.layers.{i}.mlp.{name}": shape for name, shape in mlp.items()}
        shapes |= {f"model.layers.{i}.{name}": (64,) for name in ("input_layernorm", "post_attention_layernorm")}
    table, at = {}, 0
    for name, shape in shapes.items():
        n_bytes = 4 * int(np.prod(shape))
        table[f"{name}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    head = json.dumps(table).encode()
    values = np.random.default_rng(0).standard_normal(2**16, np.float32).tobytes()
    with (source / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for start in range(0, at, len(values)):
            file.write(values[: at - start])
