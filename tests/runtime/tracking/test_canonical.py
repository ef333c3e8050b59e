"""The packaged canonical face: its frame, its symmetry, its mesh and its expressions."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from reenact.errors import ModelError
from reenact.runtime.tracking import canonical
from reenact.runtime.tracking.canonical import (
    INNER_LIPS,
    LEFT_BROW,
    LEFT_EYE,
    OUTER_LIPS,
    OVAL,
    RIGHT_BROW,
    RIGHT_EYE,
    load,
)
from reenact.runtime.tracking.face import HeadPose, euler_angles, rotation_matrix
from reenact.runtime.tracking.geometry import fit_pose

REFLECT = np.array([-1, 1, 1], np.float32)
CONTOURS = {
    "oval": OVAL,
    "outer lips": OUTER_LIPS,
    "inner lips": INNER_LIPS,
    "right eye": RIGHT_EYE,
    "left eye": LEFT_EYE,
}
UPPER_AND_LOWER_LID = {"R": ((160, 144), (159, 145), (158, 153)), "L": ((387, 373), (386, 374), (385, 380))}


def lid_gap(points, side):
    return np.mean([points[low, 1] - points[high, 1] for high, low in UPPER_AND_LOWER_LID[side]])


def edges(triangles):
    return Counter(
        tuple(sorted((int(a), int(b))))
        for face in triangles
        for a, b in ((face[0], face[1]), (face[1], face[2]), (face[2], face[0]))
    )


def test_is_in_the_head_frame_in_centimetres():
    neutral = load().neutral
    right, left = (neutral[list(eye)].mean(axis=0) for eye in (RIGHT_EYE, LEFT_EYE))
    assert 6.0 < left[0] - right[0] < 7.0  # the person's right eye is on the left of the picture
    assert right[1] < neutral[1, 1] < neutral[13, 1] < neutral[152, 1]  # eyes, nose, mouth, chin: downwards
    assert set(np.argsort(neutral[:, 2])[:5]) <= {1, 4, 5, 19, 44, 45, 125, 274, 275, 354}  # nose tip
    assert 17 < np.ptp(neutral[:, 1]) + 1 < 19
    assert neutral[234, 2] - neutral[4, 2] > 7


def test_origin_is_the_middle_of_the_rigid_points_and_heads_turn_behind_it():
    face = load()
    np.testing.assert_allclose(face.rigidity @ face.neutral, 0, atol=1e-3)
    assert face.turning_point[0] == 0
    assert 6 < face.turning_point[2] < 9


def test_left_and_right_mirror_each_other():
    face = load()
    np.testing.assert_array_equal(face.mirror[face.mirror], np.arange(468))
    np.testing.assert_array_equal(face.mirror[list(RIGHT_EYE + RIGHT_BROW)], LEFT_EYE + LEFT_BROW)
    assert face.mirror[234] == 454
    assert face.mirror[10] == 10
    np.testing.assert_allclose(face.neutral[face.mirror] * REFLECT, face.neutral, atol=1e-4)
    np.testing.assert_allclose(face.rigidity[face.mirror], face.rigidity, atol=1e-6)


@pytest.mark.parametrize("name", ["eyeBlink", "mouthSmile", "browDown", "noseSneer", "mouthUpperUp"])
def test_shapes_of_one_side_mirror_those_of_the_other(name):
    face = load()
    right, left = face.shape(f"{name}_R"), face.shape(f"{name}_L")
    np.testing.assert_allclose(right[face.mirror] * REFLECT, left, atol=1e-3)
    moved = np.linalg.norm(left, axis=1).argmax()
    assert face.neutral[moved, 0] > 0  # the person's left is on the right of the picture


@pytest.mark.parametrize("contour", CONTOURS)
def test_mesh_keeps_contours_as_edges(contour):
    face = load()
    counts = edges(np.concatenate([face.triangles, face.eye_triangles, face.mouth_triangles]))
    points = CONTOURS[contour]
    for a, b in zip(points, (*points[1:], points[0]), strict=True):
        assert counts[tuple(sorted((a, b)))] == (1 if contour == "oval" else 2)


def test_mesh_is_whole_and_openings_are_bridged_by_their_own_triangles_only():
    face = load()
    every = np.concatenate([face.triangles, face.eye_triangles, face.mouth_triangles])
    assert set(every.ravel()) == set(range(468))
    assert len(every) == 2 * 468 - len(OVAL) - 2  # Euler: a disc without holes
    assert max(edges(every).values()) == 2
    assert set(face.eye_triangles.ravel()) == set(RIGHT_EYE + LEFT_EYE)
    assert set(face.mouth_triangles.ravel()) == set(INNER_LIPS)
    lips = set(INNER_LIPS)
    assert not any(set(map(int, triangle)) <= lips for triangle in face.triangles)


def test_mesh_faces_the_viewer():
    face = load()
    a, b, c = (face.neutral[face.triangles[:, k]].astype(np.float64) for k in range(3))
    area = np.cross(b - a, c - a)[:, 2] / 2
    assert area[area > 0].sum() > 200 * -area[area < 0].sum()


def test_open_jaw_parts_the_inner_lips_and_leaves_the_forehead():
    face = load()
    opened = face.neutral + face.shape("jawOpen")
    assert face.neutral[14, 1] - face.neutral[13, 1] < 0.15
    assert opened[14, 1] - opened[13, 1] > 2
    assert np.abs(face.shape("jawOpen")[[10, 151, 9, 168]]).max() < 0.01
    assert face.shape("jawOpen")[152, 1] > 2


@pytest.mark.parametrize(("side", "other"), [("L", "R"), ("R", "L")])
def test_blink_shuts_its_own_eye(side, other):
    face = load()
    shut = face.neutral + face.shape(f"eyeBlink_{side}")
    assert abs(lid_gap(shut, side)) < 0.15 * lid_gap(face.neutral, side)
    assert lid_gap(shut, other) == pytest.approx(lid_gap(face.neutral, other), rel=0.01)


def test_smile_lifts_and_widens_the_mouth_and_pucker_narrows_it():
    face = load()
    smile = face.shape("mouthSmile_L") + face.shape("mouthSmile_R")
    assert smile[61, 1] < -0.3
    assert smile[61, 0] < -0.2
    assert face.shape("mouthPucker")[61, 0] > 0.3


def test_rigid_points_are_those_that_expressions_leave_alone():
    face = load()
    assert face.rigidity.min() >= 0
    assert face.rigidity.max() == 1
    assert face.rigidity[[6, 168, 133, 362]].min() > 0.5
    assert face.rigidity[[13, 14, 61, 291, 152, 17]].max() < 0.1


def test_pose_is_recovered_under_expression():
    face = load()
    rotation = rotation_matrix(0.35, -0.2, 0.15)
    pose = HeadPose(rotation, 14.0, np.array([320, 240, 0], np.float32))
    grin = face.shape("jawOpen") * 0.6 + face.shape("mouthSmile_L") + face.shape("mouthSmile_R")
    found = fit_pose(pose.project(face.neutral + grin))
    difference = np.degrees(euler_angles(found.rotation @ rotation.T))
    assert np.abs(difference).max() < 2.0
    assert found.scale == pytest.approx(14.0, rel=0.02)


def test_arrays_cannot_be_changed_and_are_read_once():
    face = load()
    assert load() is face
    with pytest.raises(ValueError, match="read-only"):
        face.neutral[0, 0] = 1


def test_unknown_shape_names_the_known_ones():
    with pytest.raises(ModelError, match=r"'grin'.*mouthSmile_L"):
        load().shape("grin")


def test_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "canonical_face.npz"
    broken.write_bytes(b"PK\x03\x04 not a face")
    monkeypatch.setattr(canonical, "_FILE", broken)
    load.cache_clear()
    try:
        with pytest.raises(ModelError, match=r"canonical_face\.npz.*install reenact again"):
            load()
    finally:
        load.cache_clear()
