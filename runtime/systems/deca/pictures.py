"""Pictures that show what was found: landmarks drawn on the crop, several pictures side by side.

Pictures are (H, W, 3) float32 RGB in [0, 1].
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ...media.frame import Image
from .skin import to_bytes

__all__ = ["landmarks_picture", "side_by_side"]

Floats = NDArray[np.float32]

_ENDS = frozenset({16, 21, 26, 30, 35, 41, 47, 67})  # of contour, brows, nose, eyes and mouth
_GREEN, _RED, _WHITE = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 1.0)
_FARTHEST = 1 << 14  # pixels; far outside, all lines to one side look alike


def landmarks_picture(picture: Floats, landmarks_px: Floats) -> Floats:
    """A copy of the picture with 68 landmarks on it, joined by white lines.

    landmarks_px  # (68, 2) x, y; or (68, 4) x, y, depth, and above 0.5 what is seen (green), else hidden (red)
    """
    hidden = landmarks_px[:, 3] <= 0.5 if landmarks_px.shape[1] == 4 else np.zeros(len(landmarks_px), bool)
    drawn = np.array(picture, np.float32, order="C")
    places = [(int(x), int(y)) for x, y in landmarks_px[:, :2].clip(-_FARTHEST, _FARTHEST)]
    for i, place in enumerate(places):
        cv2.circle(drawn, place, 1, _RED if hidden[i] else _GREEN, 2)
        if i not in _ENDS:
            cv2.line(drawn, place, places[i + 1], _WHITE, 1)
    return drawn


def side_by_side(pictures: Sequence[Floats]) -> Image:
    """(H, N W, 3) uint8 RGB of N pictures of one size."""
    return to_bytes(np.concatenate(list(pictures), axis=1))
