"""OpenAI's endpoints for chats and models.

The way of a request: `read` refuses what can be refused, the engine accepts or refuses the prompt, and only then the
first byte is sent. Streamed or not, an answer is made from the same events.
"""

from __future__ import annotations

import functools
import hashlib
import time
import uuid
from contextlib import closing
from typing import Any

from flask import Blueprint, Response, jsonify, request

from api import chunks
from api.answer import Answer
from api.body import ChatBody, PrefillBody, Sampled, read
from api.choice import Choice
from api.errors import ApiError, wrong
from api.order import chat_request, orders, plain, shaped_by
from api.reply import find, reply
from api.source import Found, Source
from api.stream import ChatWriter
from engine.client import Engine
from engine.request import Ready, Reason, Request, Trouble
from settings import Settings

PARAMS = {Trouble.CONTEXT_LENGTH: "messages", Trouble.BAD_PROMPT: "messages", Trouble.BAD_BIAS: "logit_bias"}


def blueprint(settings: Settings, source: Source, model_name: str) -> Blueprint:
    """The routes, over one engine that serves one model."""
    routes = Blueprint("openai", __name__)
    started = int(time.time())

    def model() -> dict[str, Any]:
        return {"id": model_name, "object": "model", "created": started, "owned_by": "linnet"}

    @routes.get("/models")
    def models() -> Response:
        return jsonify({"object": "list", "data": [model()]})

    @routes.get("/models/<path:name>")
    def one_model(name: str) -> Response:
        check_model(name, model_name)
        return jsonify(model())

    @routes.post("/chat/completions")
    def chat_completions() -> Response:
        body = read(ChatBody, request.get_data(cache=False))
        check_options(body, body.n or 1, settings, model_name)
        wanted = chat_request(body, settings)
        ordered = orders(body, wanted, settings, fingerprint(source.engine), body.n or 1)
        founds = find(source, ordered)
        choices = [Choice(bool(wanted.tools), wanted.logprobs is not None) for _ in founds]
        answer = Answer(founds, choices, request.environ, PARAMS | {Trouble.BAD_SHAPE: shaped_by(body)})
        heading = chunks.Heading(model_name, founds[0].fingerprint or ordered[0].fingerprint, f"chatcmpl-{wanted.id}")

        def whole() -> dict[str, Any]:
            answer.read()
            return heading.completion(choices)

        return reply(answer, founds, ChatWriter(answer, heading, body) if body.stream else None, whole)

    return routes


def prefill(source: Source, model_name: str) -> Blueprint:
    """Linnet's own: reads a prompt ahead of its request, when nothing else is to do; closing the connection cancels it."""
    routes = Blueprint("prefill", __name__)

    @routes.post("/api/prefill")
    def read_ahead() -> Response:
        body = read(PrefillBody, request.get_data(cache=False))
        check_model(body.model, model_name)
        wanted = Request(uuid.uuid4().hex, plain(body.messages), background=True)
        answer = Answer([Found(source.engine.submit(wanted), "ahead")], [Choice()], request.environ, PARAMS)
        answer.accept()
        with closing(answer):
            answer.read()
            end = chunks.total(answer.choices)
            return jsonify({"usage": chunks.usage(end), "complete": end.stop_reason == Reason.READ})

    return routes


def check_options(body: Sampled, n_all: int, settings: Settings, served: str) -> None:
    """What the fields of a body do not say one by one; it asks for so many answers. Raises ApiError."""
    check_model(body.model, served)
    if n_all > settings.slots + settings.max_queue:
        most = settings.slots + settings.max_queue
        raise wrong("n" if n_all == body.n else "prompt", f"{n_all} answers at once are more than may wait here ({most}).")
    if body.stream_options and not body.stream:
        raise ApiError(400, "stream_options is only allowed when stream is true.", param="stream_options")


def check_model(name: str | None, served: str) -> None:
    """Raises ApiError 404 when a request names another model than the one that is served."""
    if name not in (None, "default", served):
        message = f"The model '{name[:200]}' does not exist; this server has '{served}'."
        raise ApiError(404, message, code="model_not_found", param="model")


def fingerprint(engine: Engine) -> str:
    """Changes when the model's file (its template is in it), its context or the engine's build does."""
    return _fingerprint(engine.status().ready)


@functools.lru_cache(8)
def _fingerprint(ready: Ready | None) -> str:
    facts = (ready.description, ready.n_params, ready.file, ready.n_ctx, ready.build) if ready else ()
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
