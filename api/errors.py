"""What goes wrong, in the words of OpenAI's API.

ApiError            becomes a JSON answer with a status, or an error event in a stream that has begun
engine Trouble      -> TROUBLES -> ApiError     (a test proves the table complete)
werkzeug's errors   -> from_http -> ApiError    (no such route, wrong method, too large)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from flask import Response, jsonify

from engine.request import Failed, Trouble

LONGEST_MESSAGE = 1000  # characters; an error must not echo a huge request
RETRY_AFTER_S = 1


class Kind(NamedTuple):
    """How one sort of error is told: HTTP status, OpenAI's type and code."""

    status: int
    type: str
    code: str | None = None


TROUBLES = {
    Trouble.CONTEXT_LENGTH: Kind(400, "invalid_request_error", "context_length_exceeded"),
    Trouble.BAD_PROMPT: Kind(400, "invalid_request_error"),
    Trouble.BAD_TOKENS: Kind(400, "invalid_request_error", "invalid_value"),
    Trouble.BAD_BIAS: Kind(400, "invalid_request_error", "invalid_value"),
    Trouble.BAD_SHAPE: Kind(400, "invalid_request_error", "invalid_value"),
    Trouble.QUEUE_FULL: Kind(429, "rate_limit_error", "rate_limit_exceeded"),
    Trouble.LOADING: Kind(503, "server_error", "model_loading"),
    Trouble.NO_MODEL: Kind(503, "server_error", "model_not_loaded"),
    Trouble.STOPPING: Kind(503, "server_error", "server_stopping"),
    Trouble.QUEUE_TIMEOUT: Kind(503, "server_error", "queue_timeout"),
    Trouble.PROMPT_TIMEOUT: Kind(504, "server_error", "prompt_timeout"),
    Trouble.ANSWER_TIMEOUT: Kind(504, "server_error", "answer_timeout"),
    Trouble.STALLED: Kind(500, "server_error", "engine_stalled"),
    Trouble.ENGINE_DIED: Kind(500, "server_error", "engine_crashed"),
    Trouble.INTERNAL: Kind(500, "server_error"),
}


@dataclass
class ApiError(Exception):
    """A refusal or failure as the client will see it."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None

    def body(self) -> dict[str, Any]:
        """OpenAI's error object; all four keys always there."""
        message = self.message[:LONGEST_MESSAGE]
        return {"error": {"message": message, "type": self.type, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The whole answer."""
        response = jsonify(self.body())
        response.status_code = self.status
        if self.status in (429, 503):
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        if self.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response


def wrong(param: str | None, message: str) -> ApiError:
    """For a value that makes no sense."""
    return ApiError(400, message, code="invalid_value", param=param)


def unsupported(param: str, message: str) -> ApiError:
    """For what cannot be honoured."""
    return ApiError(400, message, code="unsupported_parameter", param=param)


def ours() -> ApiError:
    """For a fault that nobody foresaw."""
    return ApiError(500, "The server failed; its log has the details.", "server_error")


def from_failed(event: Failed, param: str | None = None) -> ApiError:
    """What the engine said, as an API error about a field."""
    status, type, code = TROUBLES[event.trouble]
    return ApiError(status, event.message, type, code, param)


def from_http_status(status: int, message: str) -> ApiError:
    """What Flask, werkzeug and waitress refuse themselves: no such route, wrong method, too large."""
    type = "invalid_request_error" if status < 500 else "server_error"
    return ApiError(status, message, type, "request_too_large" if status == 413 else None)
