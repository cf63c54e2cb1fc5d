"""How the next token is chosen: one native chain of samplers per sequence."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

import llama_cpp
import numpy as np

from engine.constraint import Grammar
from engine.native.candidates import CANDIDATE, as_array
from engine.request import Sampling

PENALTY_WINDOW = 64  # tokens looked back at by the repeat, presence and frequency penalties


class Sampler:
    """One sequence's own native chain of samplers, so that sequences never see each other's seed or penalties."""

    def __init__(self, sampling: Sampling, n_vocab: int) -> None:
        # Then the chain need not be asked: it copies all logits, 12 bytes each, to find the largest.
        self.takes_most_likely = sampling.temperature <= 0 and not _penalizes(sampling) and not sampling.logit_bias
        self.chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for link in self._links(sampling, n_vocab):
            llama_cpp.llama_sampler_chain_add(self.chain, link)

    @staticmethod
    def _links(s: Sampling, n_vocab: int) -> Iterable[Any]:
        if s.logit_bias:
            biases = (llama_cpp.llama_logit_bias * len(s.logit_bias))()
            for bias, (token, value) in zip(biases, s.logit_bias, strict=True):
                bias.token, bias.bias = int(token), value
            yield llama_cpp.llama_sampler_init_logit_bias(n_vocab, len(biases), biases)
        if _penalizes(s):
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

    def choose(self, logits: np.ndarray, grammar: Grammar) -> int:
        """The next token by these scores, (n_vocab,), of those that a grammar allows; it is noted. -1: there is none.

        To ask of one token whether it may come is quick, to ask of all of them is not; and it mostly may.
        """
        token = self._pick(logits)
        if not grammar.allows(token):
            token = self._pick(grammar.mask(logits))
        if token >= 0:
            llama_cpp.llama_sampler_accept(self.chain, token)
        return token

    def _pick(self, logits: np.ndarray) -> int:
        if self.takes_most_likely:
            token = int(logits.argmax())
            return token if np.isfinite(logits[token]) else -1
        possible = np.flatnonzero(np.isfinite(logits))
        if not len(possible):
            return -1
        candidates = np.zeros(len(possible), CANDIDATE)
        candidates["id"], candidates["logit"] = possible, logits[possible]
        array = as_array(candidates)
        llama_cpp.llama_sampler_apply(self.chain, ctypes.byref(array))
        return int(array.data[array.selected].id)

    def accept(self, tokens: Iterable[int]) -> None:
        """Takes note of tokens chosen before, by another chain."""
        for token in tokens:
            llama_cpp.llama_sampler_accept(self.chain, token)

    def close(self) -> None:
        """Frees the chain; its links go with it."""
        llama_cpp.llama_sampler_free(self.chain)


def _penalizes(s: Sampling) -> bool:
    return (s.repeat_penalty, s.frequency_penalty, s.presence_penalty) != (1.0, 0.0, 0.0)
