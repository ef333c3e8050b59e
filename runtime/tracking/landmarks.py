"""Landmarks of one face in a known region, with MediaPipe's Face Mesh and Iris networks; no memory between frames.

Face Mesh: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019.
Iris: Ablavatski et al., "Real-time Pupil Tracking from Monocular Video for Digital Puppetry", 2020.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine import Precision, load
from ..media.frame import Image
from ..models import model_path
from .detector import Detection

__all__ = ["LEFT_IRIS", "RIGHT_IRIS", "LandmarkNetwork", "Region"]

Floats = NDArray[np.float32]

RIGHT_IRIS = slice(468, 473)  # the person's right: centre, then four points of the rim
LEFT_IRIS = slice(473, 478)

# The iris network's first 16 contour points, as mesh points of each eye.
_RIGHT_CONTOUR = [33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173]
_LEFT_CONTOUR = [263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398]


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
        return np.array(
            [[c, -s, self.x - middle * (c - s)], [s, c, self.y - middle * (s + c)]], np.float32
        )


class LandmarkNetwork:
    """Face Mesh and Iris together: 478 points of the face in a region; `close` frees both networks."""

    MESH_SIDE = 192
    IRIS_SIDE = 64

    def __init__(self, *, backend: str, precision: Precision, threads: int | None) -> None:
        """Load both networks."""
        self._mesh, self._iris = (
            load(model_path(name), backend=backend, precision=precision, threads=threads)
            for name in ("face_landmark", "iris_landmark")
        )
        self._mesh_input = next(iter(self._mesh.inputs))
        self._iris_input = next(iter(self._iris.inputs))

    def locate(self, image: Image, region: Region) -> tuple[Floats, float]:
        """Landmarks (478, 3) in pixels of the picture and the network's score 0..1 that a face is there.

        z has the scale of x and y and is smaller nearer the viewer; its zero lies near the middle of the head.
        """
        crop = _crop(image, region, self.MESH_SIDE)
        outputs = self._mesh.run({self._mesh_input: crop[None]})
        points, logit = sorted(outputs.values(), key=lambda array: -array.size)
        landmarks = np.empty((478, 3), np.float32)
        landmarks[:468] = _place(points.reshape(468, 3), region, self.MESH_SIDE)
        score = float(1.0 / (1.0 + np.exp(-np.clip(logit.reshape(-1)[0], -80.0, 80.0))))
        if score > 0.1:
            self._refine_eyes(image, landmarks, region.angle)
        else:
            landmarks[RIGHT_IRIS] = landmarks[_RIGHT_CONTOUR].mean(axis=0)
            landmarks[LEFT_IRIS] = landmarks[_LEFT_CONTOUR].mean(axis=0)
        return landmarks, score

    def close(self) -> None:
        """Free both networks."""
        self._mesh.close()
        self._iris.close()

    def _refine_eyes(self, image: Image, landmarks: Floats, angle: float) -> None:
        """Replace the lid contours (x, y) by the iris network's and add both irises, in place."""
        regions = [_eye_region(landmarks, corners, angle) for corners in ((33, 133), (362, 263))]
        crops = np.stack([_crop(image, region, self.IRIS_SIDE) for region in regions])
        crops[1] = crops[1, :, ::-1]  # the network knows one eye; the other is its mirror picture
        outputs = self._iris.run({self._iris_input: crops})
        irises, contours = sorted(outputs.values(), key=lambda array: array.shape[-1])
        sides = ((_RIGHT_CONTOUR, RIGHT_IRIS), (_LEFT_CONTOUR, LEFT_IRIS))
        for i, (contour, iris) in enumerate(sides):
            points = np.concatenate([contours.reshape(2, 71, 3)[i, :16], irises.reshape(2, 5, 3)[i]])
            if i == 1:
                points[:, 0] = self.IRIS_SIDE - points[:, 0]
            placed = _place(points, regions[i], self.IRIS_SIDE)
            landmarks[contour, :2] = placed[:16, :2]
            landmarks[iris, :2] = placed[16:, :2]
            landmarks[iris, 2] = landmarks[contour, 2].mean()


def _eye_region(landmarks: Floats, corners: tuple[int, int], angle: float) -> Region:
    a, b = landmarks[corners[0], :2], landmarks[corners[1], :2]
    x, y = (a + b) / 2
    return Region(float(x), float(y), 2.3 * float(np.hypot(*(b - a))), angle)


def _crop(image: Image, region: Region, pixels: int) -> Floats:
    """(pixels, pixels, 3) float32 in [0, 1] of the region; black outside the picture."""
    matrix = region.to_picture(pixels)
    shrink = int(region.side / pixels)
    if shrink > 1:
        # Sampling every n-th pixel of a large face would show noise as movement: average first.
        image, matrix = _shrunk(image, region, matrix, shrink)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(image, matrix, (pixels, pixels), flags=flags)
    return np.asarray(patch, np.float32) * np.float32(1 / 255)


def _shrunk(image: Image, region: Region, matrix: Floats, shrink: int) -> tuple[Image, Floats]:
    """The part of the picture around a region, `shrink` times smaller, and the map into it."""
    reach = 0.75 * region.side  # half the diagonal, rounded up
    x0, y0 = max(0, int(region.x - reach)), max(0, int(region.y - reach))
    part = image[y0 : max(y0 + 1, int(region.y + reach)), x0 : max(x0 + 1, int(region.x + reach))]
    if part.size == 0:
        return image, matrix
    size = (max(1, part.shape[1] // shrink), max(1, part.shape[0] // shrink))
    small = cv2.resize(part[: size[1] * shrink, : size[0] * shrink], size, interpolation=cv2.INTER_AREA)
    moved = matrix.copy()
    moved[:, 2] -= (x0, y0)
    moved /= shrink
    moved[:, 2] -= (1 - 1 / shrink) / 2
    return np.asarray(small, np.uint8), moved


def _place(points: Floats, region: Region, pixels: int) -> Floats:
    """(N, 3) crop coordinates, pixel edges at whole numbers, to (N, 3) picture pixels."""
    matrix = region.to_picture(pixels)
    placed = np.empty_like(points)
    placed[:, :2] = (points[:, :2] - 0.5) @ matrix[:, :2].T + matrix[:, 2]
    placed[:, 2] = points[:, 2] * (region.side / pixels)
    return placed
