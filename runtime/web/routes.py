"""HTTP routes of sessions: what is asked for and answered; the work is elsewhere."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response, WebSocket
from fastapi.responses import PlainTextResponse

from ...errors import ReenactError
from ..motion import control_ranges, preset_names
from . import rtc
from .live import SIZES, LiveChange, LiveSettings
from .models import (
    Answer,
    Capabilities,
    ControlInfo,
    Health,
    LimitsInfo,
    Offer,
    PhotoInfo,
    SessionInfo,
    SystemInfo,
    VideoInfo,
)
from .photos import BUILT_IN, Photo, Video
from .rates import RateLimiter, address_key
from .refusals import Problem, Refusal, refusal_of
from .security import peer_of, refuse
from .service import Service
from .sessions import Session
from .websocket import Line

__all__ = ["Id", "Mine", "of_session", "problems", "router", "service_of", "upload_body"]

router = APIRouter()
Id = Annotated[str, Path(min_length=1, max_length=64)]

_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "A JPEG picture."}
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals that a route documents, beside those that any may give."""
    always = (400, 401, 403, 421, 422, 429)
    return {
        status: {"model": Problem, "description": _WORDS[status]} for status in sorted({*always, *statuses})
    }


_WORDS = {
    400: "The request is malformed.",
    401: "A token is needed, or it is wrong.",
    403: "Not allowed, for example from another site.",
    404: "There is no such thing, or none any more.",
    408: "The upload took too long.",
    409: "Not possible as things are.",
    410: "The session is over.",
    507: "The server's disk is full.",
    413: "More than is taken.",
    415: "A kind of file that is not read.",
    421: "The server does not answer to that name.",
    422: "Understood, but not usable; the message says why.",
    429: "Too many requests.",
    503: "All places are taken.",
}


def upload_body(what: str) -> dict[str, Any]:
    """OpenAPI of a request whose body is the file itself."""
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "description": what, "content": content}}


async def service_of(request: Request) -> Service:
    """The server's parts."""
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(service_of)]


async def of_session(session_id: Id, service: Served) -> Session:
    """The session that a path names; nothing happens between this and the route's own work."""
    return service.sessions.get(session_id)


Mine = Annotated[Session, Depends(of_session)]


@router.get("/api/health", tags=["server"], responses=problems())
async def health(service: Served) -> Health:
    """Whether the server is up; needs no token."""
    return Health(
        status="ok",
        version=_version(),
        sessions=len(service.sessions),
        places=service.settings.limits.sessions,
    )


@router.get("/metrics", tags=["server"], response_class=PlainTextResponse, responses=problems())
async def metrics(service: Served) -> Response:
    """Counts and times in Prometheus' text format."""
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/api/capabilities", tags=["server"], responses=problems())
async def capabilities(service: Served) -> Capabilities:
    """Systems, sizes, controls, motions and limits."""
    limits = service.settings.limits
    return Capabilities(
        systems=[
            SystemInfo(name=s.name, available=s.available, reason=s.reason)
            for s in await service.pool.systems()
        ],
        sizes=list(SIZES),
        controls=[
            ControlInfo(name=name, low=low, high=high) for name, (low, high) in control_ranges().items()
        ],
        motions=preset_names(),
        webrtc=service.settings.webrtc,
        limits=LimitsInfo(**{name: getattr(limits, name) for name in LimitsInfo.model_fields}),
    )


@router.post("/api/sessions", status_code=201, tags=["sessions"], responses=problems(409, 503))
async def open_session(request: Request, service: Served) -> SessionInfo:
    """Open a session; 503 with Retry-After where all places are taken."""
    service.sessions.check_room()  # waiting for a place is not held against anybody
    openings: RateLimiter = request.app.state.openings
    wait = openings.wait(address_key(peer_of(request.scope)))
    if wait:
        raise Refusal(429, "too_many_requests", "Too many new sessions; wait a moment.", int(wait) + 1)
    try:
        session = await service.sessions.open()
    except ReenactError as error:
        raise refusal_of(error) from error
    gone = True
    try:
        gone = await request.is_disconnected()
    finally:
        if gone:  # as a page that was loaded anew meanwhile: nobody else knows of the session
            await service.sessions.close(session)
    return _session_info(session)


@router.get("/api/sessions/{session_id}", tags=["sessions"], responses=problems(404))
async def read_session(session: Mine) -> SessionInfo:
    """Settings and status; also keeps the session from ending for lack of use."""
    return _session_info(session)


@router.delete("/api/sessions/{session_id}", status_code=204, tags=["sessions"], responses=problems(404))
async def close_session(session: Mine, service: Served) -> None:
    """End the session; its photos, videos and results are deleted."""
    await service.sessions.close(session)


@router.patch("/api/sessions/{session_id}/live", tags=["live"], responses=problems(404, 409, 410))
async def change_live(session: Mine, change: LiveChange) -> LiveSettings:
    """Change photo, system, size, strengths, smoothing or edits; answers once it shows."""
    with session.work():
        return await session.live.change(change)


@router.post(
    "/api/sessions/{session_id}/live/reset-pose", status_code=204, tags=["live"], responses=problems(404)
)
async def reset_pose(session: Mine) -> None:
    """What the face does now is its rest from now on."""
    session.live.reset_pose()


@router.post("/api/sessions/{session_id}/live/webrtc", tags=["live"], responses=problems(404, 409, 410))
async def connect(session: Mine, offer: Offer, request: Request, service: Served) -> Answer:
    """Answer an SDP offer: the camera's video in, the portrait's out."""
    with session.work():
        client = peer_of(request.scope)
        return Answer(sdp=await rtc.answer(session, service.metrics, service.settings, offer.sdp, client))


@router.websocket("/api/sessions/{session_id}/live")
async def line(websocket: WebSocket, session_id: str) -> None:
    """The session's lifeline: status out; frames and pictures where WebRTC cannot pass (docs/serve.md)."""
    service: Service = websocket.app.state.service
    try:
        session = service.sessions.get(session_id)
    except Refusal as refusal:
        await refuse(websocket.scope, websocket.receive, websocket.send, refusal)
        return
    await Line(websocket, session, service.metrics, service.settings.limits).run()


@router.get("/api/sessions/{session_id}/photos", tags=["photos"], responses=problems(404))
async def list_photos(session: Mine) -> list[PhotoInfo]:
    """The built-in photos, then the session's own."""
    return [_photo_info(photo) for photo in session.photos.photos()]


@router.post(
    "/api/sessions/{session_id}/photos",
    status_code=201,
    tags=["photos"],
    responses=problems(404, 408, 409, 410, 413, 415, 507),
    openapi_extra=upload_body("A JPEG, PNG, WebP, BMP or TIFF file that shows a face."),
)
async def add_photo(session: Mine, request: Request, service: Served) -> PhotoInfo:
    """Upload a photo."""
    with session.work():
        engines = await service.pool.get("meshwarp")
        photo = await _counted(service, "photo", session.photos.add_photo(request.stream(), engines))
    return _photo_info(photo)


@router.get(
    "/api/sessions/{session_id}/photos/{photo_id}/thumbnail",
    tags=["photos"],
    response_class=Response,
    responses={**problems(404), **_JPEG},
)
async def thumbnail(session: Mine, photo_id: Id) -> Response:
    """A small square around the face."""
    return Response(session.photos.photo(photo_id).thumbnail, media_type="image/jpeg")


@router.delete(
    "/api/sessions/{session_id}/photos/{photo_id}",
    status_code=204,
    tags=["photos"],
    responses=problems(404, 409),
)
async def remove_photo(session: Mine, photo_id: Id) -> None:
    """Delete one of the session's own photos, unless it is the one shown."""
    if photo_id == session.live.settings.photo:
        raise Refusal(409, "in_use", "This photo is being shown; choose another one first.")
    session.photos.remove_photo(photo_id)


@router.post(
    "/api/sessions/{session_id}/videos",
    status_code=201,
    tags=["jobs"],
    responses=problems(404, 408, 409, 410, 413, 415, 507),
    openapi_extra=upload_body("An MP4, WebM, MOV, MKV or GIF file that shows one person's face."),
)
async def add_video(session: Mine, request: Request, service: Served) -> VideoInfo:
    """Upload a video that is to drive a job."""
    with session.work():
        return _video_info(await _counted(service, "video", session.photos.add_video(request.stream())))


@router.delete(
    "/api/sessions/{session_id}/videos/{video_id}", status_code=204, tags=["jobs"], responses=problems(404)
)
async def remove_video(session: Mine, video_id: Id) -> None:
    """Delete an uploaded video."""
    session.photos.remove_video(video_id)


async def _counted(service: Service, kind: str, upload: Any) -> Any:
    try:
        made = await upload
    except Refusal as refusal:
        service.metrics.count("reenact_uploads_total", kind=kind, outcome=refusal.code)
        raise
    service.metrics.count("reenact_uploads_total", kind=kind, outcome="taken")
    return made


def _session_info(session: Session) -> SessionInfo:
    return SessionInfo(id=session.id, settings=session.live.settings, status=session.live.status)


def _photo_info(photo: Photo) -> PhotoInfo:
    return PhotoInfo(
        id=photo.id, name=photo.name, width=photo.width, height=photo.height, built_in=photo.id in BUILT_IN
    )


def _video_info(video: Video) -> VideoInfo:
    facts = video.facts
    return VideoInfo(
        id=video.id, width=facts.width, height=facts.height, fps=facts.fps, seconds=facts.seconds
    )


def _version() -> str:
    try:
        return version("reenact")
    except PackageNotFoundError:
        return "from sources"
