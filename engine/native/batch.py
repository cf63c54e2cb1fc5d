"""The tokens of one step, laid out as llama.cpp wants them."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp
import numpy as np


class Batch:
    """A llama_batch over numpy arrays: a slice of tokens goes in with four assignments, not one call per token."""

    def __init__(self, size: int) -> None:
        self.tokens = np.zeros(size, np.int32)
        self.positions = np.zeros(size, np.int32)
        self.slots = np.zeros(size, np.int32)
        self.wanted = np.zeros(size, np.int8)  # whether the logits after this token are wanted
        self.size = size
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

    def add(self, slot: int, tokens: list[int], position: int, n_wanted: int) -> int:
        """Adds tokens of one sequence that stand from `position` on; the logits after the last `n_wanted` are wanted.

        Returns the row of the first of those.
        """
        end = self.n + len(tokens)
        if len(tokens) == 1:  # the usual step: numbers one by one cost a third of what slices do
            row = self.n
            self.tokens[row], self.positions[row], self.slots[row], self.wanted[row] = tokens[0], position, slot, n_wanted
            self.n = self.struct.n_tokens = end
            return end - n_wanted
        rows = slice(self.n, end)
        self.tokens[rows] = tokens
        self.positions[rows] = np.arange(position, position + len(tokens))
        self.slots[rows] = slot
        self.wanted[rows] = 0
        self.wanted[end - n_wanted : end] = 1
        self.n = self.struct.n_tokens = end
        return end - n_wanted


def _pointer(array: np.ndarray, ctype: Any) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctype))
