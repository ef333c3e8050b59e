"""A face with the part of a picture around it, small enough to keep some dozens."""

from dataclasses import dataclass

import cv2
import numpy as np

from ..media.frame import Image
from .face import Face

__all__ = ["Look", "look_at"]

_AROUND = 2.0  # of the face's box: more than any network looks at
_LONGEST = 512  # pixels


@dataclass(frozen=True, eq=False)
class Look:
    """One look at a face."""

    image: Image  # (H, W, 3) uint8 RGB, of its own
    face: Face  # in that picture


def look_at(image: Image, face: Face) -> Look:
    """The look at a face in (H, W, 3) uint8 RGB; a copy, of at most 512 pixels a side."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = face.box
    half = _AROUND * max(x1 - x0, y1 - y0) / 2
    left, right = _clipped((x0 + x1) / 2, half, width)
    top, bottom = _clipped((y0 + y1) / 2, half, height)
    cut = image[top:bottom, left:right]
    scale = min(1.0, _LONGEST / max(cut.shape[:2]))
    if scale < 1:
        size = max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale))
        cut = np.asarray(cv2.resize(cut, size, interpolation=cv2.INTER_AREA), np.uint8)
    between = (scale - 1) / 2  # from the middle of a pixel to that of a larger one
    return Look(cut.copy(), face.placed(scale=scale, x=between - left * scale, y=between - top * scale))


def _clipped(middle: float, half: float, side: int) -> tuple[int, int]:
    """Where a part of a picture's side begins and ends: at least one pixel of it."""
    begin = int(np.clip(np.floor(middle - half), 0, side - 1))
    return begin, int(np.clip(np.ceil(middle + half), begin + 1, side))
