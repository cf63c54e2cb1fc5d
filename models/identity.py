"""Which model a file holds: its SHA-256, read once and remembered as long as the file's path and state stay."""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import re
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.request import stamp

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
    file: str  # the state of the file; see engine.request.stamp


def recall(path: Path, cache_dir: Path) -> Identity | None:
    """What is remembered of the file as it is now."""
    try:
        identity = Identity(**_known(cache_dir)[str(path)])
    except (KeyError, TypeError):  # not known, or written by a stranger
        return None
    return identity if identity.file == stamp(path) else None


def identify(path: Path, cache_dir: Path) -> Identity:
    """Reads the whole file the first time. Raises OSError."""
    if identity := recall(path, cache_dir):
        return identity
    if path.stat().st_size > LONG_BYTES:
        log.info("Reading %s for the first time ...", path)
    identity = _read(path)
    known = {name: entry for name, entry in _known(cache_dir).items() if Path(name).exists()} | {str(path): asdict(identity)}
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
    state = stamp(path)  # before it is read: a change meanwhile is one from this
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        with mmap.mmap(file.fileno(), min(HEAD_BYTES, path.stat().st_size), access=mmap.ACCESS_READ) as head:
            forms = {(double or single).decode(errors="replace") or EXACT for double, single, _ in CLOCK.findall(head)}
    return Identity(digest, sorted(forms), state)


class Watched:
    """The identity of a file that may be replaced while the server runs. Any thread may ask."""

    def __init__(self, path: Path, cache_dir: Path, wait: bool = True) -> None:
        """`wait`: reads the file if need be, else that is done in the background. Raises OSError."""
        self._path, self._cache_dir = path, cache_dir
        self._identity = identify(path, cache_dir) if wait else recall(path, cache_dir)
        self._reading = threading.Lock()

    def of(self, file: str) -> Identity | None:
        """The identity of the file in this state; None while it is not known, but found out in the background."""
        if self._identity and file == self._identity.file:
            return self._identity
        if file and self._reading.acquire(blocking=False):
            threading.Thread(target=self._read, name="identity", daemon=True).start()
        return None

    def _read(self) -> None:
        try:
            self._identity = identify(self._path, self._cache_dir)
        except OSError as error:
            log.warning("%s cannot be read (%s): its answers are not kept", self._path, error.strerror)
        finally:
            self._reading.release()
