"""OpenAI's endpoints: /v1/chat/completions and /v1/models.

The way of a request: `parse` refuses what can be refused, the engine accepts or refuses the prompt, and only then the
first byte is sent. Streamed or not, an answer is made from the same events.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from contextlib import closing
from typing import Any

from flask import Blueprint, Response, jsonify, request

from api import chunks
from api.answer import Answer, EventStream
from api.body import ChatBody, parse, parse_prefill
from api.errors import ApiError
from engine.client import Engine
from engine.request import Reason, Request, Sampling
from settings import Settings

N_SEEDS = 2**32 - 1  # the last number of 32 bits means "any seed" to llama.cpp
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def blueprint(settings: Settings, engine: Engine, model_name: str) -> Blueprint:
    """The routes, over one engine that serves one model."""
    routes = Blueprint("openai", __name__)
    started = int(time.time())

    def model() -> dict[str, Any]:
        return {"id": model_name, "object": "model", "created": started, "owned_by": "linnet"}

    @routes.get("/v1/models")
    def models() -> Response:
        return jsonify({"object": "list", "data": [model()]})

    @routes.get("/v1/models/<path:name>")
    def one_model(name: str) -> Response:
        check_model(name, model_name)
        return jsonify(model())

    @routes.post("/v1/chat/completions")
    def chat_completions() -> Response:
        body = parse(request.get_data(cache=False))
        check_model(body.model, model_name)
        answer = Answer(engine.submit(to_request(body, settings)), request.environ)
        heading = chunks.Heading(model_name, fingerprint(engine))
        answer.accept()
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            stream = EventStream(answer, heading, include_usage)
            return Response(stream, mimetype="text/event-stream", headers=STREAM_HEADERS)
        with closing(answer):
            text = "".join(answer)
            return jsonify(heading.completion(text, answer.finished))

    @routes.post("/api/prefill")
    def prefill() -> Response:
        """Reads a prompt ahead of its request, when nothing else is to do; closing the connection cancels it."""
        body = parse_prefill(request.get_data(cache=False))
        check_model(body.model, model_name)
        messages = [message.plain() for message in body.messages]
        answer = Answer(engine.submit(Request(uuid.uuid4().hex, messages, background=True)), request.environ)
        answer.accept()
        with closing(answer):
            "".join(answer)
            end = answer.finished
            return jsonify({"usage": chunks.usage(end), "complete": end.stop_reason == Reason.READ})

    return routes


def check_model(name: str | None, served: str) -> None:
    """Raises ApiError 404 when a request names another model than the one that is served."""
    if name not in (None, "default", served):
        message = f"The model '{name[:200]}' does not exist; this server has '{served}'."
        raise ApiError(404, message, code="model_not_found", param="model")


def to_request(body: ChatBody, settings: Settings) -> Request:
    """The request with all defaults filled in."""
    temperature = settings.temperature if body.temperature is None else body.temperature
    default = Sampling()
    return Request(
        id=uuid.uuid4().hex,
        messages=[message.plain() for message in body.messages],
        sampling=Sampling(
            temperature=0.0 if temperature < settings.greedy_below else temperature,
            top_k=default.top_k if body.top_k is None else body.top_k,
            top_p=default.top_p if body.top_p is None else body.top_p,
            min_p=default.min_p if body.min_p is None else body.min_p,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            repeat_penalty=1.0 if body.repeat_penalty is None else body.repeat_penalty,
            seed=secrets.randbelow(N_SEEDS) if body.seed is None else body.seed % N_SEEDS,
        ),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop or [],
        early_stop=settings.early_stop if body.early_stop is None else body.early_stop,
        loop_stop=not settings.keep_loops if body.loop_stop is None else body.loop_stop,
    )


def fingerprint(engine: Engine) -> str:
    """Changes when the model, its context or the engine's build does."""
    ready = engine.status().ready
    facts = (ready.description, ready.n_params, ready.size_bytes, ready.n_ctx, ready.build) if ready else ()
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
