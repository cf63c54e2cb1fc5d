"""Checkpoints become GGUF files that compute and tokenize as the originals do.

The judge is transformers (tests/checkpoints/make.py has written down its logits) and, for tokens, the `tokenizers` library.
"""

from __future__ import annotations

import json
import random
import unicodedata

import gguf
import llama_cpp
import numpy as np
import pytest
from tokenizers import Tokenizer

from convert.__main__ import main
from convert.conversion import convert
from convert.quants import GUIDED, PLAIN, TYPES
from engine.header import read_header
from tests.checkpoints.copies import FOLDER as CHECKPOINTS
from tests.checkpoints.copies import copied

NAMES = ["llama-spm", "llama-bpe", "qwen2", "qwen2-tied"]
CASES = [(name, "") for name in NAMES] + [("llama-spm", "linear"), ("qwen2", "yarn"), ("qwen2", "yarn-told")]
F32 = 0  # ggml's number of the type


def logits(path, tokens, **options):
    model = llama_cpp.Llama(str(path), logits_all=True, verbose=False, n_ctx=256, n_threads=2, **options)
    try:
        model.eval(tokens)
        return np.array(model.scores[: len(tokens)])
    finally:
        model.close()


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_it_computes_what_transformers_computes(name, variant, tmp_path):
    changes = json.loads((CHECKPOINTS / name / "variants.json").read_text())[variant] if variant else {}
    source = copied(name, tmp_path / "checkpoint", **changes)
    with np.load(CHECKPOINTS / name / "reference.npz") as reference:
        tokens, wanted = reference["tokens"].tolist(), reference[f"logits_{variant}" if variant else "logits"]
    assert len(tokens) == 100
    convert(source, tmp_path / "f16.gguf", "F16", "x")
    step = len(tokens) // len(wanted)  # of a variant every fourth position is known
    found = logits(tmp_path / "f16.gguf", tokens)[::step]
    assert np.abs(found - wanted).max() < 2e-2
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).all()
    # Without any rounding to F16 nothing but the order of additions is different.
    convert(source, tmp_path / "f32.gguf", "F32", "x")
    found = logits(tmp_path / "f32.gguf", tokens, type_k=F32, type_v=F32)[::step]
    assert np.abs(found - wanted).max() < 1e-4


def awkward(n, specials):
    """Texts in which tokenizers differ."""
    rng = random.Random(5)
    parts = [
        *(" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "\u00a0", "\u3000", "\u200d", "\ufeff", "\u2028"),
        *(
            "a",
            "linnet",
            "Birds",
            "ÄÖÜß",
            "naïve",
            "Быстрая",
            "λόγος",
            "今日は",
            "你好，世界",
            "안녕",
            "שלום",
            "مرحبا",
            "हिन्दी",
            "ไทย",
        ),
        *("0", "7", "12", "2024", "3,500.25", "1e-9", "٣٤", "Ⅷ", "½", "²"),
        *("'s", "'RE", "don't", "WE'LL", "I'M", "’s", "'", "''", "''''"),
        *("🐦", "🙂", "👨‍👩‍👧", "🇫🇷", "😶\u200d🌫️", "\U0001f9ff"),
        *(
            "!",
            "?!",
            "...",
            "------",
            "=====",
            "#$%^&*",
            "()[]{}",
            "`code`",
            "<s>",
            "<|",
            "|>",
            "<0x41>",
            "</",
            "▁",
            "▁▁a",
            "Ġ",
        ),
        *("\x00", "\x07", "\x1b[0m", "\x7f", "\ufffd", "\U0010ffff", "Ã©", "â€™", "\u0301"),
        *("def f(x):\n    return x", "http://a.b/c?d=e", "C:\\x\\y", "a_b-c.d"),
        *specials,
    ]
    texts = ["", " ", *parts]
    while len(texts) < n:
        texts.append("".join(rng.choice(parts) for _ in range(rng.randint(2, 9))))
    return [unicodedata.normalize("NFC", text) for text in texts[:n]]  # llama.cpp does not, the Note says so


@pytest.mark.parametrize("name", [*NAMES, "llama-spm without tokenizer.model"])
def test_texts_become_the_same_tokens(name, tmp_path):
    source = copied(name.split()[0], tmp_path / "checkpoint")
    if "without" in name:
        (source / "tokenizer.model").unlink()
    convert(source, tmp_path / "x.gguf", "F16", "x")
    judge = Tokenizer.from_file(str(source / "tokenizer.json"))
    specials = [token.content for token in judge.get_added_tokens_decoder().values()]
    model = llama_cpp.Llama(str(tmp_path / "x.gguf"), vocab_only=True, verbose=False)
    texts = awkward(300, specials)
    wrong = {}
    for text in texts:
        found = model.tokenize(text.encode(), add_bos=True, special=True)
        if found != judge.encode(text).ids:
            wrong[text] = (found, judge.encode(text).ids)
    model.close()
    assert len(set(texts)) > 290
    assert not wrong, f"{len(wrong)} texts become other tokens than in tokenizers"


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_K_M", "IQ4_NL", "F32", "BF16"])
def test_every_common_type_can_be_made_and_loaded(quant, tmp_path, monkeypatch, capsys):
    out = tmp_path / f"x-{quant}.gguf"
    assert main([str(CHECKPOINTS / "qwen2-tied"), "--quant", quant, "--out", str(out)]) == 0
    assert "88,640 parameters" in capsys.readouterr().out
    header = read_header(out)
    assert header.file_type == TYPES[quant][0]
    assert next(iter(header.mix)) == {"Q4_K_M": "Q8_0"}.get(quant, quant)  # rows of 64 are too short for Q4_K
    with np.load(CHECKPOINTS / "qwen2-tied" / "reference.npz") as reference:
        found, wanted = logits(out, reference["tokens"].tolist()), reference["logits"]
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.97
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name]


def test_the_numbers_of_the_types_are_llama_cpps():
    for name, (number, _) in TYPES.items():
        assert number == getattr(llama_cpp, f"LLAMA_FTYPE_{'ALL' if name == 'F32' else 'MOSTLY'}_{name}")
    assert set(PLAIN) < set(TYPES) and not set(GUIDED) & set(TYPES)


def test_without_tokenizer_model_the_order_of_the_merges_gives_the_scores(tmp_path):
    source = copied("llama-spm", tmp_path / "checkpoint")
    first, _ = convert(source, tmp_path / "a.gguf", "F16", "x")
    (source / "tokenizer.model").unlink()
    second, _ = convert(source, tmp_path / "b.gguf", "F16", "x")
    for key in ("tokens", "token_type", "bos_token_id", "eos_token_id", "unknown_token_id", "add_space_prefix"):
        wanted, found = (header.values[f"tokenizer.ggml.{key}"] for header in (first, second))
        assert found == wanted or list(found) == list(wanted), key
    ranked = []
    for header in (first, second):
        scores, tokens = header.values["tokenizer.ggml.scores"], header.values["tokenizer.ggml.tokens"]
        merged = [i for i in range(259, 400) if len(tokens[i]) > 1]
        ranked.append(sorted(merged, key=lambda i: -scores[i]))
    assert len(ranked[0]) > 60 and ranked[0] == ranked[1]


def test_bos_is_added_where_the_frame_of_tokenizer_json_has_it(tmp_path):
    source = copied("llama-bpe", tmp_path / "checkpoint")
    (source / "tokenizer_config.json").write_text("{}")
    header, _ = convert(source, tmp_path / "x.gguf", "F16", "x")
    assert header.values.get("tokenizer.ggml.add_bos_token") is not True, "nothing says which token is BOS"
    (source / "tokenizer_config.json").write_text('{"bos_token": {"content": "<|begin_of_text|>"}}')
    header, _ = convert(source, tmp_path / "y.gguf", "F16", "x")
    assert header.values["tokenizer.ggml.add_bos_token"] is True and header.values["tokenizer.ggml.bos_token_id"] == 366


def test_bf16_is_rounded_to_the_nearest(tmp_path):
    convert(CHECKPOINTS / "qwen2-tied", tmp_path / "f32.gguf", "F32", "x")
    convert(CHECKPOINTS / "qwen2-tied", tmp_path / "bf16.gguf", "BF16", "x")
    exact, rounded = (
        next(tensor.data for tensor in gguf.GGUFReader(tmp_path / name).tensors if tensor.name == "token_embd.weight")
        for name in ("f32.gguf", "bf16.gguf")
    )
    found = (rounded.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    assert (np.abs(found - exact) <= np.abs(exact) * 2**-8).all()


def test_a_header_says_what_the_checkpoint_was(tmp_path):
    header, _ = convert(CHECKPOINTS / "llama-bpe", tmp_path / "x.gguf", "F16", "a bird")
    assert (header.architecture, header.name, header.n_layers, header.n_heads, header.n_kv_heads) == (
        "llama",
        "a bird",
        2,
        4,
        2,
    )
    assert (header.n_embd, header.key_length, header.n_ctx, header.n_vocab) == (64, 32, 512, 416)
    assert (header.tokenizer, header.tokenizer_pre, header.has_template) == ("gpt2", "llama-bpe", True)
    assert header.values["tokenizer.ggml.add_bos_token"] is True
    assert header.values["tokenizer.ggml.tokens"][header.values["tokenizer.ggml.eos_token_id"]] == "<|eot_id|>"
    names = {tensor.name: tensor.type for tensor in header.tensors}
    assert "rope_freqs.weight" in names and "output.weight" not in names
    assert names["blk.0.attn_norm.weight"] == "F32" and names["blk.1.ffn_down.weight"] == "F16"


def test_of_several_chat_templates_the_default_is_taken(tmp_path):
    header, _ = convert(CHECKPOINTS / "qwen2", tmp_path / "x.gguf", "F16", "x")
    assert "<|im_start|>" in header.values["tokenizer.chat_template"]
    types = dict(zip(header.values["tokenizer.ggml.tokens"], header.values["tokenizer.ggml.token_type"], strict=True))
    assert types["<|im_end|>"] == 3 and types["<tool_call>"] == 4 and types["[PAD415]"] == 5 and types["a"] == 1
    assert header.values["tokenizer.ggml.add_bos_token"] is False


def test_several_files_give_what_one_file_gives(tmp_path):
    source = copied("qwen2", tmp_path / "one")
    data, table, at = b"", {}, 0
    for path in sorted(source.glob("*.safetensors")):
        raw = path.read_bytes()
        n = int.from_bytes(raw[:8], "little")
        for name, entry in json.loads(raw[8 : 8 + n]).items():
            if name != "__metadata__":
                table[name] = entry | {"data_offsets": [at + offset for offset in entry["data_offsets"]]}
        data, at = data + raw[8 + n :], at + len(raw) - 8 - n
        path.unlink()
    (source / "model.safetensors.index.json").unlink()
    head = json.dumps(table).encode()
    (source / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    convert(source, tmp_path / "one.gguf", "F16", "x")
    convert(CHECKPOINTS / "qwen2", tmp_path / "many.gguf", "F16", "x")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "many.gguf").read_bytes()


def test_what_is_too_large_for_f16_stays_bf16(tmp_path):
    source = copied("qwen2-tied", tmp_path / "checkpoint")
    path = source / "model.safetensors"
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    at = 8 + n + json.loads(raw[8 : 8 + n])["model.layers.0.mlp.up_proj.weight"]["data_offsets"][0]
    path.write_bytes(raw[:at] + np.float32(1e5).tobytes() + raw[at + 4 :])
    header, _ = convert(source, tmp_path / "x.gguf", "F16", "x")
    assert [tensor.name for tensor in header.tensors if tensor.type == "BF16"] == ["blk.0.ffn_up.weight"]
