"""A worker that gets stuck in native code: in the sampler of a request with the seed STUCK_SEED, or in one decode call.

    python -m tests.stuck_worker DESCRIPTOR     as engine.worker

LINNET_TEST_STUCK names a file: the decode call that finds it removes it and does not come back.
"""

import os
import threading
from pathlib import Path
from unittest import mock

from engine import worker
from engine.constraint import Grammar
from engine.native.model import Model
from engine.native.sampler import Sampler
from engine.request import Sampling

STUCK_SEED = 666


class StuckModel(Model):
    stuck: Sampler | None = None

    def sampler(self, sampling: Sampling) -> Sampler:
        sampler = super().sampler(sampling)
        if sampling.seed == STUCK_SEED:
            self.stuck = sampler
        return sampler

    def sample(self, sampler: Sampler, row: int, grammar: Grammar | None = None) -> int:
        if sampler is self.stuck:
            threading.Event().wait()
        return super().sample(sampler, row, grammar)

    def decode(self) -> None:
        file = Path(os.environ["LINNET_TEST_STUCK"])
        if file.exists():
            file.unlink()
            threading.Event().wait()
        super().decode()


if __name__ == "__main__":
    with mock.patch.object(worker, "Model", StuckModel):
        worker.main()
