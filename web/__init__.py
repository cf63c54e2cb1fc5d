"""The chat page: plain ES modules and CSS, no build step, nothing from any other place."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, send_from_directory

FOLDER = Path(__file__).resolve().parent
# The page may load its own files and talk to its own server, and nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def blueprint() -> Blueprint:
    """`/` is the page, `/web/...` its files."""
    routes = Blueprint("web", __name__)

    @routes.get("/")
    def page() -> Response:
        return _file("index.html")

    @routes.get("/favicon.ico")
    def icon() -> Response:
        return _file("linnet.svg")

    @routes.get("/web/<name>")
    def file(name: str) -> Response:
        return _file(name)

    return routes


def _file(name: str) -> Response:
    response = send_from_directory(FOLDER / "page", name, max_age=0)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
