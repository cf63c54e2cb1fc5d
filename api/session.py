"""/api/session: the chat page shows the API key once and is known by a cookie from then on.

Scripts cannot read the cookie, other sites cannot make the browser send it, and the key is not in it.
"""

from __future__ import annotations

from flask import Blueprint, Response, request
from pydantic import BaseModel, Field

from api.body import read
from api.guard import cookie_name, matching, session_of, wrong_key
from api.message import STRICT
from settings import Settings


class SessionBody(BaseModel):
    """POST /api/session."""

    model_config = STRICT
    key: str = Field(max_length=1024)


def blueprint(settings: Settings) -> Blueprint:
    """POST begins a session, DELETE ends it; without an API key there is nothing to begin."""
    routes = Blueprint("session", __name__)

    @routes.post("/api/session")
    def begin() -> Response:
        given = read(SessionBody, request.get_data()).key.strip()
        response = Response(status=204)
        if settings.api_keys:
            key = matching(settings, given.encode())
            if not key:
                raise wrong_key()
            response.set_cookie(cookie_name(), session_of(key), httponly=True, samesite="Strict", path="/")
        return response

    @routes.delete("/api/session")
    def end() -> Response:
        response = Response(status=204)
        response.delete_cookie(cookie_name(), httponly=True, samesite="Strict", path="/")
        return response

    return routes
