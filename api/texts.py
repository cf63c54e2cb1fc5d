"""What can be asked about a text beside an answer: /v1/embeddings, /tokenize and /detokenize."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from contextlib import closing
from typing import Annotated, Literal, cast

import numpy as np
from flask import Blueprint, Response, jsonify, request
from pydantic import BaseModel, Field

from api.answer import Answer, take_seat
from api.body import Tokens, Yes, read
from api.choice import Choice
from api.errors import wrong
from api.message import LOOSE
from api.pool import Pool
from api.source import Found
from engine.client import Engine
from engine.request import Request, Trouble, Want

Text = str | list[int]
MOST_TEXTS = 256  # to be embedded


class EmbeddingsBody(BaseModel):
    """POST /v1/embeddings."""

    model_config = LOOSE
    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]
        | Annotated[Tokens, Field(min_length=1)]
        | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)]
    )
    model: str | None = Field(None, max_length=512)
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)


class TokenizeBody(BaseModel):
    """POST /tokenize."""

    model_config = LOOSE
    content: str
    model: str | None = Field(None, max_length=512)
    with_pieces: bool | None = None
    add_special: bool | None = None  # with the token that begins a text
    parse_special: Yes | None = None


class DetokenizeBody(BaseModel):
    """POST /detokenize."""

    model_config = LOOSE
    tokens: Tokens
    model: str | None = Field(None, max_length=512)


def blueprint(pool: Pool) -> Blueprint:
    """The routes."""
    routes = Blueprint("texts", __name__)

    @routes.post("/embeddings")
    def embeddings() -> Response:
        body = read(EmbeddingsBody, request.get_data(cache=False))
        model = pool.get(body.model)
        texts = listed(body.input)
        if not all(texts):
            raise wrong("input", "input has an empty text in it.")
        engine = model.working()
        answers = [ask(engine, text, Want.VECTOR, "input") for text in texts]
        n_tokens = sum(answer.n_prompt for answer in answers)
        data = [
            {"object": "embedding", "index": i, "embedding": vector(answer.result, body)} for i, answer in enumerate(answers)
        ]
        usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
        return jsonify({"object": "list", "data": data, "model": model.name, "usage": usage})

    @routes.post("/tokenize")
    def tokenize() -> Response:
        body = read(TokenizeBody, request.get_data(cache=False))
        engine = pool.get(body.model).working()
        answer = ask(engine, body.content, Want.PROMPT if body.add_special else Want.TOKENS, "content")
        if not body.with_pieces:
            return jsonify({"tokens": [token for token, _ in answer.result]})
        return jsonify({"tokens": [{"id": token, "piece": piece(spelled)} for token, spelled in answer.result]})

    @routes.post("/detokenize")
    def detokenize() -> Response:
        body = read(DetokenizeBody, request.get_data(cache=False))
        return jsonify({"content": spelled(pool.get(body.model).working(), [body.tokens], "tokens")[0]})

    return routes


def ask(engine: Engine, text: Text, want: Want, param: str) -> Answer:
    """What the engine says about a text, which came in this field, whole. Raises ApiError, ClientGone."""
    take_seat(request.environ)
    stream = engine.submit(Request(uuid.uuid4().hex, [], prompt=text, want=want))
    answer = Answer([Found(stream, want)], [Choice()], request.environ, dict.fromkeys(Trouble, param), quiet=True)
    answer.accept()
    with closing(answer):
        answer.read()
    return answer


def listed(given: str | list[str] | list[int] | list[list[int]]) -> list[Text]:
    """One text, or a list of them, each as a string or as its tokens."""
    one = isinstance(given, str) or isinstance(given[0], int)
    return cast(list[Text], [given] if one else given)


def spelled(engine: Engine, texts: Sequence[Text], param: str) -> list[str]:
    """Each text as a string."""
    return [text if isinstance(text, str) else str(ask(engine, text, Want.TEXT, param).result[0]) for text in texts]


def piece(spelled: str) -> str | list[int]:
    """A token's text; its bytes, where they are no text by themselves."""
    data = spelled.encode("latin-1")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


def vector(values: list[float], body: EmbeddingsBody) -> str | list[float]:
    """Of length 1, with its first so many dimensions if not all are wanted; as base64 of 32-bit floats, or as numbers."""
    found = np.array(values)
    if body.dimensions:
        if body.dimensions > len(found):
            raise wrong("dimensions", f"This model's vectors have {len(found)} dimensions.")
        found = found[: body.dimensions]
        found /= np.linalg.norm(found) or 1.0
    if body.encoding_format == "base64":
        return base64.b64encode(found.astype("<f4").tobytes()).decode()
    return [float(value) for value in found]
