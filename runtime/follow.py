"""From live frames to motions: calibrates, follows, counts from another neutral face when asked.

Used by one thread, except `reset_pose` and `find_neutral`. Knows nothing of portraits, slots or cameras.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Protocol

import cv2
import numpy as np

from .controls import Controls, applied, mirrored_face
from .media.frame import Image
from .neutral import rest_costs
from .systems.protocol import Observation
from .tracking.face import Face, Motion
from .tracking.look import Look, look_at
from .tracking.relative import RelativeMotion
from .tracking.smoothing import FaceSmoother

__all__ = ["Follower", "State", "Tracking"]

CALIBRATION_S = 1.0
SEARCH_S = 2.0  # for a better neutral frame
FEWEST_LOOKS = 5
MOST_LOOKS = 400
# Faces are compared in pictures of this width, seen from their middle: a camera may change its size.
UNIT_WIDTH = 640.0
SAME_ASPECT = 0.01

State = Literal["calibrating", "live", "no_face"]


class Tracking(Protocol):
    """What follows one face; a Tracker that does not smooth."""

    def track(self, image: Image, time: float) -> Face | None:
        """The face in (H, W, 3) uint8 RGB at `time` seconds."""

    def reset(self) -> None:
        """Forget the face."""

    def rescale(self, scale: float) -> None:
        """The next frames show the same in `scale` times the size."""


@dataclass
class _Search:
    """Looks for the neutral face until `until`, which is known with the first face.

    `better`: the present neutral face serves meanwhile and is one of those to choose from.
    """

    better: bool = False
    until: float | None = None

    seen: list["_Seen"] = field(default_factory=list)

    def look(self, seen: "_Seen", time: float) -> bool:
        """Take one face; True when there were enough."""
        if self.until is None:
            self.until = time + (SEARCH_S if self.better else CALIBRATION_S)
        if len(self.seen) < MOST_LOOKS:
            self.seen.append(seen)
        return time >= self.until and len(self.seen) >= FEWEST_LOOKS


@dataclass(frozen=True, eq=False)
class _Seen:
    """A face that may be the neutral one."""

    face: Face  # in unit pixels
    look: Look

    @cached_property
    def mirrored(self) -> Look:
        """The look in a mirror."""
        image = np.ascontiguousarray(self.look.image[:, ::-1])
        return Look(image, mirrored_face(self.look.face, image.shape[1]))


class Follower:
    """One driving person: the neutral face is the calmest of the first second, motion is counted from it.

    `tell` is given a line for people whenever the neutral face changes.
    """

    state: State = "calibrating"
    motion: Motion
    """The last frame's, before any control."""

    def __init__(self, tracking: Tracking, tell: Callable[[str], None]) -> None:
        self.motion = Motion.still()
        self._tracking = tracking
        self._tell = tell
        self._smoother: FaceSmoother | None = None
        self._smoothing = 0.0
        self._shape: tuple[int, int] | None = None  # (H, W) of the last frame
        self._side: int | None = None
        self._relative: RelativeMotion | None = None
        self._neutral: _Seen | None = None
        self._time = 0.0  # of the last frame
        self._search: _Search | None = _Search()
        self._reset_asked = self._search_asked = False

    def reset_pose(self) -> None:
        """The next face that is seen is the neutral one."""
        self._reset_asked = True

    def find_neutral(self) -> None:
        """Look for a better neutral face during the next seconds; the present one serves until then."""
        self._search_asked = True

    def follow(self, image: Image, time: float, side: int | None, controls: Controls) -> Observation:
        """What (H, W, 3) uint8 RGB at `time` seconds shows; tracked with a longer side of at most `side` pixels."""
        self._adapt(image.shape[:2], side, controls.smoothing)
        face = self._track(image, time, side)
        if face is not None and self._smoother is not None:
            face = self._smoother(face.landmarks_px, face.pose, face.score, time)
        elif self._smoother is not None:
            self._smoother.reset()
        if face is not None and (self._search is not None or self._reset_asked or self._search_asked):
            self._learn(_Seen(face, look_at(image, _in_picture(face, image))), time)
        calibrating = self._search is not None and not self._search.better
        if self._relative is not None:
            self.motion = self._relative.update(None if calibrating else face, time)
        self.state = "no_face" if face is None else "calibrating" if calibrating else "live"
        self._time = time
        observed = self._observed(controls, None if calibrating else self._neutral)
        return _with_picture(observed, image, face, controls.mirror)

    def again(self, controls: Controls) -> Observation:
        """What was seen last, by other controls."""
        return self._observed(controls, self._neutral)

    def _observed(self, controls: Controls, neutral: _Seen | None) -> Observation:
        look = None if neutral is None else neutral.mirrored if controls.mirror else neutral.look
        return Observation(
            applied(self.motion, controls),
            time=self._time,
            neutral=look,
            smoothing=controls.smoothing,
            expression_strength=controls.expression_strength,
            edits=controls.offset if controls.edits else None,
        )

    def _adapt(self, shape: tuple[int, int], side: int | None, smoothing: float) -> None:
        """Meet a frame of another size than the last, another size to track at, or another smoothing."""
        if smoothing != self._smoothing:
            self._smoothing = smoothing
            self._smoother = FaceSmoother(smoothing) if smoothing > 0 else None
        before, self._shape = self._shape, shape
        tracked_at, self._side = self._side, side
        if before is None or (before, tracked_at) == (shape, side):
            return
        # Whoever else is in the picture is not followed because it is seen in another size.
        self._tracking.rescale(shape[1] / _halvings(shape, side) * _halvings(before, tracked_at) / before[1])
        if before != shape:
            self._meet(before, shape)

    def _meet(self, before: tuple[int, int], shape: tuple[int, int]) -> None:
        aspects = [width / height for height, width in (before, shape)]
        if self._smoother is not None:
            self._smoother.reset()
        if abs(aspects[1] / aspects[0] - 1) > SAME_ASPECT:
            self._tracking.reset()
            self._search = _Search()
            self._tell(f"the input is now {shape[1]}x{shape[0]}: it is calibrated anew")
        else:
            self._tell(f"the input is now {shape[1]}x{shape[0]}")

    def _track(self, image: Image, time: float, side: int | None) -> Face | None:
        """The face in unit pixels from the middle of the frame."""
        height, width = image.shape[:2]
        face = self._tracking.track(image if side is None else _halved(image, side), time)
        if face is None:
            return None
        unit = UNIT_WIDTH / width
        shrunk = _halvings(image.shape[:2], side)
        middle = (shrunk - 1) / 2  # of the pixels that became one
        x, y = unit * (middle - (width - 1) / 2), unit * (middle - (height - 1) / 2)
        return face.placed(scale=unit * shrunk, x=x, y=y)

    def _learn(self, seen: _Seen, time: float) -> None:
        if self._reset_asked:
            self._reset_asked = False
            self._search = None
            self._settle(seen, time, "the pose was reset")
        if self._search_asked:
            self._search_asked = False
            self._search = _Search(better=self._relative is not None)
            self._tell("looking for a better neutral frame: look straight ahead, mouth closed")
        if self._search is not None and self._search.look(seen, time):
            search, self._search = self._search, None
            self._choose(search, time)

    def _choose(self, search: _Search, time: float) -> None:
        """The calmest face that was seen."""
        present = [self._neutral] if search.better and self._neutral is not None else []
        seen = [*present, *search.seen]
        best = seen[int(np.argmin(rest_costs([one.face for one in seen])))]
        if best is self._neutral:
            self._tell("the neutral frame stays: none was better")
        else:
            self._settle(best, time, "a better neutral frame was found" if present else "calibrated")

    def _settle(self, neutral: _Seen, time: float, message: str) -> None:
        self._neutral = neutral
        if self._relative is None:
            self._relative = RelativeMotion(neutral.face)
        self._relative.rebase(neutral.face, time)
        self._tell(message)


def _in_picture(face: Face, image: Image) -> Face:
    """From unit pixels back to the pixels of a frame."""
    height, width = image.shape[:2]
    return face.placed(scale=width / UNIT_WIDTH, x=(width - 1) / 2, y=(height - 1) / 2)


def _with_picture(observed: Observation, image: Image, face: Face | None, mirror: bool) -> Observation:
    """With a frame and its face, both in a mirror if asked."""
    found = None if face is None else _in_picture(face, image)
    if mirror:
        found = None if found is None else mirrored_face(found, image.shape[1])
        image = np.ascontiguousarray(image[:, ::-1])
    return replace(observed, image=image, face=found)


def _halvings(shape: tuple[int, int], side: int | None) -> int:
    """1, 2, 4 ...: how many times smaller a picture must be to have a longer side of at most `side` pixels."""
    shrunk = 1
    while side is not None and max(shape) > side * shrunk:
        shrunk *= 2
    return shrunk


def _halved(image: Image, side: int) -> Image:
    """The picture at that part of its size; whole parts are ten times cheaper than others."""
    shrunk = _halvings(image.shape[:2], side)
    width, height = image.shape[1] // shrunk, image.shape[0] // shrunk
    if shrunk == 1 or not width or not height:
        return image
    whole = image[: height * shrunk, : width * shrunk]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
