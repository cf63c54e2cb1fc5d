"""What the head of a GGUF file is made of: types, numbers, texts, lists. `engine.header` puts them together.

The file is a stranger's: a Fields walks through it from the start, never backwards, and compares every length with what is
left of the file before it takes a step. Lists are kept as they lie in the file: a vocabulary has 150,000 texts and is
rarely looked at.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

HEAD_BYTES = 2**26  # 64 MiB: the head of a file with 262,144 tokens has 15 MB
CHUNK_BYTES = 2**20
N_SHOWN = 80  # characters of a name in a message

# Of each type of weights: its name, how many make a block and how many bytes a block has.
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}
# Of each type of values, as struct writes it; besides there are texts and lists.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
LENGTH_BYTES = 8  # a text's length stands before it


class HeaderError(ValueError):
    """The file is no GGUF, is damaged or was made to do harm; the message is a sentence for the user."""


class Texts(Sequence[str]):
    """A long list of texts that were checked but not decoded: a vocabulary is rarely looked at."""

    def __init__(self, data: bytes, starts: array[int]) -> None:
        self._data, self._starts = data, starts  # each start is that of a length; one more stands at the end

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        return self._data[self._starts[i] + LENGTH_BYTES : self._starts[i + 1]].decode(errors="replace")

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


class Fields:
    """A place in an open file that only moves forward. All methods raise HeaderError and OSError."""

    def __init__(self, path: Path, file: BinaryIO, n_bytes: int) -> None:
        self.path, self.n_bytes, self.at = path, n_bytes, 0
        self._file, self._data = file, bytearray()

    def number(self, kind: str) -> Any:
        """One number or bool."""
        return struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)))[0]

    def text(self, most_bytes: int = HEAD_BYTES) -> str:
        """A text. What is no UTF-8 in it is replaced."""
        n_bytes = self.number("Q")
        if n_bytes > most_bytes:
            raise self.bad(f"a text of {n_bytes} bytes stands where {most_bytes} are allowed")
        return self.take(n_bytes).decode(errors="replace")

    def value(self, key: str) -> Any:
        """A value with its type before it: a number, bool, str, array of numbers or Texts."""
        kind = self.number("I")
        if kind == TEXT:
            return self.text()
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind != LIST:
            raise self.bad(f"the value of {shown(key)} has the unknown type {kind}")
        kind, n = self.number("I"), self.number("Q")
        if kind == TEXT:
            return self._texts(n)
        if kind not in NUMBERS:  # lists of lists: nobody has them and llama.cpp refuses them
            raise self.bad(f"{shown(key)} is a list of the unknown type {kind}")
        letter = "B" if NUMBERS[kind] == "?" else NUMBERS[kind]
        return array(letter, self.take(n * struct.calcsize("<" + letter)))

    def _texts(self, n: int) -> Texts:
        if n * LENGTH_BYTES > self.n_bytes - self.at:
            raise self.bad(f"a list of {n} texts does not fit into the file")
        start, data, length = self.at, self._data, struct.Struct("<Q")
        starts, at, known = array("Q", [0]), self.at, len(self._data)
        for _ in range(n):  # 150,000 times, so nothing is called that need not be
            if at + LENGTH_BYTES > known:
                known = self._read_to(at + LENGTH_BYTES)
            at += LENGTH_BYTES + length.unpack_from(data, at)[0]
            if at > known:
                known = self._read_to(at)
            starts.append(at - start)
        self.at = at
        return Texts(bytes(data[start:at]), starts)

    def take(self, n_bytes: int) -> bytes:
        """The next bytes."""
        end = self.at + n_bytes
        self._read_to(end)
        taken = bytes(self._data[self.at : end])
        self.at = end
        return taken

    def peek(self, n_bytes: int) -> bytes:
        """As many of the next bytes as there are, without a step."""
        end = min(self.at + n_bytes, self.n_bytes)
        self._read_to(end)
        return bytes(self._data[self.at : end])

    def _read_to(self, end: int) -> int:
        """Reads on until `end` is known, in chunks; returns how much is known."""
        if end > self.n_bytes:
            raise self.bad("it ends in the middle of its head")
        if end > HEAD_BYTES:
            raise self.bad(f"its head is larger than {HEAD_BYTES >> 20} MiB")
        while len(self._data) < end:
            chunk = self._file.read(CHUNK_BYTES)
            if not chunk:  # it became shorter meanwhile
                raise self.bad("it ends in the middle of its head")
            self._data += chunk
        return len(self._data)

    def bad(self, why: str) -> HeaderError:
        """The error for a file that begins like a GGUF and goes wrong."""
        return HeaderError(f"{self.path} is damaged: {why}.")


def shown(name: str) -> str:
    """A name out of the file as a message can show it."""
    return repr(name if len(name) <= N_SHOWN else name[:N_SHOWN] + "...")
