"""The square around a face that DECA's networks look at, 224 pixels a side, and the way there and back.

Pixel centres are at whole numbers, x to the right and y down. Maps are (3, 3) float64 similarities for columns
(x, y, 1) in pixels.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ...errors import FaceNotFoundError
from ..media.frame import Image

__all__ = ["SIDE", "FaceSquare", "crop", "whole_picture_map"]

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

SIDE = 224  # pixels
_LANDMARKS_REACH = 1.1  # landmarks end at the brows; a detector's box reaches the hair
_MARGIN = 1.25
_DETECTION_DROP = 0.12  # of the box; detectors' boxes sit higher than the face


@dataclass(frozen=True)
class FaceSquare:
    """An upright square of the picture: centre in pixels, side in whole pixels."""

    x: float
    y: float
    size: int

    @classmethod
    def of_landmarks(cls, landmarks_px: NDArray[Any]) -> "FaceSquare":
        """Around (N, 2 or more) landmarks in pixels, any set with the outermost of the usual 68.

        Raises FaceNotFoundError where they are not finite or all in one place, ValueError on their shape.
        """
        if landmarks_px.ndim != 2 or not len(landmarks_px) or landmarks_px.shape[1] < 2:
            raise ValueError(f"landmarks must be (N, 2 or more) pixels, not {landmarks_px.shape}")
        left, top = landmarks_px[:, :2].min(axis=0).tolist()
        right, bottom = landmarks_px[:, :2].max(axis=0).tolist()
        side = (right - left + bottom - top) / 2 * _LANDMARKS_REACH
        return cls._of((left + right) / 2, (top + bottom) / 2, side)

    @classmethod
    def of_detection(cls, left: float, top: float, right: float, bottom: float) -> "FaceSquare":
        """Around the box of a face detector, in pixels; FaceNotFoundError as for landmarks."""
        side = (right - left + bottom - top) / 2
        return cls._of((left + right) / 2, (top + bottom) / 2 + _DETECTION_DROP * side, side)

    @classmethod
    def _of(cls, x: float, y: float, side: float) -> "FaceSquare":
        if not all(map(math.isfinite, (x, y, side))) or side * _MARGIN < 1:
            raise FaceNotFoundError(f"a face {side:.3g} pixels large at ({x:.3g}, {y:.3g}) cannot be cropped")
        return cls(x, y, int(side * _MARGIN))

    def to_crop(self) -> Doubles:
        """From the picture to the crop: its first and last pixel centre lie `size` pixels apart in the picture."""
        scale = (SIDE - 1) / self.size
        left, top = self.x - self.size / 2, self.y - self.size / 2
        return np.array([[scale, 0, -scale * left], [0, scale, -scale * top], [0, 0, 1]])


def whole_picture_map(width: int, height: int) -> Doubles:
    """From a whole picture to the crop, as near as a similarity can bring three of its corners to the crop's.

    It turns a picture that is not square by a few degrees; the published code looks at uncropped pictures so.
    Raises ValueError for a picture of less than two pixels a side.
    """
    if width < 2 or height < 2:
        raise ValueError(f"a picture of {width}x{height} pixels cannot be mapped; it must have two a side")
    across, down = width - 1, height - 1
    # Least squares of z -> a z + b in complex numbers, for 0, i * down, across to 0, i * last, last.
    last = SIDE - 1
    corners = np.array([0, 1j * down, across])
    targets = np.array([0, 1j * last, last])
    spread = corners - corners.mean()
    turn = complex((spread.conj() @ targets) / (spread.conj() @ spread))
    shift = complex(targets.mean() - turn * corners.mean())
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag], [0, 0, 1]])


def crop(image: Image, to_crop: Doubles) -> Floats:
    """(3, 224, 224) float32 in [0, 1], RGB: what the networks look at.

    image    # (H, W, 3) uint8
    to_crop  # (3, 3), a similarity from its pixels to the crop's

    Bilinear in double precision; beyond its outermost pixel centres the picture fades to black within a pixel.
    Nothing is averaged where the picture is larger than the crop. Raises ValueError on shapes, dtypes and a map that
    cannot be inverted.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"the picture must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
    to_picture = _inverse(to_crop)
    return np.asarray(_sampled(np.ascontiguousarray(image), to_picture))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sampled(image: Image, to_picture: Doubles) -> Floats:
    """(3, SIDE, SIDE): each pixel mixed of the four around its place; those outside the picture count as black."""
    height, width = image.shape[:2]
    out = np.zeros((3, SIDE, SIDE), np.float32)
    for row in range(SIDE):
        for column in range(SIDE):
            x = to_picture[0, 0] * column + to_picture[0, 1] * row + to_picture[0, 2]
            y = to_picture[1, 0] * column + to_picture[1, 1] * row + to_picture[1, 2]
            if not (x > -1 and x < width and y > -1 and y < height):
                continue
            left, top = math.floor(x), math.floor(y)
            red = green = blue = 0.0
            for j, down in ((top, 1 - (y - top)), (top + 1, y - top)):
                for i, across in ((left, 1 - (x - left)), (left + 1, x - left)):
                    if j >= 0 and j < height and i >= 0 and i < width:
                        share = down * across
                        red += share * image[j, i, 0]
                        green += share * image[j, i, 1]
                        blue += share * image[j, i, 2]
            out[0, row, column] = red / 255
            out[1, row, column] = green / 255
            out[2, row, column] = blue / 255
    return out


def _inverse(to_crop: Doubles) -> Doubles:
    if to_crop.shape != (3, 3) or not np.isfinite(to_crop).all() or not abs(np.linalg.det(to_crop)) > 0:
        raise ValueError(f"the map to the crop must be an invertible (3, 3) matrix, not {to_crop.tolist()}")
    return np.asarray(np.linalg.inv(to_crop), np.float64)
