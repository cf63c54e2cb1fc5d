"""The worker's heartbeat: since when it has been inside native code, and for whom. A few bytes shared with the front.

A step that never returns cannot say so on the pipe. Here it is said before each step, for the price of writing memory; and
so it is counted what the steps have done.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from typing import Self

LAYOUT = struct.Struct("=d32s")  # when it went in (time.monotonic; 0: it is outside), and the request it is there for
COUNTS = struct.Struct("@5Q")  # after that: the arguments of engine.tally.Tally.work, summed up; each is written at once
SIZE = LAYOUT.size + COUNTS.size


class Beat:
    """One side of the shared bytes. The front makes them; the worker opens them by the descriptor it inherits."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _new() if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, SIZE)
        self._counts = [0] * 5  # as this side knows them

    def enter(self, id: str = "") -> None:
        """The worker: goes into native code, for one request alone or for all."""
        LAYOUT.pack_into(self._memory, 0, time.monotonic(), id.encode())

    def leave(self) -> None:
        """The worker: is back."""
        LAYOUT.pack_into(self._memory, 0, 0.0, b"")

    def inside_for(self, id: str = "") -> Self:
        """The worker: is inside for as long as the `with` block takes."""
        self.enter(id)
        return self

    def step(self, n_sequences: int) -> Self:
        """The worker: the same for a step of so many sequences, which is counted."""
        self._count(1, n_sequences, 0, 0, 0)
        return self.inside_for()

    def guessed(self, n: int, n_right: int) -> None:
        """The worker: so many tokens were guessed, so many of them right."""
        self._count(0, 0, 1, n, n_right)

    def news(self) -> list[int]:
        """The front: what has been counted since it was asked last."""
        before, self._counts = self._counts, list(COUNTS.unpack_from(self._memory, LAYOUT.size))
        return [now - then for now, then in zip(self._counts, before, strict=True)]

    def _count(self, *more: int) -> None:
        self._counts = [n + m for n, m in zip(self._counts, more, strict=True)]
        COUNTS.pack_into(self._memory, LAYOUT.size, *self._counts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def inside(self) -> tuple[float, str]:
        """The front: for how many seconds the worker has been inside (0: it is not), and for whom ("": for all)."""
        try:
            since, id = LAYOUT.unpack_from(self._memory, 0)
            if (since, id) != LAYOUT.unpack_from(self._memory, 0):  # being written just now
                return 0.0, ""
        except ValueError:  # closed just now
            return 0.0, ""
        return (time.monotonic() - since if since else 0.0), id.rstrip(b"\0").decode(errors="replace")

    def close(self) -> None:
        """Lets go of the bytes."""
        self._memory.close()
        os.close(self.descriptor)


def _new() -> int:
    """The descriptor of SIZE bytes, of memory alone where that can be had: a full disk is fatal to a mapped file."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("linnet-beat")
    else:
        with tempfile.TemporaryFile(prefix="linnet-") as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, bytes(SIZE))
    return descriptor
