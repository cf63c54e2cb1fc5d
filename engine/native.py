"""The only file of the server that touches llama.cpp: a `Llama` instance and, over its model, one context of many sequences.

Not thread-safe, as llama.cpp is not: two threads in one context abort the process. The worker's main thread owns it.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Iterable
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import Llama

from engine.request import Sampling

DEFAULT_CTX = 4096  # tokens; what a model was trained for can be 131,072, and the memory for it is taken at once
PENALTY_WINDOW = 64  # tokens looked back at by the repeat, presence and frequency penalties
LOG_LEVEL_ERROR = 4  # ggml_log_level
CONTROL_ATTRS = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN  # <unk> is parsed like <s>
MARKER_ATTRS = CONTROL_ATTRS | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED


class ModelError(Exception):
    """The model cannot be loaded or used; the message is a sentence for the user."""


class DecodeError(Exception):
    """A step failed; `status` is llama_decode's own: 1 no room, 2 aborted, -1 bad batch, less: fatal."""

    def __init__(self, status: int) -> None:
        super().__init__(f"llama_decode returned {status}")
        self.status = status


class Sampler:
    """One sequence's own native chain of samplers, so that sequences never see each other's seed or penalties."""

    def __init__(self, sampling: Sampling, n_vocab: int) -> None:
        self.chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for link in self._links(sampling, n_vocab):
            llama_cpp.llama_sampler_chain_add(self.chain, link)

    @staticmethod
    def _links(s: Sampling, n_vocab: int) -> Iterable[Any]:
        if (s.repeat_penalty, s.frequency_penalty, s.presence_penalty) != (1.0, 0.0, 0.0):
            yield llama_cpp.llama_sampler_init_penalties(
                n_vocab, PENALTY_WINDOW, s.repeat_penalty, s.frequency_penalty, s.presence_penalty
            )
        if s.temperature <= 0:
            yield llama_cpp.llama_sampler_init_greedy()
            return
        yield llama_cpp.llama_sampler_init_top_k(s.top_k)
        yield llama_cpp.llama_sampler_init_top_p(s.top_p, 1)
        yield llama_cpp.llama_sampler_init_min_p(s.min_p, 1)
        yield llama_cpp.llama_sampler_init_temp(s.temperature)
        yield llama_cpp.llama_sampler_init_dist(s.seed)

    def close(self) -> None:
        """Frees the chain; its links go with it."""
        llama_cpp.llama_sampler_free(self.chain)


class Batch:
    """A llama_batch over numpy arrays: a slice of tokens goes in with four assignments, not one call per token."""

    def __init__(self, size: int) -> None:
        self.tokens = np.zeros(size, np.int32)
        self.positions = np.zeros(size, np.int32)
        self.slots = np.zeros(size, np.int32)
        self.wanted = np.zeros(size, np.int8)  # whether the logits after this token are wanted
        self.n = 0
        self._ones = np.ones(size, np.int32)
        # llama.cpp wants a pointer to each token's list of sequences; each list is one entry of `slots`.
        self._slot_pointers = self.slots.ctypes.data + np.arange(size, dtype=np.uint64) * self.slots.itemsize
        self.struct = llama_cpp.llama_batch(
            0,
            _pointer(self.tokens, llama_cpp.llama_token),
            None,
            _pointer(self.positions, llama_cpp.llama_pos),
            _pointer(self._ones, ctypes.c_int32),
            _pointer(self._slot_pointers, ctypes.POINTER(llama_cpp.llama_seq_id)),
            _pointer(self.wanted, ctypes.c_int8),
        )

    def clear(self) -> None:
        """Empties it for the next step."""
        self.n = 0

    def add(self, slot: int, tokens: list[int], position: int, wants_logits: bool) -> int:
        """Adds tokens of one sequence that stand from `position` on; returns the row of the last one."""
        end = self.n + len(tokens)
        rows = slice(self.n, end)
        self.tokens[rows] = tokens
        self.positions[rows] = np.arange(position, position + len(tokens))
        self.slots[rows] = slot
        self.wanted[rows] = 0
        self.wanted[end - 1] = wants_logits
        self.n = self.struct.n_tokens = end
        return end - 1


class Model:
    """A loaded GGUF: its vocabulary, its chat template's text, and a context of `n_slots` sequences of `n_ctx` tokens.

    Raises ModelError when the file cannot be loaded.
    """

    def __init__(self, path: str, n_ctx: int | None, n_slots: int, n_threads: int, n_batch: int) -> None:
        started = time.monotonic()
        self._log = errors = _ErrorLog()
        try:
            # The instance's own context is not used (it holds one sequence): as small as llama.cpp makes them.
            self._llama = Llama(path, n_ctx=8, n_batch=8, n_threads=n_threads, n_threads_batch=n_threads, verbose=False)
            self._model: Any = self._llama.model
            self.n_ctx_train: int = llama_cpp.llama_model_n_ctx_train(self._model)
            self.n_ctx: int = n_ctx or min(self.n_ctx_train, DEFAULT_CTX)
            self._context: Any = self._new_context(n_slots, n_threads, n_batch)
        except Exception as error:  # Llama() raises whatever its parts raise: ValueError, Jinja's, Unicode's
            raise ModelError(f"{path} cannot be loaded: {errors.first or error}.") from error
        if not self._context:
            raise ModelError(f"{path} cannot be loaded with {n_slots} x {self.n_ctx} tokens of context: {errors.first}.")
        self._vocab: Any = llama_cpp.llama_model_get_vocab(self._model)
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self.n_vocab: int = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.batch = Batch(n_batch)
        self._pieces: dict[int, bytes] = {}  # of the tokens seen so far
        self._warm_up()
        self.load_s = time.monotonic() - started

    def _new_context(self, n_slots: int, n_threads: int, n_batch: int) -> Any:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = self.n_ctx * n_slots
        params.n_seq_max = n_slots
        params.kv_unified = True  # one pool of cells: a sequence takes what it needs
        params.n_batch = params.n_ubatch = n_batch
        params.n_outputs_max = n_slots  # logits are wanted of one token of each sequence; more would only cost memory
        params.n_threads = params.n_threads_batch = n_threads
        params.no_perf = True
        return llama_cpp.llama_init_from_model(self._model, params)

    def _warm_up(self) -> None:
        """One step reads all weights from the file and makes the buffers before anybody waits."""
        self.batch.clear()
        self.batch.add(0, [0], 0, True)
        self.decode()
        self.forget(0)

    @property
    def metadata(self) -> dict[str, str]:
        """The GGUF's key-value pairs; arrays (the vocabulary) are not among them."""
        return self._llama.metadata

    @property
    def size_bytes(self) -> int:
        """Of all tensors together."""
        return llama_cpp.llama_model_size(self._model)

    @property
    def n_params(self) -> int:
        """Parameters of the model."""
        return llama_cpp.llama_model_n_params(self._model)

    @property
    def description(self) -> str:
        """Architecture, size and quantization in llama.cpp's words."""
        buffer = ctypes.create_string_buffer(128)
        llama_cpp.llama_model_desc(self._model, buffer, len(buffer))
        return buffer.value.decode(errors="replace")

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

    @property
    def longest_piece(self) -> int:
        """The most bytes one token can stand for, or a few more: no spelling is shorter than what it stands for."""
        return max(len(llama_cpp.llama_vocab_get_text(self._vocab, token)) for token in range(self.n_vocab))

    def markers(self) -> dict[str, bool]:
        """Spellings that llama.cpp would read as one token wherever they stand; True: a control token.

        The others (user-defined tokens) are kept only when they look like a tag, as <think> does: many models have
        runs of spaces or newlines as user-defined tokens, and those are text.
        """
        found = {}
        for token in range(self.n_vocab):
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
            raise ModelError(f"llama.cpp cannot tokenize a text of {len(raw)} bytes.")
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

    def decode(self) -> None:
        """Computes what stands in `batch`. Raises DecodeError."""
        status = llama_cpp.llama_decode(self._context, self.batch.struct)
        if status != 0:
            raise DecodeError(status)

    def sampler(self, sampling: Sampling) -> Sampler:
        """A fresh chain for one sequence."""
        return Sampler(sampling, self.n_vocab)

    def sample(self, sampler: Sampler, row: int) -> int:
        """The next token after the batch's row `row`; the chain takes note of it."""
        return llama_cpp.llama_sampler_sample(sampler.chain, self._context, row)

    def forget(self, slot: int) -> None:
        """Frees all context cells of a sequence."""
        llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)


def build() -> str:
    """Which binding this is; the llama.cpp commit is pinned by it."""
    return f"llama-cpp-python {llama_cpp.__version__}"


def _pointer(array: np.ndarray, ctype: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctype))


class _ErrorLog:
    """The first thing llama.cpp logs as an error: it returns NULL and tells the reason only there."""

    def __init__(self) -> None:
        self.first = ""
        self._callback = llama_cpp.llama_log_callback(self._note)  # kept: llama.cpp holds only its address
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _note(self, level: int, text: bytes, _: Any) -> None:
        if level == LOG_LEVEL_ERROR and not self.first:
            # "llama_model_load: error loading model: REASON"
            self.first = text.decode(errors="replace").strip().rpartition("model: ")[2].rstrip(".")
