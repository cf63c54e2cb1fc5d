"""A checkpoint's folder, by strangers: its files are opened here and nowhere else.

Only files with a plain name, that lie in the folder and are no larger than they may be. A link out of it could carry some
private file into the model that is given away. (In the cache of Hugging Face's library links lead to the folder `blobs`.)
Nothing is ever imported, run or unpickled.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from convert.errors import ConvertError

CONFIG_BYTES = 2**20
TEMPLATE_BYTES = 2**20
TOKENIZER_BYTES = 2**26  # 64 MiB: that of 262,144 tokens has 33 MB


class Folder:
    """The files of a checkpoint by name; `with` closes them. Everything raises ConvertError."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ConvertError(f"{path} is not a folder with a checkpoint.")
        self.path = path
        self._root = path.resolve()
        in_cache = self._root.parent.name == "snapshots"
        self._roots = [self._root, *([self._root.parent.parent / "blobs"] if in_cache else [])]
        self._opened: list[BinaryIO] = []

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._opened:
            file.close()

    def has(self, name: str) -> bool:
        """Whether something of this name is there."""
        return (self.path / name).exists()

    def names(self) -> list[str]:
        """Of everything in it."""
        return sorted(entry.name for entry in self.path.iterdir())

    def open(self, name: str) -> BinaryIO:
        """The file, unbuffered."""
        if not name or name in (".", "..") or any(letter in name for letter in "/\\\0"):
            raise ConvertError(f"The checkpoint names a file outside its folder: {name[:80]!r}.")
        try:
            target = (self.path / name).resolve(strict=True)
            if not any(target.is_relative_to(root) for root in self._roots):
                raise ConvertError(f"{self.path / name} is a link out of the checkpoint's folder.")
            number = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise ConvertError(f"There is no {name} in {self.path}.") from error
        except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links
            raise ConvertError(f"{self.path / name} cannot be read: {getattr(error, 'strerror', error)}.") from error
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise ConvertError(f"{self.path / name} is not a regular file.")
        self._opened.append(os.fdopen(number, "rb", buffering=0))
        return self._opened[-1]

    def read(self, name: str, most_bytes: int) -> bytes:
        """All of a small file."""
        with self.open(name) as file:
            if (n_bytes := os.fstat(file.fileno()).st_size) > most_bytes:
                raise ConvertError(f"{name} has {n_bytes} bytes, more than the {most_bytes} it may have.")
            try:
                return file.read(most_bytes + 1)
            except OSError as error:
                raise ConvertError(f"{self.path / name} cannot be read: {error.strerror}.") from error

    def text(self, name: str, most_bytes: int) -> str:
        """A file in UTF-8."""
        try:
            return self.read(name, most_bytes).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConvertError(f"{name} is not UTF-8.") from error

    def json(self, name: str, most_bytes: int) -> dict[str, Any]:
        """A file with one JSON object."""
        return parse_object(self.text(name, most_bytes), name)

    def json_if_there(self, name: str, most_bytes: int) -> dict[str, Any]:
        """The same, empty if there is none."""
        return self.json(name, most_bytes) if self.has(name) else {}


def parse_object(text: str | bytes, name: str) -> dict[str, Any]:
    """One JSON object whose keys are all different. Raises ConvertError."""
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ConvertError(f"{name} is not JSON ({str(error)[:100]}).") from error
    if not isinstance(value, dict):
        raise ConvertError(f"{name} is not a JSON object.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(name: str) -> Any:
    if name != "Infinity":  # transformers writes it for "no limit"
        raise ValueError(f"{name} is no number")
    return float("inf")
