"""A model's vocabulary: text to tokens, tokens to bytes, and which spellings mean more than themselves."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import llama_cpp
import numpy as np

CONTROL_ATTRS = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN  # <unk> is parsed like <s>
MARKER_ATTRS = CONTROL_ATTRS | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED


class TokenizeError(Exception):
    """llama.cpp gave up on a text; the message is a sentence."""


class Vocabulary:
    """llama.cpp's own, of one loaded model; satisfies `engine.prompt.Vocabulary`."""

    def __init__(self, vocab: Any, metadata: dict[str, str]) -> None:
        self.pointer = self._vocab = vocab
        self.metadata = metadata  # the GGUF's key-value pairs; arrays (the tokens themselves) are not among them
        self.n_tokens: int = llama_cpp.llama_vocab_n_tokens(vocab)
        self._pieces: dict[int, bytes] = {}  # of the tokens seen so far

    def token_text(self, name: str) -> str:
        """The spelling of the "bos" or "eos" token; "" when the model has none."""
        token = getattr(llama_cpp, f"llama_vocab_{name}")(self._vocab)
        return "" if token < 0 else llama_cpp.llama_vocab_get_text(self._vocab, token).decode(errors="replace")

    @functools.cached_property
    def adds_bos(self) -> bool:
        """Whether texts of this model are meant to begin with its BOS token."""
        return llama_cpp.llama_vocab_get_add_bos(self._vocab)

    @functools.cached_property
    def adds_space(self) -> bool:
        """Whether its tokenizer puts a space before a text (SentencePiece does)."""
        return llama_cpp.llama_vocab_type(self._vocab) == llama_cpp.LLAMA_VOCAB_TYPE_SPM

    @functools.cached_property
    def control(self) -> np.ndarray:
        """(n_tokens,) those that stand for no text, though llama.cpp's grammar reads their names as text; but for ends."""
        attrs = [llama_cpp.llama_vocab_get_attr(self._vocab, token) for token in range(self.n_tokens)]
        return np.array([bool(a & CONTROL_ATTRS) and not self.ends(token) for token, a in enumerate(attrs)])

    @property
    def longest_piece(self) -> int:
        """The most bytes one token can stand for, or a few more: no spelling is shorter than what it stands for."""
        return max(len(llama_cpp.llama_vocab_get_text(self._vocab, token)) for token in range(self.n_tokens))

    def markers(self) -> dict[str, bool]:
        """Spellings that llama.cpp would read as one token wherever they stand; True: a control token.

        The others (user-defined tokens) are kept only when they look like a tag, as <think> does: many models have
        runs of spaces or newlines as user-defined tokens, and those are text.
        """
        found = {}
        for token in range(self.n_tokens):
            attrs = llama_cpp.llama_vocab_get_attr(self._vocab, token)
            if attrs & MARKER_ATTRS:
                text = llama_cpp.llama_vocab_get_text(self._vocab, token).decode(errors="replace")
                control = bool(attrs & CONTROL_ATTRS)
                if len(text) > 1 and (control or (text[0], text[-1]) == ("<", ">")):
                    found[text] = control
        return found

    def tokenize(self, text: str, *, add_bos: bool) -> list[int]:
        """llama.cpp's own tokenizer, with the spellings of special tokens read as those tokens."""
        raw = text.encode()
        tokens = (llama_cpp.llama_token * (len(raw) + 2))()
        n = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), tokens, len(tokens), add_bos, True)
        if n < 0:
            raise TokenizeError(f"llama.cpp cannot tokenize a text of {len(raw)} bytes.")
        return tokens[:n]

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; b"" for control tokens."""
        if token not in self._pieces:
            buffer = ctypes.create_string_buffer(128)
            n = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
            if n < 0:  # longer than the buffer
                buffer = ctypes.create_string_buffer(-n)
                n = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
            self._pieces[token] = buffer.raw[:n]
        return self._pieces[token]

    def ends(self, token: int) -> bool:
        """Whether the model says with it that its turn is over."""
        return llama_cpp.llama_vocab_is_eog(self._vocab, token)
