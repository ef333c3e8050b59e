"""Brings photos of any size into the one size of a live output, each with its face."""

import cv2
import numpy as np

from .media.frame import Image
from .source import CROP_REACH
from .tracking.face import Face

__all__ = ["framed", "scaled"]

# A picture of another shape than the photo is cut from it where no more than this is lost of the wished reach.
_ENOUGH = 0.85
_BLUR = 0.03  # of the output's longer side: what fills it beside the photo


def framed(image: Image, face: Face, size: tuple[int, int], *, whole: bool) -> tuple[Image, Face]:
    """The photo (H, W, 3) uint8 RGB in an output of `size` (width, height), and its face there.

    The part around the head, or with `whole` all of the photo. What the photo does not fill is its own blur.
    """
    height, width = image.shape[:2]
    box = (0, 0, width, height) if whole else _around(face, width, height, size[0] / size[1])
    x0, y0, x1, y1 = box
    part = image[y0:y1, x0:x1]
    scale = min(size[0] / part.shape[1], size[1] / part.shape[0])
    inner = _resized(
        part, min(size[0], round(part.shape[1] * scale)), min(size[1], round(part.shape[0] * scale))
    )
    left, top = (size[0] - inner.shape[1]) // 2, (size[1] - inner.shape[0]) // 2
    placed = face.placed(scale=scale, x=left - x0 * scale, y=top - y0 * scale)
    if inner.shape[:2] == (size[1], size[0]):
        return np.ascontiguousarray(inner), placed
    canvas = cv2.GaussianBlur(_resized(part, *size), (0, 0), _BLUR * max(size))
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return np.asarray(canvas, np.uint8), placed


def scaled(image: Image, face: Face, scale: float) -> tuple[Image, Face]:
    """The same picture and face smaller; `scale` above 0, at most 1."""
    if scale == 1:
        return image, face
    height, width = image.shape[:2]
    smaller = _resized(image, max(1, round(width * scale)), max(1, round(height * scale)))
    return smaller, face.placed(scale=smaller.shape[1] / width, x=0, y=0)


def _around(face: Face, width: int, height: int, aspect: float) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the part around the head that is shown: of `aspect` where the photo reaches far enough."""
    x0, y0, x1, y1 = face.box
    reach = CROP_REACH * max(x1 - x0, y1 - y0)
    wish = (reach * max(aspect, 1.0), reach * max(1 / aspect, 1.0))
    fits = min(1.0, width / wish[0], height / wish[1])
    # Where the whole head would not be seen, each side goes as far as the photo does.
    sides = (
        [fits * side for side in wish] if fits * min(wish) >= _ENOUGH * min(reach, width, height) else wish
    )
    w, h = max(1, min(width, round(sides[0]))), max(1, min(height, round(sides[1])))
    left = int(np.clip(round((x0 + x1 - w) / 2), 0, width - w))
    top = int(np.clip(round((y0 + y1 - h) / 2), 0, height - h))
    return left, top, left + w, top + h


def _resized(image: Image, width: int, height: int) -> Image:
    smaller = width < image.shape[1]
    interpolation = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), np.uint8)
