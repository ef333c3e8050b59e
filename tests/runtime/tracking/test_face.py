"""Angles and poses: the signs that everything else relies on."""

import numpy as np
import pytest
from reenact.runtime.tracking.face import HeadPose, euler_angles, rotation_matrix

NOSE = np.array([0, 0, -1], np.float32)  # towards the viewer
CROWN = np.array([0, -1, 0], np.float32)


def test_positive_yaw_looks_towards_the_left_side_of_the_picture():
    assert (rotation_matrix(0.3, 0, 0) @ NOSE)[0] < -0.2


def test_positive_pitch_bends_the_head_down():
    assert (rotation_matrix(0, 0.3, 0) @ NOSE)[1] > 0.2


def test_positive_roll_turns_the_head_counter_clockwise_in_the_picture():
    assert (rotation_matrix(0, 0, 0.3) @ CROWN)[0] < -0.2


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.4, -0.3, 0.2), (-1.2, 0.9, -2.5)])
def test_angles_survive_the_way_through_a_matrix(angles):
    assert euler_angles(rotation_matrix(*angles)) == pytest.approx(angles, abs=1e-5)


def test_projecting_and_unprojecting_are_inverse():
    rng = np.random.default_rng(0)
    pose = HeadPose(rotation_matrix(0.5, 0.2, -0.1), 12.5, np.array([300, 200, 7], np.float32))
    points = rng.normal(0, 6, (50, 3)).astype(np.float32)
    np.testing.assert_allclose(pose.unproject(pose.project(points)), points, atol=1e-4)
