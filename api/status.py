"""For whoever looks after the server: GET /status, a page for people and JSON for programs; GET /metrics, for Prometheus."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from api.guard import wants_page
from api.metrics import Metrics, Traffic
from api.pool import Model, Pool
from engine import memory
from engine.stream import State, Status
from engine.tally import Told
from models import store
from settings import Settings
from web import files

CHATS = "linnet.chats"  # the extension of the application that keeps chats, if there is one: it has a `version`


class Facts:
    """What is told, as of the moment it is asked for."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self._settings, self._pool = settings, pool
        self._began = time.monotonic()

    def all(self) -> dict[str, Any]:
        """The body of GET /status."""
        default, told = self._pool.default, self.told()
        models, status = self.models(), default.engine.status()
        ready = status.ready
        known, computed = told.counts.n_known, told.counts.n_prompt
        n_loaded = max(1, sum(model["state"] == "loaded" for model in models))  # each has slots and a queue of its own
        return {
            "status": "ok" if status.serves else status.state,
            "model": default.name,
            "description": ready.description if ready else None,
            "context": ready.n_ctx if ready else None,
            "engine": ready.build if ready else None,
            "threads": default.engine.config.n_threads,
            "slots": {"n": n_loaded * self._settings.slots, "busy": sum(model["busy"] for model in models)},
            "queue": {
                "waiting": sum(model["waiting"] for model in models),
                "limit": n_loaded * self._settings.max_queue,
            },
            "tokens_per_s": {"now": round(told.tokens_per_s, 2), "minutes": [round(n, 2) for n in told.minutes]},
            "cache": self.cache(),
            "prefix": {"known_tokens": known, "read_tokens": computed, "known_rate": _part(known, computed)},
            "memory": {f"{name}_bytes": n for name, n in self.memory().items()} | {"available_bytes": memory.available()},
            "models": models,
            "requests": self._pool.n_requests,
            "answers": told.counts.n_answers,
            "restarts": sum(model["restarts"] for model in models),
            "uptime_s": round(self.uptime_s(), 1),
            "chats": getattr(current_app.extensions.get(CHATS), "version", None),
            "demo": default.engine.config.model_path == str(store.DEMO),
            "needs_key": bool(self._settings.api_keys),
            "defaults": {
                name: getattr(self._settings, name) for name in ("temperature", "greedy_below", "early_stop", "think_budget")
            },
        }

    def told(self) -> Told:
        """What all engines have done."""
        return self._pool.tally.told()

    def uptime_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def memory(self) -> dict[str, int]:
        """Bytes of this process, and of all workers together."""
        pids = [model.engine.status().worker_pid for model in self._pool.opened()]
        return {"front": memory.resident(), "worker": sum(memory.resident(pid) for pid in pids if pid)}

    def models(self) -> list[dict[str, Any]]:
        """Those that have been asked for since the start, the default first."""
        return [self._model(model) for model in self._pool.opened()]

    def cache(self) -> dict[str, Any] | None:
        """The answers kept; None: none are."""
        facts = self._pool.store.facts() if self._pool.store else None
        return facts and facts | {"hit_rate": _part(facts["hits"] + facts["joined"], facts["misses"])}

    def _model(self, model: Model) -> dict[str, Any]:
        status: Status = model.engine.status()
        # Whoever asks gets a slot as long as there is a free one, and a worker.
        busy = min(status.n_requests, model.engine.config.n_slots) if status.state is State.READY else 0
        return {
            "name": model.name,
            "state": self._pool.state(model.name),
            "context": status.ready.n_ctx if status.ready else None,
            "trained_context": status.ready.n_ctx_train if status.ready else None,
            "busy": busy,
            "waiting": status.n_requests - busy,
            "restarts": status.n_restarts,
            "worker_bytes": memory.resident(status.worker_pid) if status.worker_pid else 0,
        }


def blueprint(settings: Settings, pool: Pool, traffic: Traffic) -> Blueprint:
    """The routes."""
    routes = Blueprint("status", __name__)
    facts = Facts(settings, pool)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics(facts, traffic))

    @routes.get("/status")
    def status() -> Response:
        response = files.response("status.html") if wants_page() else jsonify(facts.all())
        response.vary.add("Accept")
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @routes.get("/metrics")
    def metrics() -> Response:
        encode, mimetype = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), content_type=mimetype)

    return routes


def _part(n: float, others: float) -> float | None:
    """What part of all these are; None while there are none."""
    return round(n / (n + others), 4) if n + others else None
