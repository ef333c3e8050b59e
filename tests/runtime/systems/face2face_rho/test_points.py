"""Keypoints and head poses from the tracker: on a made face, and against fits of real pictures."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from reenact.runtime.systems.face2face_rho.fitting import Camera, PoseTransform, head_pose
from reenact.runtime.systems.face2face_rho.landmarks import NOSE_TIP, read_head_pose, read_landmarks
from reenact.runtime.systems.face2face_rho.points import (
    MESH_POINTS,
    NOSE_HEIGHT,
    Crop,
    SourceShape,
    head_pose_of,
    keypoints_of,
)
from reenact.runtime.tracking.canonical import load
from reenact.runtime.tracking.face import HeadPose, Motion, rotation_matrix
from reenact.runtime.tracking.geometry import describe
from reenact.runtime.tracking.relative import between, proportions
from reenact.runtime.tracking.tracker import Tracker

CROP = Crop(60.0, 40.0, 500.0)
# Keypoints that mirror each other.
LEFT = [*range(8), *range(17, 22), 31, 32, *range(36, 44), 52, 54, 53, 68, 69, 55, 56, 67]
RIGHT = [
    *range(9, 17),
    26,
    25,
    24,
    23,
    22,
    35,
    34,
    48,
    47,
    46,
    45,
    44,
    51,
    50,
    49,
    57,
    59,
    58,
    65,
    66,
    60,
    61,
    64,
]
MIDDLE = [8, 27, 28, 29, 30, 33, 62, 71, 63, 70]


def _face(
    yaw=0.0, pitch=0.0, roll=0.0, *, scale=13.0, at=(300.0, 280.0), shape=(1.0, 1.0, 1.0), expression=0.0
):
    """The canonical face, stretched by `shape`, as the tracker would have found it."""
    pose = HeadPose(rotation_matrix(yaw, pitch, roll), scale, np.array([*at, 0], np.float32))
    head = load().neutral * np.array(shape, np.float32) + expression
    landmarks = np.concatenate([pose.project(head), np.full((10, 3), 300, np.float32)])
    return describe(landmarks.astype(np.float32), pose, 1.0)


def _motion(yaw=0.0, pitch=0.0, roll=0.0, **changes):
    return replace(Motion.still(), rotation=rotation_matrix(yaw, pitch, roll), **changes)


def test_the_table_is_symmetric_and_names_each_pair_once():
    mirror = load().mirror
    assert MESH_POINTS.shape == (72, 2)
    assert MESH_POINTS.min() >= 0
    assert MESH_POINTS.max() < 468
    assert sorted(LEFT + RIGHT + MIDDLE) == list(range(72))
    for left, right in zip(LEFT, RIGHT, strict=True):
        assert sorted(mirror[MESH_POINTS[left]]) == sorted(MESH_POINTS[right]), (left, right)
    for middle in MIDDLE:
        assert sorted(mirror[MESH_POINTS[middle]]) == sorted(MESH_POINTS[middle]), middle
    assert len({tuple(sorted(pair)) for pair in MESH_POINTS.tolist()}) == 72


def test_the_layout_of_an_upright_face():
    points = keypoints_of(_face().landmarks_px, CROP)
    x, y = points.T
    assert points.dtype == np.float32
    assert (np.diff(x[4:9]) > 0).all()  # along the jaw to the chin
    assert (np.diff(y[:9]) > 0).all()
    assert (np.diff(x[[13, 14, 15, 16, 8]]) < 0).all()
    assert (np.diff(y[9:17]) > 0).all()
    assert (np.diff(x[17:27]) > 0).all()
    assert (np.diff(y[27:31]) > 0).all()
    assert (np.diff(x[31:36]) > 0).all()
    for outer, upper, inner, lower in (
        (36, (37, 38, 39), 40, (43, 42, 41)),
        (44, (45, 46, 47), 48, (51, 50, 49)),
    ):
        assert (np.diff(x[[outer, *upper, inner]]) > 0).all()
        assert (np.diff(x[[outer, *lower, inner]]) > 0).all()
        assert (y[list(upper)] < y[list(lower)]).all()
    assert (np.diff(x[[52, 54, 53, 62, 58, 59, 57]]) > 0).all()
    assert (np.diff(x[[57, 65, 66, 71, 69, 68, 52]]) < 0).all()
    assert (np.diff(x[[55, 56, 63, 61, 60]]) > 0).all()
    assert (np.diff(x[[60, 64, 70, 67, 55]]) < 0).all()
    assert (np.diff(y[[62, 63, 70, 71]]) > -1e-3).all()


def test_the_crops_borders_are_one():
    landmarks = np.tile(np.array([[60.0, 540.0, 7.0]], np.float32), (478, 1))
    assert keypoints_of(landmarks, CROP).tolist() == [[-1, 1]] * 72


@pytest.mark.parametrize("side", [0.0, -5.0, np.nan])
def test_a_crop_without_a_side_is_refused(side):
    with pytest.raises(ValueError, match="side above 0"):
        Crop(0, 0, side)


def test_no_motion_gives_exactly_the_sources_own_keypoints_and_head_pose():
    wide = _face(0.2, -0.1, 0.05, shape=(1.15, 0.9, 1.0))
    keypoints, pose = SourceShape(wide, CROP).moved(Motion.still())
    np.testing.assert_array_equal(keypoints, keypoints_of(wide.landmarks_px, CROP))
    np.testing.assert_array_equal(pose, head_pose_of(wide.pose, keypoints, CROP))


def test_lids_that_cross_in_the_source_stay_as_they_are_without_motion():
    expression = np.zeros((468, 3), np.float32)
    expression[[159, 158, 160, 386, 385, 387], 1] = 2.0
    shut = _face(expression=expression)
    keypoints, _ = SourceShape(shut, CROP).moved(Motion.still())
    np.testing.assert_array_equal(keypoints, keypoints_of(shut.landmarks_px, CROP))


def test_a_turned_driving_turns_the_source_whatever_the_drivings_shape_and_place():
    source = _face(0.1, scale=13.0, at=(300.0, 280.0), shape=(1.1, 0.95, 1.02))
    wide = {"shape": (0.9, 1.1, 1.0)}
    motion = between(
        _face(scale=9.0, at=(90.0, 80.0), **wide), _face(0.3, scale=10.0, at=(108.0, 71.0), **wide)
    )
    expected = _face(0.4, scale=13 * 10 / 9, at=(326.0, 267.0), shape=(1.1, 0.95, 1.02))
    keypoints, pose = SourceShape(source, CROP).moved(motion)
    np.testing.assert_allclose(keypoints, keypoints_of(expected.landmarks_px, CROP), atol=1e-4)
    np.testing.assert_allclose(pose, head_pose_of(expected.pose, keypoints, CROP), rtol=1e-4, atol=1e-6)


def test_the_drivings_expression_is_put_on_in_the_sources_proportions():
    source = _face(0.1, shape=(1.1, 0.9, 1.0))
    jaw = load().shape("jawOpen")
    keypoints, pose = SourceShape(source, CROP).moved(between(_face(), _face(expression=jaw)))
    expected = _face(
        0.1, shape=(1.1, 0.9, 1.0), expression=jaw * proportions(load().neutral * (1.1, 0.9, 1.0))
    )
    still = keypoints_of(source.landmarks_px, CROP)
    assert keypoints[70, 1] - still[70, 1] > 0.1
    np.testing.assert_allclose(keypoints, keypoints_of(expected.landmarks_px, CROP), atol=1e-3)
    np.testing.assert_allclose(pose, head_pose_of(source.pose, still, CROP), atol=1e-3)


def test_shift_and_scale_move_all_keypoints_alike():
    shape = SourceShape(_face(), CROP)
    still = shape.moved(Motion.still())[0]
    shifted, _ = shape.moved(_motion(translation=np.array([2.0, -1.0], np.float32)))
    np.testing.assert_allclose(shifted - still, np.tile([26 / 250, -13 / 250], (72, 1)), atol=2e-6)
    grown, _ = shape.moved(_motion(scale=1.5))
    np.testing.assert_allclose(np.ptp(grown, axis=0), 1.5 * np.ptp(still, axis=0), rtol=1e-4)


def test_a_blink_shuts_the_eyes_and_moves_nothing_below():
    shape = SourceShape(_face(), CROP)
    still, _ = shape.moved(Motion.still())
    shut, _ = shape.moved(_motion(lids=np.array([0.0, 1.0], np.float32)))
    gap = [38, 46], [42, 50]
    openness = (shut[gap[1], 1] - shut[gap[0], 1]) / (still[gap[1], 1] - still[gap[0], 1])
    assert openness[0] < 0.1
    assert openness[1] == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_array_equal(shut[52:], still[52:])


@pytest.mark.parametrize(
    ("turn", "axis", "sign"), [("pitch", 0, 1), ("yaw", 1, -1), ("roll", 2, 1)], ids=["pitch", "yaw", "roll"]
)
def test_turns_are_flames(turn, axis, sign):
    # FLAME: x right, y up, z to the viewer; the axis-angle's signs follow from the right hand.
    upright = head_pose_of(_face().pose, keypoints_of(_face().landmarks_px, CROP), CROP)
    turned = _face(**{turn: 0.3})
    pose = head_pose_of(turned.pose, keypoints_of(turned.landmarks_px, CROP), CROP)
    change = pose[:3] - upright[:3]
    assert change[axis] == pytest.approx(sign * 0.3, abs=0.01)
    assert np.abs(np.delete(change, axis)).max() < 0.03


def test_the_head_pose_is_that_of_a_fit_with_the_same_nose_scale_and_turn():
    face = _face(0.2, -0.1, 0.05)
    keypoints = keypoints_of(face.landmarks_px, CROP)
    pose = head_pose_of(face.pose, keypoints, CROP)
    scale = float(pose[5]) * PoseTransform().scale
    camera = Camera(scale, 0.07, -0.03)
    points = np.zeros((72, 3))
    points[NOSE_TIP, :2] = (keypoints[NOSE_TIP] - (0.07, -0.03)) / (scale, -scale)
    unturned = np.zeros((72, 3))
    unturned[NOSE_TIP] = [0, NOSE_HEIGHT, 0.1]
    fitted = head_pose(pose[:3].astype(np.float64), points, unturned, camera, PoseTransform())
    np.testing.assert_allclose(pose, fitted, atol=1e-6)


def test_the_head_pose_does_not_depend_on_the_pictures_size():
    face = _face(0.2, -0.1, 0.05)
    small = head_pose_of(face.pose, keypoints_of(face.landmarks_px, CROP), CROP)
    doubled = face.placed(scale=2.0, x=10.0, y=-20.0)
    crop = Crop(130.0, 60.0, 1000.0)
    large = head_pose_of(doubled.pose, keypoints_of(doubled.landmarks_px, crop), crop)
    np.testing.assert_allclose(small, large, rtol=1e-4)


@pytest.fixture(scope="module")
def fitted(shared_data, models_home):
    """Faces, keypoints and head poses of the six pictures with the original fit, and of two with the FLAME fit."""
    folder = shared_data / "face2facerho"
    if not folder.is_dir():
        pytest.skip("../shared/data/face2facerho with fitted pictures is absent")
    found = []
    with Tracker(smooth=False, threads=1) as tracker:
        for photo in sorted(folder.rglob("*.jpg")):
            image = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
            face = tracker.find_faces(image)[0]
            assert image.shape == (512, 512, 3)
            if photo.parent.name == "img":
                text = photo.with_suffix(".txt").name
                files = {
                    "original": (photo.parents[1] / "landmark" / text, photo.parents[1] / "headpose" / text)
                }
            else:
                kinds = [photo.parent / kind for kind in ("original", "FLAME")]
                files = {kind.name: (kind / "landmark.txt", kind / "headpose.txt") for kind in kinds}
            for kind, (landmarks, pose) in files.items():
                found.append((kind, face, read_landmarks(landmarks), read_head_pose(pose)))
    return found


@pytest.mark.parametrize(("kind", "mean", "single"), [("original", 0.022, 0.075), ("FLAME", 0.026, 0.08)])
def test_keypoints_of_real_pictures_lie_where_a_fit_puts_them(fitted, kind, mean, single):
    for _, face, landmarks, _ in (row for row in fitted if row[0] == kind):
        away = np.hypot(*(keypoints_of(face.landmarks_px, Crop(0, 0, 512)) - landmarks).T)
        assert away.mean() < mean
        assert away.max() < single


@pytest.mark.parametrize(("kind", "turn"), [("original", 0.06), ("FLAME", 0.14)])
def test_head_poses_of_real_pictures_are_those_of_a_fit(fitted, kind, turn):
    for _, face, _, expected in (row for row in fitted if row[0] == kind):
        crop = Crop(0, 0, 512)
        pose = head_pose_of(face.pose, keypoints_of(face.landmarks_px, crop), crop)
        assert np.abs(pose[:3] - expected[:3]).max() < turn
        assert np.abs(pose[3:5] - expected[3:5]).max() < 0.008
        assert pose[5] == pytest.approx(expected[5], rel=0.04)
