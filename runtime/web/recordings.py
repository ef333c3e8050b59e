"""The live portrait recorded to a file, on the server: the full picture, marked by the writer as every output is."""

import asyncio
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import BaseModel, Field

from ...errors import ReenactError
from ..live import Presented
from ..media.frame import Frame
from ..media.writer import VideoSink, open_writer
from .live import LivePortrait
from .refusals import Refusal, refusal_of
from .settings import WebLimits

__all__ = ["RecordingInfo", "Recordings"]

CLOCK = 90_000
FPS = 30


class RecordingInfo(BaseModel):
    """A recording of the live portrait."""

    id: str
    recording: bool = Field(description="Whether it still goes on.")
    seconds: float
    frames: int


@dataclass(eq=False)
class _Recording:
    id: str
    path: Path
    task: asyncio.Task[None] | None = None
    began: float = field(default_factory=time.perf_counter)
    last: float = -1.0  # seconds from `began` on
    frames: int = 0
    problem: ReenactError | None = None
    sink: VideoSink | None = None

    @property
    def info(self) -> RecordingInfo:
        going = self.task is not None and not self.task.done()
        return RecordingInfo(
            id=self.id, recording=going, seconds=round(max(self.last, 0.0), 3), frames=self.frames
        )


class Recordings:
    """Those of one session; one at a time."""

    def __init__(self, folder: Path, live: LivePortrait, limits: WebLimits) -> None:
        self._folder, self._live, self._limits = folder, live, limits
        self._recordings: dict[str, _Recording] = {}

    def start(self) -> RecordingInfo:
        """Record from the next picture on; Refusal where one goes on already, or too many are kept."""
        if any(recording.info.recording for recording in self._recordings.values()):
            raise Refusal(409, "recording", "A recording goes on already; stop it first.")
        most = self._limits.recordings
        if len(self._recordings) >= most:
            raise Refusal(409, "too_many", f"A session keeps at most {most} recordings; delete one first.")
        path = self._folder / f"{secrets.token_hex(16)}.mp4"
        made = _Recording(secrets.token_urlsafe(9), path)
        made.task = asyncio.create_task(self._record(made))
        self._recordings[made.id] = made
        return made.info

    def info(self, recording_id: str) -> RecordingInfo:
        """Refusal where the session has no such recording."""
        return self._get(recording_id).info

    async def stop(self, recording_id: str) -> RecordingInfo:
        """End it and finish its file; Refusal where nothing could be recorded."""
        recording = self._get(recording_id)
        await self._end(recording)
        if recording.problem is not None:
            raise refusal_of(recording.problem, recording.path) from recording.problem
        if not recording.frames:
            self._recordings.pop(recording_id, None)
            raise Refusal(
                409, "nothing_recorded", "No picture came while it was recorded; start the camera first."
            )
        return recording.info

    def file(self, recording_id: str) -> Path:
        """The finished file; Refusal where there is none."""
        recording = self._get(recording_id)
        if recording.info.recording or not recording.path.is_file():
            raise Refusal(409, "not_ready", "Stop the recording first.")
        return recording.path

    async def remove(self, recording_id: str) -> None:
        """End and delete it."""
        recording = self._get(recording_id)
        await self._end(recording)
        recording.path.unlink(missing_ok=True)
        self._recordings.pop(recording_id, None)

    async def close(self) -> None:
        """End all; the session's folder goes with them."""
        for recording in list(self._recordings.values()):
            await self._end(recording)

    def _get(self, recording_id: str) -> _Recording:
        if recording_id not in self._recordings:
            raise Refusal(404, "no_recording", "There is no such recording in this session.")
        return self._recordings[recording_id]

    async def _end(self, recording: _Recording) -> None:
        assert recording.task is not None
        recording.task.cancel()
        await asyncio.gather(recording.task, return_exceptions=True)

    async def _record(self, recording: _Recording) -> None:
        size = (0, 0)  # width, height
        try:
            async for picture in self._live.pictures():
                seconds = max(picture.captured - recording.began, 0.0)
                if seconds > self._limits.recording_seconds:
                    return
                if seconds <= recording.last:
                    continue
                # Neither is to be left in the middle: the sink is closed next.
                if recording.sink is None:
                    await _whole(asyncio.to_thread(_open, recording, picture, self._live.settings.system))
                    size = (picture.image.shape[1], picture.image.shape[0])
                await _whole(asyncio.to_thread(_write, recording, picture, seconds, size))
        except ReenactError as error:
            recording.problem = error
        finally:
            if recording.sink is not None:
                end = recording.sink.close if recording.frames else recording.sink.abort
                try:
                    await _whole(asyncio.to_thread(end))
                except ReenactError as error:
                    recording.problem = error


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Await work in a thread to its end also where the task is cancelled meanwhile, once or more often."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def _open(recording: _Recording, picture: Presented, system: str) -> None:
    height, width = picture.image.shape[:2]
    recording.sink = open_writer(recording.path, width=width, height=height, fps=Fraction(FPS), system=system)


def _write(recording: _Recording, picture: Presented, seconds: float, size: tuple[int, int]) -> None:
    assert recording.sink is not None
    image = picture.image
    if image.shape[1::-1] != size:  # the quality was changed while it was recorded
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    recording.sink.write(Frame(image, round(seconds * CLOCK), Fraction(1, CLOCK)))
    recording.last = seconds
    recording.frames += 1
