"""Who may ask: the API key, and the browser's other pages, which may not.

Any page a user visits can make its browser send requests to this computer. Three checks close that door: the Host header
must name this computer (DNS rebinding), a foreign Origin is refused, and bodies must be declared as JSON, which a page
of another site cannot do without asking first.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import ipaddress
from urllib.parse import urlsplit

from flask import g, request

from api.errors import ApiError
from settings import Settings

OPEN_PATHS = ("/", "/health", "/web/")  # for everybody: the page asks for the key itself


def check(settings: Settings) -> None:
    """Raises ApiError 401, 403 or 415 for the request at hand. Whose it is stands in `flask.g.owner` then."""
    g.owner = None
    if settings.local and not _names_this_computer(request.host):
        raise _forbidden("This server answers only to the names of this computer.")
    origin = request.headers.get("Origin")
    if origin and origin.partition("://")[2] != request.host:
        raise _forbidden("Pages of other sites may not use this server.")
    if settings.api_keys and not _is_open(request.path):
        # A header is bytes, which WSGI hands over as Latin-1.
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode("latin-1", "replace")
        right = [key for key in settings.api_keys if hmac.compare_digest(given, key.encode())]
        if not right:
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
        g.owner = hashlib.sha256(given).hexdigest()
    if request.method == "POST" and request.url_rule and request.mimetype != "application/json":
        raise ApiError(415, "The body must be JSON, with Content-Type: application/json.")


def _forbidden(message: str) -> ApiError:
    return ApiError(403, message, type="permission_error", code="host_not_allowed")


def _is_open(path: str) -> bool:
    return any(path == prefix or (prefix[-1] == "/" and prefix != "/" and path.startswith(prefix)) for prefix in OPEN_PATHS)


@functools.lru_cache(64)
def _names_this_computer(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
