"""HTTP routes of films, recordings and the picture as it is now."""

import asyncio
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, StreamingResponse

from ...errors import MediaError
from .frames import encode_png
from .jobs import JobInfo, JobWish
from .recordings import RecordingInfo
from .refusals import Refusal
from .routes import Id, Mine, problems

__all__ = ["router"]

router = APIRouter(prefix="/api/sessions/{session_id}")

_MOVIE: dict[int | str, dict[str, Any]] = {200: {"content": {"video/mp4": {}}, "description": "The movie."}}
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}}, "description": "The picture."}
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Events whose data is a JobInfo."}
}


@router.get(
    "/live/picture", tags=["live"], response_class=Response, responses={**problems(404, 409, 410), **_PICTURE}
)
async def picture(session: Mine) -> Response:
    """The live portrait as it is now, as PNG."""
    newest = session.live.newest
    if newest is None:
        raise Refusal(409, "not_ready", "There is no picture yet.")
    try:
        png = await asyncio.to_thread(encode_png, newest.image, session.folder, session.live.settings.system)
    except (MediaError, OSError):
        if session.closed.is_set():  # and its folder is gone
            raise Refusal(410, "closed", "The session is over.") from None
        raise
    return Response(png, media_type="image/png")


@router.get("/jobs", tags=["jobs"], responses=problems(404))
async def list_jobs(session: Mine) -> list[JobInfo]:
    """The session's jobs, oldest first."""
    return session.jobs.all()


@router.post("/jobs", status_code=202, tags=["jobs"], responses=problems(404, 409, 410))
async def add_job(session: Mine, wish: JobWish) -> JobInfo:
    """Have a film made; jobs of all sessions run one after the other."""
    return await session.jobs.add(wish)


@router.get("/jobs/{job_id}", tags=["jobs"], responses=problems(404))
async def read_job(session: Mine, job_id: Id) -> JobInfo:
    """How far it is."""
    return session.jobs.info(job_id)


@router.get(
    "/jobs/{job_id}/events",
    tags=["jobs"],
    response_class=StreamingResponse,
    responses={**problems(404), **_EVENTS},
)
async def job_events(session: Mine, job_id: Id) -> StreamingResponse:
    """Server-sent events: the job whenever it is further; ends when it has ended."""
    session.jobs.info(job_id)  # a refusal must come before the answer begins
    return StreamingResponse(session.jobs.events(job_id), media_type="text/event-stream")


@router.get(
    "/jobs/{job_id}/file",
    tags=["jobs"],
    response_class=FileResponse,
    responses={**problems(404, 409), **_MOVIE},
)
async def job_file(session: Mine, job_id: Id) -> FileResponse:
    """The film of a job that is done."""
    return FileResponse(session.jobs.output(job_id), media_type="video/mp4", filename="reenact.mp4")


@router.delete("/jobs/{job_id}", status_code=204, tags=["jobs"], responses=problems(404))
async def remove_job(session: Mine, job_id: Id) -> None:
    """Cancel it where it has not ended; delete its film."""
    await session.jobs.remove(job_id)


@router.post("/recordings", status_code=201, tags=["recordings"], responses=problems(404, 409))
async def start_recording(session: Mine) -> RecordingInfo:
    """Record the live portrait from now on."""
    return session.recordings.start()


@router.get("/recordings/{recording_id}", tags=["recordings"], responses=problems(404))
async def read_recording(session: Mine, recording_id: Id) -> RecordingInfo:
    """Whether it still goes on, and how far it is."""
    return session.recordings.info(recording_id)


@router.post("/recordings/{recording_id}/stop", tags=["recordings"], responses=problems(404, 409))
async def stop_recording(session: Mine, recording_id: Id) -> RecordingInfo:
    """End a recording and finish its file."""
    return await session.recordings.stop(recording_id)


@router.get(
    "/recordings/{recording_id}/file",
    tags=["recordings"],
    response_class=FileResponse,
    responses={**problems(404, 409), **_MOVIE},
)
async def recording_file(session: Mine, recording_id: Id) -> FileResponse:
    """A finished recording."""
    return FileResponse(session.recordings.file(recording_id), media_type="video/mp4", filename="reenact.mp4")


@router.delete("/recordings/{recording_id}", status_code=204, tags=["recordings"], responses=problems(404))
async def remove_recording(session: Mine, recording_id: Id) -> None:
    """End a recording where it goes on, and delete its file."""
    await session.recordings.remove(recording_id)
