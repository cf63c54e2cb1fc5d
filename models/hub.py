"""What the hub has: a repository's files with sizes and hashes, the one that is meant, and its bytes.

Nothing that the hub says is believed: names, numbers and hashes are checked here, before anything is done with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from huggingface_hub import hf_hub_url
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from models.catalog import catalog
from models.errors import (
    AbsentError,
    DamagedError,
    DeniedError,
    DownloadError,
    PageError,
    PastEndError,
    UnfitError,
    UnreachableError,
    WrongNameError,
    shown,
)
from models.route import Route, interrupt
from models.store import DEMO

DEFAULT_QUANT = "Q4_K_M"
LONGEST_LISTING = 2**24  # bytes of JSON; the largest repositories need one of them
N_SHOWN = 30  # names in a message
QUANT = re.compile(r"[A-Za-z0-9_][\w./-]{0,199}", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
STEP = re.compile(r"[A-Za-z0-9_][\w.+=@-]{0,199}", re.ASCII)  # of a path: no dots first, no dashes, nothing of a shell
SHARD = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:(\d{1,18})|\*)")
AGAIN = {408, 425, 429, 500, 502, 503, 504}  # statuses that may be others a moment later


@dataclass(frozen=True)
class Wish:
    """What the user asked for: a file by its path, or else a quantization; None: the usual one."""

    repository: str
    file: str | None = None
    quant: str | None = None


@dataclass(frozen=True)
class HubFile:
    """One file at one commit. Checks itself: raises UnfitError."""

    repository: str
    commit: str
    path: str
    n_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        steps = self.path.split("/")
        if not all(STEP.fullmatch(step) and ".." not in step for step in steps) or not steps[-1].endswith(".gguf"):
            raise UnfitError(f"The hub names a file as Linnet names none: {shown(self.path)}")
        if self.name == DEMO.name:
            raise UnfitError(f"{self.name} is the name of the built-in model.")
        if not SHA256.fullmatch(self.sha256) or not 0 < self.n_bytes < 2**50:
            raise UnfitError(f"The hub's record of {self.path} makes no sense, so it could not be checked.")

    @property
    def name(self) -> str:
        """Of the installed file."""
        return self.path.rpartition("/")[2]


def wish(wanted: str) -> Wish:
    """What a name of the catalog or owner/name[:quant] or owner/name:path.gguf means. Raises WrongNameError."""
    if entry := catalog().get(wanted):
        return Wish(entry.repository, entry.file)
    repository, colon, rest = wanted.partition(":")
    known = ", ".join(catalog())
    try:
        validate_repo_id(repository)
    except HFValidationError:
        repository = ""
    if "/" not in repository or (colon and not QUANT.fullmatch(rest)):
        raise WrongNameError(f"{shown(wanted) or 'Nothing'} is no model: it is one of {known}, or owner/name[:quant].")
    return Wish(repository, rest) if rest.lower().endswith(".gguf") else Wish(repository, None, rest or None)


class Hub:
    """A hub, asked along one route. Any thread may use it."""

    def __init__(self, route: Route | None = None) -> None:
        """None: the usual hub; see Route. Raises WrongNameError."""
        self.route = route or Route()

    def find(self, wish: Wish) -> HubFile:
        """The file that is meant. Raises DownloadError."""
        commit, files = self._listing(wish.repository)
        path = choose(list(files), wish)
        # Git's own hash, the only one of a file outside LFS, is SHA-1: it does not tell a forged file from the right one.
        lfs = files[path].get("lfs")
        if not isinstance(lfs, dict):
            raise UnfitError(f"The hub has no SHA-256 of {shown(path)}, so it could not be checked.")
        n_bytes, sha256 = lfs.get("size"), lfs.get("sha256")
        if type(n_bytes) is not int or not isinstance(sha256, str):
            raise _nonsense(wish.repository)
        return HubFile(wish.repository, commit, path, n_bytes, sha256)

    def _listing(self, repository: str) -> tuple[str, dict[str, dict[str, Any]]]:
        """The commit that is the newest, and what the hub says of each GGUF file by its path."""
        url = f"{self.route.endpoint}/api/models/{repository}?blobs=true"
        with self.route.get(url, {}) as response:
            _check(response, repository)
            raw = _short(response, repository)
        try:
            said = json.loads(raw)
            commit, siblings = said["sha"], said["siblings"]
            files = {file["rfilename"]: file for file in siblings if file["rfilename"].lower().endswith(".gguf")}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _nonsense(repository) from error
        if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
            raise _nonsense(repository)
        return commit, files

    @contextmanager
    def body(self, file: HubFile, start: int) -> Iterator[Body]:
        """The file's bytes from `start` on, or from 0 if the hub will not begin in the middle. Raises DownloadError."""
        url = hf_hub_url(file.repository, file.path, revision=file.commit, endpoint=self.route.endpoint)
        with self.route.get(url, {"range": f"bytes={start}-"} if start else {}) as response:
            if response.status_code == 416:
                raise PastEndError(f"The hub's {file.name} ends before byte {start:,}.")
            _check(response, file.repository)
            yield Body(response, _start(response, file, start))


class Body:
    """The bytes of a file as they arrive."""

    def __init__(self, response: httpx2.Response, start: int) -> None:
        self.start = start  # the first byte's place in the file
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        return self._response.iter_raw()

    def interrupt(self) -> None:
        """For another thread: the one that reads gets UnreachableError."""
        interrupt(self._response)


def choose(paths: list[str], wish: Wish) -> str:
    """The one path that is meant. Raises AbsentError, UnfitError: the message names those there are."""
    paths = [path for path in paths if "mmproj" not in path.lower()]  # eyes, no model
    if wish.file:
        fitting = [path for path in paths if path == wish.file]
    elif wish.quant is None and len(paths) == 1:
        fitting = paths
    else:
        quant = re.compile(rf"(?<![A-Za-z0-9]){re.escape(wish.quant or DEFAULT_QUANT)}(?![A-Za-z0-9_])", re.IGNORECASE)
        fitting = [path for path in paths if quant.search(path.rpartition("/")[2])]
    whole = [path for path in fitting if not SHARD.search(path)]
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise UnfitError(f"Several files fit; name one, as {wish.repository}:FILE: {_listed(whole)}.")
    there = _listed([path for path in paths if not SHARD.search(path)])
    if fitting:
        raise UnfitError(
            f"{shown(fitting[0])} is one of several parts; Linnet takes models of one file. There are: {there}."
        )
    raise AbsentError(f"There is no {wish.file or wish.quant or DEFAULT_QUANT} in {wish.repository}; there are: {there}.")


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - N_SHOWN} more" if len(paths) > N_SHOWN else ""
    return ", ".join(shown(path) for path in paths[:N_SHOWN]) + more or "no GGUF files"


def _short(response: httpx2.Response, repository: str) -> bytes:
    raw = bytearray()
    for chunk in response.iter_raw():
        raw += chunk
        if len(raw) > LONGEST_LISTING:
            raise _nonsense(repository)
    return bytes(raw)


def _nonsense(repository: str) -> DamagedError:
    return DamagedError(f"What the hub says of {repository} is not what a hub says.")


def _start(response: httpx2.Response, file: HubFile, wanted: int) -> int:
    """Where the body begins; the size it promises must be the right one. Raises DamagedError."""
    start, total = 0, response.headers.get("content-length", "")
    if response.status_code == 206:
        match = RANGE.fullmatch(response.headers.get("content-range", ""))
        if not match or int(match[1]) != wanted:
            raise DamagedError(f"The hub sends another piece of {file.name} than was asked for.")
        start, total = wanted, match[2] or ""
    if total.isdecimal() and int(total[:18]) != file.n_bytes:
        raise DamagedError(f"The hub sends {file.name} with {int(total[:18]):,} bytes; its record says {file.n_bytes:,}.")
    return start


def _check(response: httpx2.Response, repository: str) -> None:
    """Raises DownloadError unless the answer is plain bytes and no page for people."""
    if response.status_code not in (200, 206):
        raise _refusal(response, repository)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise DamagedError("The hub sends compressed what was asked for plain.")
    if "html" in response.headers.get("content-type", ""):
        host = shown(response.url.host)
        raise PageError(f"{host} sends a web page instead of the model: does this network want you to sign in?")


def _refusal(response: httpx2.Response, repository: str) -> DownloadError:
    status, code, host = response.status_code, response.headers.get("x-error-code"), shown(response.url.host)
    if status in AGAIN:
        return UnreachableError(f"{host} has no answer now (status {status}).")
    if code == "GatedRepo":
        return DeniedError(f"{repository} is gated: accept its terms on its page, and set HF_TOKEN to your token.")
    if status in (401, 403) and "authorization" in response.request.headers:
        return DeniedError(f"The hub does not let the owner of HF_TOKEN have {repository}; or there is no such repository.")
    if status == 401:
        return AbsentError(f"The hub has no repository {repository}, or it is private and needs HF_TOKEN.")
    if status == 403:
        return DeniedError(f"{host} does not give {repository} away (status 403); HF_TOKEN may help.")
    if status in (404, 410):
        return AbsentError(f"The hub has no repository {repository}, or not the file any more.")
    return DamagedError(f"{host} gives an answer that no hub gives (status {status}).")
