"""Tokens with their scores, laid out as llama.cpp's samplers want them."""

from __future__ import annotations

from typing import Any

import llama_cpp
import numpy as np

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


def as_array(rows: np.ndarray) -> Any:
    """A llama_token_data_array over rows of CANDIDATE, which must stay alive as long as it is used."""
    return llama_cpp.llama_token_data_array(rows.ctypes.data_as(llama_cpp.llama_token_data_p), len(rows), -1, False)
