"""What a person may change while a portrait is live: strengths, smoothing, mirror, and edits added to the motion."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..errors import ReenactError
from .motion import MotionFile, MotionTrack, control_ranges
from .tracking.canonical import load as load_canonical
from .tracking.face import Face, HeadPose, Motion
from .tracking.geometry import describe
from .tracking.relative import strengthened

__all__ = ["Controls", "applied", "mirrored_face", "mirrored_motion"]

_RANGES = {"pose_strength": (0.0, 3.0), "expression_strength": (0.0, 3.0), "smoothing": (0.0, 4.0)}
_FLIP = np.array([-1, 1, 1], np.float32)


@dataclass(frozen=True)
class Controls:
    """Settings of a live portrait; checked when made, ReenactError names the one that is wrong.

    `edits` are motion controls by name (docs/motions.md), such as {"smile": 0.4, "yaw": 10}: they are added to what
    the driving does, after mirroring.
    """

    pose_strength: float = 1.0  # 0 nothing, 1 as seen, up to 3
    expression_strength: float = 1.0  # likewise
    smoothing: float = 1.0  # of the tracking: 0 none, 1 as usual, up to 4
    mirror: bool = False  # the portrait moves as the driving's mirror image would
    edits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            _check(name, getattr(self, name), low, high)
        ranges = control_ranges()
        for name, value in self.edits.items():
            if name not in ranges:
                near = difflib.get_close_matches(str(name)[:50], ranges, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ReenactError(
                    f"edits: no control is called {str(name)[:50]!r}; {hint}all are in docs/motions.md"
                )
            _check(name, value, *ranges[name])

    @cached_property
    def offset(self) -> Motion:
        """The motion that the edits are, from the still source."""
        if not self.edits:
            return Motion.still()
        keys = {name: [(0.0, float(value))] for name, value in self.edits.items()}
        return MotionTrack(MotionFile(duration=1.0, controls=keys), name="edits", source="edits").at(0.0)


def applied(motion: Motion, controls: Controls) -> Motion:
    """`motion` mirrored, strengthened and edited as asked."""
    if controls.mirror:
        motion = mirrored_motion(motion)
    if (controls.pose_strength, controls.expression_strength) != (1.0, 1.0):
        motion = strengthened(motion, controls.pose_strength, controls.expression_strength)
    return _added(motion, controls.offset) if controls.edits else motion


def mirrored_motion(motion: Motion) -> Motion:
    """What the mirror image of the same person does."""
    return Motion(
        rotation=motion.rotation * np.outer(_FLIP, _FLIP),
        translation=motion.translation * _FLIP[:2],
        scale=motion.scale,
        expression=motion.expression[load_canonical().mirror] * _FLIP,
        lids=motion.lids[::-1].copy(),
        gaze=motion.gaze[::-1] * _FLIP[:2],
    )


def mirrored_face(face: Face, width: int) -> Face:
    """The same face in the mirror image of a picture of `width` pixels."""
    points = np.empty_like(face.landmarks_px)
    points[:468] = face.landmarks_px[load_canonical().mirror]
    points[468:473], points[473:] = face.landmarks_px[473:], face.landmarks_px[468:473]
    shift = np.array([width - 1, 0, 0], np.float32)
    pose = HeadPose(
        face.pose.rotation * np.outer(_FLIP, _FLIP), face.pose.scale, face.pose.translation * _FLIP + shift
    )
    return describe(points * _FLIP + shift, pose, face.score)


def _added(motion: Motion, offset: Motion) -> Motion:
    return Motion(
        rotation=offset.rotation @ motion.rotation,
        translation=motion.translation + offset.translation,
        scale=motion.scale * offset.scale,
        expression=motion.expression + offset.expression,
        lids=motion.lids * offset.lids,
        gaze=motion.gaze + offset.gaze,
    )


def _check(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ReenactError(f"{name} is {str(value)[:50]!r}; expected a number from {low:g} to {high:g}")
    if not low <= value <= high:
        raise ReenactError(f"{name} is {value:g}; expected {low:g} to {high:g}")
