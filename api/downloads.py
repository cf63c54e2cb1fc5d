"""Models are fetched over HTTP, too: POST, GET and DELETE /models/download.

POST    {"model": "tinyllama" or "owner/name[:quant]"}: server-sent events, each a `progress` object, the last one with
        `state` "installed", or else an error as everywhere. Who asks for what is under way joins it. Who leaves does not
        end it: that needs a DELETE.
DELETE  {"model": the same}: cancels. What came stays, and the next POST goes on there.
GET     {"downloads": [...]}: a `progress` object for each that is under way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from flask import Blueprint, Response, jsonify, request

from api.answer import client_gone
from api.body import ModelBody, read
from api.chunks import comment, sse
from api.errors import ApiError, Kind
from api.stream import HEADERS
from models import errors
from models.download import Progress, State
from models.downloads import Downloads, Running
from models.store import StoreError

BEAT_S = 5.0  # without news there is a comment: the connection lives
REST_S = 0.25  # between two events
MOST_WATCHERS = 4  # each keeps a thread of the server; see api.wsgi.SPARE_THREADS

KINDS = {
    StoreError: Kind(502, "server_error", "not_a_model"),
    errors.DownloadError: Kind(500, "server_error"),
    errors.WrongNameError: Kind(400, "invalid_request_error", "invalid_value"),
    errors.AbsentError: Kind(404, "invalid_request_error", "model_not_found"),
    errors.UnfitError: Kind(422, "invalid_request_error", "model_not_fit"),
    errors.DeniedError: Kind(403, "permission_error", "hub_denied"),
    errors.OfflineError: Kind(503, "server_error", "hub_offline"),
    errors.UnreachableError: Kind(503, "server_error", "hub_unreachable"),
    errors.PageError: Kind(502, "server_error", "hub_sent_page"),
    errors.DamagedError: Kind(502, "server_error", "download_damaged"),
    errors.PastEndError: Kind(502, "server_error", "download_damaged"),
    errors.AddressError: Kind(502, "server_error", "hub_address_refused"),
    errors.DiskError: Kind(507, "server_error", "disk_full"),
    errors.OccupiedError: Kind(409, "invalid_request_error", "model_exists"),
    errors.BusyError: Kind(429, "rate_limit_error", "too_many_downloads"),
    errors.StoppedError: Kind(409, "invalid_request_error", "download_cancelled"),
}


class DownloadBody(ModelBody):
    """POST /models/download."""


def blueprint(downloads: Downloads, beat_s: float = BEAT_S) -> Blueprint:
    """The routes."""
    routes = Blueprint("downloads", __name__)
    seats = threading.BoundedSemaphore(MOST_WATCHERS)

    @routes.post("/models/download")
    def begin() -> Response:
        body = read(DownloadBody, request.get_data(cache=False))
        if not seats.acquire(blocking=False):
            raise from_store(
                errors.BusyError("Too many already watch downloads; they go on without being watched."), downloads.folder
            )
        try:
            running = downloads.start(body.model)
        except StoreError as error:
            seats.release()
            raise from_store(error, downloads.folder) from error
        return Response(
            Watch(running, seats, client_gone(request.environ), beat_s), mimetype="text/event-stream", headers=HEADERS
        )

    @routes.get("/models/download")
    def under_way() -> Response:
        all_news = [(running.wanted, running.news()) for running in downloads.running()]
        return jsonify({"downloads": [told(wanted, news.progress) for wanted, news in all_news if news]})

    @routes.delete("/models/download")
    def cancel() -> Response:
        body = read(ModelBody, request.get_data(cache=False))
        if not downloads.cancel(body.model):
            raise ApiError(404, f"No download of {errors.shown(body.model)} is under way.", code="not_found", param="model")
        return jsonify({"model": body.model, "cancelled": True})

    return routes


class Watch:
    """The body of the stream. An object with `close`, which is called for a stream that never began, too."""

    def __init__(self, running: Running, seats: threading.BoundedSemaphore, gone: Callable[[], bool], beat_s: float) -> None:
        self._running, self._gone, self._beat_s = running, gone, beat_s
        self._seats: threading.BoundedSemaphore | None = seats
        self._events = self._generate()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        """The reader has all, or has gone. The download goes on."""
        if self._seats:
            self._seats.release()
        self._seats = None

    def _generate(self) -> Iterator[bytes]:
        seen = -1
        while not self._gone():
            news = self._running.news(seen, self._beat_s)
            if not news:
                yield comment("still here")
                continue
            seen = news.number
            if isinstance(news.outcome, StoreError):
                yield sse(from_store(news.outcome, self._running.folder).body())
                return
            if isinstance(news.outcome, Path):
                yield sse(told(self._running.wanted, news.progress))
                return
            if news.progress.state is not State.INSTALLED:  # that is said once, when it has ended
                yield sse(told(self._running.wanted, news.progress))
                self._running.ended.wait(REST_S)


def told(wanted: str, progress: Progress) -> dict[str, Any]:
    """Progress as JSON. `name`: under which the model will be installed."""
    rate, left_s = progress.bytes_per_s, progress.seconds_left
    return {
        "object": "model.download",
        "model": wanted,
        "name": progress.name,
        "state": progress.state,
        "bytes": progress.n_bytes,
        "total_bytes": progress.total_bytes,
        "bytes_per_s": None if rate is None else round(rate),
        "seconds_left": None if left_s is None else round(left_s, 1),
        "note": progress.note,
    }


def from_store(error: StoreError, folder: Path) -> ApiError:
    """What went wrong with a model in this folder, as an API error."""
    status, type_, code = KINDS[type(error)]
    message = str(error).replace(f"{folder}{os.sep}", "")  # where it lies is not for everybody
    return ApiError(status, message, type_, code, "model" if type_ == "invalid_request_error" else None)
