"""OpenAI's endpoint for chats.

The way of a request: `read` refuses what can be refused, the engine accepts or refuses the prompt, and only then the
first byte is sent. Streamed or not, an answer is made from the same events.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from flask import Blueprint, Response, jsonify, request

from api import chunks
from api.answer import Answer, take_seat
from api.body import ChatBody, PrefillBody, Sampled, read
from api.choice import Choice
from api.errors import ApiError, wrong
from api.order import chat_request, orders, plain, shaped_by
from api.pool import Pool
from api.reply import find, reply
from api.source import Found
from api.stream import ChatWriter
from engine.request import Reason, Request, Trouble
from settings import Settings

PARAMS = {Trouble.CONTEXT_LENGTH: "messages", Trouble.BAD_PROMPT: "messages", Trouble.BAD_BIAS: "logit_bias"}


def blueprint(settings: Settings, pool: Pool) -> Blueprint:
    """The route."""
    routes = Blueprint("openai", __name__)

    @routes.post("/chat/completions")
    def chat_completions() -> Response:
        body = read(ChatBody, request.get_data(cache=False))
        asked = ask(body, settings, pool, request.environ)

        def whole() -> dict[str, Any]:
            asked.answer.read()
            return asked.heading.completion(asked.answer.choices)

        return reply(asked.answer, asked.founds, asked.writer(body) if body.stream else None, whole)

    return routes


class Asked(NamedTuple):
    """The answers to a chat on their way, and how they are told."""

    answer: Answer
    founds: list[Found]
    heading: chunks.Heading

    def writer(self, body: ChatBody) -> ChatWriter:
        """For a stream of them."""
        return ChatWriter(self.answer, self.heading, body)


def ask(body: ChatBody, settings: Settings, pool: Pool, environ: dict[str, Any], afresh: bool = False) -> Asked:
    """Asks for the answers to a chat; `environ` says who waits for them. They must be closed. Raises ApiError.

    `afresh`: as with Cache-Control: no-cache.
    """
    check_options(body, body.n or 1, settings)
    model = pool.get(body.model)
    wanted = chat_request(body, settings)
    ordered = orders(body, wanted, settings, body.n or 1)
    if afresh:
        ordered = [replace(order, control=replace(order.control, no_cache=True)) for order in ordered]
    founds = find(model.source, ordered, environ)
    choices = [Choice(bool(wanted.tools), wanted.logprobs is not None) for _ in founds]
    answer = Answer(founds, choices, environ, PARAMS | {Trouble.BAD_SHAPE: shaped_by(body)})
    return Asked(answer, founds, chunks.Heading(model.name, founds[0].fingerprint, f"chatcmpl-{wanted.id}"))


def prefill(pool: Pool) -> Blueprint:
    """Linnet's own: reads a prompt ahead of its request, when nothing else is to do; closing the connection cancels it."""
    routes = Blueprint("prefill", __name__)

    @routes.post("/api/prefill")
    def read_ahead() -> Response:
        body = read(PrefillBody, request.get_data(cache=False))
        wanted, engine = (
            Request(uuid.uuid4().hex, plain(body.messages), background=True, private=bool(body.private)),
            pool.get(body.model).working(),
        )
        take_seat(request.environ)
        answer = Answer([Found(engine.submit(wanted), "ahead")], [Choice()], request.environ, PARAMS)
        answer.accept()
        with closing(answer):
            answer.read()
            end = chunks.total(answer.choices)
            return jsonify({"usage": chunks.usage(end), "complete": end.stop_reason == Reason.READ})

    return routes


def check_options(body: Sampled, n_all: int, settings: Settings) -> None:
    """What the fields of a body do not say one by one; it asks for so many answers. Raises ApiError."""
    if n_all > settings.slots + settings.max_queue:
        most = settings.slots + settings.max_queue
        raise wrong("n" if n_all == body.n else "prompt", f"{n_all} answers at once are more than may wait here ({most}).")
    if body.stream_options and not body.stream:
        raise ApiError(400, "stream_options is only allowed when stream is true.", param="stream_options")
