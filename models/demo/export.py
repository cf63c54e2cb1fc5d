"""Turns the checkpoint into demo.gguf: `python -m models.demo.export`. Matrices in Q8_0, norms in F32."""

import itertools
import json

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer

from models.demo.corpus import N_MILLION, chats
from models.demo.model import Shape
from models.demo.paths import CHECKPOINT, DEMO, LAYOUT, TEMPLATE, TOKENIZER
from models.demo.tables import Chat
from models.demo.tokenizer import BEGIN, CONTROL, END, THINK, ChatEncoder

AWKWARD = [
    "naïve São Paulo 東京 🐦🌈",
    "1234 a1b2  c\n\n\n d",
    "don't  `make run`\t?!",
    " ½ ² 🙂x",
    "1,000.50 + (3-4)*2 = ٣٤ Ⅷ",
    "ÄÖ\r\nß we'll I'M  \n x",
]
DESCRIPTION = (
    "Linnet's built-in demo model: small talk, questions on using Linnet, sums up to 99, plain facts, little stories. "
    "Trained from scratch on text generated for it. For real answers use a bigger model."
)


def add_shape(writer: gguf.GGUFWriter, shape: Shape, n_parameters: int) -> None:
    """What llama.cpp must know of the network."""
    writer.add_name("Linnet Demo")
    writer.add_author("Linnet")
    writer.add_license("MIT")
    writer.add_description(DESCRIPTION)
    writer.add_size_label(f"{n_parameters / 1e6:.1f}M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.n_vocab)
    writer.add_context_length(shape.n_context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.ffn_width)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_heads)
    writer.add_rope_dimension_count(shape.width // shape.n_heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)


def token_type(token: str) -> gguf.TokenType:
    """Control tokens are never shown; the thinking marks are."""
    if token in CONTROL:
        return gguf.TokenType.CONTROL
    return gguf.TokenType.USER_DEFINED if token in THINK else gguf.TokenType.NORMAL


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Tokens, merges, special tokens and the chat template."""
    tokens = [str(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size())]
    merges = merges_of(tokenizer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")  # digits one by one, the rest as GPT-2: see tokenizer.py
    writer.add_token_list(tokens)
    writer.add_token_types([token_type(token) for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(BEGIN))
    writer.add_eos_token_id(tokens.index(END))
    writer.add_eot_token_id(tokens.index(END))
    writer.add_pad_token_id(tokens.index(END))
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE.read_text(encoding="utf-8").rstrip("\n"))


def merges_of(tokenizer: Tokenizer) -> list[str]:
    """The merges as "left right"; the tokenizer shows them only in its JSON."""
    return [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def add_weights(writer: gguf.GGUFWriter, weights: dict[str, torch.Tensor]) -> None:
    """Matrices in blocks of 32 with 8 bits each, vectors as they are."""
    for name, weight in weights.items():
        data = weight.float().numpy().astype(np.float32)
        if data.ndim == 1:
            writer.add_tensor(name, data)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)


def save_layout(tokenizer: Tokenizer) -> None:
    """Some chats and their tokens as in the training, for evaluate.py to compare with llama.cpp's."""
    encoder = ChatEncoder(tokenizer)
    sample: list[Chat] = [chat for chat in itertools.islice(chats(seed=99), 300) if THINK[0] not in chat[-1][1]]
    sample += [[("user", text), ("assistant", "ok")] for text in AWKWARD]
    LAYOUT.write_text(json.dumps([{"chat": chat, "tokens": encoder.encode(chat)[0]} for chat in sample]))


def main() -> None:
    """Reads the checkpoint and the tokenizer, writes the GGUF."""
    checkpoint = torch.load(CHECKPOINT, map_location="cpu", weights_only=True)
    shape, weights = Shape(**checkpoint["shape"]), checkpoint["weights"]
    n_parameters = sum(weight.numel() for weight in weights.values())
    if f"{n_parameters / 1e6:.1f}" != N_MILLION:
        raise SystemExit("the model says another number of parameters than it has: correct N_MILLION in corpus.py")
    beside = DEMO.with_suffix(".part")
    writer = gguf.GGUFWriter(beside, "llama")
    add_shape(writer, shape, n_parameters)
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    add_tokenizer(writer, tokenizer)
    save_layout(tokenizer)
    add_weights(writer, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    beside.replace(DEMO)  # the file is there whole or not at all
    print(f"{DEMO.name}: {DEMO.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
