"""For whoever runs the server: is it well?"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from engine.client import Engine


def blueprint(engine: Engine, model_name: str) -> Blueprint:
    """GET /health: 200 when a request would be served now, 503 with the reason otherwise."""
    routes = Blueprint("ops", __name__)

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

    return routes
