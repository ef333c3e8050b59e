"""Films made from a photo and a video or a motion: a queue for the whole server, one process a job, results kept."""

import asyncio
import json
import logging
import os
import secrets
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..files import private_folder
from ..motion import preset_names
from .engines import EnginePool
from .guard import MAX_SIDE, end_process
from .metrics import Metrics
from .photos import PhotoStore
from .refusals import Refusal
from .settings import ServeSettings

__all__ = ["JobInfo", "JobQueue", "JobWish", "Jobs"]

_log = logging.getLogger(__name__)

_MODULE = f"{__package__}.worker"
_KEEPALIVE_SECONDS = 15.0
_ENDED = ("done", "failed", "cancelled")

State = Literal["waiting", "running", "done", "failed", "cancelled"]
Strength = Annotated[float, Field(ge=0, le=3)]


class JobWish(BaseModel):
    """A film to be made, from a photo and either a video or a motion."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    photo: str = Field(max_length=64, examples=["eileen-collins"])
    video: str | None = Field(default=None, max_length=64, description="Id of an uploaded video.")
    motion: str | None = Field(default=None, max_length=64, examples=["nod"])
    system: str = Field(default="meshwarp", max_length=64)
    crop: bool = Field(
        default=False, description="512x512 pixels around the head instead of the whole photo."
    )
    pose_strength: Strength = 1.0
    expression_strength: Strength = 1.0

    @model_validator(mode="after")
    def _one_driving(self) -> Self:
        if (self.video is None) == (self.motion is None):
            raise ValueError("give one of video and motion")
        if self.motion is not None and self.motion not in preset_names():
            raise ValueError(f"no motion has that name; known are {', '.join(preset_names())}")
        return self


class JobInfo(BaseModel):
    """How far a job is."""

    id: str
    state: State
    done: int = Field(description="Frames written.")
    total: int | None = Field(description="Frames there will be, as far as is known.")
    problem: str | None = Field(description="Why it failed.")


@dataclass(eq=False)
class _Job:
    id: str
    folder: Path
    wish: dict[str, Any]
    state: State = "waiting"
    done: int = 0
    total: int | None = None
    problem: str | None = None
    task: asyncio.Task[None] | None = None

    @property
    def output(self) -> Path:
        return self.folder / "film.mp4"

    @property
    def uploads(self) -> list[Path]:
        given = [Path(self.wish[name]) for name in ("photo", "video") if self.wish[name] is not None]
        return [path for path in given if path.parent == self.folder]

    @property
    def info(self) -> JobInfo:
        return JobInfo(id=self.id, state=self.state, done=self.done, total=self.total, problem=self.problem)


class JobQueue:
    """One job runs at a time, whoever's it is; the others wait in the order they came."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.turn = asyncio.Semaphore(1)
        self.waiting = 0
        metrics.gauge("reenact_jobs_waiting", lambda: self.waiting)


class Jobs:
    """The jobs of one session."""

    def __init__(
        self,
        folder: Path,
        photos: PhotoStore,
        pool: EnginePool,
        working: Callable[[], AbstractContextManager[None]],
        queue: JobQueue,
        settings: ServeSettings,
    ) -> None:
        """`working` is entered while a job waits or runs."""
        self._folder, self._photos, self._pool, self._working = folder, photos, pool, working
        self._queue, self._settings = queue, settings
        self._jobs: dict[str, _Job] = {}
        self._watchers: set[asyncio.Event] = set()
        self._closed = False

    async def add(self, wish: JobWish) -> JobInfo:
        """Put a job into the queue; Refusal where photo or video are not there, or there are too many."""
        await self._pool.check(wish.system)  # nothing that is looked at below may change meanwhile
        if self._closed:
            raise Refusal(410, "closed", "The session is over.")
        most = self._settings.limits.jobs
        if len(self._jobs) >= most:
            raise Refusal(409, "too_many", f"A session keeps at most {most} jobs; delete one first.")
        limits = self._settings.limits
        photo = self._photos.photo(wish.photo).path
        video = None if wish.video is None else self._photos.video(wish.video).path
        folder = private_folder(self._folder / secrets.token_hex(16))
        made = {
            **wish.model_dump(),
            "photo": str(self._kept(photo, folder)),
            "video": None if video is None else str(self._kept(video, folder)),
            "backend": self._settings.backend,
            "precision": self._settings.precision,
            "max_pixels": max(limits.video_pixels, MAX_SIDE**2),  # photos are kept no larger than that
            "max_seconds": limits.video_seconds,
        }
        job = _Job(secrets.token_urlsafe(9), folder, made)
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._run(job))
        return job.info

    def _kept(self, path: Path, folder: Path) -> Path:
        """An upload as the job has it, until it ends: the session may delete it meanwhile."""
        if path.parent != self._folder:  # of the package, so it stays
            return path
        kept = folder / path.name
        try:
            os.link(path, kept)
        except OSError:  # not every file system has links
            shutil.copyfile(path, kept)
        return kept

    def all(self) -> list[JobInfo]:
        """Oldest first."""
        return [job.info for job in self._jobs.values()]

    def info(self, job_id: str) -> JobInfo:
        """Refusal where the session has no such job."""
        return self._get(job_id).info

    def output(self, job_id: str) -> Path:
        """The film of a job that is done; Refusal where it is not."""
        job = self._get(job_id)
        if job.state != "done":
            raise Refusal(409, "not_ready", f"The job is {job.state}; there is no film.")
        return job.output

    async def events(self, job_id: str) -> AsyncIterator[bytes]:
        """Server-sent events: the job whenever it is further, until it has ended."""
        self._get(job_id)
        changed = asyncio.Event()
        self._watchers.add(changed)
        told: JobInfo | None = None
        try:
            while (job := self._jobs.get(job_id)) is not None:
                changed.clear()
                if job.info != told:
                    told = job.info
                    yield f"data: {told.model_dump_json()}\n\n".encode()
                if told.state in _ENDED:
                    return
                try:
                    await asyncio.wait_for(changed.wait(), _KEEPALIVE_SECONDS)
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self._watchers.discard(changed)

    async def remove(self, job_id: str) -> None:
        """Cancel a job that has not ended, and delete what it made."""
        job = self._get(job_id)
        await self._end(job)
        self._jobs.pop(job_id, None)
        self._changed()

    async def close(self) -> None:
        """Cancel all; none can be added any more."""
        self._closed = True
        for job in list(self._jobs.values()):
            await self._end(job)
        self._jobs.clear()
        self._changed()

    def _get(self, job_id: str) -> _Job:
        if job_id not in self._jobs:
            raise Refusal(404, "no_job", "There is no such job in this session.")
        return self._jobs[job_id]

    def _changed(self) -> None:
        for watcher in self._watchers:
            watcher.set()

    async def _end(self, job: _Job) -> None:
        if job.task is not None:
            job.task.cancel()
            await asyncio.gather(job.task, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    async def _run(self, job: _Job) -> None:
        try:
            with self._working():
                await self._wait_turn()
                try:
                    async with asyncio.timeout(self._settings.limits.job_seconds):
                        await self._work(job)
                except TimeoutError:
                    self._fail(job, "It took too long; try a shorter video or a smaller photo.")
                finally:
                    self._queue.turn.release()
        except asyncio.CancelledError:
            job.state = "cancelled"
            raise
        except Exception:  # noqa: BLE001  a job's fault is told to its owner and to the log
            _log.exception("a job failed")
            self._fail(job, "Something failed in the server; its log tells what.")
        finally:
            for upload in job.uploads:
                upload.unlink(missing_ok=True)
            self._queue.metrics.count("reenact_jobs_total", state=job.state)
            self._changed()

    async def _wait_turn(self) -> None:
        self._queue.waiting += 1
        try:
            await self._queue.turn.acquire()
        finally:
            self._queue.waiting -= 1

    async def _work(self, job: _Job) -> None:
        job.state = "running"
        self._changed()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )
        try:
            await self._follow(job, process)
        finally:
            await end_process(process)

    async def _follow(self, job: _Job, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({**job.wish, "output": str(job.output)}).encode() + b"\n")
        async for line in process.stdout:
            told = json.loads(line)
            if told["state"] == "running":
                job.done, job.total = int(told["done"]), told["total"]
            elif told["state"] == "done":
                job.state, job.done = "done", job.total or job.done
            else:
                self._fail(job, str(told["problem"]))
            self._changed()
        if job.state == "running":
            self._fail(job, "It ended before it was done; the video may be damaged, or memory ran out.")

    def _fail(self, job: _Job, problem: str) -> None:
        job.state, job.problem = "failed", problem
