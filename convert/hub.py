"""Fetches a checkpoint from the Hugging Face hub into models/.checkpoints/: weights and data, no code and no pickles."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
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
    except RepositoryNotFoundError as error:
        raise ConvertError(f"The hub has no repository {source} (or it needs HF_TOKEN).") from error
    except HFValidationError as error:
        raise ConvertError(f"{source!r} is no repository name; it should look like owner/name.") from error
    except (HTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConvertError(f"The download failed ({reason}); the same command goes on where it stopped.") from error
    return folder
