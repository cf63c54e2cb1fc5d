"""What is known of a chat already: its second turn, and the same chat after a restart of the server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench import stream
from bench.figure import BenchError, Taken, taken
from bench.plan import Plan

N_ANSWER = 4  # tokens: the first one is what counts


class Chats:
    """New ones again and again, and the last of them after each restart."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._last: list[stream.Message] = []
        self._cold_s = 0.0  # to its first text when it was new
        self._n_words = 0

    def new(self, url: str) -> Iterator[Taken]:
        """Its first turn, and its second."""
        if not self._n_words:
            per_word = len(stream.tokenized(url, stream.text(100, "words"))) / 100
            self._n_words = round(self._plan.n_chat / per_word)
        self._last = [{"role": "user", "content": stream.text(self._n_words, time.time_ns())}]
        started = time.perf_counter()
        first = _answer(url, self._last)
        more = [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And then?"}]
        second_s = _answer(url, self._last + more).first_s
        self._cold_s = first.first_s
        values = {"turn__cold_first_s": self._cold_s, "turn__second_first_s": second_s}
        yield from taken(started, **values, turn__ratio=self._cold_s / second_s)

    def restarts(self, model: Path, options: tuple[str, ...]) -> Iterator[Taken]:
        """Of a server with the cache folder that the one before it had; that one has ended. Raises BenchError."""
        if not self._cold_s:
            raise BenchError("There is no chat that was new before the restart.")
        for turn in self._plan.turns():
            started = time.perf_counter()
            with stream.linnet(str(model), *options) as url:
                yield from taken(started, load__ready_s=time.perf_counter() - started)
                stream.ask(url, [{"role": "user", "content": f"{time.time_ns()}"}], 2)  # the first one is not counted
                started = time.perf_counter()
                known_s = _answer(url, self._last).first_s
                yield from taken(started, restart__known_first_s=known_s, restart__ratio=self._cold_s / known_s)
                if turn + 1 < self._plan.n_turns:
                    yield from self.new(url)


def _answer(url: str, chat: list[stream.Message]) -> stream.Answer:
    return stream.ask(url, chat, N_ANSWER).checked(N_ANSWER, least=1)
