"""Prompt lookup: what followed the last time these tokens stood here, as a guess at what follows now.

A guess costs: on a few cores a step of sixteen tokens takes seven times as long as a step of one. So a guess is made
only from a long match, and only as long as the measured costs and its own success say that it gains. Verified by the
sampler itself, token by token, so the answer is what it would have been. Knows nothing of models.
"""

from __future__ import annotations

from engine.costs import PATIENCE, Costs

N_GRAM = 5  # tokens that must stand there as they stand here
LENGTHS = (3, 7, 11, 15, 31)  # with the token before it that makes 4, 8, 12, 16, 32, which the kernels like
GAIN = 1.1  # tokens a second must rise by so much: the costs are measured, not sure
PRIOR, PRIOR_WEIGHT = 0.9, 3.0  # of a guess's token being right, before anything is known, and how firmly
FADE = 0.85  # how much of what was seen is remembered after each guess


class Lookup:
    """The tokens of one answer and its prompt, and how well guesses from them have done."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens  # the sequence's own list: it grows
        self._seen: dict[tuple[int, ...], int] = {}  # where each n-gram was last followed by something
        self._n_seen = 0
        self._at: int | None = None  # what comes is what stands here, as far as it is known
        self._silent = False  # that was not said, for it would not have paid
        self._right = PRIOR * PRIOR_WEIGHT
        self._tried = PRIOR_WEIGHT

    def guess(self, n_others: int, costs: Costs, n_most: int) -> list[int]:
        """What probably follows, at most `n_most` tokens; [] when that does not pay in a step with n_others answers more."""
        self._index()
        if self._at is None:
            self._at = self._seen.get(tuple(self._tokens[-N_GRAM:]))
        if self._at is None:
            return []
        n = max(0, min(self._length(n_others, costs), n_most))
        self._silent = n == 0
        return self._tokens[self._at : self._at + n]

    def learn(self, n_right: int, n_guessed: int) -> None:
        """How a guess did: its first `n_right` tokens came, the next did not."""
        self._right = self._right * FADE + n_right
        self._tried = self._tried * FADE + n_right + (n_right < n_guessed)

    def _index(self) -> None:
        # An n-gram is entered once a token follows it, so that the last one does not find itself.
        for end in range(max(N_GRAM, self._n_seen), len(self._tokens)):
            self._seen[tuple(self._tokens[end - N_GRAM : end])] = end
        for token in self._tokens[self._n_seen :]:
            if self._at is None:
                break
            # A copy is followed where it is, though a later place may have the last few tokens, too.
            right = self._tokens[self._at] == token
            if self._silent:  # what was not tried is learnt from for free
                self.learn(int(right), 1)
            self._at = self._at + 1 if right else None
        self._n_seen = len(self._tokens)

    def _length(self, n_others: int, costs: Costs) -> int:
        """The number of guessed tokens with which all answers of the step get the most tokens a second; 0: none."""
        p = min(self._right / self._tried, 0.995)
        best, best_rate = 0, GAIN * (n_others + 1) / costs(n_others + 1)
        for n in LENGTHS:
            if n_others and costs(n_others + 1 + n) > PATIENCE * costs(n_others + 1):
                break  # the others would wait for it
            n_expected = n_others + (1 - p ** (n + 1)) / (1 - p)
            if (rate := n_expected / costs(n_others + 1 + n)) > best_rate:
                best, best_rate = n, rate
        return best
