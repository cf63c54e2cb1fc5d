"""A hub of our own on this computer, which speaks the Hugging Face hub's protocol and misbehaves when told to.

Two servers on ports of the system's choice: the hub itself, which lists, and sends on to the other one, the "CDN".
`hub.faults` are taken one by one by the requests for a body; each may answer in its own way or let the usual one follow.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

REPO = "owner/tiny-GGUF"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
QUICK = 2**16  # bytes of one write


@dataclass
class File:
    """One file of the repository; `record` overrides what the hub tells of it."""

    content: bytes
    lfs: bool = True
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    server: str  # "hub" or "cdn"
    method: str
    path: str
    headers: dict[str, str]  # names in lower case


Fault = Callable[["Handler", bytes], bool]  # whether it has answered; it gets the whole file


class Hub:
    """To be used in a `with`; `url` is what HF_ENDPOINT should be."""

    def __init__(self, files: dict[str, File]) -> None:
        self.files = files
        self.faults: deque[Fault] = deque()
        self.listing: Callable[[Handler], bool] = lambda handler: False  # may answer in place of the usual listing
        self.token: str | None = None  # if set, who does not bring it is told what the hub would tell
        self.error_code: str | None = None  # with which it is told
        self.seen: list[Seen] = []
        self.news = threading.Condition()
        self.closing = threading.Event()
        self._servers = [_server(self, "hub"), _server(self, "cdn")]
        self.url, self.cdn = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def __enter__(self) -> Hub:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def bodies(self) -> list[Seen]:
        """The requests that the CDN got."""
        return [seen for seen in self.seen if seen.server == "cdn"]

    def wait_for_bodies(self, n: int) -> None:
        """Until so many have come."""
        with self.news:
            assert self.news.wait_for(lambda: len(self.bodies()) >= n, 20), f"{len(self.bodies())} requests for a body"


def _server(hub: Hub, name: str) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub, "name": name}))
    server.daemon_threads = True
    server.block_on_close = False
    return server


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    name: str
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        with self.hub.news:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.hub.seen.append(Seen(self.name, self.command, self.path, headers))
            self.hub.news.notify_all()
        try:
            self._cdn() if self.name == "cdn" else self._hub()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None: ...

    def answer(self, status: int, body: bytes = b"", **headers: object) -> bool:
        """A whole answer; in names of headers _ stands for -. True, as a fault that has answered says."""
        self.begin(status, **{"Content_Length": len(body)} | headers)
        return self.write(body)

    def begin(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def write(self, body: bytes) -> bool:
        if self.command != "HEAD":
            for start in range(0, len(body), QUICK):
                self.wfile.write(body[start : start + QUICK])
        return True

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json; charset=utf-8")

    def _hub(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.answer(401, b'{"error": "no"}', X_Error_Code=self.hub.error_code)
        elif path.startswith("/api/models/"):
            if not self.hub.listing(self):
                self._list(path.removeprefix("/api/models/"))
        else:
            self._resolve(*path.removeprefix("/").partition("/resolve/")[::2])

    def _list(self, path: str) -> None:
        repository, _, tree = path.partition("/tree/")
        if repository.partition("/revision/")[0] != REPO:
            self.answer(404, b'{"error": "Repository not found"}', X_Error_Code="RepoNotFound")
        elif tree:
            self.json([self._leaf(path, file) for path, file in self.hub.files.items()])
        else:
            siblings = [self._sibling(path, file) for path, file in self.hub.files.items()]
            self.json({"id": REPO, "modelId": REPO, "sha": COMMIT, "tags": [], "siblings": siblings})

    def _leaf(self, path: str, file: File) -> dict[str, Any]:
        lfs = {"lfs": {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}} if file.lfs else {}
        return {"type": "file", "oid": file.oid, "size": len(file.content), "path": path} | lfs

    def _sibling(self, path: str, file: File) -> dict[str, Any]:
        lfs = {"sha256": file.sha256, "size": len(file.content), "pointerSize": 134} | file.record
        return {"rfilename": path, "blobId": file.oid, "size": lfs["size"]} | ({"lfs": lfs} if file.lfs else {})

    def _resolve(self, repository: str, path: str) -> None:
        file = self.hub.files.get(path.partition("/")[2])
        if repository != REPO or not file:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        elif not file.lfs:
            self.answer(200, file.content, ETag=f'"{file.oid}"', X_Repo_Commit=COMMIT)
        else:
            self.answer(
                302,
                Location=f"{self.hub.cdn}/{file.sha256}?signed",
                X_Repo_Commit=COMMIT,
                X_Linked_ETag=f'"{file.sha256}"',
                X_Linked_Size=len(file.content),
            )

    def _cdn(self) -> None:
        content = next(file.content for file in self.hub.files.values() if file.sha256 in self.path)
        if not (self.hub.faults and self.hub.faults.popleft()(self, content)):
            self.piece(content)

    @property
    def start(self) -> int:
        """Where the wanted bytes begin."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])

    def piece(self, content: bytes) -> None:
        """What the CDN answers as a rule."""
        size, start = len(content), self.start
        if start >= size:
            self.answer(416, Content_Range=f"bytes */{size}")
        elif "Range" in self.headers:
            self.answer(206, content[start:], Content_Range=f"bytes {start}-{size - 1}/{size}", ETag='"cdn"')
        else:
            self.answer(200, content, Accept_Ranges="bytes", ETag='"cdn"')


def usual(handler: Handler, content: bytes) -> bool:
    """No fault."""
    return False


def cut(n_bytes: int) -> Fault:
    """The connection ends after so many bytes of the answer."""
    return lambda handler, content: _some(handler, content, n_bytes)


def stall(n_bytes: int) -> Fault:
    """Nothing comes after so many bytes of the answer."""

    def fault(handler: Handler, content: bytes) -> bool:
        _some(handler, content, n_bytes)
        return handler.hub.closing.wait(60)

    return fault


def _some(handler: Handler, content: bytes, n_bytes: int) -> bool:
    size, start = len(content), handler.start
    span = {"Content_Range": f"bytes {start}-{size - 1}/{size}"} if start else {}
    handler.begin(206 if start else 200, Content_Length=size - start, **span)
    return handler.write(content[start : start + n_bytes])


def says(status: int, body: bytes = b"", **headers: object) -> Fault:
    """This answer."""
    return lambda handler, content: handler.answer(status, body, **headers)


def no_range(handler: Handler, content: bytes) -> bool:
    """The whole file, whatever was asked for."""
    return handler.answer(200, content)


def endless(content: bytes) -> Fault:
    """Without a length, so that only the end of the connection ends it."""

    def fault(handler: Handler, _: bytes) -> bool:
        handler.begin(200)
        return handler.write(content)

    return fault


NAME = "tiny.Q4_K_M.gguf"


def tiny(n_bytes: int = 1_000_000) -> Hub:
    """A hub with one model and what lies beside it."""
    content = b"GGUF" + bytes(range(251)) * (n_bytes // 251)
    return Hub({NAME: File(content), "README.md": File(b"# Tiny", lfs=False), "mmproj-F16.gguf": File(b"GGUF eyes")})


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder and what is in them, to be compared."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
