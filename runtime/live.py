"""One person's live reenactment: frames in, newest wins; pictures out, with the time they take told.

    engines = Engines("meshwarp")
    session = LiveSession(engines, size=(512, 512))
    session.set_photo(photo)
    session.offer(frame, time.perf_counter())   # from the camera's thread
    picture = session.newest(after, timeout=0.1)   # from the output's thread
    session.shown(picture)   # once it has left; the latency is measured until here

No raw frame ever leaves a session: what it gives is the photo, moved. Whoever lets it out marks it (`watermark.py`).
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import cv2
import numpy as np

from ..errors import ReenactError
from .closing import Closing
from .controls import Controls
from .degrade import Degrader, Pace
from .engines import Engines
from .follow import Follower, State
from .media.frame import Image
from .media.limits import DEFAULT_LIMITS, Limits
from .meters import Drops, Percentiles, Rate, Recent
from .portraits import PhotoState, Portraits, described
from .source import check_image
from .stream import NewestSlot
from .systems.protocol import Observation

__all__ = ["Controls", "Engines", "LiveSession", "PhotoState", "Presented", "SessionState", "Status"]

_log = logging.getLogger(__name__)

SMALLEST_SIDE, LARGEST_SIDE = 64, 2048
SILENCE_S = 1.0  # without a frame for so long, the input counts as gone
RECENT_S = 2.0
LATENCY_S = 10.0
LOOK_S = 0.1  # without a frame for so long, it is looked whether the standing picture is out of date

_NOTHING: Mapping[str, int] = MappingProxyType({})

SessionState = Literal["waiting", "calibrating", "live", "no_face", "failed", "closed"]


@dataclass(frozen=True, eq=False)
class Presented:
    """A finished picture; times are seconds of the session's clock, `time.perf_counter`."""

    image: Image  # (H, W, 3) uint8 RGB of the session's size; shared, not to be written to
    number: int  # 1 and up; a gap means pictures that nobody took
    captured: float  # when the frame that moved it was taken
    presented: float  # when it was ready


@dataclass(frozen=True)
class Status:
    """What a session is doing, of the last seconds where it is a rate or a time."""

    state: SessionState
    photo: PhotoState
    photo_error: str | None  # why the last photo was refused; the one before it stays
    error: str | None  # what ended the session
    input_fps: float  # frames offered
    fps: float  # pictures made
    input_size: tuple[int, int] | None  # width, height of the last frame
    stages_ms: Mapping[str, float]  # mean busy time a frame of "track" and "animate"
    latency_ms: Percentiles | None  # from `captured` until `shown` was told; None before
    drops: Mapping[str, int]  # cause -> frames, since the beginning
    step: int  # of degradation, 0 none
    degraded: str  # what is reduced, for people; "" at step 0
    notices: int  # how many there were
    notice: str  # the last one, a line for people


@dataclass(frozen=True, eq=False)
class _Captured:
    image: Image
    time: float


@dataclass(frozen=True, eq=False)
class _Observed:
    observation: Observation
    captured: float
    shows: int  # so many changes of the controls and the portrait are in it


@dataclass
class _Meters:
    """All figures of a session."""

    drops: Drops = field(default_factory=Drops)
    offered: Rate = field(default_factory=lambda: Rate(RECENT_S))
    made: Rate = field(default_factory=lambda: Rate(RECENT_S))
    latency: Recent = field(default_factory=lambda: Recent(LATENCY_S))
    stages: dict[str, Recent] = field(
        default_factory=lambda: {"track": Recent(RECENT_S), "animate": Recent(RECENT_S)}
    )


class LiveSession(Closing):
    """One driving person and one portrait; three threads of its own, one of them for photos.

    Every method may be called from any thread. Faults of one photo are told in `status`; what ends the session is
    raised by `newest`.
    """

    def __init__(
        self,
        engines: Engines,
        *,
        size: tuple[int, int] = (512, 512),
        fps: float = 30.0,
        whole: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        controls: Controls | None = None,
        tell: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`size` (width, height) of every picture; photos are cut around the head, or with `whole` fitted in;
        files of photos beyond `limits` are refused.

        No more than `fps` pictures a second are made; where the machine cannot, quality is reduced in steps. `tell`
        is given each notice, in whatever thread it is made; `status` has the last one.
        """
        if not (math.isfinite(fps) and 1 <= fps <= 240):
            raise ReenactError(f"fps is {fps:g}; expected 1 to 240")
        if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size):
            raise ReenactError(
                f"size {size[0]}x{size[1]}: expected {SMALLEST_SIDE} to {LARGEST_SIDE} pixels a side"
            )
        self.size = size
        self.system = engines.animator.name
        self.clock = clock
        self._controls = controls or Controls()
        self._animator = engines.animator
        self._follower = Follower(engines.tracker.sibling(smooth=False), self.announce)
        self._portraits = Portraits(
            engines.animator,
            engines.tracker.sibling(smooth=False),
            size,
            whole=whole,
            limits=limits,
            ready=self._show_again,
            tell=self.announce,
        )
        self._fps = fps
        self._pace = Pace()
        self._degrader = Degrader(fps)
        self._meters = _Meters()
        drops = self._meters.drops
        self._frames = NewestSlot(lambda: drops.add("tracking was busy"))
        self._observed = NewestSlot(lambda: drops.add("animating was busy"))
        self._changed = threading.Condition()
        self._changes = 0  # of the controls and the portrait
        self._picture: Presented | None = None
        self._picture_shows = 0  # so many of the changes
        self._taken = True
        self._error: ReenactError | None = None
        self._closed = False
        self._last_captured = self._last_offer = -math.inf
        self._input_size: tuple[int, int] | None = None
        self._notices, self._notice, self._tell = 0, "", tell
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"reenact-live-{name}", daemon=True)
            for name, work in (
                ("track", self._tracking),
                ("animate", self._animating),
                ("photo", self._portraits.run),
            )
        ]
        for thread in self._threads:
            thread.start()

    @property
    def controls(self) -> Controls:
        """May be replaced at any time; the next frame follows it, or the standing picture while none comes.

        `settled` waits for that.
        """
        return self._controls

    @controls.setter
    def controls(self, controls: Controls) -> None:
        self._controls = controls
        self._show_again()

    def set_photo(self, photo: Image | Path) -> None:
        """Show another photo, (H, W, 3) uint8 RGB or a file: the one before stays until this one is registered.

        Raises MediaError for an array that is no picture; a file that cannot be read, and a picture that shows no
        face, are told in `status`.
        """
        self._portraits.show(photo if isinstance(photo, Path) else check_image(photo, "photo"))

    def offer(self, image: Image, captured: float, lost: Mapping[str, int] = _NOTHING) -> None:
        """A frame of the driving, (H, W, 3) uint8 RGB, taken at `captured` of `clock`; never waits.

        `lost` counts frames that never came, by cause; they are among the drops. The array must not be written to
        afterwards. Raises MediaError for an array that is no picture.
        """
        image = check_image(image, "frame")
        for cause, count in lost.items():
            self._meters.drops.add(cause, count)
        now = self.clock()
        self._meters.offered.add(now)
        if captured <= self._last_captured:
            self._meters.drops.add("out of order")
            return
        self._last_captured, self._last_offer = captured, now
        self._input_size = (image.shape[1], image.shape[0])
        self._adapt(now)
        if not self._pace.takes(captured, self._degrader.quality.fps(self._fps)):
            self._meters.drops.add("frame rate")
            return
        self._frames.put(_Captured(image, captured))

    def newest(self, after: int | None = None, timeout: float | None = None) -> Presented | None:
        """The newest picture; with `after` only one of a higher number, waited for up to `timeout` seconds.

        None where there is none by then, or the session was closed. Raises what ended the session.
        """
        return self._picture_once(lambda: self._is_newer(after), timeout)

    def settled(self, timeout: float | None = None) -> Presented | None:
        """The newest picture once it shows every control that was set, and every photo that was ready, by this call.

        None where it does not within `timeout` seconds, or the session was closed. Raises what ended the session.
        """
        changes = self._changes
        return self._picture_once(lambda: self._is_newer(None) and self._picture_shows >= changes, timeout)

    def shown(self, picture: Presented) -> None:
        """Tell that a picture has reached its viewer: its latency ends now. Once for each picture."""
        now = self.clock()
        self._meters.latency.add(now, now - picture.captured)

    def reset_pose(self) -> None:
        """What the face does now is neutral."""
        self._follower.reset_pose()

    def find_neutral(self) -> None:
        """Look for a better neutral frame during the next two seconds."""
        self._follower.find_neutral()

    def announce(self, message: str) -> None:
        """Add a notice: a line for people."""
        _log.info("%s", message)
        with self._changed:
            self._notices, self._notice = self._notices + 1, message
        if self._tell is not None:
            self._tell(message)

    @property
    def status(self) -> Status:
        """What is going on."""
        now, meters = self.clock(), self._meters
        stages = {name: recent.mean(now) for name, recent in meters.stages.items()}
        return Status(
            state=self._state(now),
            photo=self._portraits.state,
            photo_error=self._portraits.error,
            error=None if self._error is None else str(self._error),
            input_fps=round(meters.offered.of(now), 1),
            fps=round(meters.made.of(now), 1),
            input_size=self._input_size,
            stages_ms={name: round(1000 * mean, 2) for name, mean in stages.items() if mean is not None},
            latency_ms=meters.latency.percentiles(now),
            drops=meters.drops.counts(),
            step=self._degrader.quality.step,
            degraded=self._degrader.described,
            notices=self._notices,
            notice=self._notice,
        )

    def close(self) -> None:
        """End the threads and free the portrait; the engines stay. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for part in (self._frames, self._observed, self._portraits):
            part.close()
        for thread in self._threads:
            thread.join()
        self._picture = None

    def _adapt(self, now: float) -> None:
        """Reduce quality or give it back, by how long the stages have taken lately."""
        if self._follower.state != "live" or self._portraits.current is None:
            return  # searching for a face is slow and tells nothing of what following one takes
        means = {name: recent.mean(now) for name, recent in self._meters.stages.items()}
        busy = {name: mean for name, mean in means.items() if mean is not None}
        side = max(self._input_size or (0, 0))
        before = self._degrader.quality
        message = self._degrader.update(now, busy, self._meters.offered.of(now), side)
        if self._degrader.quality != before:
            for recent in self._meters.stages.values():
                recent.clear()
            self._portraits.rescale(self._degrader.quality.output_scale)
        if message is not None:
            self.announce(message)

    def _picture_once(self, holds: Callable[[], bool], timeout: float | None) -> Presented | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._error or holds(), timeout)
            if self._error is not None:
                raise self._error
            if self._closed or not holds():
                return None
            self._taken = True
            return self._picture

    def _is_newer(self, after: int | None) -> bool:
        return self._picture is not None and (after is None or self._picture.number > after)

    def _state(self, now: float) -> SessionState:
        if self._error is not None:
            return "failed"
        if self._closed:
            return "closed"
        if now - self._last_offer > SILENCE_S:
            return "waiting"
        state: State = self._follower.state
        return state

    def _show_again(self) -> None:
        """While no frame comes, what has changed is shown by making the standing picture anew."""
        with self._changed:
            self._changes += 1
        self._observed.wake()

    def _overdue(self) -> _Observed | None:
        """What the standing picture is to be made of anew, where it shows less than it should and no frame comes."""
        now, changes = self.clock(), self._changes
        if self._picture_shows >= changes or self._portraits.current is None or self._state(now) != "waiting":
            return None
        return _Observed(self._follower.again(self._controls), now, changes)

    def _guard(self, work: Callable[[], None]) -> None:
        """Run a thread; what ends it ends the session, and is raised where pictures are taken."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001  it is raised again by `newest`, in the caller's thread
            failed = error if isinstance(error, ReenactError) else ReenactError(described(error))
            failed.__cause__ = None if failed is error else error
            with self._changed:
                self._error = self._error or failed
                self._changed.notify_all()

    def _tracking(self) -> None:
        while not self._frames.closed:
            captured: _Captured | None = self._frames.take()
            if captured is None:
                continue
            began, changes = self.clock(), self._changes
            side = self._degrader.quality.tracking_side
            observation = self._follower.follow(captured.image, captured.time, side, self.controls)
            now = self.clock()
            self._meters.stages["track"].add(now, now - began)
            self._observed.put(_Observed(observation, captured.time, changes))

    def _animating(self) -> None:
        while not self._observed.closed:
            # What changes while frames come, and gets into none, is made up for when they come no more.
            observed: _Observed | None = self._observed.take(LOOK_S) or self._overdue()
            if observed is None:
                continue
            ready = self._portraits.current
            if ready is None:
                self._meters.drops.add("no photo yet")
                continue
            began = self.clock()
            image = self._animator.animate(ready.portrait, observed.observation)
            if ready.scale != 1:
                image = np.asarray(cv2.resize(image, self.size, interpolation=cv2.INTER_LINEAR), np.uint8)
            now = self.clock()
            self._meters.stages["animate"].add(now, now - began)
            self._present(image, observed, now)

    def _present(self, image: Image, observed: _Observed, now: float) -> None:
        self._meters.made.add(now)
        with self._changed:
            if not self._taken:
                self._meters.drops.add("output was busy")
            number = 1 if self._picture is None else self._picture.number + 1
            self._picture = Presented(image, number, observed.captured, now)
            self._picture_shows = observed.shows
            self._taken = False
            self._changed.notify_all()
