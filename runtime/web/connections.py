"""What a connection may do that asks for nothing or reads nothing: little, not for long, not too many of one address.

uvicorn limits connections in all, and how long one may stay silent between two requests; but not before the first, and
it waits for ever for a client that does not read what it was sent.
"""

import asyncio
import contextlib
import json
import socket
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .rates import address_key
from .refusals import Problem

__all__ = [
    "CLOSING_SECONDS",
    "HEAD_SECONDS",
    "MOST_AN_ADDRESS",
    "MOST_CONNECTIONS",
    "UNREAD_SECONDS",
    "Connection",
    "Listener",
    "WebSocketConnection",
]

HEAD_SECONDS = 10
"""For which a connection may be open without the head of a request having come whole, and a TLS handshake may take."""
UNREAD_SECONDS = 30
"""For which a client may take nothing of what waits for it."""
CLOSING_SECONDS = 120
"""For which a client with TLS may read what was sent before the end, and confirm that."""
MOST_CONNECTIONS = 256
MOST_AN_ADDRESS = 128
"""Far more than the pages of all sessions need, since behind a proxy all are of one address."""
_MOST_UNSENT = 131_072  # bytes in the system's buffer beyond those under way


class Listener(socket.socket):
    """Where connections come in, with TLS: too many from an address are closed before their handshake.

    Without TLS `Connection` does that, which can say why; with it, it hears of a connection after the handshake only.
    """

    def __init__(self, listening: socket.socket) -> None:
        """Takes the place of `listening`, which is no longer of use."""
        super().__init__(fileno=listening.detach())
        self._open: list[tuple[str, socket.socket]] = []

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; ConnectionAbortedError, which asyncio expects, where it was not let in."""
        made, address = super().accept()
        key = address_key(address[0])
        self._open = [(other, known) for other, known in self._open if known.fileno() >= 0]
        if (
            len(self._open) >= 2 * MOST_CONNECTIONS
            or sum(other == key for other, _ in self._open) >= MOST_AN_ADDRESS
        ):
            made.close()
            raise ConnectionAbortedError
        self._open.append((key, made))
        return made, address


class _Read(asyncio.Protocol):
    """Ends a connection whose client takes nothing of what waits for it, while that holds others up or at its end."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _paused = False
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        super().connection_made(transport)
        # The system takes little ahead, so that a slow client is seen to read: not on Windows, which has larger steps.
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with contextlib.suppress(OSError):  # no TCP
                transport.get_extra_info("socket").setsockopt(
                    socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MOST_UNSENT
                )

    def pause_writing(self) -> None:
        """Nothing more is written until some of it was read."""
        super().pause_writing()
        self._paused = True
        self._watch_reader()

    def resume_writing(self) -> None:
        """Enough of it was read."""
        super().resume_writing()
        self._paused = False
        self._stop_watching_reader()
        self._watch_reader()

    def data_received(self, data: bytes) -> None:
        """What came may have been the last."""
        super().data_received(data)
        self._watch_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._stop_watching_reader()
        super().connection_lost(exc)

    def _watch_reader(self) -> None:
        """Time runs where writing waits, or closing does; in neither case is anything added to what is unread."""
        unread = _unread(self.transport)
        if unread and self._unread_timer is None and (self._paused or self.transport.is_closing()):
            self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self._still_unread, unread)

    def _still_unread(self, before: int) -> None:
        self._unread_timer = None
        if _unread(self.transport) >= before:
            self.transport.abort()
        else:
            self._watch_reader()

    def _stop_watching_reader(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None


def _unread(transport: asyncio.Transport) -> int:
    """Bytes that the system has not taken; with TLS also those beneath it, which asyncio does not count in."""
    beneath = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return transport.get_write_buffer_size() + (0 if beneath is None else beneath.get_write_buffer_size())


class WebSocketConnection(_Read, WebSocketsSansIOProtocol):
    """One WebSocket. uvicorn waits until a client has read all before it closes; one that is not there never does."""

    def keepalive_timeout(self) -> None:
        """A ping was not answered."""
        super().keepalive_timeout()
        self.transport.abort()

    async def send(self, message: Any) -> None:
        """A message of the application; after its last one the client has a while to close, too."""
        await super().send(message)
        if self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
        self._watch_reader()


class Connection(_Read, H11Protocol):
    """One connection, until it becomes a WebSocket."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open; too many from its address are told to come back."""
        super().connection_made(transport)
        own = _key(self)
        if own and sum(_key(other) == own for other in self.connections) > MOST_AN_ADDRESS:
            self.transport.write(_TOO_MANY)
            self.transport.close()
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Some of a request, or what belongs to it."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """The next request may come."""
        super().on_response_complete()
        self._watch_head()
        self._watch_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for in time."""
        super().timeout_keep_alive_handler()
        self._watch_reader()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """From here on it is another's."""
        super().handle_websocket_upgrade(event)
        self._paused = False
        self._stop_watching_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._stop_watching()
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        """Time runs while a head is to come; what arrives of it does not stop that."""
        if self.conn.their_state is not h11.IDLE:
            self._stop_watching()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _stop_watching(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def _key(connection: Any) -> str | None:
    client = cast("tuple[str, int] | None", connection.client)
    return address_key(client[0]) if client else None


def _too_many() -> bytes:
    """An answer that is given before anything was asked."""
    problem = Problem(code="busy", message="There are too many connections from your address.")
    body = json.dumps(problem.model_dump())
    head = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Retry-After: 5",
        "Connection: close",
    )
    return "\r\n".join((*head, "", body)).encode()


_TOO_MANY = _too_many()
