"""Puts the server together: routes, page, errors, the gate in front."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import routes, routes_jobs
from .rates import RateLimiter
from .refusals import Problem, Refusal
from .security import Gate
from .service import Service

__all__ = ["STATIC", "create_api", "create_app"]

_log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
BODY_SECONDS = 10.0
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_DESCRIPTION = "A photo comes alive, driven by a camera or a video. docs/serve.md has examples."


def create_app(service: Service) -> ASGIApp:
    """The whole server as an ASGI application: the gate before the API and the page."""
    return Gate(create_api(service), service.settings, service.metrics)


def create_api(service: Service) -> FastAPI:
    """The API and the page alone. Only for those who stand behind a gate already, or read its description."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="reenact",
        version="1",
        description=_DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,  # its pages load scripts from other servers
        redoc_url=None,
        lifespan=lifespan,
    )
    limits = service.settings.limits
    app.state.service = service
    app.state.openings = RateLimiter(limits.openings_per_minute / 60, limits.openings_at_once)
    app.include_router(routes.router)
    app.include_router(routes_jobs.router)
    app.add_api_route("/", _page, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(_Watch, service=service)
    return app


async def _page() -> FileResponse:
    return FileResponse(STATIC / "index.html")


async def _refused(request: Request, error: Any) -> Response:
    request.app.state.service.metrics.count("reenact_refusals_total", reason=error.code)
    return JSONResponse(error.problem.model_dump(), error.status, error.headers)


async def _invalid(_request: Request, error: Any) -> Response:
    """Say where a request is wrong, without repeating what it held."""
    first = error.errors()[0]
    place = ".".join(str(part)[:60] for part in first["loc"])
    problem = Problem(code="invalid", message=f"{place[:200]}: {first['msg'][:200]}")
    return JSONResponse(problem.model_dump(), 422)


async def _plain(_request: Request, error: Any) -> Response:
    """What the framework itself refuses, in our words."""
    code, message = {
        404: ("not_found", "There is nothing at this address."),
        405: ("wrong_method", "This address does not take that method."),
        408: ("too_slow", "The request took too long to arrive."),
        413: ("too_large", "The request is larger than anything this address takes."),
    }.get(error.status_code, ("refused", str(error.detail)[:200]))
    return JSONResponse(Problem(code=code, message=message).model_dump(), error.status_code, error.headers)


async def _failed(_request: Request, _error: Any) -> Response:
    problem = Problem(code="fault", message="Something failed in the server; its log tells what.")
    return JSONResponse(problem.model_dump(), 500)


class _Watch:
    """Counts requests, and ends bodies that are larger or slower than any request's but an upload's may be."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        most = self._service.settings.limits.json_bytes
        bounded = not _is_upload(scope)
        patience = time.monotonic() + BODY_SECONDS
        read, more = 0, True

        async def watched_receive() -> Message:
            nonlocal read, more
            try:
                async with asyncio.timeout(patience - time.monotonic() if bounded and more else None):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408) from None  # the framework's own, which it lets through
            read += len(message.get("body", b""))
            more = bool(message.get("more_body"))
            if bounded and read > most:
                raise HTTPException(413)
            return message

        try:
            await self._app(scope, watched_receive, watched_send)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            # A method is whatever a client writes, and a label is kept for ever.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._service.metrics.count(
                "reenact_requests_total", method=method, route=route, status=str(status)
            )


def _is_upload(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["method"] == "POST" and path.endswith(("/photos", "/videos"))
