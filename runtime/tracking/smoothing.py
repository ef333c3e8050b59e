"""The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012) over a face: calm when still, quick when it moves.

Smoothing happens in the head's own frame, so that a turning head does not smear its expression.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from .face import Face, HeadPose
from .geometry import describe

__all__ = ["FaceSmoother", "OneEuro"]

Floats = NDArray[np.float32]

HEAD_WIDTH_CM = 15.0


class OneEuro:
    """Adaptive low-pass filter of an array over time; every element has its own cut-off frequency."""

    def __init__(self, *, min_cutoff: float, beta: float, derivative_cutoff: float = 4.0) -> None:
        """Cut-offs in Hz; `beta` raises the cut-off by Hz per (unit / second) of speed."""
        self._min_cutoff = min_cutoff
        self._beta = beta
        self._derivative_cutoff = derivative_cutoff
        self._time: float | None = None
        self._value: Floats = np.zeros(0, np.float32)
        self._speed: Floats = np.zeros(0, np.float32)

    def __call__(self, value: Floats, time: float) -> Floats:
        """Filtered copy of `value` at `time` seconds; the first value, and any that goes back in time, passes as is."""
        step = 0.0 if self._time is None else time - self._time
        if step <= 0 or step > 1.0:
            self._time, self._value, self._speed = time, np.array(value, np.float32), np.zeros_like(value)
            return self._value.copy()
        speed = (value - self._value) / np.float32(step)
        self._speed = self._speed + _alpha(self._derivative_cutoff, step) * (speed - self._speed)
        cutoff = np.asarray(self._min_cutoff + self._beta * np.abs(self._speed), np.float32)
        self._value = self._value + _alpha(cutoff, step) * (value - self._value)
        self._time = time
        return self._value.copy()


def _alpha(cutoff: float | Floats, step: float) -> Floats:
    """Weight of the new value of a first-order low pass with `cutoff` Hz after `step` seconds."""
    rate = np.asarray(2 * np.pi * step * cutoff, np.float32)
    return np.asarray(rate / (rate + 1), np.float32)


class FaceSmoother:
    """Smooths pose and head-frame landmarks of one face over time; `reset` when the face changes."""

    def __init__(self, amount: float = 1.0) -> None:
        """`amount` above 0 divides all cut-off frequencies: 1 as usual, 2 twice as calm."""
        self._amount = amount
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        # Units: turn in radians (Rodrigues vector), place in head widths, points in cm.
        calm = 0.8 / self._amount
        self._turn = OneEuro(min_cutoff=calm, beta=32.0 / self._amount)
        self._place = OneEuro(min_cutoff=calm, beta=48.0 / self._amount)
        self._points = OneEuro(min_cutoff=calm, beta=8.0 / self._amount)
        self._head_width_px: float | None = None

    def __call__(self, landmarks_px: Floats, pose: HeadPose, score: float, time: float) -> Face:
        """The face at `time` seconds with noise removed; all derived measures follow the smoothed points.

        landmarks_px # (478, 3) pixels, in `pose`
        """
        if self._head_width_px is None:
            self._head_width_px = HEAD_WIDTH_CM * pose.scale
        unit = np.float32(self._head_width_px)
        turn = cv2.Rodrigues(pose.rotation.astype(np.float64))[0].reshape(3).astype(np.float32)
        turn = self._turn(turn, time)
        place = np.array([*pose.translation, HEAD_WIDTH_CM * pose.scale], np.float32)
        place = self._place(place / unit, time) * unit
        points = self._points(pose.unproject(landmarks_px), time)
        rotation = cv2.Rodrigues(turn.astype(np.float64))[0].astype(np.float32)
        smooth = HeadPose(rotation, float(place[3]) / HEAD_WIDTH_CM, place[:3])
        return describe(smooth.project(points), smooth, score)
