"""The Flask application: routes, guard, errors, one log line per request. Gets all it needs; nothing happens at import."""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid

from flask import Blueprint, Flask, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

import web
from api import (
    chats,
    completions,
    describe,
    downloads,
    guard,
    markdown,
    models,
    openai,
    ops,
    responses,
    session,
    status,
    texts,
    transfers,
)
from api.answer import LOGS_ITSELF, SEATS, ClientGone
from api.errors import ApiError, from_http_status, ours
from api.metrics import Traffic
from api.pool import Pool
from api.runs import Runs
from api.titles import Titles
from models.downloads import Downloads
from settings import Settings
from web.chats import Chats

log = logging.getLogger("linnet")
VERSION = "0.1.0"
LARGEST_BODY_BYTES = 8 * 2**20
# Not logged: somebody looks every few seconds, and the page asks for each of its files and ten times a second for HTML.
QUIET = ("/health", "/status", "/metrics", "/api/markdown", "/web/<name>")
REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)


def create_app(settings: Settings, pool: Pool, fetching: Downloads | None = None, kept: Chats | None = None) -> Flask:
    """The whole HTTP side over a pool of models, what fetches more of them, and the chats, if any are kept.

    `extensions["linnet.runs"]` are the answers of chats that are being made: they must be closed.
    """
    app = Flask("linnet", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of Flask's default provider
    _register(app, settings, pool, fetching)
    _register_chats(app, settings, pool, kept)
    _handle_errors(app)
    traffic = Traffic()
    app.register_blueprint(status.blueprint(settings, pool, traffic))
    seats = threading.Semaphore(n_seats(settings))

    @app.before_request
    def guarded() -> None:
        g.began = time.monotonic()
        g.id = request_id(request.headers.get("X-Request-Id", ""))
        guard.check(settings)
        request.environ[SEATS] = seats

    @app.after_request
    def logged(response: Response) -> Response:
        # Without a rule it could be anything, and each would be counted by itself.
        route = request.url_rule.rule if request.url_rule else "none"
        traffic.count(request.method, route, response.status_code)
        # A chat that got as far as the engine logs itself when it ends.
        if LOGS_ITSELF not in request.environ and route not in QUIET:
            log.info("%s %s %d", request.method, request.path, response.status_code)
        response.headers.update(web.HEADERS)
        response.headers["X-Request-Id"] = g.id
        response.headers["openai-processing-ms"] = str(round((time.monotonic() - g.began) * 1000))  # to the first byte
        return response

    return app


def n_seats(settings: Settings) -> int:
    """Requests that may run, wait, or read ahead, in all engines together."""
    return 2 * settings.slots + settings.max_queue


def _handle_errors(app: Flask) -> None:
    @app.errorhandler(ApiError)
    def refused(error: ApiError) -> Response:
        return error.response()

    @app.errorhandler(HTTPException)
    def refused_by_flask(error: HTTPException) -> Response:
        response = from_http_status(error.code or 500, error.description or error.name).response()
        if isinstance(error, MethodNotAllowed):
            response.allow.update(error.valid_methods or ())
        return response

    @app.errorhandler(ClientGone)
    def left(_: ClientGone) -> tuple[str, int]:
        return "", 499  # for the log; nobody is there to read it

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        log.exception("A fault of ours in %s %s", request.method, request.path, exc_info=error)
        return ours().response()


def _register(app: Flask, settings: Settings, pool: Pool, fetching: Downloads | None) -> None:
    api = Blueprint("api", __name__)
    for module in (openai, completions, responses):
        api.register_blueprint(module.blueprint(settings, pool))
    api.register_blueprint(texts.blueprint(pool))
    api.register_blueprint(models.blueprint(pool))
    if fetching:
        api.register_blueprint(downloads.blueprint(fetching))
    app.register_blueprint(api, url_prefix="/v1")
    app.register_blueprint(api, name="bare")  # some clients leave the prefix out
    app.register_blueprint(describe.blueprint(settings, VERSION))
    app.register_blueprint(openai.prefill(pool))
    app.register_blueprint(ops.blueprint(settings, pool))
    app.register_blueprint(markdown.blueprint())
    app.register_blueprint(session.blueprint(settings))
    app.register_blueprint(web.blueprint())


def _register_chats(app: Flask, settings: Settings, pool: Pool, kept: Chats | None) -> None:
    if not kept:
        app.register_blueprint(chats.unkept())
        return
    runs = Runs(kept, Titles(pool, kept), settings.unwatched)
    app.extensions |= {"linnet.chats": kept, "linnet.runs": runs}
    app.register_blueprint(chats.blueprint(settings, pool, kept, runs))
    app.register_blueprint(transfers.blueprint(kept))


def request_id(given: str) -> str:
    """The client's own name for its request, if it is one; else a new one."""
    return given if REQUEST_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
