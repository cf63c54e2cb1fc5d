"""Fetches a GGUF file from the Hugging Face hub into models/.

python -m models.download                 TinyLlama 1.1B Chat, Q4_K_M, 669 MB
python -m models.download REPO[:QUANT]    any repository with GGUF files, e.g. owner/name-GGUF:Q4_K_M
"""

from __future__ import annotations

import sys
from pathlib import Path

from huggingface_hub import hf_hub_download, list_repo_files
from huggingface_hub.errors import HFValidationError, HTTPError, RepositoryNotFoundError  # type: ignore[attr-defined]

from models.store import FOLDER, StoreError, check

DEFAULT = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:Q4_K_M"
DEFAULT_QUANT = "Q4_K_M"


def download(wanted: str, folder: Path = FOLDER) -> Path:
    """The fetched file. The hub's library resumes a broken download and renames last. Raises StoreError."""
    repository, _, quant = wanted.partition(":")
    try:
        file = choose(list_repo_files(repository), quant or DEFAULT_QUANT)
        return check(Path(hf_hub_download(repository, file, local_dir=folder)))
    except RepositoryNotFoundError as error:
        raise StoreError(f"The hub has no repository {repository} (or it needs HF_TOKEN).") from error
    except HFValidationError as error:
        raise StoreError(f"{repository!r} is no repository name; it should look like owner/name.") from error
    except (HTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(f"The download failed ({reason}); the same command goes on where it stopped.") from error


def choose(files: list[str], quant: str) -> str:
    """The one GGUF file of this quantization. Raises StoreError naming those there are."""
    models = [file for file in files if file.endswith(".gguf")]
    fitting = [file for file in models if quant.lower() in file.lower()]
    if not fitting:
        raise StoreError(f"There is no {quant} in it; there are: {', '.join(models) or 'no GGUF files'}.")
    return min(fitting, key=len)


def main(arguments: list[str]) -> int:
    """The exit code."""
    try:
        path = download(arguments[0] if arguments else DEFAULT)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path.stem} is installed: python server.py --model {path.stem}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
