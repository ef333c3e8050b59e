"""Axis-angles, Euler angles and quaternions stand for the same rotations as elsewhere."""

import cv2
import numpy as np
import pytest
import torch
from reenact.reference.rotations import euler_to_quaternion, quaternion_to_axis_angle, rodrigues


def test_no_rotation_is_exactly_the_identity():
    for dtype in (torch.float32, torch.float64):
        assert torch.equal(
            rodrigues(torch.zeros(2, 3, dtype=dtype)), torch.eye(3, dtype=dtype).expand(2, 3, 3)
        )
    assert torch.equal(quaternion_to_axis_angle(torch.tensor([1.0, 0, 0, 0])), torch.zeros(3))


@pytest.mark.parametrize("vector", [[0.3, -1.1, 0.2], [0.0, 0.0, 3.1], [1e-3, 2e-3, -1e-3], [-2.0, 0.5, 1.0]])
def test_an_axis_angle_becomes_the_matrix_that_opencv_makes(vector):
    ours = rodrigues(torch.tensor(vector, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(ours, cv2.Rodrigues(np.array(vector))[0], atol=3e-8)


def test_euler_angles_turn_about_z_first_and_x_last():
    angles = torch.tensor([0.4, -0.7, 1.2], dtype=torch.float64)
    x, y, z = rodrigues(torch.diag(angles))
    ours = rodrigues(quaternion_to_axis_angle(euler_to_quaternion(angles)))
    np.testing.assert_allclose(ours, x @ y @ z, atol=5e-8)


def test_both_quaternions_of_a_rotation_give_the_shorter_way():
    vector = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)  # the axis
    for angle, expected in ((1.0, 1.0), (3.0, 3.0), (4.0, 4.0 - 2 * np.pi)):
        half = torch.tensor([angle / 2], dtype=torch.float64)
        quaternion = torch.cat([half.cos(), half.sin() * vector])
        for same in (quaternion, -quaternion):
            np.testing.assert_allclose(quaternion_to_axis_angle(same), expected * vector, atol=1e-12)
