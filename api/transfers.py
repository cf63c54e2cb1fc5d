"""Chats from and to files: GET /api/chats/ID/export, GET /api/chats/export, POST /api/chats/import."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, Field

from api.body import read
from api.chats import owner, told
from api.errors import wrong
from api.message import STRICT
from web import transfer
from web.chats import Chat, Chats
from web.database import ChatsError

FORMAT = "linnet-chats"  # several; one alone has web.transfer's
MOST_ITEMS = 10_000  # of one request
N_NAME = 60  # characters of a file's name
KINDS = {"markdown": ("md", "text/markdown"), "json": ("json", "application/json")}


class Imported(BaseModel):
    """POST /api/chats/import: conversations as the program that exported them wrote them."""

    model_config = STRICT
    items: list[Any] = Field(min_length=1, max_length=MOST_ITEMS)


def blueprint(chats: Chats) -> Blueprint:
    """The routes."""
    routes = Blueprint("transfers", __name__)

    @routes.get("/api/chats/<id>/export")
    def export(id: str) -> Response:
        kind = request.args.get("as", "json")
        if kind not in KINDS:
            raise wrong("as", "as must be markdown or json.")
        chat = chats.read(owner(), id)
        text = transfer.markdown(chat) if kind == "markdown" else _json(transfer.export(chat))
        ending, mimetype = KINDS[kind]
        return _file(text, f"{_name(chat)}.{ending}", mimetype)

    @routes.get("/api/chats/export")
    def export_all() -> Response:
        return _file(_whole(chats.all(owner())), "linnet-chats.json", "application/json")

    @routes.post("/api/chats/import")
    def take_in() -> tuple[Response, int]:
        body = read(Imported, request.get_data(cache=False))
        added, failed = [], []
        for index, item in enumerate(body.items):
            try:
                added.append(chats.add(owner(), transfer.read(item)))
            except transfer.TransferError as error:
                failed.append({"index": index, "message": str(error)})
        return jsonify({"chats": added, "failed": failed}), 201

    @routes.errorhandler(ChatsError)
    def no_chats(error: ChatsError) -> Response:
        return told(error).response()

    return routes


def _whole(chats: Iterator[Chat]) -> Iterator[str]:
    """Chat by chat: all of them together may be large."""
    yield f'{{"format":"{FORMAT}","chats":['
    for n, chat in enumerate(chats):
        yield ",\n" * (n > 0) + _json(transfer.export(chat))
    yield "]}\n"


def _file(content: str | Iterator[str], name: str, mimetype: str) -> Response:
    spelled = f"filename*=UTF-8''{quote(name)}"
    return Response(content, mimetype=mimetype, headers={"Content-Disposition": f"attachment; {spelled}"})


def _name(chat: Chat) -> str:
    """Of letters, digits and what no file system minds."""
    return re.sub(r"[^\w-]+", " ", chat["title"] or chat["first"]).strip()[:N_NAME].strip() or "chat"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
