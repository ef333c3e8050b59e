"""Pictures that show what DECA found: landmarks drawn on a photo, and several pictures side by side.

Pictures are (3, H, W) float32 RGB in [0, 1].
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["landmarks_picture", "side_by_side"]

Floats = NDArray[np.float32]

_ENDS = frozenset({16, 21, 26, 30, 35, 41, 47, 67})  # of contour, brows, nose, eyes and mouth
_GREEN, _RED, _WHITE = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def landmarks_picture(photo: Floats, landmarks_px: Floats) -> Floats:
    """The photo with 68 landmarks on it, joined by white lines.

    landmarks_px  # (68, 2) x, y; or (68, 4) x, y, depth, and above 0.5 what is seen (green), else hidden (red)

    Raises ValueError for another shape and for landmarks that are not finite.
    """
    count, numbers = landmarks_px.shape
    if count != 68 or numbers not in (2, 4) or not np.isfinite(landmarks_px).all():
        raise ValueError(f"landmarks must be (68, 2 or 4) and finite, not {landmarks_px.shape}")
    hidden = landmarks_px[:, 3] <= 0.5 if numbers == 4 else np.zeros(count, bool)
    drawn = np.ascontiguousarray(photo.transpose(1, 2, 0), np.float32)
    # Far outside, all lines to one side look alike; OpenCV takes 32 bits.
    places = [(int(x), int(y)) for x, y in landmarks_px[:, :2].clip(-(1 << 14), 1 << 14)]
    for i, place in enumerate(places):
        cv2.circle(drawn, place, 1, _RED if hidden[i] else _GREEN, 2)
        if i not in _ENDS:
            cv2.line(drawn, place, places[i + 1], _WHITE, 1)
    return drawn.transpose(2, 0, 1)


def side_by_side(pictures: Sequence[Floats]) -> NDArray[np.uint8]:
    """(H, N W, 3) uint8 of N pictures of one size, blue first as OpenCV writes files; cut off, not rounded."""
    joined = np.concatenate(list(pictures), 2)[::-1].transpose(1, 2, 0)
    return (joined * 255).clip(0, 255).astype(np.uint8)
