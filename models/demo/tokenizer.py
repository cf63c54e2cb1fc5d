"""Text <-> token ids: a byte-pair tokenizer trained on the corpus, and the layout of a chat in tokens.

The pre-tokenizer is the one llama.cpp calls `smollm`: digits stand alone, the rest is split as GPT-2 does. The same
layout is written as Jinja in template.jinja; evaluate.py checks that the two agree.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from models.demo.tables import Chat

BEGIN, END = "<|begin|>", "<|end|>"
CONTROL = [BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>"]
THINK = ["<think>", "</think>"]  # visible in the answer, as in the GGUFs of DeepSeek-R1
N_VOCAB = 1536


def train_tokenizer(texts: Iterable[str], path: Path) -> Tokenizer:
    """Learn the merges from texts and save them; the seven special tokens get the ids 0 to 6."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB,
        special_tokens=[AddedToken(t, special=True) for t in CONTROL] + [AddedToken(t, special=False) for t in THINK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))
    return tokenizer


class ChatEncoder:
    """Lays a chat out in tokens and marks the ones to learn: what the assistant says, with its <|end|>."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.newline = self._ids("\n")
        self.end = self._id(END)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text).ids)

    def _id(self, token: str) -> int:
        return int(self.tokenizer.token_to_id(token) or 0)

    def encode(self, chat: Chat) -> tuple[list[int], list[bool]]:
        """Token ids, and for each whether the model should learn to say it."""
        ids = [self._id(BEGIN)]
        learned = [False]
        last = len(chat) - 1
        for i, (role, content) in enumerate(chat):
            says = role == "assistant"
            if says and i < last and THINK[1] in content:  # as the template: no thinking in the history, nothing to learn
                content, says = content.split(THINK[1])[-1].strip(), False
            head = [self._id(f"<|{role}|>"), *self.newline]
            said = [*self._ids(content), self.end]
            ids += head + said + ([] if i == last else self.newline)
            learned += [False] * len(head) + [says] * len(said) + ([] if i == last else [False] * len(self.newline))
        return ids, learned
