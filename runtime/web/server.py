"""Runs the application until Ctrl-C."""

import asyncio
import functools
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from ...errors import ReenactError
from .app import create_app
from .connections import (
    CLOSING_SECONDS,
    HEAD_SECONDS,
    MOST_CONNECTIONS,
    Connection,
    Listener,
    WebSocketConnection,
)
from .service import Service
from .settings import ServeSettings, public_name

__all__ = ["address", "config", "serve"]

WEBSOCKET_PING_SECONDS = 10.0


def address(settings: ServeSettings) -> str:
    """Where a browser finds the page; the token, if any, is in the part that a browser never sends."""
    scheme = "https" if settings.tls_certificate else "http"
    host = public_name(settings)
    host = f"[{host}]" if ":" in host else host
    end = f"#token={settings.token}" if settings.token else ""
    return f"{scheme}://{host}:{settings.port}/{end}"


def config(app: ASGIApp, settings: ServeSettings) -> uvicorn.Config:
    """How `app` is served."""
    return uvicorn.Config(
        app,
        loop="asyncio",  # what is promised of connections holds for its transports
        http=Connection,
        ws=WebSocketConnection,
        lifespan="on",
        access_log=False,  # paths hold the secrets of sessions
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ws_max_size=settings.limits.frame_bytes + 64,
        ws_ping_interval=WEBSOCKET_PING_SECONDS,
        ws_ping_timeout=WEBSOCKET_PING_SECONDS,
        ws_per_message_deflate=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=HEAD_SECONDS,
        timeout_graceful_shutdown=3,
    )


def serve(settings: ServeSettings, started: Callable[[], None]) -> None:
    """Serve until Ctrl-C; `started` is called once requests are answered.

    Raises ReenactError where the address is not to be had.
    """
    try:
        probe = socket.create_server((settings.host, settings.port), family=_family(settings.host))
    except OSError as error:
        raise ReenactError(
            f"--host {settings.host} --port {settings.port}: cannot listen there ({error.strerror}); "
            "choose another port"
        ) from error
    settings = replace(settings, listening=probe.getsockname()[0])
    with Listener(probe) if settings.tls_certificate else probe as listening:
        _Server(config(create_app(Service(settings)), settings), started).run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell_started = started

    async def startup(self, sockets: Any = None) -> None:
        if self.config.is_ssl:
            _limit_tls(asyncio.get_running_loop())
        await super().startup(sockets)
        if self.started:
            self._tell_started()


def _limit_tls(loop: Any) -> None:
    """asyncio gives a TLS handshake a minute and its end 30 seconds, and uvicorn has no words for them."""
    loop.create_server = functools.partial(
        loop.create_server, ssl_handshake_timeout=HEAD_SECONDS, ssl_shutdown_timeout=CLOSING_SECONDS
    )


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
