"""Fetches a checkpoint from the Hugging Face hub into models/.checkpoints/: weights and data, no code and no pickles."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError, RepositoryNotFoundError  # type: ignore[attr-defined]

from convert.errors import ConvertError
from models.store import FOLDER

CHECKPOINTS = FOLDER / ".checkpoints"
WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model"]
UNWANTED = ["*/*"]  # subfolders hold the same weights in other forms
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def fetch(source: str, checkpoints: Path = CHECKPOINTS) -> Path:
    """The folder of a checkpoint: `source` itself, or where the repository of that name was fetched to.

    The hub's library goes on with a broken download. Raises ConvertError.
    """
    local = Path(source).expanduser()
    if local.is_dir():
        return local
    if local.exists() or not REPOSITORY.fullmatch(source):
        raise ConvertError(f"{source} is neither a folder nor the name of a repository (owner/name).")
    folder = checkpoints / source.replace("/", "--")
    try:
        snapshot_download(source, allow_patterns=WANTED, ignore_patterns=UNWANTED, local_dir=folder)
        _check(source, folder)
    except RepositoryNotFoundError as error:
        raise ConvertError(f"The hub has no repository {source} (or it needs HF_TOKEN).") from error
    except HFValidationError as error:
        raise ConvertError(f"{source!r} is no repository name; it should look like owner/name.") from error
    except (HTTPError, OSError, ValueError, TypeError, KeyError) as error:  # the last three: the hub's listing is none
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConvertError(f"The download failed ({reason}); the same command goes on where it stopped.") from error
    return folder


def _check(source: str, folder: Path) -> None:
    """Compares the large files with the hub's records: its library looks at their sizes only. Raises ConvertError."""
    for file in HfApi().model_info(source, files_metadata=True).siblings or []:
        path = folder / Path(file.rfilename).name
        if not file.lfs or Path(file.rfilename).name != file.rfilename or not path.is_file():
            continue
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != file.lfs.sha256:
            path.unlink()
            raise ConvertError(f"{path.name} is not what the hub says it is (SHA-256), so it was deleted; try again.")
