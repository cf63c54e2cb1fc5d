"""A `Llama` instance and, over its model, one context of many sequences.

Not thread-safe, as llama.cpp is not: two threads in one context abort the process. The worker's main thread owns it.
"""

from __future__ import annotations

import ctypes
import functools
import time
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import Llama, llama_chat_format

from engine.constraint import Grammar
from engine.native.batch import Batch
from engine.native.sampler import Sampler
from engine.native.vocabulary import Vocabulary
from engine.request import DEFAULT_CTX, Config, Sampling


class _NoFormatter:
    """In the place of what `Llama` compiles a file's chat templates with: it knows no limits, and is not used here."""

    def __init__(self, **_: Any) -> None:
        pass

    def to_chat_handler(self) -> None:
        """None: there is none."""


llama_chat_format.Jinja2ChatFormatter = _NoFormatter
LOG_LEVEL_ERROR = 4  # ggml_log_level
KV_TYPES = {"f16": llama_cpp.GGML_TYPE_F16, "q8_0": llama_cpp.GGML_TYPE_Q8_0}


class ModelError(Exception):
    """The model cannot be loaded or used; the message is a sentence for the user."""


class DecodeError(Exception):
    """A step failed; `status` is llama_decode's own: 1 no room, 2 aborted, -1 bad batch, less: fatal."""

    def __init__(self, status: int) -> None:
        super().__init__(f"llama_decode returned {status}")
        self.status = status


class Model:
    """A loaded GGUF: its vocabulary, and a context of `config.n_slots` sequences and one more that is used in passing.

    A step holds at most `n_batch` tokens, and logits are wanted after at most `n_outputs` of them. Raises ModelError when
    the file cannot be loaded.
    """

    def __init__(self, config: Config, n_batch: int, n_outputs: int) -> None:
        started = time.monotonic()
        errors = _error_log()
        errors.first = ""
        path, threads = config.model_path, config.n_threads
        try:
            # The instance's own context is not used (it holds one sequence): as small as llama.cpp makes them.
            self._llama = Llama(path, n_ctx=8, n_batch=8, n_threads=threads, n_threads_batch=threads, verbose=False)
            self._model: Any = self._llama.model
            self.n_ctx_train: int = llama_cpp.llama_model_n_ctx_train(self._model)
            self.n_ctx: int = config.n_ctx or min(self.n_ctx_train, DEFAULT_CTX)
            self.n_outputs = n_outputs
            self._context: Any = self._new_context(config, n_batch, n_outputs)
        except Exception as error:  # Llama() raises whatever its parts raise: ValueError, Jinja's, Unicode's
            raise ModelError(f"{path} cannot be loaded: {errors.first or error}.") from error
        if not self._context:
            size = f"{config.n_slots} x {self.n_ctx} tokens of context"
            raise ModelError(f"{path} cannot be loaded with {size}: {errors.first}.")
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self._passing = config.n_slots  # the sequence that states go through on their way in and out
        self.vocabulary = Vocabulary(llama_cpp.llama_model_get_vocab(self._model), self._llama.metadata)
        self._row = ctypes.c_float * self.vocabulary.n_tokens
        self.batch = Batch(n_batch)
        self._warm_up()
        self.load_s = time.monotonic() - started

    def _new_context(self, config: Config, n_batch: int, n_outputs: int) -> Any:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = self.n_ctx * config.n_slots
        params.n_seq_max = config.n_slots + 1
        params.kv_unified = True  # one pool of cells: a sequence takes what it needs, and a common prefix is held once
        params.n_batch = params.n_ubatch = n_batch
        params.n_outputs_max = n_outputs  # room for more logits would only cost memory
        params.n_threads = params.n_threads_batch = config.n_threads
        params.type_k = params.type_v = KV_TYPES[config.kv_type]
        params.no_perf = True
        return llama_cpp.llama_init_from_model(self._model, params)

    def _warm_up(self) -> None:
        """One step reads all weights from the file and makes the buffers before anybody waits."""
        self.seconds(1)

    def seconds(self, n: int) -> float:
        """How long a step of n tokens takes; their logits are all wanted, as far as there is room for so many."""
        self.batch.clear()
        self.batch.add(self._passing, [0] * n, 0, n if n <= self.n_outputs else 1)
        started = time.monotonic()
        self.decode()
        seconds = time.monotonic() - started
        self.cut(self._passing, 0)
        return seconds

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

    @property
    def keeps_states(self) -> bool:
        """Whether a sequence can be cut and copied at any token: not where the state is one lump, or old tokens fall out."""
        lump = llama_cpp.llama_model_is_recurrent(self._model) or llama_cpp.llama_model_is_hybrid(self._model)
        return not lump and llama_cpp.llama_model_n_swa(self._model) == 0

    def use_threads(self, n: int) -> None:
        """How many threads compute from now on."""
        llama_cpp.llama_set_n_threads(self._context, n, n)

    def decode(self) -> None:
        """Computes what stands in `batch`. Raises DecodeError."""
        status = llama_cpp.llama_decode(self._context, self.batch.struct)
        if status != 0:
            raise DecodeError(status)

    def sampler(self, sampling: Sampling) -> Sampler:
        """A fresh chain for one sequence."""
        return Sampler(sampling, self.vocabulary.n_tokens)

    def sample(self, sampler: Sampler, row: int, grammar: Grammar | None = None) -> int:
        """The next token after the batch's row `row`, of those that a grammar allows; the chain takes note of it.

        -1: the grammar allows none.
        """
        if grammar:
            return sampler.choose(self.logits(row), grammar)
        if sampler.takes_most_likely:
            return int(self.logits(row).argmax())
        return llama_cpp.llama_sampler_sample(sampler.chain, self._context, row)

    def chances(self, row: int, token: int, n: int) -> list[Any]:
        """How likely the token was after the batch's row, and the n likeliest: as in engine.request.Delta."""
        logits = self.logits(row).astype(np.float64)
        logs = logits - logits.max()
        logs -= np.log(np.exp(logs).sum())
        best: Any = np.argpartition(-logs, n)[:n] if n else []
        told = [[self._spelled(i), float(logs[i])] for i in sorted(best, key=lambda i: -logs[i])]
        return [self._spelled(token), float(logs[token]), told]

    def _spelled(self, token: int) -> str:
        return self.vocabulary.piece(int(token)).decode("latin-1")

    def vectors(self) -> np.ndarray:
        """Computes what stands in `batch`; (n, n_embd) what the model makes of its tokens. Raises DecodeError."""
        llama_cpp.llama_set_embeddings(self._context, True)
        try:
            self.decode()
            rows = [llama_cpp.llama_get_embeddings_ith(self._context, row) for row in range(self.batch.n)]
            n = llama_cpp.llama_model_n_embd(self._model)
            return np.array([np.ctypeslib.as_array(row, (n,)) for row in rows], np.float64)
        finally:
            llama_cpp.llama_set_embeddings(self._context, False)

    def logits(self, row: int) -> np.ndarray:
        """(n_vocab,) scores of the token after the batch's row `row`; a view that the next step overwrites."""
        pointer = llama_cpp.llama_get_logits_ith(self._context, row)
        return np.frombuffer(memoryview(self._row.from_address(ctypes.addressof(pointer.contents))), np.float32)

    def cut(self, slot: int, n: int) -> None:
        """Forgets all but the first n tokens of a sequence."""
        llama_cpp.llama_memory_seq_rm(self._memory, slot, n, -1)

    def copy(self, source: int, target: int, n: int) -> None:
        """The first n tokens of one sequence for another one too. They share the cells: it takes no time and no room."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, n)

    def state(self, slot: int, start: int, stop: int) -> bytearray:
        """What was computed for the tokens at these positions of a sequence."""
        llama_cpp.llama_memory_seq_cp(self._memory, slot, self._passing, start, stop)
        state = bytearray(llama_cpp.llama_state_seq_get_size(self._context, self._passing))
        n = llama_cpp.llama_state_seq_get_data(self._context, _address(state), len(state), self._passing)
        self.cut(self._passing, 0)
        return state[:n] if n < len(state) else state

    def restore(self, slot: int, state: bytes | bytearray, start: int, stop: int) -> bool:
        """Puts these positions of a state into a sequence; False when the state does not fit this context."""
        n = llama_cpp.llama_state_seq_set_data(self._context, _address(state), len(state), self._passing)
        if n == len(state):
            llama_cpp.llama_memory_seq_cp(self._memory, self._passing, slot, start, stop)
        self.cut(self._passing, 0)
        return n == len(state)


def build() -> str:
    """Which binding this is; the llama.cpp commit is pinned by it."""
    return f"llama-cpp-python {llama_cpp.__version__}"


def _address(data: bytes | bytearray) -> Any:
    """Of the bytes themselves: what can be many megabytes is not copied on its way."""
    return np.frombuffer(data, np.uint8).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


@functools.cache
def _error_log() -> _ErrorLog:
    """One for the whole process, as llama.cpp has one: it keeps the callback's address."""
    return _ErrorLog()


class _ErrorLog:
    """The first thing llama.cpp logs as an error: it returns NULL and tells the reason only there."""

    def __init__(self) -> None:
        self.first = ""
        self._callback = llama_cpp.llama_log_callback(self._note)
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _note(self, level: int, text: bytes, _: Any) -> None:
        if level == LOG_LEVEL_ERROR and not self.first:
            # "llama_model_load: error loading model: REASON"
            self.first = text.decode(errors="replace").strip().rpartition("model: ")[2].rstrip(".")
