"""The movies that show what a reconstruction is good for: expressions handed over, a head turned and moved."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .media.frame import Image
from .systems.deca.model import Deca
from .systems.deca.pictures import side_by_side
from .systems.deca.reconstruction import Reconstruction, detail_picture, textured_picture

__all__ = ["Poses", "animation_camera", "animation_columns", "animation_poses", "transfer_columns"]

Floats = NDArray[np.float32]
Pose = tuple[Floats, Floats, Floats]  # expression (50,), pose (6,), camera (3,)

_FPS = Fraction(25)
_TURN, _JAW, _EACH = 96, 32, 24  # frames: once around, the jaw down and up, each expression there and back
_EXPRESSIONS = 4  # the first ones, each to both sides
_SHARP = 2.0  # how far they go, in standard deviations
_OPEN = np.radians(30)
_LARGEST = 8.0  # scale of the camera, the published one
_EDGE = 0.95  # of the way from the picture's middle to its border
_SIDES = np.linspace(0, 2 * np.pi, 16, endpoint=False)


@dataclass(frozen=True, eq=False)
class Poses:
    """Of each frame a pose of the head that turns and one of the head that moves its face."""

    frames: list[tuple[Pose, Pose]]
    fps: Fraction


def animation_camera(deca: Deca, source: Reconstruction) -> Floats:
    """(3,) that shows the source's head from all sides: in the middle, large, neither nose nor crown cut off."""
    vertices = np.concatenate(
        [
            deca.head(source.person, source.fit.exp, _turned(angle, source.fit.pose), source.fit.cam).vertices
            for angle in _SIDES
        ]
    )
    scale = min(_LARGEST, _EDGE / float(np.abs(vertices[:, 0]).max()))
    down = min(0.0, _EDGE / scale - float(vertices[:, 1].max()))
    return np.array([scale, 0, down], np.float32)


def animation_poses(exp: Floats, pose: Floats, camera: Floats) -> Poses:
    """Once around with the photo's expression (50,) and jaw of its pose (6,); jaw and expressions, looking ahead.

    `camera` (3,) is that of all.
    """
    turns = []
    for angle in np.linspace(0, 2 * np.pi, _TURN, endpoint=False):
        turns.append((exp, _turned(angle, pose), camera))
    faces = []
    for share in _there_and_back(_JAW):
        faces.append((exp, np.array([0, 0, 0, share * _OPEN, 0, 0], np.float32), camera))
    for number in range(_EXPRESSIONS):
        for side in (1, -1):
            for share in _there_and_back(_EACH):
                moved = np.zeros_like(exp)
                moved[number] = side * share * _SHARP
                faces.append((moved, np.zeros(6, np.float32), camera))
    count = max(len(turns), len(faces))
    return Poses([(turns[i % len(turns)], faces[i % len(faces)]) for i in range(count)], _FPS)


def animation_columns(source: Reconstruction, turned: Reconstruction, moved: Reconstruction) -> Image:
    """(224, 1120, 3): photo, its wrinkled shape, that turned, that moved, and moved in the photo's colours."""
    shapes = [detail_picture(made) for made in (source, turned, moved)]
    return side_by_side([_photo(source.crop), *shapes, textured_picture(moved)])


def transfer_columns(source: Reconstruction, driving_crop: Floats, moved: Reconstruction) -> Image:
    """(224, 1120, 3): photo, its wrinkled shape, driving photo, the shape with its expression, the same in colours."""
    pictures = [_photo(source.crop), detail_picture(source), _photo(driving_crop), detail_picture(moved)]
    return side_by_side([*pictures, textured_picture(moved)])


def _turned(angle: float, pose: Floats) -> Floats:
    """(6,) radians: the head turned about the vertical, the jaw as in the pose (6,)."""
    return np.array([0, angle, 0, *pose[3:]], np.float32)


def _photo(crop: Floats) -> Floats:
    return crop.transpose(1, 2, 0)


def _there_and_back(frames: int) -> NDArray[np.float64]:
    return np.asarray((1 - np.cos(2 * np.pi * np.arange(frames) / frames)) / 2)
