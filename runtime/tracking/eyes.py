"""Lid contours and irises of both eyes over time, with MediaPipe's Iris network run no more often than it must be.

Ablavatski et al., "Real-time Pupil Tracking from Monocular Video for Digital Puppetry", 2020.
"""

from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine import Precision, load
from ..media.frame import Image
from ..models import model_path
from .region import Region, crop, place

__all__ = ["LEFT_IRIS", "RIGHT_IRIS", "EyeNetwork"]

Floats = NDArray[np.float32]

RIGHT_IRIS = slice(468, 473)  # the person's right: centre, then four points of the rim
LEFT_IRIS = slice(473, 478)


@dataclass(frozen=True)
class _Eye:
    contour: list[int]  # mesh points of the network's first 16 points: lower lid, then upper lid
    iris: slice
    corners: tuple[int, int]  # outer, inner
    mirrored: bool  # the network knows one eye; the other is its mirror picture

    @property
    def points(self) -> list[int]:
        """Contour and iris, 21 points."""
        return [*self.contour, *range(self.iris.start, self.iris.stop)]


_EYES = (
    _Eye(
        [33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173],
        RIGHT_IRIS, (33, 133), mirrored=False,
    ),
    _Eye(
        [263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398],
        LEFT_IRIS, (263, 362), mirrored=True,
    ),
)  # fmt: skip


_LOWER_LID = [3, 4, 5]  # of the contour
_UPPER_LID = [11, 12, 13]


class EyeNetwork:
    """Refines the eyes of landmarks; between looks, an eye keeps its shape relative to the face mesh.

    Looking at both eyes costs more than all other tracking, so the eyes take turns. When the one whose turn it is
    has opened or closed since it was last looked at, the other is looked at in the same frame: lids move together.
    """

    SIDE = 64
    # Change of the lid gap, in distances between the outer eye corners, that counts as movement.
    MOVED = 0.008

    def __init__(self, *, backend: str, precision: Precision, threads: int | None) -> None:
        """Load the network."""
        path = model_path("iris_landmark")
        self._engine = load(path, backend=backend, precision=precision, threads=threads)
        self._input = next(iter(self._engine.inputs))
        self.forget()

    def forget(self) -> None:
        """Look at both eyes the next time: the face is another one."""
        self._shapes: list[Floats | None] = [None, None]
        self._turn = 0

    def sibling(self) -> "EyeNetwork":
        """The same network for another face; only one of the two is to be closed."""
        other = copy(self)
        other.forget()
        return other

    def refine(self, image: Image, landmarks: Floats, angle: float) -> None:
        """Set lid contours and irises of (478, 3) landmarks in place; `angle` (radians) is the face's roll."""
        bases = [_base(landmarks, eye) for eye in _EYES]
        self._turn = 1 - self._turn
        first, other = self._turn, 1 - self._turn
        shape = self._shapes[other]
        if self._look(image, landmarks, angle, first, bases[first]) > self.MOVED or shape is None:
            self._look(image, landmarks, angle, other, bases[other])
        else:
            landmarks[_EYES[other].points, :2] = bases[other] + shape @ _axes(landmarks)
        for eye in _EYES:
            landmarks[eye.iris, 2] = landmarks[eye.contour, 2].mean()

    def close(self) -> None:
        """Free the network."""
        self._engine.close()

    def _look(self, image: Image, landmarks: Floats, angle: float, which: int, base: Floats) -> float:
        """Refine one eye in place; returns by how much its lid gap has changed (`MOVED`)."""
        eye = _EYES[which]
        region = _region(landmarks, eye.corners, angle)
        patch = crop(image, region, self.SIDE)
        if eye.mirrored:
            patch = patch[:, ::-1]
        outputs = self._engine.run({self._input: np.ascontiguousarray(patch)[None]})
        iris, contour = sorted(outputs.values(), key=lambda array: array.shape[-1])
        points = np.concatenate([contour.reshape(71, 3)[:16], iris.reshape(5, 3)])
        if eye.mirrored:
            points[:, 0] = self.SIDE - points[:, 0]
        landmarks[eye.points, :2] = place(points, region, self.SIDE)[:, :2]
        shape = (landmarks[eye.points, :2] - base) @ np.linalg.inv(_axes(landmarks))
        before, self._shapes[which] = self._shapes[which], shape
        return float("inf") if before is None else abs(_gap(shape) - _gap(before))


def _base(landmarks: Floats, eye: _Eye) -> Floats:
    """(21, 2) what the eye's points are relative to: the mesh's own contour, and its middle for the iris."""
    contour = landmarks[eye.contour, :2]
    return np.concatenate([contour, np.repeat(contour.mean(axis=0)[None], 5, axis=0)])


def _axes(landmarks: Floats) -> Floats:
    """(2, 2) rows: from outer eye corner to outer eye corner in the picture, and the same turned by a quarter."""
    across = landmarks[263, :2] - landmarks[33, :2]
    return np.array([across, [-across[1], across[0]]], np.float32)


def _gap(shape: Floats) -> float:
    """How far the lids are apart relative to the mesh's, in distances between the outer eye corners."""
    return float(shape[_LOWER_LID, 1].mean() - shape[_UPPER_LID, 1].mean())


def _region(landmarks: Floats, corners: tuple[int, int], angle: float) -> Region:
    a, b = landmarks[corners[0], :2], landmarks[corners[1], :2]
    x, y = (a + b) / 2
    return Region(float(x), float(y), 2.3 * float(np.hypot(*(b - a))), angle)
