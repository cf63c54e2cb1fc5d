"""GET /openapi.json: all endpoints in OpenAPI's words, made from the very models that check the bodies."""

from __future__ import annotations

import functools
from typing import Any

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from api.body import (
    HARMLESS,
    NEUTRAL,
    ChatBody,
    CompletionBody,
    ModelBody,
    PrefillBody,
)
from api.downloads import DownloadBody
from api.guard import OPEN_PATHS
from api.items import ResponsesBody
from api.models import LoadBody
from api.texts import DetokenizeBody, EmbeddingsBody, TokenizeBody
from settings import Settings

REF = "#/components/schemas/{model}"
# (path, method, body, what it does)
ENDPOINTS: list[tuple[str, str, type[BaseModel] | None, str]] = [
    ("/v1/chat/completions", "post", ChatBody, "An answer to a chat."),
    ("/v1/completions", "post", CompletionBody, "Goes on from a text."),
    ("/v1/responses", "post", ResponsesBody, "An answer to a chat, as items."),
    ("/v1/embeddings", "post", EmbeddingsBody, "Vectors of texts."),
    ("/v1/tokenize", "post", TokenizeBody, "The tokens of a text."),
    ("/v1/detokenize", "post", DetokenizeBody, "The text of tokens."),
    ("/v1/models", "get", None, "The models that are installed."),
    ("/v1/models/{model}", "get", None, "One of them."),
    ("/v1/models/{model}", "delete", None, "Deletes its file."),
    ("/v1/models/catalog", "get", None, "What is installed or recommended, what fits here and how fast it would be."),
    ("/v1/models/load", "post", LoadBody, "Loads a model."),
    ("/v1/models/unload", "post", ModelBody, "Unloads a model."),
    ("/v1/models/download", "get", None, "The downloads that run."),
    ("/v1/models/download", "post", DownloadBody, "Fetches a model from the hub."),
    ("/v1/models/download", "delete", ModelBody, "Cancels that."),
    ("/api/prefill", "post", PrefillBody, "Reads a prompt ahead of its request."),
    ("/openapi.json", "get", None, "This description."),
    ("/health", "get", None, "Whether a request would be served now."),
    ("/status", "get", None, "What the server is doing, and what it has done."),
    ("/metrics", "get", None, "The same for Prometheus."),
    ("/cache", "get", None, "The answers kept."),
    ("/cache", "delete", None, "Forgets the answers kept."),
]
STREAMED = (ChatBody, CompletionBody, ResponsesBody, DownloadBody)
ERROR = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def blueprint(settings: Settings, version: str) -> Blueprint:
    """The route."""
    routes = Blueprint("describe", __name__)

    @functools.cache  # not at once: it takes a tenth of a second, and few ask
    def description() -> dict[str, Any]:
        return describe(settings, version)

    @routes.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(description())

    return routes


def describe(settings: Settings, version: str) -> dict[str, Any]:
    """The whole description. Every path under /v1 is there without that prefix, too."""
    bodies = [body for _, _, body, _ in ENDPOINTS if body]
    _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=REF)
    definitions = schemas["$defs"]
    for body in bodies:
        _close(definitions[body.__name__], body)
    paths: dict[str, dict[str, Any]] = {}
    for path, method, asked, says in ENDPOINTS:
        for each in {path, path.removeprefix("/v1")}:
            paths.setdefault(each, {})[method] = _operation(path, asked, says)
    components: dict[str, Any] = {"schemas": definitions | {"Error": ERROR}}
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Linnet", "version": version, "description": "A local LLM server; OpenAI's API."},
        "paths": dict(sorted(paths.items())),
        "components": components,
    }
    if settings.api_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"key": []}]
    return described


def _operation(path: str, body: type[BaseModel] | None, says: str) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if path == "/status":
        content["text/html"] = {}
    if path == "/metrics":
        content = {"text/plain": {}, "application/openmetrics-text": {}}
    if body in STREAMED:
        content["text/event-stream"] = {}
    error = {
        "description": "What is wrong.",
        "content": {"application/json": {"schema": {"$ref": REF.format(model="Error")}}},
    }
    operation: dict[str, Any] = {
        "summary": says,
        "responses": {"200": {"description": says, "content": content}, "default": error},
    }
    if path in OPEN_PATHS:
        operation["security"] = []
    if path == "/health":
        operation["responses"]["503"] = {"description": "Not now, and why.", "content": content}
    if body:
        schema = {"$ref": REF.format(model=body.__name__)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if "{model}" in path:
        operation["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    return operation


def _close(schema: dict[str, Any], body: type[BaseModel]) -> None:
    """Names what `api.body.read` lets pass beside the model's own fields."""
    others: dict[str, Any] = {
        name: TypeAdapter(kind | None).json_schema() | {"description": "Cannot change the answer."}
        for name, kind in HARMLESS.items()
    }
    for name, values in NEUTRAL.items():
        others[name] = {"enum": [None, *values], "description": "Not supported; these values ask for nothing."}
    schema["properties"] |= {name: other for name, other in sorted(others.items()) if name not in body.model_fields}
    schema["additionalProperties"] = {"type": "null"}
