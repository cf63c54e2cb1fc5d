"""The chats that are kept, over HTTP: /api/chats, and /api/answers for those that are being made.

Who asks with an API key has chats of its own.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from flask import Blueprint, Response, g, jsonify, request
from pydantic import BaseModel, Field

from api.answer import SEATS, client_gone
from api.body import ChatBody, read
from api.errors import ApiError, Kind, unsupported, wrong
from api.message import STRICT
from api.openai import ask
from api.order import plain
from api.pool import Pool
from api.reply import PATIENCE_S
from api.runs import MOST_READERS, Reader, Runs
from api.source import how
from api.stream import HEADERS, EventStream
from settings import Settings
from web.chats import Chats, RunningError, TooLongError
from web.database import AbsentError, ChatsError

LONGEST_SEARCH = 1000
KINDS = {
    ChatsError: Kind(503, "server_error", "chats_unavailable"),
    AbsentError: Kind(404, "invalid_request_error", "not_found"),
    RunningError: Kind(409, "invalid_request_error", "answer_running"),
    TooLongError: Kind(409, "invalid_request_error", "chat_too_long"),
}
OURS: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
NOT_OF_TEXT = ("tools", "logprobs")  # a message is a text, and one


class NewChat(BaseModel):
    """POST /api/chats."""

    model_config = STRICT
    title: str = Field("", max_length=200)
    system: str = ""


class Changes(NewChat):
    """PATCH /api/chats/ID: what is absent stays."""

    pinned: bool = False
    leaf: str | None = None


class File(BaseModel):
    """A text that goes with a message."""

    model_config = STRICT
    name: str = Field(max_length=255)
    text: str


class NewMessage(BaseModel):
    """POST /api/chats/ID/messages."""

    model_config = STRICT
    parent: str | None = None
    content: str
    files: list[File] = Field([], max_length=100)


class NewAnswer(BaseModel):
    """POST /api/chats/ID/answers."""

    model_config = STRICT
    parent: str
    request: dict[str, Any]
    afresh: bool = False
    continues: str | None = None


def blueprint(settings: Settings, pool: Pool, chats: Chats, runs: Runs) -> Blueprint:
    """The routes."""
    routes = Blueprint("chats", __name__)
    _add_chats(routes, chats, runs)
    _add_messages(routes, chats, runs)
    _add_answers(routes, runs)

    @routes.post("/api/chats/<id>/answers")
    def answer(id: str) -> tuple[Response, int]:
        body = read(NewAnswer, request.get_data(cache=False))
        return jsonify(begin(body, id, settings, pool, chats, runs)), 201

    @routes.errorhandler(ChatsError)
    def failed(error: ChatsError) -> Response:
        return told(error).response()

    return routes


def unkept() -> Blueprint:
    """For a server that keeps no chats."""
    routes = Blueprint("chats", __name__)

    @routes.route("/api/chats", methods=["GET", "POST"])
    @routes.route("/api/chats/<path:_>", methods=["GET", "POST", "PATCH", "DELETE"])
    @routes.route("/api/answers/<_>", methods=["GET", "DELETE"])
    def refuse(_: str = "") -> Response:
        raise ApiError(404, "This server keeps no chats.", code="chats_not_kept")

    return routes


def owner() -> str:
    """Whose chats the request at hand is about."""
    return g.owner or ""


def told(error: ChatsError) -> ApiError:
    """As an API error."""
    status, kind, code = KINDS[type(error)]
    return ApiError(status, str(error), kind, code)


def _add_chats(routes: Blueprint, chats: Chats, runs: Runs) -> None:
    @routes.get("/api/chats")
    def list_all() -> Response:
        text, version = request.args.get("q", ""), chats.version
        if len(text) > LONGEST_SEARCH:
            raise wrong("q", f"What is searched for has at most {LONGEST_SEARCH:,} characters.")
        return jsonify({"chats": chats.find(owner(), text), "version": version})

    @routes.post("/api/chats")
    def create() -> tuple[Response, int]:
        body = read(NewChat, request.get_data(cache=False))
        return jsonify(chats.create(owner(), body.title, body.system)), 201

    @routes.get("/api/chats/<id>")
    def show(id: str) -> Response:
        chat = chats.read(owner(), id)
        return jsonify(chat | {"messages": [runs.live(message) for message in chat["messages"]]})

    @routes.patch("/api/chats/<id>")
    def change(id: str) -> Response:
        body = read(Changes, request.get_data(cache=False))
        return jsonify(chats.change(owner(), id, body.model_dump(exclude_unset=True)))

    @routes.delete("/api/chats/<id>")
    def remove(id: str) -> Response:
        chat = chats.remove(owner(), id)
        runs.stop(lambda run: run.chat == id)
        return jsonify(chat)

    @routes.post("/api/chats/<id>/restore")
    def restore(id: str) -> Response:
        return jsonify(chats.restore(owner(), id))


def _add_messages(routes: Blueprint, chats: Chats, runs: Runs) -> None:
    @routes.post("/api/chats/<id>/messages")
    def say(id: str) -> tuple[Response, int]:
        body = read(NewMessage, request.get_data(cache=False))
        files = [file.model_dump() for file in body.files]
        return jsonify(chats.say(owner(), id, body.parent, body.content, files)), 201

    @routes.delete("/api/chats/<id>/messages/<message>")
    def take_back(id: str, message: str) -> Response:
        leaf, removed = chats.remove_message(owner(), id, message)
        runs.stop(lambda run: run.id in removed)
        return jsonify({"leaf": leaf})


def _add_answers(routes: Blueprint, runs: Runs) -> None:
    seats = threading.BoundedSemaphore(MOST_READERS)

    @routes.get("/api/answers/<id>")
    def follow(id: str) -> Response:
        after = request.args.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) < 10):
            raise wrong("after", "after must be the number of an event.")
        run = runs.get(owner(), id)
        if not seats.acquire(blocking=False):
            message = f"{MOST_READERS} answers are being read already; this one goes on without a reader."
            raise ApiError(429, message, "rate_limit_error", "rate_limit_exceeded")
        reader = Reader(run, int(after), client_gone(request.environ), seats.release)
        return Response(reader, mimetype="text/event-stream", headers=HEADERS)

    @routes.delete("/api/answers/<id>")
    def stop(id: str) -> Response:
        run = runs.get(owner(), id)
        run.stop()
        run.wait()
        return jsonify(run.message())


def begin(body: NewAnswer, chat: str, settings: Settings, pool: Pool, chats: Chats, runs: Runs) -> dict[str, Any]:
    """The message that an answer is to become. Raises ApiError and ChatsError; then nothing is kept."""
    wanted = _request(body.request)
    _check_place(body, chat, chats, runs)
    run = runs.prepare(owner(), chat)
    environ = {SEATS: request.environ.get(SEATS), "waitress.client_disconnected": run.abandoned}
    asked = ask(wanted, settings, pool, environ, body.afresh)
    asked.answer.accept(PATIENCE_S)
    facts: dict[str, Any] = {"cache": how(asked.founds), "model": asked.heading.model}
    try:
        message = _place(body, chat, chats, facts)
    except Exception:
        asked.answer.close()
        raise
    if "thought_s" in message["facts"]:
        facts["thought_s"] = message["facts"]["thought_s"]  # what is continued was thought of before
    stream = EventStream(asked.answer, asked.writer(wanted), at_once=facts["cache"] == "hit")
    runs.start(run, message, facts, stream, plain(wanted.messages[: -1 if body.continues else None]))
    return run.message()


def _request(given: dict[str, Any]) -> ChatBody:
    for name, value in OURS.items():
        if given.get(name) not in (None, value):
            raise unsupported(name, f"{name} cannot be chosen for an answer of a chat.")
    wanted = read(ChatBody, json.dumps(given | OURS, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    refused = [name for name in NOT_OF_TEXT if getattr(wanted, name)] + ["n"] * ((wanted.n or 1) > 1)
    if refused:
        raise unsupported(refused[0], f"{refused[0]} is not supported for an answer of a chat.")
    return wanted


def _check_place(body: NewAnswer, chat: str, chats: Chats, runs: Runs) -> None:
    """Before an engine is asked."""
    if not body.continues:
        chats.message(owner(), chat, body.parent)
        return
    message = chats.message(owner(), chat, body.continues)
    if message["role"] != "assistant" or message["parent"] != body.parent:
        raise wrong("continues", "continues must name an answer to the parent.")
    if message["state"] == "running" or runs.has(message["id"]):
        raise RunningError("This answer is still being made.")


def _place(body: NewAnswer, chat: str, chats: Chats, facts: dict[str, Any]) -> dict[str, Any]:
    if not body.continues:
        return chats.begin(owner(), chat, body.parent, facts)
    return chats.resume(owner(), chat, body.continues)
