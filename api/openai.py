"""OpenAI's endpoints: /v1/chat/completions and /v1/models.

The way of a request: `parse` refuses what can be refused, the engine accepts or refuses the prompt, and only then the
first byte is sent. Streamed or not, an answer is made from the same events.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
import time
import uuid
from contextlib import closing
from dataclasses import replace
from typing import Any

from flask import Blueprint, Response, g, jsonify, request

from api import chunks
from api.answer import Answer, EventStream
from api.body import ChatBody, parse, parse_prefill
from api.control import Control
from api.errors import ApiError
from api.source import Found, Order, Source
from engine.client import Engine
from engine.request import Ready, Reason, Request, Sampling
from settings import Settings

N_SEEDS = 2**32 - 1  # the last number of 32 bits means "any seed" to llama.cpp
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def blueprint(settings: Settings, source: Source, model_name: str) -> Blueprint:
    """The routes, over one engine that serves one model."""
    engine = source.engine
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
        order = to_order(body, settings, fingerprint(engine))
        return respond(source.get(order), order, body, model_name)

    @routes.post("/api/prefill")
    def prefill() -> Response:
        """Reads a prompt ahead of its request, when nothing else is to do; closing the connection cancels it."""
        body = parse_prefill(request.get_data(cache=False))
        check_model(body.model, model_name)
        messages = [message.plain() for message in body.messages]
        stream = engine.submit(Request(uuid.uuid4().hex, messages, background=True))
        answer = Answer(Found(stream, "ahead"), request.environ)
        answer.accept()
        with closing(answer):
            "".join(answer)
            end = answer.finished
            return jsonify({"usage": chunks.usage(end), "complete": end.stop_reason == Reason.READ})

    return routes


def respond(found: Found, order: Order, body: ChatBody, model_name: str) -> Response:
    """The answer, streamed or whole."""
    answer = Answer(found, request.environ)
    heading = chunks.Heading(model_name, found.fingerprint or order.fingerprint, f"chatcmpl-{order.request.id}")
    answer.accept()
    if body.stream:
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        stream = EventStream(answer, heading, include_usage, at_once=found.how == "hit")
        return Response(stream, mimetype="text/event-stream", headers=STREAM_HEADERS | found.headers)
    with closing(answer):
        text = "".join(answer)
        completion = chunks.encode(heading.completion(text, answer.finished))
        return Response(completion, mimetype="application/json", headers=found.headers)


def check_model(name: str | None, served: str) -> None:
    """Raises ApiError 404 when a request names another model than the one that is served."""
    if name not in (None, "default", served):
        message = f"The model '{name[:200]}' does not exist; this server has '{served}'."
        raise ApiError(404, message, code="model_not_found", param="model")


def to_order(body: ChatBody, settings: Settings, made_by: str) -> Order:
    """The request at hand, and what its client wants of the answer cache."""
    engine_request = to_request(body, settings)
    return Order(
        request=engine_request,
        repeatable=engine_request.sampling.temperature == 0 or body.seed is not None,
        control=Control.read(request.cache_control, body.cache),
        owner=None if settings.share_answers else g.owner,
        fingerprint=made_by,
        whole=not body.stream,
    )


def to_sampling(body: ChatBody, settings: Settings) -> Sampling:
    """With all defaults filled in; what says nothing about a greedy answer stays at its default."""
    temperature = settings.temperature if body.temperature is None else body.temperature
    default = Sampling(
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repeat_penalty=1.0 if body.repeat_penalty is None else body.repeat_penalty,
    )
    if temperature < settings.greedy_below or temperature == 0:
        return default
    return replace(
        default,
        temperature=temperature,
        top_k=default.top_k if body.top_k is None else body.top_k,
        top_p=default.top_p if body.top_p is None else body.top_p,
        min_p=default.min_p if body.min_p is None else body.min_p,
        seed=secrets.randbelow(N_SEEDS) if body.seed is None else body.seed % N_SEEDS,
    )


def to_request(body: ChatBody, settings: Settings) -> Request:
    """With all defaults filled in."""
    return Request(
        id=uuid.uuid4().hex,
        messages=[message.plain() for message in body.messages],
        sampling=to_sampling(body, settings),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop or [],
        early_stop=settings.early_stop if body.early_stop is None else body.early_stop,
        loop_stop=not settings.keep_loops if body.loop_stop is None else body.loop_stop,
    )


def fingerprint(engine: Engine) -> str:
    """Changes when the model, its context or the engine's build does."""
    return _fingerprint(engine.status().ready)


@functools.lru_cache(8)
def _fingerprint(ready: Ready | None) -> str:
    facts = (ready.description, ready.n_params, ready.size_bytes, ready.n_ctx, ready.build) if ready else ()
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
