"""The command that serves the page and the HTTP API."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_options import Backend
from .console import Debug, guarded, say, tell, tell_where
from .errors import ReenactError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["serve"]

NEEDED = ("fastapi", "uvicorn", "websockets", "aiortc")


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; others than this machine need --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="N", help="Port.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="auto|TEXT",
            help="What clients must know: auto makes one and prints it.",
            show_default=False,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which browsers reach this server; repeatable. Addresses need none.",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Certificate for https, without which browsers give no camera to other machines' pages.",
            show_default=False,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Its key.", show_default=False),
    ] = None,
    sessions: Annotated[
        int, typer.Option(min=1, max=64, metavar="N", help="How many may use it at once.")
    ] = 4,
    webrtc: Annotated[
        bool, typer.Option("--webrtc/--no-webrtc", help="WebRTC, or the WebSocket alone.")
    ] = True,
    backend: Backend = "auto",
    debug: Debug = False,
) -> None:
    """Serve a page that animates a photo by the camera, and an HTTP API, until Ctrl-C."""
    with guarded(debug):
        server = _server()
        from .runtime.models import ensure
        from .runtime.web.settings import ServeSettings, WebLimits, resolve_token

        tell_where(backend)
        settings = ServeSettings(
            host=host,
            port=port,
            token=resolve_token(token),
            allowed_hosts=tuple(allow_host or ()),
            tls_certificate=tls_cert,
            tls_key=tls_key,
            webrtc=webrtc,
            backend=backend,
            limits=WebLimits(sessions=sessions),
        )
        ensure(tell)
        server.serve(settings, lambda: say(f"Open {server.address(settings)}  (Ctrl-C ends)"))


def _server() -> "ModuleType":
    try:
        from .runtime.web import server
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] not in NEEDED:
            raise
        raise ReenactError(
            f"this command needs {error.name}, which is not installed; install it with "
            '`pip install ".[web]"` in the folder of the sources'
        ) from error
    return server
