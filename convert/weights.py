"""The weights of a checkpoint: *.safetensors, one file or several with an index, read in pieces of some MiB.

A file begins with the length of its header (8 bytes) and a JSON object: of each tensor its type, shape and the bytes where
it begins and ends behind the header. All of that is compared with the file before anything is read. It is read, not mapped:
a file that is cut short meanwhile is then an error and not the end of the process.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from convert.errors import ConvertError
from convert.folder import Folder, parse_object

HEADER_BYTES = 2**25  # 32 MiB
INDEX_BYTES = 2**25
N_FILES = 1024
PIECE_ELEMENTS = 2**22  # converted at a time: 16 MiB in F32
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Weight:
    """Where a tensor lies."""

    file: BinaryIO
    dtype: str
    shape: tuple[int, ...]  # rows first
    start: int  # bytes from the start of the file

    @property
    def n_elements(self) -> int:
        """How many weights it has."""
        return prod(self.shape)

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Its elements in order, in F32. Raises ConvertError."""
        dtype = DTYPES[self.dtype]
        for done in range(0, self.n_elements, PIECE_ELEMENTS):
            n = min(PIECE_ELEMENTS, self.n_elements - done)
            data = self._read(self.start + done * dtype.itemsize, n * dtype.itemsize)
            piece = np.frombuffer(data, dtype)
            # BF16 is the upper half of F32.
            yield (piece.astype("<u4") << 16).view("<f4") if self.dtype == "BF16" else piece.astype("<f4", copy=False)

    def _read(self, start: int, n_bytes: int) -> bytearray:
        data = bytearray(n_bytes)
        view, done = memoryview(data), 0
        while done < n_bytes:
            try:
                n = os.preadv(self.file.fileno(), [view[done:]], start + done)
            except OSError as error:
                raise ConvertError(f"The checkpoint's weights cannot be read: {error.strerror}.") from error
            if not n:
                raise ConvertError("A file with weights became shorter while it was read.")
            done += n
        return data


def open_weights(folder: Folder) -> dict[str, Weight]:
    """All weights by name; their files stay open as long as they are held. Raises ConvertError."""
    weights: dict[str, Weight] = {}
    for name, promised in _files(folder).items():
        found = _read_header(folder.open(name), name)
        for missing in promised - found.keys():
            raise ConvertError(f"{name} lacks the tensor {missing[:80]!r} that the index promises.")
        for key in promised or found:
            weights[key] = found[key]
    return weights


def _files(folder: Folder) -> dict[str, set[str]]:
    """The files by name and the tensors the index says are in them; without an index nothing is said."""
    if not folder.has(INDEX):
        if folder.has(SINGLE):
            return {SINGLE: set()}
        if any(name.endswith(PICKLES) for name in folder.names()):
            raise ConvertError("The checkpoint has only pickled weights, which can run code; look for one in safetensors.")
        raise ConvertError(f"There is neither {SINGLE} nor {INDEX} in {folder.path}.")
    placed = folder.json(INDEX, INDEX_BYTES).get("weight_map")
    if not isinstance(placed, dict) or not placed or not all(isinstance(name, str) for name in placed.values()):
        raise ConvertError(f"{INDEX} does not say which file has which tensor.")
    files: dict[str, set[str]] = {}
    for tensor, name in placed.items():
        files.setdefault(name, set()).add(tensor)
    if len(files) > N_FILES:
        raise ConvertError(f"{INDEX} names {len(files)} files; at most {N_FILES} are read.")
    for name in files:
        if not name.endswith(".safetensors"):
            raise ConvertError(f"{INDEX} names {name[:80]!r}, which is no safetensors file.")
    return files


def _read_header(file: BinaryIO, name: str) -> dict[str, Weight]:
    n_file = os.fstat(file.fileno()).st_size
    n_header = int.from_bytes(file.read(8), "little")
    if n_file < 8 or n_header > n_file - 8:
        raise ConvertError(f"{name} is cut or no safetensors file: its header would have {n_header} bytes.")
    if n_header > HEADER_BYTES:
        raise ConvertError(f"The header of {name} has {n_header} bytes, more than the {HEADER_BYTES} it may have.")
    header = parse_object(file.read(n_header), f"The header of {name}")
    header.pop("__metadata__", None)
    n_data = n_file - 8 - n_header
    spans: list[tuple[int, int, str]] = []
    weights = {}
    for key, entry in header.items():
        dtype, shape, start, end = _entry(key, entry, name)
        if not 0 <= start <= end <= n_data:
            raise ConvertError(f"The tensor {key[:80]!r} lies outside {name}, which may be cut; fetch it again.")
        if dtype in DTYPES and prod(shape) * DTYPES[dtype].itemsize != end - start:
            raise ConvertError(f"The tensor {key[:80]!r} in {name} has not as many bytes as its shape needs.")
        spans.append((start, end, key))
        weights[key] = Weight(file, dtype, shape, 8 + n_header + start)
    spans.sort()
    for (_, end, before), (start, _, key) in itertools.pairwise(spans):
        if start < end:
            raise ConvertError(f"The tensors {before[:80]!r} and {key[:80]!r} in {name} overlap.")
    return weights


def _entry(key: str, entry: Any, name: str) -> tuple[str, tuple[int, ...], int, int]:
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ConvertError(f"The header of {name} does not say what and where the tensor {key[:80]!r} is.") from error
    numbers = [*shape, start, end] if isinstance(shape, list) and len(shape) <= 8 else [None]
    if not isinstance(dtype, str) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise ConvertError(f"The header of {name} has impossible numbers for the tensor {key[:80]!r}.")
    return dtype, tuple(shape), start, end
