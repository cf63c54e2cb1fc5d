"""For whoever runs the server: is it well, and what does it remember?"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from api.source import Source


def blueprint(source: Source, model_name: str) -> Blueprint:
    """GET /health: 200 when a request would be served now, 503 with the reason otherwise. /cache: the answers kept."""
    routes = Blueprint("ops", __name__)
    engine, store = source.engine, source.store

    @routes.get("/health")
    def health() -> tuple[Response, int]:
        status = engine.status()
        body = {
            "status": "ok" if status.serves else status.state,
            "model": model_name,
            "loaded": status.state == "ready",
            "requests": status.n_requests,
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
        return jsonify({"removed": store.clear() if store else 0})

    return routes
