"""Which model a file holds: its SHA-256, read once and remembered as long as path, size and time of the file stay."""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger("linnet")
REMEMBERED = "models.json"  # file in the cache folder
LONG_BYTES = 2**30  # such a file takes so long to read that it is worth a line in the log
HEAD_BYTES = 2**26  # the chat template stands in the first so many bytes of a GGUF
CLOCK = re.compile(rb"""strftime_now\s*\(\s*(?:"([^"\\]*)"|'([^'\\]*)'|([^)]*))""")
EXACT = "%c %f"  # a date whose form we cannot see may say the time to the moment


@dataclass(frozen=True)
class Identity:
    """All of a model file that an answer depends on."""

    sha256: str
    clock: list[str]  # the forms in which its chat template asks for the date


def identify(path: Path, cache_dir: Path) -> Identity:
    """Reads the whole file the first time. Raises OSError."""
    status = path.stat()
    facts = f"{status.st_size} {status.st_mtime_ns}"
    known = _known(cache_dir)
    try:
        entry = known[str(path)]
        if entry["facts"] == facts:
            return Identity(**entry["identity"])
    except (KeyError, TypeError):
        pass  # not known, or written by a stranger
    if status.st_size > LONG_BYTES:
        log.info("Reading %s for the first time ...", path)
    identity = _read(path)
    known = {name: e for name, e in known.items() if Path(name).exists()} | {
        str(path): {"facts": facts, "identity": asdict(identity)}
    }
    try:
        cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = cache_dir / f"{REMEMBERED}.{time.time_ns()}"
        beside.write_text(json.dumps(known, indent=1))
        beside.replace(cache_dir / REMEMBERED)
    except OSError as error:
        log.warning("%s cannot be written (%s): the model will be read again", cache_dir / REMEMBERED, error.strerror)
    return identity


def _known(cache_dir: Path) -> dict[str, Any]:
    try:
        known = json.loads((cache_dir / REMEMBERED).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _read(path: Path) -> Identity:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        with mmap.mmap(file.fileno(), min(HEAD_BYTES, path.stat().st_size), access=mmap.ACCESS_READ) as head:
            forms = {(double or single).decode(errors="replace") or EXACT for double, single, _ in CLOCK.findall(head)}
    return Identity(digest, sorted(forms))
