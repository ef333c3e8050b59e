"""Motion relative to a neutral frame, and what is shown while the face is lost."""

import numpy as np
import pytest
from reenact.runtime.tracking.canonical import load
from reenact.runtime.tracking.face import HeadPose, Motion, euler_angles, rotation_matrix
from reenact.runtime.tracking.geometry import measure
from reenact.runtime.tracking.relative import RelativeMotion, between, eased, proportions


def _face(yaw=0.0, pitch=0.0, x=0.0, scale=10.0, jaw=0.0, stretch=(1.0, 1.0, 1.0)):
    canonical = load()
    shape = canonical.shapes[canonical.shape_names.index("jawOpen")].astype(np.float32)
    points = np.zeros((478, 3), np.float32)
    points[:468] = (canonical.neutral + jaw * shape) * np.array(stretch, np.float32)
    points[468:] = points[[33, 263]].mean(axis=0)
    pose = HeadPose(rotation_matrix(yaw, pitch, 0), scale, np.array([200 + x, 200, 0], np.float32))
    return measure(pose.project(points), 1.0)


def test_the_neutral_frame_itself_is_no_motion():
    motion = between(_face(yaw=0.3), _face(yaw=0.3))
    np.testing.assert_allclose(motion.rotation, np.eye(3), atol=1e-4)
    np.testing.assert_allclose(motion.expression, 0, atol=1e-3)
    np.testing.assert_allclose(motion.lids, 1, atol=1e-3)
    assert motion.scale == pytest.approx(1.0, abs=1e-4)


def test_motion_is_what_changed_since_the_neutral_frame():
    motion = between(_face(yaw=0.3), _face(yaw=0.5, x=30, scale=12))
    assert euler_angles(motion.rotation)[0] == pytest.approx(0.2, abs=1e-3)
    assert motion.translation[0] == pytest.approx(3.0, abs=0.05)
    assert motion.scale == pytest.approx(1.2, abs=1e-3)


def test_absolute_motion_turns_the_head_to_where_the_driving_looks():
    relative = RelativeMotion(_face(yaw=0.3), absolute_from=_face(yaw=-0.1))
    assert euler_angles(relative.update(_face(yaw=0.5), 0.0).rotation)[0] == pytest.approx(0.6, abs=1e-3)


def test_strengths_scale_pose_and_expression_apart():
    relative = RelativeMotion(_face(), pose_strength=0.5, expression_strength=2.0)
    motion = relative.update(_face(yaw=0.4, jaw=0.3), 0.0)
    assert euler_angles(motion.rotation)[0] == pytest.approx(0.2, abs=0.01)
    plain = between(_face(), _face(yaw=0.4, jaw=0.3))
    np.testing.assert_allclose(motion.expression, 2 * plain.expression, atol=1e-4)


def test_a_face_of_other_proportions_gives_the_same_expression():
    plain = between(_face(), _face(jaw=0.5))
    large = between(_face(stretch=(1.1, 1.2, 1.1)), _face(jaw=0.5, stretch=(1.1, 1.2, 1.1)))
    chin = 152
    assert large.expression[chin, 1] == pytest.approx(plain.expression[chin, 1], rel=0.1)
    np.testing.assert_allclose(proportions(load().neutral), 1, atol=1e-5)


def test_a_lost_face_holds_the_last_motion_then_eases_to_still():
    relative = RelativeMotion(_face())
    seen = relative.update(_face(yaw=0.4), 0.0)
    held = relative.update(None, 0.1)
    held = relative.update(None, 0.1 + RelativeMotion.HOLD_S)
    np.testing.assert_allclose(held.rotation, seen.rotation, atol=1e-4)
    half = relative.update(None, 0.1 + RelativeMotion.HOLD_S + RelativeMotion.EASE_S / 2)
    assert euler_angles(half.rotation)[0] == pytest.approx(0.2, abs=0.01)
    gone = relative.update(None, 10.0)
    np.testing.assert_allclose(gone.rotation, np.eye(3), atol=1e-4)


def test_a_face_that_returns_blends_in_without_a_jump():
    relative = RelativeMotion(_face())
    relative.update(_face(), 0.0)
    relative.update(None, 5.0)
    yaws = [
        euler_angles(relative.update(_face(yaw=0.6), 6.0 + t).rotation)[0] for t in np.arange(0, 0.5, 0.05)
    ]
    assert yaws[0] == pytest.approx(0, abs=1e-3)
    assert yaws[-1] == pytest.approx(0.6, abs=1e-3)
    assert max(np.diff(yaws)) < 0.2


def test_easing_by_nothing_is_still_and_by_one_is_the_motion():
    motion = between(_face(), _face(yaw=0.3, jaw=1.0, scale=13))
    still, same = eased(motion, 0.0), eased(motion, 1.0)
    np.testing.assert_allclose(still.rotation, Motion.still().rotation, atol=1e-6)
    assert still.scale == 1.0
    np.testing.assert_allclose(same.expression, motion.expression)
    assert same.scale == pytest.approx(motion.scale)


def test_another_neutral_face_blends_in_and_is_counted_from():
    relative = RelativeMotion(_face())
    relative.update(_face(yaw=0.4), 0.0)
    relative.rebase(_face(yaw=0.3), 1.0)
    yaws = [
        euler_angles(relative.update(_face(yaw=0.4), 1.0 + t).rotation)[0] for t in np.arange(0, 0.4, 0.05)
    ]
    assert yaws[0] == pytest.approx(0.4, abs=1e-3)
    assert yaws[-1] == pytest.approx(0.1, abs=1e-3)
    assert min(np.diff(yaws)) > -0.08
