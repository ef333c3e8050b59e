"""Who may ask, and what every answer carries: Host, Origin, token, rate, and strict headers; knows no route's work.

Plain ASGI, so that it stands before everything else, WebSockets included.
"""

import asyncio
import hmac
import ipaddress
import math
from collections import OrderedDict
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .rates import MOST_ADDRESSES, RateLimiter, address_key
from .refusals import Refusal
from .settings import ServeSettings, is_loopback, public_name

__all__ = ["PROTOCOL", "TOKEN_PREFIX", "Gate", "peer_of"]

PROTOCOL = "reenact.v1"
"""The WebSocket's subprotocol."""
TOKEN_PREFIX = "token."
"""A WebSocket cannot send an Authorization header from a browser: the token is its second subprotocol."""

DISCARDED_BYTES = 64_000_000
DISCARD_SECONDS = 5.0
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob:",
    "media-src": "'self' blob:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), display-capture=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

# What the page needs before it can send a token; nothing in it is private.
_OPEN_TO_ALL = ("/", "/api/health")
_OPEN_FOLDER = "/static/"


class Gate:
    """Lets a request through to `app` or answers it with a refusal."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._token = settings.token
        self._loopback = is_loopback(settings.host)
        self._names = {name.lower() for name in ("localhost", public_name(settings), *settings.allowed_hosts)}
        limits = settings.limits
        self._requests = RateLimiter(limits.requests_per_second, limits.requests_at_once)
        self._wrong_tokens = RateLimiter(0.2, 10)
        self._proved: OrderedDict[str, None] = (
            OrderedDict()
        )  # addresses that brought the token, the last one last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or one WebSocket."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        unread = scope["type"] == "http" and _has_body(Headers(scope=scope))

        async def watched_receive() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def guarded_send(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                _add_headers(headers, scope)
                if unread:
                    await _discard(watched_receive)
                if unread:
                    headers["Connection"] = "close"
            await send(message)

        try:
            self._check(scope)
        except Refusal as refusal:
            self._metrics.count("reenact_refusals_total", reason=refusal.code)
            await refuse(scope, watched_receive, guarded_send, refusal)
            return
        await self._app(scope, watched_receive, guarded_send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        peer = address_key(peer_of(scope))
        wait = self._requests.wait(peer)
        if wait:
            raise Refusal(429, "too_many_requests", "Too many requests; wait a moment.", math.ceil(wait))
        self._check_host(headers.getlist("host"))
        _check_origin(headers)
        if self._token is not None and not _is_open(scope):
            self._check_token(_token_of(scope, headers), peer)

    def _check_host(self, hosts: list[str]) -> None:
        """A name that a hostile page's owner made point to this machine is not ours, so it is refused."""
        name = _host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or not (name in self._names or self._is_own_address(name)):
            raise Refusal(
                421,
                "wrong_host",
                "This server does not answer to that name; start it with --allow-host NAME.",
            )

    def _is_own_address(self, name: str) -> bool:
        """Addresses cannot be made to point elsewhere; a server for this machine alone takes only loopback ones."""
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._loopback

    def _check_token(self, given: str | None, peer: str) -> None:
        """Refuse what is not the token, and look at none from an address that has guessed too much.

        An address that has brought the token before is not held up, so that nobody who shares it with a guesser, as all
        do behind a proxy, is shut out.
        """
        if given is not None:
            wait = 0.0 if peer in self._proved else self._wrong_tokens.left(peer)
            if wait:
                raise Refusal(
                    429, "too_many_requests", "Too many wrong tokens; wait a moment.", math.ceil(wait)
                )
            if hmac.compare_digest(given.encode(), (self._token or "").encode()):
                self._proved[peer] = None
                self._proved.move_to_end(peer)
                if len(self._proved) > MOST_ADDRESSES:
                    self._proved.popitem(last=False)
                return
            self._wrong_tokens.wait(peer)
        raise Refusal(
            401,
            "token_needed",
            "A token is needed: open the address that the server printed when it started.",
        )


async def refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    """Answer with a refusal; a WebSocket is refused before it opens."""
    answer = JSONResponse(refusal.problem.model_dump(), refusal.status, refusal.headers)
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
        return
    await answer(scope, receive, send)


def peer_of(scope: Scope) -> str:
    """The address that the connection comes from; headers that claim another are not believed."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


def _is_open(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["type"] == "http" and (path in _OPEN_TO_ALL or path.startswith(_OPEN_FOLDER))


def _host_name(host: str) -> str | None:
    """The lower-case name or address of a Host header, without port and brackets; None where it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises where it is no port
        name = parts.hostname
    except ValueError:
        return None
    malformed = parts.path or parts.query or parts.fragment or parts.username is not None
    return None if malformed or not name else name.rstrip(".")


def _check_origin(headers: Headers) -> None:
    """A browser says which page a request comes from; only our own may. Other programs say nothing."""
    origins = headers.getlist("origin")
    same = all(_is_of(origin, headers["host"]) for origin in origins)
    site = headers.get("sec-fetch-site", "none")
    if not same or len(origins) > 1 or site == "cross-site":
        navigates = headers.get("sec-fetch-mode") == "navigate" and not origins
        if not navigates:
            raise Refusal(403, "wrong_origin", "Requests from other sites are refused.")


def _is_of(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:  # malformed
        return False
    return parts.netloc == host and parts.scheme in ("http", "https")


def _token_of(scope: Scope, headers: Headers) -> str | None:
    if scope["type"] == "websocket":
        offered = [part.strip() for part in headers.get("sec-websocket-protocol", "").split(",")]
        tokens = [part.removeprefix(TOKEN_PREFIX) for part in offered if part.startswith(TOKEN_PREFIX)]
        if tokens:
            return tokens[0]
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def _discard(receive: Receive) -> None:
    """Take what is still to come of a refused upload, so that its sender reads the answer; but not for ever."""
    left = DISCARDED_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _add_headers(headers: MutableHeaders, scope: Scope) -> None:
    for name, value in HEADERS.items():
        headers[name] = value
    path = scope["path"]
    headers.setdefault(
        "Cache-Control", "no-cache" if path.startswith("/static/") or path == "/" else "no-store"
    )
