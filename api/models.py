"""The models there are: listed as OpenAI does, and Linnet's own ways to load, unload and delete them.

GET    /v1/models, /v1/models/NAME                                  with its `state`: loaded, loading, unloaded or failed
GET    /models/catalog                                              what is installed or recommended, what fits, how fast
POST   /models/load    {"model": NAME, "force": false, "ctx": N}    begins to load it, and waits until it is: the same object
POST   /models/unload  {"model": NAME}                              waits until its memory is free
DELETE /models/NAME                                                 deletes its file
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from api.answer import POLL_S, ClientGone, client_gone
from api.body import ModelBody, read
from api.errors import ApiError, from_failed
from api.pool import DEFAULT, Pool
from engine.client import Engine
from engine.loading import Loading, NotLoadedError
from engine.request import Failed, Trouble
from settings import CTX_BOUNDS

MOST_AT_ONCE = 4  # that wait for a model to be loaded or unloaded, each with a thread of the server


class LoadBody(ModelBody):
    """POST /models/load."""

    force: bool = False  # also a model that does not fit, or would be slower than a token a second
    ctx: int | None = Field(None, ge=CTX_BOUNDS[0], le=CTX_BOUNDS[1])  # tokens a request may use; null: as it is


def blueprint(pool: Pool) -> Blueprint:
    """The routes."""
    routes = Blueprint("models", __name__)
    started = int(time.time())
    places = threading.Semaphore(MOST_AT_ONCE)

    @routes.get("/models")
    def models() -> Response:
        return jsonify({"object": "list", "data": [told(pool, name, started) for name in pool.names()]})

    @routes.get("/models/<path:name>")
    def one_model(name: str) -> Response:
        if name == DEFAULT:
            name = pool.default.name
        if name not in pool.names():
            raise pool.unknown(name)
        return jsonify(told(pool, name, started))

    @routes.get("/models/catalog")
    def catalog() -> Response:
        return jsonify({"object": "list", "data": pool.catalog()})

    @routes.post("/models/load")
    def load_model() -> Response:
        body = read(LoadBody, request.get_data(cache=False))
        with one_of(places):
            name = load(pool, body, request.environ)
        return jsonify(told(pool, name, started))

    @routes.post("/models/unload")
    def unload_model() -> Response:
        model = pool.get(read(ModelBody, request.get_data(cache=False)).model)
        with one_of(places):
            unload(model.engine, request.environ)
        return jsonify(told(pool, model.name, started))

    @routes.delete("/models/<path:name>")
    def delete(name: str) -> Response:
        pool.remove(name)
        return jsonify({"id": name, "object": "model", "deleted": True})

    return routes


@contextmanager
def one_of(places: threading.Semaphore) -> Iterator[None]:
    """Holds a place. Raises ApiError 429."""
    if not places.acquire(blocking=False):
        raise from_failed(Failed("", Trouble.QUEUE_FULL, "Too many are loading models already; try again later."))
    try:
        yield
    finally:
        places.release()


def load(pool: Pool, body: LoadBody, environ: dict[str, Any]) -> str:
    """Loads a model and waits for it; its name. Raises ApiError, 503 where it cannot be loaded after all; ClientGone."""
    model, loading = pool.load(body.model, body.force, body.ctx)
    try:
        while not loaded(loading):
            leave_if_gone(environ)
    finally:
        model.engine.give_up(loading)
    return model.name


def loaded(loading: Loading) -> bool:
    """Waits a moment; whether it is over. Raises ApiError."""
    try:
        loading.result(POLL_S)
    except TimeoutError:
        return False
    except NotLoadedError as error:
        raise ApiError(503, str(error), "server_error", "model_not_loaded", "model") from error
    return True


def unload(engine: Engine, environ: dict[str, Any]) -> None:
    """Until its worker has gone, if it has one. Raises ClientGone."""
    engine.unload()
    while not engine.unloaded(POLL_S):
        leave_if_gone(environ)


def leave_if_gone(environ: dict[str, Any]) -> None:
    """Raises ClientGone."""
    if client_gone(environ)():
        raise ClientGone


def told(pool: Pool, name: str, started: int) -> dict[str, Any]:
    """A model as OpenAI's API tells it, and its state."""
    return {"id": name, "object": "model", "created": started, "owned_by": "linnet", "state": pool.state(name)}
