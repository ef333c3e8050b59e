"""The movies that show what a reconstruction is good for: expressions handed over, a head turned and moved."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .media.frame import Image
from .systems.deca.pictures import side_by_side
from .systems.deca.reconstruction import Reconstruction, detail_picture, textured_picture

__all__ = ["Poses", "animation_columns", "animation_poses", "transfer_columns"]

Floats = NDArray[np.float32]
Pose = tuple[Floats, Floats, Floats]  # expression (50,), pose (6,), camera (3,)

_FPS = Fraction(25)
_TURN, _JAW, _EACH = 96, 32, 24  # frames: once around, the jaw down and up, each expression there and back
_EXPRESSIONS = 4  # the first ones, each to both sides
_SHARP = 2.0  # how far they go, in standard deviations
_OPEN = np.radians(30)
_CAMERA = np.array([8.0, 0.0, 0.0], np.float32)  # in the middle and large, whoever it is


@dataclass(frozen=True, eq=False)
class Poses:
    """Of each frame a pose of the head that turns and one of the head that moves its face."""

    frames: list[tuple[Pose, Pose]]
    fps: Fraction


def animation_poses(exp: Floats, pose: Floats) -> Poses:
    """Once around with the photo's expression (50,) and jaw of its pose (6,); jaw and expressions, looking ahead."""
    turns = []
    for angle in np.linspace(0, 2 * np.pi, _TURN, endpoint=False):
        turns.append((exp, np.array([0, angle, 0, *pose[3:]], np.float32), _CAMERA))
    faces = []
    for share in _there_and_back(_JAW):
        faces.append((exp, np.array([0, 0, 0, share * _OPEN, 0, 0], np.float32), _CAMERA))
    for number in range(_EXPRESSIONS):
        for side in (1, -1):
            for share in _there_and_back(_EACH):
                moved = np.zeros_like(exp)
                moved[number] = side * share * _SHARP
                faces.append((moved, np.zeros(6, np.float32), _CAMERA))
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


def _photo(crop: Floats) -> Floats:
    return crop.transpose(1, 2, 0)


def _there_and_back(frames: int) -> NDArray[np.float64]:
    return np.asarray((1 - np.cos(2 * np.pi * np.arange(frames) / frames)) / 2)
