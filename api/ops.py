"""For whoever runs the server: is it well, and what does it remember?"""

from __future__ import annotations

from flask import Blueprint, Response, g, jsonify

from api.errors import ApiError
from api.pool import Pool
from cache.store import NotClearedError
from settings import Settings


def blueprint(settings: Settings, pool: Pool) -> Blueprint:
    """GET /health: 200 when a request would be served now, 503 with the reason otherwise. /cache: the answers kept."""
    routes = Blueprint("ops", __name__)
    engine, store = pool.default.engine, pool.store

    @routes.get("/health")
    def health() -> tuple[Response, int]:
        status = engine.status()
        body = {
            "status": "ok" if status.serves else status.state,
            "model": pool.default.name,
            "loaded": status.state == "ready",
            "requests": pool.n_requests,
            "restarts": status.n_restarts,
        }
        if status.ready:
            body["context"] = status.ready.n_ctx
            body["engine"] = status.ready.build
        return jsonify(body), 200 if status.serves else 503

    @routes.get("/cache")
    def cache() -> Response:
        return jsonify({"enabled": False} if not store else {"enabled": True} | store.facts())

    @routes.delete("/cache")
    def clear_cache() -> Response:
        try:
            everybodys = settings.share_answers or len(settings.api_keys) < 2
            return jsonify({"removed": pool.default.source.clear(None if everybodys else g.owner)})
        except NotClearedError as error:
            raise ApiError(503, str(error), "server_error", "cache_not_cleared") from error

    return routes
