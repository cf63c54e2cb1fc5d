"""Which GGUF files there are, which one is meant, and whether it can be one at all.

A model's name is its file's name without `.gguf`. The demo model is always there, under the name `demo`.
"""

from __future__ import annotations

import os
from pathlib import Path

HOME = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("LINNET_MODELS_DIR") or HOME).expanduser().resolve()
DEMO = HOME / "demo" / "demo.gguf"
LAST = "last-model"  # file in the cache folder


class StoreError(Exception):
    """The model asked for is not there or is no model; the message is a sentence for the user."""


def installed(folder: Path = FOLDER) -> dict[str, Path]:
    """The models in the folder by name, the demo last."""
    found = {path.stem: path for path in sorted(folder.glob("*.gguf"))}
    return found | ({DEMO.stem: DEMO} if DEMO.exists() else {})


def remove(name: str, folder: Path = FOLDER) -> None:
    """Deletes a model of the folder. Raises StoreError for others, OSError."""
    path = installed(folder).get(name)
    if not path or path.parent != folder:
        raise StoreError(f"{name} is not in the folder of models, so it is not deleted.")
    path.unlink()


def find(wanted: str | None, cache_dir: Path | None = None, folder: Path = FOLDER) -> Path:
    """The checked, absolute path of the model meant by a path or name; None: the last used one, else the demo.

    Raises StoreError.
    """
    if wanted is None:
        try:
            return find(_last(cache_dir), folder=folder)
        except (OSError, StoreError, ValueError):  # none yet, or it is gone
            return check(DEMO)
    models = installed(folder)
    if wanted in models:
        return check(models[wanted])
    try:
        return check(Path(wanted).expanduser(), folder)
    except RuntimeError as error:  # a home directory that is not there
        raise StoreError(f"{wanted} cannot be found: {error}") from error


def remember(path: Path, cache_dir: Path, folder: Path = FOLDER) -> None:
    """Makes `path` the model of the next run that names none. Raises OSError."""
    cache_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = path.stem  # a name stays true when the folder is moved
    (cache_dir / LAST).write_text(name if installed(folder).get(name) == path else str(path))


def _last(cache_dir: Path | None) -> str:
    return (cache_dir / LAST).read_text() if cache_dir else DEMO.stem


def check(path: Path, folder: Path = FOLDER) -> Path:
    """The absolute path, if the file begins as a GGUF does. Raises StoreError.

    Only what is cheap and has a better sentence than llama.cpp's: it checks the rest when it loads the file.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a directory, not a GGUF file.")
    if not path.exists():
        raise StoreError(f"There is no model {path}; installed are: {', '.join(installed(folder)) or 'none'}.")
    if not path.is_file():
        raise StoreError(f"{path} is not a regular file.")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.") from error
    if not head:
        raise StoreError(f"{path} is empty.")
    if head.lstrip()[:1] == b"<":
        raise StoreError(f"{path} is a web page, not a GGUF file; the download went wrong, fetch it again.")
    if head[:4] != b"GGUF":
        raise StoreError(f"{path} is not a GGUF file.")
    return path.resolve()
