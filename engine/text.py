"""From tokens' bytes to text that may be shown: characters are never split, stop strings never seen.

Knows nothing of models: bytes go in, text comes out.
"""

from __future__ import annotations

import codecs


class Text:
    """The growing text of one answer.

    `push` returns what can be shown for good. Bytes of an unfinished character wait for the rest of it; text that may be
    the beginning of a stop string waits until it cannot be one any more. Once `stopped`, nothing more is to be pushed.
    """

    def __init__(self, stop: list[str]) -> None:
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def push(self, piece: bytes, stops: bool = True) -> str:
        """The text made certain by the next token's bytes, maybe "". `stops`: stop strings may end with it."""
        text = self._decoder.decode(piece)
        if not self._stop:
            return text
        self._held += text
        if not stops:
            return self.finish()
        found = [at for at in map(self._held.find, self._stop) if at >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        n_kept = max(n_overlap(self._held, stop) for stop in self._stop)
        cut = len(self._held) - n_kept
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    @property
    def held(self) -> str:
        """What `finish` would return now."""
        return self._held

    def drop(self) -> None:
        """Forgets what is held back: the answer ends before it."""
        self._held = ""

    def finish(self) -> str:
        """What was still held back. An unfinished character at the very end is dropped: half of one helps nobody."""
        shown, self._held = self._held, ""
        return shown


def n_overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that `stop` begins with."""
    for n in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:n]):
            return n
    return 0
