"""A face and what is around it, small enough to keep."""

import numpy as np
import pytest
from reenact.runtime.tracking.canonical import load
from reenact.runtime.tracking.face import HeadPose, rotation_matrix
from reenact.runtime.tracking.flame_fit import face_square, view_of
from reenact.runtime.tracking.geometry import describe
from reenact.runtime.tracking.look import look_at


def face_at(x, y, scale):
    pose = HeadPose(rotation_matrix(0.1, 0.05, 0.02), scale, np.array([x, y, 0], np.float32))
    irises = np.tile(np.array([[x, y, 0]], np.float32), (10, 1))
    return describe(np.concatenate([pose.project(load().neutral), irises]).astype(np.float32), pose, 1.0)


def waves(height, width):
    """Smooth, so that a picture that is made smaller shows the same."""
    y, x = np.mgrid[:height, :width]
    return np.stack([127 + 120 * np.sin(x / 60), 127 + 120 * np.sin(y / 50), (x + y) % 1000 / 5], 2).astype(
        np.uint8
    )


@pytest.mark.parametrize(
    ("x", "y", "scale"), [(640, 360, 6.0), (640, 360, 25.0), (30, 700, 12.0), (1279, 0, 9.0)]
)
def test_what_a_network_sees_in_a_look_is_what_it_sees_in_the_whole_picture(x, y, scale):
    picture, face = waves(720, 1280), face_at(x, y, scale)
    look = look_at(picture, face)
    assert max(look.image.shape[:2]) <= 512
    whole, part = (
        view_of(image, face_square(seen)).crop for image, seen in ((picture, face), (look.image, look.face))
    )
    apart = np.abs(whole[:2] - part[:2])
    assert np.median(apart) < 0.01
    assert (apart > 0.05).mean() < 0.03  # beside the picture's border


def test_a_look_keeps_nothing_of_the_picture_alive():
    picture = waves(200, 300)
    look = look_at(picture, face_at(150, 100, 3.0))
    assert not np.shares_memory(look.image, picture)
    assert look.image.base is None


def test_a_face_beside_the_picture_still_gives_a_look():
    look = look_at(waves(100, 100), face_at(-500, 50, 2.0))
    assert min(look.image.shape[:2]) >= 1
