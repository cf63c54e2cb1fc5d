"""The page's files, held in memory and packed once: a browser that comes for the first time asks for all of them at once."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flask import Response, abort, request

FOLDER = Path(__file__).resolve().parent / "page"
mimetypes.add_type("text/javascript", ".js")  # whatever the machine's own table says
mimetypes.add_type("application/manifest+json", ".webmanifest")


@dataclass(frozen=True)
class File:
    """What is sent of a file."""

    plain: bytes
    packed: bytes
    etag: str
    mimetype: str


@cache
def files() -> dict[str, File]:
    """All of them, by their names: nothing else can be asked for."""
    return {path.name: read(path) for path in FOLDER.iterdir()}


def read(path: Path) -> File:
    """As it is now."""
    data = path.read_bytes()
    mimetype = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return File(data, gzip.compress(data, mtime=0), hashlib.sha256(data).hexdigest()[:16], mimetype)


def response(name: str) -> Response:
    """The file for the request at hand, or that the browser has it already. Raises NotFound."""
    file = files().get(name) or abort(404)
    packs = request.accept_encodings["gzip"] > 0
    answer = Response(file.packed if packs else file.plain, mimetype=file.mimetype)
    answer.headers["Cache-Control"] = "no-cache"  # it may be kept, but only used when the server says that it is the same
    answer.vary.add("Accept-Encoding")
    if packs:
        answer.content_encoding = "gzip"
    answer.set_etag(f"{file.etag}-gzip" if packs else file.etag)
    answer.make_conditional(request)
    return answer
