"""What is computed already of a new prompt, or is being computed just now: found, put back, kept for the next.

Three places are looked at: the sequences that run (their beginning is copied at no cost), memory and disk (engine.prefix).
A prompt that begins like one that is being read waits for it, as its follower, instead of reading the same twice.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from engine.answer import Answer
from engine.beat import Beat
from engine.native.model import Model
from engine.prefix import N_LEAST, Piece, Prefixes, n_common

N_FOLLOW = 32  # tokens in common with a prompt that is being read, for which it is worth waiting until they are


class Recall:
    """The memory of a model's context. Where states cannot be cut and copied it knows nothing."""

    def __init__(self, model: Model, prefixes: Prefixes, beat: Beat) -> None:
        self._model, self._prefixes, self._beat = model, prefixes, beat

    def begin(self, answer: Answer, running: list[Answer]) -> None:
        """Gives a sequence the longest prefix of its prompt that is computed, or a leader that computes it just now."""
        answer.leader = None
        if not self._model.keeps_states or answer.slot is None:
            return
        n_most = answer.n_given - 1  # the last token is computed in any case: the next one is sampled after it
        path = self._prefixes.match(answer.tokens[:n_most])
        n_kept = path[-1].stop if path else 0
        others = list(_others(answer, running, n_most))
        n_live, live = max(((min(n, other.n_read), other) for n, other in others), key=_first, default=(0, None))
        coming = ((n, other) for n, other in others if other.reading and not other.background and not other.apart)
        n_coming, leader = max(coming, key=_first, default=(0, None))
        if leader and n_coming >= max(n_live, n_kept) + N_FOLLOW:
            answer.leader, answer.n_awaited = leader, n_coming
            return
        if live and live.slot is not None and n_live > n_kept:
            self._model.copy(live.slot, answer.slot, n_live)
            answer.n_read = n_live
        elif n_kept >= N_LEAST:
            self._restore(answer, path)
        answer.n_cached = min(answer.n_read, answer.n_prompt)

    def go_on(self, running: list[Answer]) -> None:
        """Gives followers what they waited for, or another leader when theirs has gone."""
        for answer in running:
            if (leader := answer.leader) and (leader.slot is None or leader.n_read >= answer.n_awaited):
                self.begin(answer, running)

    def n_unknown(self, answer: Answer) -> int:
        """Tokens of a waiting prompt that are in neither memory nor disk."""
        path = self._prefixes.match(answer.tokens)
        return answer.n_left - (path[-1].stop if path else 0)

    def keep(self, tokens: list[int], slot: int, private: bool) -> None:
        """Keeps what the slot holds, computed for these tokens, before it is given to somebody else."""
        if self._model.keeps_states:
            self._prefixes.add(tokens, functools.partial(self._model.state, slot), private)

    def write(self) -> None:
        """What is only in memory goes to disk as well. For when there is nothing else to do."""
        self._prefixes.write()

    def _restore(self, answer: Answer, path: list[Piece]) -> None:
        """Puts the known states back, as far as they can be read and fit."""
        assert answer.slot is not None
        for i, piece in enumerate(path):
            with self._beat.inside_for(answer.id):
                state = self._prefixes.read(piece)
                if not state or not self._model.restore(answer.slot, state, answer.n_read, piece.stop):
                    self._prefixes.forget(piece)
                    path = path[:i]
                    break
            answer.n_read = piece.stop
        self._prefixes.use(path)


def _others(answer: Answer, running: list[Answer], n_most: int) -> Iterator[tuple[int, Answer]]:
    """How many tokens each running sequence has in common with this one."""
    for other in running:
        if other is not answer and other.admitted and not other.leader:  # else it has not been looked at itself yet
            yield min(n_common(other.tokens, answer.tokens), n_most), other


def _first(pair: tuple[int, Answer]) -> int:
    return pair[0]
