"""The worker's heartbeat: since when it has been inside native code, and for whom. A few bytes shared with the front.

A step that never returns cannot say so on the pipe. Here it is said before each step, for the price of writing memory.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from typing import Self

LAYOUT = struct.Struct("=d32s")  # when it went in (time.monotonic; 0: it is outside), and the request it is there for


class Beat:
    """One side of the shared bytes. The front makes them; the worker opens them by the descriptor it inherits."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _new() if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, LAYOUT.size)

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
    """The descriptor of LAYOUT.size bytes, of memory alone where that can be had: a full disk is fatal to a mapped file."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("linnet-beat")
    else:
        with tempfile.TemporaryFile(prefix="linnet-") as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, bytes(LAYOUT.size))
    return descriptor
