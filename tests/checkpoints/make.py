"""Makes the tiny checkpoints that tests/test_convert.py converts, and what transformers computes with them.

    python -m tests.checkpoints.make     by hand, in a virtual environment with requirements.txt: it needs PyTorch

Weights are random but scaled so that a wrong permutation, a lost bias or a wrong angle moves the logits by far more than
rounding does. Tokenizers are trained on TEXT. In each folder reference.npz holds 100 tokens and, for the configuration as
it is and for each of the VARIANTS of it, the logits at those positions in float32.
"""

# mypy: ignore-errors
# (PyTorch and transformers are installed only where this is run.)

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

FOLDER = Path(__file__).parent
N_POSITIONS, N_VOCAB, N_MERGES = 100, 416, 110
STEP = 4  # of a variant only every fourth position is kept
GAP = 0.15  # the least lead of the best token over the second, so that rounding cannot change which is the best
TEXT = """
A linnet is a small bird that sings. It lives in the hedges by the sea and eats seeds, mostly of flax; from that it has its
name. Don't take it for a sparrow: they're browner, and they've no song. We'll see 12 of them in 2024, I'd say, or 3,500.
The winter was cold; the river froze, the mill stood still, and nobody came up the road until the end of March.
Für Köln und Zürich gilt: über sieben Brücken mußt du gehen. À côté du café, l'été, où est-ce que c'était? ¿Qué pasó, señor?
Быстрая коричневая лиса прыгает через ленивую собаку. 今日は天気がいいですね。 你好，世界！ 안녕하세요 שלום مرحبا 🐦 🙂
    def song(bird, n=10):
        return [bird.sing() for _ in range(n)]   # a list of songs

\tTabs,  two spaces,   three;    four.\r\nA new line.
"""
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BIRDS = "{{ bos_token }}{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": N_VOCAB,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "dtype": "float32",
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
# Configurations of the same weights that are checked besides.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "llama-spm": {"linear": {"rope_parameters": LINEAR}},
    "qwen2": {
        "yarn": {"rope_parameters": YARN},
        "yarn-told": {"rope_parameters": YARN | {"attention_factor": 1.3}},
    },
}


def build() -> None:
    """All of them."""
    torch.manual_seed(7)
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    biased = LlamaConfig(**SIZES, **ids, attention_bias=True, mlp_bias=True, rope_parameters=plain)
    save("llama-spm", LlamaForCausalLM(biased), sentencepieces)
    wide = LlamaConfig(**SIZES, head_dim=32, tie_word_embeddings=True, rope_parameters=LLAMA3_ROPE)
    save("llama-bpe", LlamaForCausalLM(wide), byte_pairs_of_llama3, shard="200KB")
    tied = Qwen2Config(**SIZES, tie_word_embeddings=True, rope_parameters=plain | {"rope_theta": 1000000.0})
    save("qwen2-tied", Qwen2ForCausalLM(tied), byte_pairs_of_qwen2)
    save("qwen2", Qwen2ForCausalLM(Qwen2Config(**SIZES, rope_parameters=plain)), byte_pairs_of_qwen2, shard="200KB")


def save(name: str, model: Any, write_tokenizer: Any, shard: str = "1GB") -> None:
    """One folder with weights, configuration, tokenizer and reference."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    scatter(model)
    model.eval().save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_tokenizer(folder)
    if name == "llama-bpe":
        write_as_of_old(folder / "config.json")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = choose_tokens(model)
    found = {"tokens": np.array(tokens, np.int32), "logits": logits(model, tokens)}
    for variant, changes in VARIANTS.get(name, {}).items():
        changed = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **changes)
        found[f"logits_{variant}"] = logits(changed, tokens)[::STEP]
    np.savez(folder / "reference.npz", **found)
    (folder / "variants.json").write_text(json.dumps(VARIANTS.get(name, {})))


def scatter(model: Any) -> None:
    """Random weights; logits with a deviation of about 2."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.6, 1.4)
            elif name.endswith("bias"):
                weight.normal_(0, 0.5)
            elif "embed" in name or "lm_head" in name:
                weight.normal_(0, 2 / weight.shape[1] ** 0.5)
            else:
                weight.normal_(0, (1.0 if "q_proj" in name or "k_proj" in name else 0.8) / weight.shape[1] ** 0.5)


def write_as_of_old(path: Path) -> None:
    """As files before transformers 5 have it: rope_theta and rope_scaling instead of rope_parameters."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope, "torch_dtype": config.pop("dtype")}
    path.write_text(json.dumps(config, indent=2))


@torch.no_grad()
def logits(model: Any, tokens: list[int]) -> Any:
    """(n_tokens, n_vocab)"""
    return model(torch.tensor([tokens])).logits[0].float().numpy()


def choose_tokens(model: Any) -> list[int]:
    """Random ones at whose places the best next token is well ahead."""
    chosen: list[int] = []
    rng = np.random.default_rng(1)
    while len(chosen) < N_POSITIONS:
        token = int(rng.integers(N_VOCAB - 20))
        second, best = np.sort(logits(model, [*chosen, token])[-1])[-2:]
        if best - second > GAP:
            chosen.append(token)
    return chosen


def sentencepieces(folder: Path) -> None:
    """A tokenizer.model, and the tokenizer.json that says the same."""
    lines = [line for line in TEXT.splitlines() if line.isascii()]  # other letters would leave no room for merges
    made = io.BytesIO()  # with files it would note where they lay
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 3),
        model_writer=made,
        model_type="bpe",
        vocab_size=N_VOCAB - 16,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.98,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(made.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    n = pieces.get_piece_size()
    vocab = {pieces.id_to_piece(i): i for i in range(n)}
    merges = [
        (pieces.get_score(vocab[whole]), whole[:i], whole[i:])
        for whole in vocab
        for i in range(1, len(whole))
        if whole[:i] in vocab and whole[i:] in vocab and pieces.get_score(vocab[whole]) < 0
    ]
    merges.sort(key=lambda merge: -merge[0])
    model = models.BPE(
        vocab, [(left, right) for _, left, right in merges], unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    specials = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    added = {str(i): {"content": t.content, "special": t.special} for i, t in tokenizer.get_added_tokens_decoder().items()}
    configure(folder, names | {"add_bos_token": True, "chat_template": BIRDS, "added_tokens_decoder": added})


def byte_pairs_of_llama3(folder: Path) -> None:
    """As Llama 3 has it: words that are tokens are not cut into merges."""
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]
    tokenizer = byte_pairs(LLAMA3, specials)
    bos = (specials[0], tokenizer.token_to_id(specials[0]))
    after = processors.TemplateProcessing(single=f"{specials[0]} $A", special_tokens=[bos])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), after])
    saved = json.loads(tokenizer.to_str())
    saved["model"]["ignore_merges"] = True
    (folder / "tokenizer.json").write_text(json.dumps(saved, ensure_ascii=False))
    configure(folder, {"bos_token": specials[0], "eos_token": specials[2], "add_bos_token": True})
    (folder / "chat_template.jinja").write_text(BIRDS)


def byte_pairs_of_qwen2(folder: Path) -> None:
    """As Qwen2.5 has it; <tool_call> is shown, so it is no special token."""
    tokenizer = byte_pairs(QWEN2, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ["<tool_call>", "</tool_call>"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": None, "eos_token": {"content": "<|im_end|>"}, "pad_token": "<|endoftext|>"}
    templates = [{"name": "../../rag", "template": "no"}, {"name": "default", "template": CHATML}]
    configure(folder, names | {"add_bos_token": False, "chat_template": templates})


def byte_pairs(pattern: str, specials: list[str], shown: list[str] | None = None) -> Tokenizer:
    """Trained on TEXT; special tokens come last, as in the real ones."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + N_MERGES, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in shown or []])
    return tokenizer


def configure(folder: Path, config: dict[str, Any]) -> None:
    """Writes tokenizer_config.json."""
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    build()
