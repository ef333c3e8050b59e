"""From a driving face to the motion since its neutral frame, free of whose face it is; holds when it is lost."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from .canonical import load
from .face import Face, Motion
from .holding import EASE_S, HOLD_S, RETURN_S, Holding

__all__ = ["RelativeMotion", "between", "eased", "proportions", "strengthened"]

Floats = NDArray[np.float32]

# Points whose distances hardly change with expression.
_TEMPLES = (127, 356)
_CHEEKS = (234, 454)
_NASION, _NOSE_BASE = 168, 2

SHUT_RATIO = 0.35  # what the tracker reads of an eye that is shut, over what it reads of the same eye at rest
MIN_OPENNESS = 0.06  # an eye narrower than this in its neutral frame has no meaningful ratio


def proportions(head_points: Floats) -> Floats:
    """(3,) how much wider (x), longer (y) and deeper (z) a face is than the canonical one, of (>=468, 3) head points.

    Motion is exchanged between faces in canonical proportions: divided by the driving's, multiplied by the source's.
    """
    neutral = load().neutral
    width = np.mean([_span(head_points, pair, 0) / _span(neutral, pair, 0) for pair in (_TEMPLES, _CHEEKS)])
    length = _span(head_points, (_NASION, _NOSE_BASE), 1) / _span(neutral, (_NASION, _NOSE_BASE), 1)
    x, y = np.clip([width, length], 0.75, 1.35)
    return np.array([x, y, np.sqrt(x * y)], np.float32)


def between(neutral: Face, face: Face) -> Motion:
    """What changed from `neutral` to `face`, two findings of one person."""
    shape = proportions(load().neutral + neutral.expression)
    return Motion(
        rotation=face.pose.rotation @ neutral.pose.rotation.T,
        translation=(face.pose.translation - neutral.pose.translation)[:2] / np.float32(neutral.pose.scale),
        scale=face.pose.scale / neutral.pose.scale,
        expression=(face.expression - neutral.expression) / shape,
        lids=_lids(face.eye_openness, neutral.eye_openness),
        gaze=face.gaze - neutral.gaze,
    )


def _lids(openness: Floats, neutral: Floats) -> Floats:
    """How open the eyes are, neutral 1, as it is meant: a shut eye still reads as a third open."""
    ratio = np.maximum(openness, 0) / np.maximum(neutral, MIN_OPENNESS)
    closing = np.maximum(1 - ratio, 0)
    sharpened = 1 - closing * (1 + (1 / (1 - SHUT_RATIO) - 1) / (1 - SHUT_RATIO) * closing)
    return np.asarray(np.where(ratio < 1, np.maximum(sharpened, 0), ratio), np.float32)


def eased(motion: Motion, amount: float) -> Motion:
    """`motion` scaled by `amount`: 0 is the still source, 1 the motion itself, more exaggerates."""
    return strengthened(motion, amount, amount)


def strengthened(motion: Motion, pose: float, expression: float) -> Motion:
    """`motion` with the head's movement times `pose` and what the face does times `expression`."""
    turn = cv2.Rodrigues(motion.rotation.astype(np.float64))[0]
    return Motion(
        rotation=cv2.Rodrigues(turn * pose)[0].astype(np.float32),
        translation=motion.translation * np.float32(pose),
        scale=float(motion.scale**pose),
        expression=motion.expression * np.float32(expression),
        lids=np.maximum(1 + (motion.lids - 1) * np.float32(expression), 0),
        gaze=motion.gaze * np.float32(expression),
    )


class RelativeMotion:
    """Turns tracked faces into motions; when the face is lost the last motion is held, then eased back to still.

    After the face returns, the motion blends from what is shown to what is seen, so that nothing jumps.
    """

    HOLD_S, EASE_S, RETURN_S = HOLD_S, EASE_S, RETURN_S

    def __init__(
        self,
        neutral: Face,
        *,
        absolute_from: Face | None = None,
        pose_strength: float = 1.0,
        expression_strength: float = 1.0,
    ) -> None:
        """`neutral`: the driving's face at rest; strengths: 0 nothing, 1 as seen, 2 twice as much.

        With `absolute_from`, the source's face, the head turns to where the driving's head looks; without it, by
        as much as the driving's head has turned. Expression is always relative: only so does identity stay.
        """
        self._neutral = neutral
        self._turned_from = (absolute_from or neutral).pose.rotation
        self._pose_strength = pose_strength
        self._expression_strength = expression_strength
        self._holding = Holding(Motion.still(), eased, _blend)

    def update(self, face: Face | None, time: float) -> Motion:
        """The motion to show at `time` seconds for what the tracker found (None: nothing)."""
        return self._holding.update(None if face is None else self._seen(face), time)

    def rebase(self, neutral: Face, time: float) -> None:
        """Count from another neutral face from `time` on; what is shown blends over to it."""
        self._neutral = neutral
        self._turned_from = neutral.pose.rotation
        self._holding.rebase(time)

    def _seen(self, face: Face) -> Motion:
        motion = replace(between(self._neutral, face), rotation=face.pose.rotation @ self._turned_from.T)
        return strengthened(motion, self._pose_strength, self._expression_strength)


def _blend(a: Motion, b: Motion, amount: float) -> Motion:
    """Between two motions: `a` at 0, `b` at 1; the rotation along the shortest arc."""
    turn = cv2.Rodrigues((b.rotation @ a.rotation.T).astype(np.float64))[0]
    part = np.float32(amount)
    return Motion(
        rotation=cv2.Rodrigues(turn * amount)[0].astype(np.float32) @ a.rotation,
        translation=a.translation + part * (b.translation - a.translation),
        scale=float(a.scale ** (1 - amount) * b.scale**amount),
        expression=a.expression + part * (b.expression - a.expression),
        lids=a.lids + part * (b.lids - a.lids),
        gaze=a.gaze + part * (b.gaze - a.gaze),
    )


def _span(points: Floats, pair: tuple[int, int], axis: int) -> float:
    return float(abs(points[pair[0], axis] - points[pair[1], axis]))
