"""What a connection may do before it has asked for anything: little, not for long, and not too many from one address.

uvicorn limits connections in all, and how long one may stay silent between two requests; but not before the first.
"""

import asyncio
import json
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .refusals import Problem

__all__ = ["HEAD_SECONDS", "MOST_AN_ADDRESS", "MOST_CONNECTIONS", "Connection"]

HEAD_SECONDS = 10
"""For which a connection may be open without the head of a request having come whole."""
MOST_CONNECTIONS = 256
MOST_AN_ADDRESS = 128
"""Far more than the pages of all sessions need, since behind a proxy all are of one address."""


class Connection(H11Protocol):
    """One connection, until it becomes a WebSocket."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It is open; too many from its address are told to come back."""
        super().connection_made(transport)
        if (
            self.client
            and sum(_address(other) == self.client[0] for other in self.connections) > MOST_AN_ADDRESS
        ):
            transport.write(_TOO_MANY)
            transport.close()
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


def _address(connection: Any) -> str | None:
    return connection.client[0] if connection.client else None


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
