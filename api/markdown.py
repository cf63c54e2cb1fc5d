"""POST /api/markdown: an answer's text as HTML for the chat page."""

from __future__ import annotations

from dataclasses import asdict

from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel

from api.body import read
from api.errors import ApiError
from api.message import STRICT
from web.markdown import MOST_CHARACTERS, render


class MarkdownBody(BaseModel):
    """POST /api/markdown."""

    model_config = STRICT
    text: str


def blueprint() -> Blueprint:
    """The blocks of a text: {"html", "end"} each, `end` counted as JavaScript counts."""
    routes = Blueprint("markdown", __name__)

    @routes.post("/api/markdown")
    def markdown() -> Response:
        text = read(MarkdownBody, request.get_data()).text
        if len(text) > MOST_CHARACTERS:
            raise ApiError(
                413,
                f"A text of {len(text):,} characters is too long to be shown as Markdown; it may have {MOST_CHARACTERS:,}.",
                code="request_too_large",
                param="text",
            )
        return jsonify({"blocks": [asdict(block) for block in render(text)]})

    return routes
