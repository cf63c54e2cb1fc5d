"""Who may ask: the API key, and the browser's other pages, which may not.

Any page a user visits can make its browser send requests to this computer. Four checks close that door: the Host header
must name this computer (DNS rebinding), a foreign Origin is refused, what the browser says was begun by another site is
refused but for a plain link to a page, and bodies must be declared as JSON, which a page of another site cannot do
without asking first.
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

OPEN_PATHS = ("/", "/health", "/web/", "/api/session")  # for everybody: the page asks for the key itself
PAGES = ("/", "/status")  # other sites may link to them; a page itself says nothing of what the server does


def check(settings: Settings) -> None:
    """Raises ApiError 401, 403 or 415 for the request at hand. Whose it is stands in `flask.g.owner` then."""
    g.owner = None
    if settings.local and not _names_this_computer(request.host):
        raise _forbidden("This server answers only to the names of this computer.")
    origin = request.headers.get("Origin")
    if (origin and origin.partition("://")[2] != request.host) or _begun_elsewhere():
        raise _forbidden("Pages of other sites may not use this server.")
    if settings.api_keys and not _is_open(request.path) and not (request.path in PAGES and wants_page()):
        key = given_key(settings)
        if not key:
            raise wrong_key()
        g.owner = hashlib.sha256(key.encode()).hexdigest()
    if request.method == "POST" and request.url_rule and request.mimetype != "application/json":
        raise ApiError(415, "The body must be JSON, with Content-Type: application/json.")


def given_key(settings: Settings) -> str | None:
    """The key that this request shows it knows: it is in its header, or, where there is none, its cookie is made of it."""
    if authorization := request.headers.get("Authorization"):
        # A header is bytes, which WSGI hands over as Latin-1.
        return matching(settings, authorization.removeprefix("Bearer ").encode("latin-1", "replace"))
    cookie = request.cookies.get(cookie_name(), "").encode()
    return next((key for key in settings.api_keys if hmac.compare_digest(cookie, session_of(key).encode())), None)


def matching(settings: Settings, given: bytes) -> str | None:
    """The key that was given, if it is one."""
    return next((key for key in settings.api_keys if hmac.compare_digest(given, key.encode())), None)


def cookie_name() -> str:
    """Has the port in it: browsers keep the servers of one computer apart by origin, but not their cookies."""
    return f"linnet_{request.environ['SERVER_PORT']}"


@functools.lru_cache(64)
def session_of(key: str) -> str:
    """What stands in the cookie of those who know the key. The key cannot be read from it."""
    return hmac.new(key.encode(), b"Linnet's session", hashlib.sha256).hexdigest()


def wants_page() -> bool:
    """Whether a browser asks for something to look at. Whoever takes JSON as well gets that."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def wrong_key() -> ApiError:
    """For a key that is missing or none of ours."""
    return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")


def _begun_elsewhere() -> bool:
    """Whether the browser says so. Another port of this computer is the same site to it, and yet not ours."""
    headers = request.headers
    if headers.get("Sec-Fetch-Site") not in ("cross-site", "same-site"):
        return False
    is_link = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return not (is_link and request.method == "GET" and request.path in PAGES)


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
