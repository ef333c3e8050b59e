"""A session's live portrait on the event loop: settings in, frames in, pictures out; the work is LiveSession's.

A LiveSession has one size and one system. Where a client asks for others, another one is made ready beside it, and
takes its place once it can show the photo.
"""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...errors import ReenactError
from ..live import Controls, LiveSession, Presented, Status
from ..media.frame import Image
from ..media.images import read_image
from .engines import EnginePool
from .metrics import Metrics
from .photos import BUILT_IN, PhotoStore
from .refusals import Refusal, in_public, refusal_of

__all__ = ["SIZES", "LiveChange", "LivePortrait", "LiveSettings", "LiveStatus"]

SIZES = (256, 384, 512, 768)
REGISTER_SECONDS = 30.0
STANDING_SECONDS = 5.0  # a change is answered without its picture where that takes longer
WAIT_SECONDS = 0.25  # of the carrying thread, between looks at whether it should end

Strength = Annotated[float, Field(ge=0, le=3)]
Smoothing = Annotated[float, Field(ge=0, le=4)]
Size = Literal[256, 384, 512, 768]
Edits = Annotated[
    dict[str, Annotated[float, Field(allow_inf_nan=False)]],
    Field(max_length=100, description="Motion controls by name, added to what the camera shows."),
]


class LiveSettings(BaseModel):
    """How the live portrait looks and follows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    photo: str = Field(default=next(iter(BUILT_IN)), max_length=64)
    system: str = Field(default="meshwarp", max_length=64)
    size: Size = Field(default=384, description="Pixels of the picture's sides: its quality.")
    whole: bool = Field(default=False, description="The whole photo instead of the head.")
    pose_strength: Strength = 1.0
    expression_strength: Strength = 1.0
    smoothing: Smoothing = 1.0
    mirror: bool = True
    edits: Edits = Field(default_factory=dict)


class LiveChange(BaseModel):
    """Settings to change; those left out stay."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    photo: str | None = Field(default=None, max_length=64)
    system: str | None = Field(default=None, max_length=64)
    size: Size | None = None
    whole: bool | None = None
    pose_strength: Strength | None = None
    expression_strength: Strength | None = None
    smoothing: Smoothing | None = None
    mirror: bool | None = None
    edits: Edits | None = None


class LiveStatus(BaseModel):
    """What the live portrait is doing; rates and times are of the last seconds."""

    state: Literal["starting", "waiting", "calibrating", "live", "no_face", "failed", "closed"]
    photo: Literal["none", "registering", "ready", "failed"]
    problem: str | None = Field(description="What went wrong last, for people.")
    notice: str = Field(description="The last remark, for people.")
    input_fps: float
    fps: float = Field(description="Pictures made a second.")
    latency_ms: float | None = Field(description="Median from a frame's arrival until its picture was sent.")
    stages_ms: dict[str, float]
    drops: dict[str, int] = Field(description="Frames that were dropped, by cause.")
    degraded: str = Field(description="What is reduced to keep up; empty when nothing is.")


@dataclass(frozen=True)
class _Stage:
    """A LiveSession and what it was made for."""

    live: LiveSession
    system: str
    size: int
    whole: bool


class LivePortrait:
    """One session's; every method but `offer` belongs to the event loop."""

    def __init__(self, pool: EnginePool, photos: PhotoStore, metrics: Metrics) -> None:
        self._pool, self._photos, self._metrics = pool, photos, metrics
        self._loop = asyncio.get_running_loop()
        self.settings = LiveSettings()
        self._stage: _Stage | None = None
        self.offered = -math.inf
        """When the last camera frame came, of `time.monotonic`."""
        self._changing = asyncio.Lock()
        self._closed = False
        self._newest: Presented | None = None
        self._source: LiveSession | None = None  # of the newest picture
        self._watchers: set[asyncio.Event] = set()
        self._carrier = threading.Thread(target=self._carry, name="reenact-web-pictures", daemon=True)
        self._carrier.start()
        self._counted: dict[str, int] = {}

    async def change(self, change: LiveChange) -> LiveSettings:
        """Apply settings, and wait until they show; raises Refusal, with everything as it was, where they cannot."""
        asked = change.model_dump(exclude_none=True)
        async with self._changing:
            if self._closed:
                raise Refusal(410, "closed", "The session is over.")
            wanted = self.settings.model_copy(update=asked)
            await self._pool.check(wanted.system)
            try:
                controls = _controls(wanted)
                await self._follow(wanted)
            except ReenactError as error:
                raise _told(error) from error
            assert self._stage is not None
            self._stage.live.controls = controls
            self.settings = wanted
            await self._standing(self._stage.live)
            return wanted

    async def start(self) -> None:
        """Make the portrait of the settings as they are."""
        await self.change(LiveChange())

    def offer(self, image: Image) -> float:
        """A camera frame, (H, W, 3) uint8 RGB, that has just arrived; from any thread, never waits.

        Gives the time that the picture which it moves will bear as `captured`.
        """
        captured = time.perf_counter()
        self.offered = time.monotonic()
        stage = self._stage
        if stage is not None:
            stage.live.offer(image, captured)
        return captured

    async def pictures(self) -> AsyncIterator[Presented]:
        """Whenever there is a newer picture, the newest; what comes between two looks is passed over.

        Ends with the session.
        """
        arrived = asyncio.Event()
        seen: Presented | None = None
        self._watchers.add(arrived)
        try:
            while not self._closed:
                arrived.clear()
                if self._newest is None or self._newest is seen:
                    await arrived.wait()
                    continue
                seen = self._newest
                yield seen
        finally:
            self._watchers.discard(arrived)

    def sent(self, picture: Presented) -> None:
        """A picture has left for the client: its latency ends."""
        stage = self._stage
        self._metrics.latency(time.perf_counter() - picture.captured)
        if stage is not None:
            stage.live.shown(picture)

    def reset_pose(self) -> None:
        """What the face does now is its rest."""
        if self._stage is not None:
            self._stage.live.reset_pose()

    @property
    def newest(self) -> Presented | None:
        """The last picture made."""
        return self._newest

    @property
    def status(self) -> LiveStatus:
        """What is going on."""
        stage = self._stage
        if stage is None or self._closed:
            return _empty_status("closed" if self._closed else "starting")
        status = stage.live.status
        self._count_drops(status)
        return LiveStatus(
            state=status.state,
            photo=status.photo,
            problem=None if status.error is None else in_public(status.error),
            notice=in_public(status.notice),
            input_fps=status.input_fps,
            fps=status.fps,
            latency_ms=None if status.latency_ms is None else status.latency_ms.p50,
            stages_ms=dict(status.stages_ms),
            drops=dict(status.drops),
            degraded=status.degraded,
        )

    async def close(self) -> None:
        """End every thread and free the portrait."""
        self._closed = True
        self._wake()
        async with self._changing:
            stage, self._stage = self._stage, None
        if stage is not None:
            await asyncio.to_thread(stage.live.close)
        await asyncio.to_thread(self._carrier.join)
        self._newest = self._source = None

    async def _follow(self, wanted: LiveSettings) -> None:
        """Another photo on the same stage, or another stage."""
        stage = self._stage
        same = (
            stage is not None
            and (stage.system, stage.size, stage.whole) == (wanted.system, wanted.size, wanted.whole)
            and stage.live.status.error is None  # one that has ended is replaced by the next change
        )
        if same and wanted.photo == self.settings.photo:
            return
        path = self._photos.photo(wanted.photo).path
        image = await asyncio.to_thread(read_image, path)
        if stage is not None and same:
            await _show(stage.live, image)
            return
        engines = await self._pool.get(wanted.system)
        live = LiveSession(
            engines, size=(wanted.size, wanted.size), whole=wanted.whole, controls=_controls(wanted)
        )
        try:
            await _show(live, image)
        except BaseException:
            await asyncio.to_thread(live.close)
            raise
        self._stage, before = _Stage(live, wanted.system, wanted.size, wanted.whole), stage
        self._counted = {}
        if before is not None:
            await asyncio.to_thread(before.live.close)

    async def _standing(self, live: LiveSession) -> None:
        """While no frames come the picture is made anew for a change; wait for that."""
        if live.status.state == "waiting":
            with contextlib.suppress(ReenactError):  # told in the status
                picture = await asyncio.to_thread(live.settled, STANDING_SECONDS)
                if picture is not None:
                    self._publish(live, picture)

    def _carry(self) -> None:
        """Bring each picture from the LiveSession's thread to the event loop."""
        live, after = None, None
        while not self._closed:
            stage = self._stage
            if stage is None:
                time.sleep(WAIT_SECONDS / 5)
                continue
            if stage.live is not live:
                live, after = stage.live, None
            try:
                picture = live.newest(after, WAIT_SECONDS)
            except ReenactError:  # it has ended, and tells so in its status
                time.sleep(WAIT_SECONDS)
                continue
            if picture is not None:
                after = picture.number
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants it any more
                    self._loop.call_soon_threadsafe(self._publish, live, picture)

    def _publish(self, live: LiveSession, picture: Presented) -> None:
        """Take a picture over, unless it is late: one that is newer, or of another stage, stands already."""
        stage, newest = self._stage, self._newest
        if self._closed or stage is None or live is not stage.live:
            return
        if newest is not None and live is self._source and picture.number <= newest.number:
            return
        self._newest, self._source = picture, live
        self._wake()

    def _wake(self) -> None:
        for arrived in self._watchers:
            arrived.set()

    def _count_drops(self, status: Status) -> None:
        for cause, count in status.drops.items():
            more = count - self._counted.get(cause, 0)
            if more > 0:
                self._metrics.count("reenact_drops_total", more, cause=cause)
        self._counted = dict(status.drops)


def _controls(settings: LiveSettings) -> Controls:
    return Controls(
        pose_strength=settings.pose_strength,
        expression_strength=settings.expression_strength,
        smoothing=settings.smoothing,
        mirror=settings.mirror,
        edits={name: value for name, value in settings.edits.items() if value},
    )


async def _show(live: LiveSession, image: Image) -> None:
    """Set the photo and wait until it can be animated."""
    live.set_photo(image)
    patience = time.monotonic() + REGISTER_SECONDS
    while (status := live.status).photo == "registering":
        if status.error is not None or time.monotonic() > patience:
            raise ReenactError(status.error or "the photo took too long; try again")
        await asyncio.sleep(0.01)
    if status.photo == "failed":
        raise ReenactError(status.photo_error or "the photo cannot be used")


def _told(error: ReenactError) -> Refusal:
    refusal = refusal_of(error)
    refusal.message = refusal.message.replace("The source picture: ", "")
    return refusal


def _empty_status(state: Literal["starting", "closed"]) -> LiveStatus:
    return LiveStatus(
        state=state,
        photo="none",
        problem=None,
        notice="",
        input_fps=0,
        fps=0,
        latency_ms=None,
        stages_ms={},
        drops={},
        degraded="",
    )
