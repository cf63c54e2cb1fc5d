"""The worker's loop in the test's own process, driven step by step."""

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.beat import Beat
from engine.costs import Costs
from engine.governor import Governor
from engine.loop import Loop
from engine.native.model import Model
from engine.prefix import Prefixes
from engine.request import Command, Config, Delta, Failed, Finished, Limits, Request, Word
from engine.scheduler import step_size
from engine.states import States
from tests.conftest import DEMO

N_SLOTS = 4
CHEAP = {1: 0.020, 4: 0.022, 8: 0.024, 16: 0.028, 32: 0.040, 128: 0.12}  # a machine on which guesses pay


class Rig:
    """A loop whose words are kept."""

    def __init__(self, model: Model, config: Config, states: States | None = None, ram_bytes: int = 2**28) -> None:
        costs = Costs(CHEAP)
        governor = Governor(1, costs, lambda: 0.0)
        self.inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.words: list[Word] = []
        self.n_sent = 0  # messages to the front
        self.prefixes = Prefixes(ram_bytes, states or States(None, "", 0))
        self.beat = Beat()
        self.loop = Loop(model, config, (costs, governor, self.prefixes, self.beat), self.inbox, self._send)
        self.n_steps = 0
        self.n_read = 0  # tokens computed
        self._model = model

    def _send(self, words: list[Word]) -> None:
        self.words += words
        self.n_sent += 1

    def put(self, *commands: Command) -> None:
        for command in commands:
            self.inbox.put(command)
        while not self.inbox.empty():  # it takes what it can in a few milliseconds
            self.loop.take()

    def step(self) -> None:
        self._model.batch.clear()
        self.loop.step()
        self.n_steps += 1
        self.n_read += self._model.batch.n

    def run(self, *commands: Command) -> None:
        """Until all that was asked has ended."""
        self.put(*commands)
        while self.loop.answers:
            self.step()

    def text(self, id: str) -> str:
        return "".join(word.text for word in self.words if isinstance(word, Delta) and word.id == id)

    def tokens(self, id: str) -> list[int]:
        return [token for word in self.words if isinstance(word, Delta) and word.id == id for token in word.tokens]

    def end(self, id: str) -> Finished:
        (end,) = (word for word in self.words if isinstance(word, Finished) and word.id == id)
        return end

    def failure(self, id: str) -> Failed:
        (end,) = (word for word in self.words if isinstance(word, Failed) and word.id == id)
        return end


def load(path: Path) -> Model:
    config = Config(str(path), 1024, N_SLOTS, 1)
    return Model(config, *step_size(config))


@contextmanager
def rigs(model: Model) -> Iterator[Callable[..., Rig]]:
    """Makes rigs of one model, each with a memory of its own."""
    made = []

    def rig(draft: bool = False, limits: Limits | None = None, **options: Any) -> Rig:
        config = Config(str(DEMO), 1024, N_SLOTS, 1, draft=draft, limits=limits or Limits())
        made.append(Rig(model, config, **options))
        return made[-1]

    yield rig
    for r in made:
        for answer in r.loop.answers:  # what still runs would stay in the slots of the model that all tests share
            r.loop.remove(answer)
        r.prefixes.close()
        r.beat.close()


def chat(*turns: str) -> list[dict[str, Any]]:
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": turn} for i, turn in enumerate(turns)]


def ask(id: str, *turns: str, **fields: Any) -> Request:
    return Request(id, chat(*turns), **fields)
