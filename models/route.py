"""A GET to the hub, along its redirects: who may hear the token, and where nobody is sent.

Sessions, tokens and offline mode are huggingface_hub's. It follows redirects to any address, inside this network too, and
its errors read the body of an answer whole, however long it is; so the steps are taken one by one here. Nor are its headers
used: to tell the hub which program asks, build_hf_headers 2.4.0 fetches a list from the hub and writes it to ~/.cache.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx2
from huggingface_hub import __version__, constants, get_session, get_token
from huggingface_hub.errors import OfflineModeIsEnabled

from models.errors import AddressError, DeniedError, OfflineError, UnreachableError, WrongNameError, shown

MOST_HOPS = 8
CONNECT_S = 10.0
STALL_S = 30.0  # without a byte
PORTS = {"http": 80, "https": 443}
# Where clouds tell secrets to whoever runs in them, besides 169.254.0.0/16.
METADATA = {ipaddress.ip_address("fd00:ec2::254"), ipaddress.ip_address("100.100.100.200")}
REASONS = {
    httpx2.ConnectError: "it cannot be connected to",
    httpx2.ConnectTimeout: "it does not answer",
    httpx2.ReadTimeout: "nothing comes any more",
    httpx2.ReadError: "the connection broke",
    httpx2.RemoteProtocolError: "the connection broke",
    httpx2.ProxyError: "the proxy refused",
}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def resolve(host: str) -> list[Address]:
    """The addresses of a host; empty if its name means nothing here: then a proxy may know it, or connecting fails."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [_plain(ipaddress.ip_address(address[0])) for *_, address in found]


def _plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one, if there is one."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address.sixtofour or address
    return address


class Route:
    """How a hub is reached. Any thread may use it."""

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        stall_s: float = STALL_S,
        resolve: Callable[[str], list[Address]] = resolve,
    ) -> None:
        """None: what HF_ENDPOINT, HF_TOKEN and the library's other places for a token say. Raises WrongNameError."""
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._token = token
        self._timeout = httpx2.Timeout(stall_s, connect=min(stall_s, CONNECT_S))
        self._resolve = resolve
        try:
            url = httpx2.URL(self.endpoint)
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if url.scheme not in PORTS or not url.host:
            raise WrongNameError(f"HF_ENDPOINT is no address of a hub: {shown(self.endpoint)}")
        self._origin = _origin(url)

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        """The answer at the end of the redirects, its body not read yet.

        Raises UnreachableError, also when reading the body breaks; AddressError, OfflineError, DeniedError.
        """
        response = self._follow(httpx2.URL(url), dict(headers))
        try:
            yield response
        except httpx2.TransportError as error:
            raise _unreachable(error, response.url.host) from error
        finally:
            response.close()

    def _follow(self, target: httpx2.URL, headers: dict[str, str]) -> httpx2.Response:
        headers["user-agent"] = f"linnet; hf_hub/{__version__}"
        headers["accept-encoding"] = "identity"  # sizes and hashes are of the plain bytes, and nothing can swell
        secret = self._secret()
        at_home = True
        for _ in range(MOST_HOPS + 1):
            at_home = at_home and _origin(target) == self._origin  # who was away once may bring back anything
            response = self._send(target, headers | secret if at_home else headers)
            if not response.has_redirect_location:
                return response
            response.close()
            target = self._next(target, response.headers["location"])
        raise AddressError(f"The hub sends on more than {MOST_HOPS} times; last to {shown(target.host)}.")

    def _secret(self) -> dict[str, str]:
        token = self._token or (None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token())
        if token and not (token.isascii() and token.isprintable()):
            raise DeniedError("HF_TOKEN holds letters that no token has.")
        return {"authorization": f"Bearer {token}"} if token else {}

    def _send(self, target: httpx2.URL, headers: dict[str, str]) -> httpx2.Response:
        session = get_session()
        try:
            request = session.build_request("GET", target, headers=headers, timeout=self._timeout)
            return session.send(request, stream=True, follow_redirects=False)
        except OfflineModeIsEnabled as error:
            raise OfflineError("HF_HUB_OFFLINE is set, so nothing is fetched; unset it to go online.") from error
        except UnicodeError as error:  # what IDNA says to a host like `..`
            raise AddressError(f"There can be no host {shown(target.host)}.") from error
        except httpx2.TransportError as error:
            raise _unreachable(error, target.host) from error

    def _next(self, here: httpx2.URL, location: str) -> httpx2.URL:
        try:
            target = here.join(location)
        except (httpx2.InvalidURL, ValueError) as error:
            raise AddressError(f"The hub sends on to what is no address: {shown(location)}") from error
        if target.scheme not in PORTS or not target.host:
            raise AddressError(f"The hub sends on to what is no web address: {shown(location)}")
        # The connection asks for the address once more. Who controls a name server could answer otherwise then; what he
        # reaches gets a GET without a token, and its answer is thrown away for its hash.
        inside = any(not address.is_global for address in self._resolve(self._origin[1]))
        for address in self._resolve(target.host):
            if _is_forbidden(address) or not (address.is_global or inside):
                raise AddressError(f"The hub sends on to an address inside this network: {shown(target.host)}.")
        return target


def interrupt(response: httpx2.Response) -> None:
    """Wakes the thread that reads the body, from another one: it sees a broken connection."""
    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream else None
    if isinstance(connection, socket.socket):
        try:
            # Not the method of ssl.SSLSocket, which would take the session away under the reader's hands.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already


def _is_forbidden(address: Address) -> bool:
    return address.is_link_local or address.is_multicast or address.is_unspecified or address in METADATA


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host.lower(), url.port or PORTS.get(url.scheme)


def _unreachable(error: httpx2.TransportError, host: str) -> UnreachableError:
    reason = REASONS.get(type(error), f"it failed ({type(error).__name__})")
    return UnreachableError(f"{shown(host)} cannot be read from: {reason}.")
