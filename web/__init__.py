"""The chat page: plain ES modules and CSS, no build step, nothing from any other place."""

from __future__ import annotations

from flask import Blueprint, Response

from web import files

# The page may load its own files and talk to its own server, and nothing else. Text becomes HTML in one place of its
# scripts only, the policy "linnet", and only what the server has sanitized.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types linnet"
)
HEADERS = {  # of all responses: whatever a browser is made to open, it may do nothing with it
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def blueprint() -> Blueprint:
    """`/` is the page, `/web/...` its files."""
    routes = Blueprint("web", __name__)

    @routes.get("/")
    def page() -> Response:
        return files.response("index.html")

    @routes.get("/favicon.ico")
    def icon() -> Response:
        return files.response("linnet.svg")

    @routes.get("/web/<name>")
    def file(name: str) -> Response:
        return files.response(name)

    return routes
