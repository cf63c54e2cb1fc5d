"""The vector of a text: the mean of what the model computes for each of its tokens, of length 1."""

from __future__ import annotations

import numpy as np

from engine.answer import Answer
from engine.native.model import Model


def go_on(model: Model, answer: Answer, n: int) -> list[float] | None:
    """Reads so many tokens more; the vector, once all are read. Raises engine.native.model.DecodeError."""
    assert answer.slot is not None
    tokens = answer.tokens[answer.n_read : answer.n_read + n]
    model.batch.clear()
    model.batch.add(answer.slot, tokens, answer.n_read, len(tokens))
    added = model.vectors().sum(axis=0)
    answer.vector = added if answer.vector is None else answer.vector + added
    answer.n_read += len(tokens)
    if answer.reading:
        return None
    vector: list[float] = (answer.vector / (float(np.linalg.norm(answer.vector)) or 1.0)).tolist()
    return vector
