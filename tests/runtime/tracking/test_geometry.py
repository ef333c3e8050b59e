"""Pose and measures from landmarks that are made, so that the right answer is known."""

import numpy as np
import pytest
from reenact.runtime.tracking.canonical import LEFT_EYE, RIGHT_EYE, load
from reenact.runtime.tracking.eyes import LEFT_IRIS, RIGHT_IRIS
from reenact.runtime.tracking.face import HeadPose, rotation_matrix
from reenact.runtime.tracking.geometry import measure


def _landmarks(pose, expression=None):
    """(478, 3) pixels of the canonical face in a pose, irises in the middle of the eyes."""
    points = np.zeros((478, 3), np.float32)
    points[:468] = load().neutral if expression is None else load().neutral + expression
    points[RIGHT_IRIS] = points[[33, 133]].mean(axis=0)
    points[LEFT_IRIS] = points[[263, 362]].mean(axis=0)
    return pose.project(points)


def _pose(yaw=0.0, pitch=0.0, roll=0.0):
    return HeadPose(rotation_matrix(yaw, pitch, roll), 14.0, np.array([320, 240, 30], np.float32))


@pytest.mark.parametrize("angles", [(0, 0, 0), (0.4, -0.2, 0.3), (-0.6, 0.3, -1.0)])
def test_the_pose_of_a_neutral_face_is_found_exactly(angles):
    face = measure(_landmarks(_pose(*angles)), 1.0)
    assert face.pose.yaw_pitch_roll == pytest.approx(angles, abs=1e-3)
    assert face.pose.scale == pytest.approx(14.0, rel=1e-4)
    np.testing.assert_allclose(face.pose.translation, [320, 240, 30], atol=0.05)
    np.testing.assert_allclose(face.expression, 0, atol=1e-3)


def test_an_open_jaw_hardly_turns_the_head():
    canonical = load()
    jaw = canonical.shapes[canonical.shape_names.index("jawOpen")].astype(np.float32)
    still, open_ = (measure(_landmarks(_pose(0.2), part * jaw), 1.0) for part in (0, 1))
    assert open_.mouth_openness > still.mouth_openness + 0.2
    difference = np.degrees(np.subtract(open_.pose.yaw_pitch_roll, still.pose.yaw_pitch_roll))
    assert np.abs(difference).max() < 2.0


def test_shutting_one_eye_closes_that_eye_alone():
    canonical = load()
    blink = canonical.shapes[canonical.shape_names.index("eyeBlink_R")].astype(np.float32)
    open_, shut = (measure(_landmarks(_pose(), part * blink), 1.0) for part in (0, 1))
    assert shut.eye_openness[0] < 0.35 * open_.eye_openness[0]
    assert shut.eye_openness[1] == pytest.approx(open_.eye_openness[1], abs=0.02)


def test_gaze_is_measured_in_the_heads_own_frame():
    points = _landmarks(_pose(roll=np.pi / 2))
    rest = measure(points, 1.0).gaze
    width = np.linalg.norm(points[33, :2] - points[133, :2])
    # The head lies on its side, turned counter-clockwise: its own right is down in the picture.
    points[RIGHT_IRIS, 1] += 0.1 * width
    np.testing.assert_allclose(measure(points, 1.0).gaze[0] - rest[0], [-0.1, 0], atol=0.01)


def test_eye_contours_start_at_the_outer_corner_and_have_the_inner_one_half_way():
    assert (RIGHT_EYE[0], RIGHT_EYE[8]) == (33, 133)
    assert (LEFT_EYE[0], LEFT_EYE[8]) == (263, 362)
