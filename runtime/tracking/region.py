"""The rotated square of a picture that a landmark network looks at, and the way there and back."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..media.frame import Image
from .detector import Detection

__all__ = ["Region", "crop", "place"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Region:
    """A rotated square of the picture: centre and side in pixels, angle in radians (clockwise in the picture)."""

    x: float
    y: float
    side: float
    angle: float

    @classmethod
    def of_detection(cls, face: Detection) -> "Region":
        """Square around a detected face, turned so that its eyes are level."""
        x0, y0, x1, y1 = face.box
        angle = np.arctan2(face.left_eye[1] - face.right_eye[1], face.left_eye[0] - face.right_eye[0])
        return cls((x0 + x1) / 2, (y0 + y1) / 2, 1.5 * face.size, float(angle))

    @classmethod
    def of_landmarks(cls, landmarks_px: Floats) -> "Region":
        """Square around known landmarks ((N, 2 or 3) pixels, Face Mesh order), turned so that the eyes are level."""
        across = landmarks_px[263, :2] - landmarks_px[33, :2]
        angle = float(np.arctan2(across[1], across[0]))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32)
        level = landmarks_px[:468, :2] @ turn.T
        low, high = level.min(axis=0), level.max(axis=0)
        x, y = (low + high) / 2 @ turn
        return cls(float(x), float(y), 1.5 * float((high - low).max()), angle)

    def to_picture(self, pixels: int) -> Floats:
        """(2, 3) affine map from a crop of `pixels` x `pixels` to the picture, pixel centres at whole numbers."""
        step = self.side / pixels
        c, s = step * np.cos(self.angle), step * np.sin(self.angle)
        middle = (pixels - 1) / 2
        return np.array([[c, -s, self.x - middle * (c - s)], [s, c, self.y - middle * (s + c)]], np.float32)


def crop(image: Image, region: Region, pixels: int) -> Floats:
    """(pixels, pixels, 3) float32 in [0, 1] of the region; black outside the picture."""
    matrix = region.to_picture(pixels)
    # Taking every n-th pixel of a large face would show noise as movement: average first.
    shrink = 4 if region.side >= 4 * pixels else 2 if region.side >= 2 * pixels else 1
    if shrink > 1:
        image, matrix = _shrunk(image, region, matrix, shrink)
    patch = cv2.warpAffine(image, matrix, (pixels, pixels), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(np.multiply(patch, np.float32(1 / 255), dtype=np.float32))


def _shrunk(image: Image, region: Region, matrix: Floats, shrink: int) -> tuple[Image, Floats]:
    """The part of the picture around a region, `shrink` times smaller, and the map into it."""
    reach = 0.75 * region.side  # a little more than half the diagonal
    x0, y0 = max(0, int(region.x - reach)), max(0, int(region.y - reach))
    part = image[y0 : max(y0, int(region.y + reach)), x0 : max(x0, int(region.x + reach))]
    width, height = part.shape[1] // shrink, part.shape[0] // shrink
    if width < 1 or height < 1:
        return image, matrix
    small = cv2.resize(
        part[: height * shrink, : width * shrink], (width, height), interpolation=cv2.INTER_AREA
    )
    moved = matrix.copy()
    moved[:, 2] -= (x0, y0)
    moved /= shrink
    moved[:, 2] -= (1 - 1 / shrink) / 2
    return np.asarray(small, np.uint8), moved


def place(points: Floats, region: Region, pixels: int) -> Floats:
    """(N, 3) crop coordinates, pixel edges at whole numbers, to (N, 3) picture pixels."""
    matrix = region.to_picture(pixels)
    placed = np.empty_like(points)
    placed[:, :2] = (points[:, :2] - 0.5) @ matrix[:, :2].T + matrix[:, 2]
    placed[:, 2] = points[:, 2] * (region.side / pixels)
    return placed
