"""The models that Linnet knows by a short name: where they are, and what is needed to tell how they would run here.

Knows nothing of what is installed. The entries stand in catalog.toml, each a table under the model's name.
"""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

CATALOG = Path(__file__).with_name("catalog.toml")
DEFAULT = "tinyllama"
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
FILE = re.compile(r"[A-Za-z0-9][\w.+-]*\.gguf", re.ASCII)
TYPES = {"str": str, "int": int, "bool": bool}


@dataclass(frozen=True)
class Entry:
    """One model. Checks itself: raises ValueError."""

    name: str
    repository: str  # owner/name on the hub
    file: str
    bytes: int  # of the file; some are approximate
    parameters: int
    layers: int
    kv_heads: int  # with layers and head_size: what a token of context costs in memory
    head_size: int
    embedding: int  # length of a token's vector
    feed_forward: int  # width of a layer's inner part
    vocabulary: int  # tokens
    context: int  # tokens it was trained for
    licence: str
    good_for: str
    reasoning: bool  # thinks aloud before it answers

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            # The annotations are strings, not evaluated; and bool would be an int for isinstance.
            if type(value) is not TYPES[str(field.type)] or value == "" or (type(value) is int and value < 1):
                raise ValueError(f"The catalog's {self.name!r} has a wrong {field.name}: {value!r}.")
        for pattern, value in ((NAME, self.name), (REPOSITORY, self.repository), (FILE, self.file)):
            if not pattern.fullmatch(value):
                raise ValueError(f"The catalog's {self.name!r} says {value!r}, which cannot be right.")


@functools.cache
def catalog(path: Path = CATALOG) -> dict[str, Entry]:
    """The entries by name, in the order of the file. Raises ValueError for a missing, unknown or wrong value, OSError."""
    entries = {}
    for name, table in tomllib.loads(path.read_text()).items():
        keys = {field.name for field in fields(Entry)} - {"name"}
        if not isinstance(table, dict) or table.keys() != keys:
            odd = sorted(table.keys() ^ keys) if isinstance(table, dict) else "no table"
            raise ValueError(f"The catalog's {name!r} has missing or unknown values: {odd}.")
        entries[name] = Entry(name=name, **table)
    return entries
