"""Camera, keypoints and head pose of a FLAME fit, and the two files that users bring.

The golden ones of whole fits are a part of the parity tool.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from reenact.errors import ModelError
from reenact.runtime.systems.face2face_rho.fitting import (
    Camera,
    LandmarkEmbedding,
    PoseTransform,
    camera_in_picture,
    head_pose,
    keypoints,
    keypoints_3d,
    load_landmark_embedding,
    load_pose_transform,
)

GOLDEN = Path(__file__).resolve().parents[4] / "../shared/goldens/face2face_rho/fitting_pose.npz"


def test_an_unrotated_crop_gives_the_closed_form():
    side, scale, shift_x, shift_y = 512, 8.4, 0.03, -0.02
    middle_x, middle_y, size = 250.0, 230.0, 330
    k = 223 / size
    to_crop = np.array(
        [[k, 0, -k * (middle_x - size / 2)], [0, k, -k * (middle_y - size / 2)], [0, 0, 1]], np.float64
    )
    camera = camera_in_picture(np.array([scale, shift_x, shift_y]), to_crop, side)
    assert camera.scale == pytest.approx(224 * scale / (k * side))
    expected_x = 2 / side * ((112 * scale * shift_x + 112) / k + middle_x - size / 2) - 1
    expected_y = 2 / side * ((112 - 112 * scale * shift_y) / k + middle_y - size / 2) - 1
    assert camera.shift_x == pytest.approx(expected_x)
    assert camera.shift_y == pytest.approx(expected_y)


def test_up_in_metres_is_up_in_the_picture():
    assert Camera(2.0, 0.1, 0.2).project(np.array([[0.5, 0.25, 9.0]])).tolist() == [[1.1, -0.3]]


@pytest.mark.parametrize("camera", [[np.nan, 0, 0], [8, np.inf, 0]])
def test_a_camera_that_is_not_finite_is_refused(camera):
    with pytest.raises(ModelError, match="not finite"):
        camera_in_picture(np.array(camera), np.eye(3), 512)


def test_a_crop_without_size_is_refused():
    with pytest.raises(ModelError, match="without size"):
        camera_in_picture(np.array([8.0, 0, 0]), np.zeros((3, 3)), 512)


def _small_embedding():
    weights = np.tile([0.5, 0.25, 0.25], (72, 1))
    return LandmarkEmbedding(np.arange(72) % 2, weights)


def test_keypoints_are_weighted_corners():
    vertices = np.array([[0, 0, 0], [4, 0, 0], [0, 8, 0], [0, 0, 12]], np.float64)
    points = keypoints_3d(vertices, np.array([[0, 1, 2], [3, 2, 1]]), _small_embedding())
    assert points.shape == (72, 3)
    assert points[:2].tolist() == [[1, 2, 0], [1, 2, 6]]


def test_a_mesh_with_too_few_triangles_is_refused():
    with pytest.raises(ValueError, match="triangle 1"):
        keypoints_3d(np.zeros((3, 3)), np.array([[0, 1, 2]]), _small_embedding())


def test_an_unturned_head_has_no_shift_but_the_cameras():
    points = np.random.default_rng(0).normal(0, 0.1, (72, 3))
    pose = head_pose(np.zeros(3), points, points, Camera(5.0, 0.1, -0.2), PoseTransform(5000.0, 0.3, -0.4))
    np.testing.assert_allclose(pose, [0, 0, 0, 0.3 + 0.0256, -0.4 + 0.0512, 0.001], rtol=1e-6)


def test_a_turned_nose_shifts_the_head():
    unturned = np.random.default_rng(0).normal(0, 0.1, (72, 3))
    points = unturned.copy()
    points[30] += [0.01, 0.02, 0.03]
    points[31] += 1
    camera = Camera(5.0, 0.1, -0.2)
    rotation = np.array([0.1, -0.2, 0.3])
    pose = head_pose(rotation, points, unturned, camera, PoseTransform(5000.0, 0.3, -0.4))
    expected = [*rotation, 0.3 + 0.256 * (0.1 + 0.05), -0.4 - 0.256 * (-0.2 - 0.1), 0.001]
    np.testing.assert_allclose(pose, expected, rtol=1e-6)
    drawn = keypoints(points, camera)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn[30], [5 * points[30, 0] + 0.1, -5 * points[30, 1] - 0.2], rtol=1e-6)


def _written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def _embedding_file(**changes):
    good = {
        "lmk_faces_idx": list(range(72)),
        "lmk_bary_coords": [[0.3333333, 0.3333333, 0.3333333]] * 71 + [[1, 0, 0]],
    }
    return {**good, **changes}


def test_an_embedding_is_read(tmp_path):
    embedding = load_landmark_embedding(_written(tmp_path / "landmark_embedding.json", _embedding_file()))
    assert embedding.triangles.tolist() == list(range(72))
    assert embedding.weights.shape == (72, 3)
    assert embedding.weights[71].tolist() == [1, 0, 0]


def test_the_published_embedding_is_read(tmp_path):
    if not GOLDEN.is_file():
        pytest.skip(
            "../shared/goldens/face2face_rho/fitting_pose.npz is absent: it may not be in the repository"
        )
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        triangles, weights = arrays["in:lmk_faces_idx"], arrays["in:lmk_bary_coords"]
    content = {"lmk_faces_idx": triangles.tolist(), "lmk_bary_coords": weights.tolist()}
    embedding = load_landmark_embedding(_written(tmp_path / "e.json", content))
    np.testing.assert_array_equal(embedding.triangles, triangles)
    np.testing.assert_array_equal(embedding.weights, weights)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Invalid JSON"),
        (b"\x80\x04\x95", "Invalid JSON"),
        (b"[" * 10_000, "Invalid JSON|recursion"),
        (b"[]", "object"),
        (b"0" * 1_100_000, "larger than"),
        ({}, "lmk_faces_idx"),
        (_embedding_file(lmk_faces_idx=list(range(71))), "lmk_faces_idx"),
        (_embedding_file(lmk_faces_idx=list(range(73))), "lmk_faces_idx"),
        (_embedding_file(lmk_faces_idx=[0.5] * 72), r"lmk_faces_idx\.0"),
        (_embedding_file(lmk_faces_idx=[True] * 72), r"lmk_faces_idx\.0"),
        (_embedding_file(lmk_faces_idx=[*range(71), 9976]), r"lmk_faces_idx\.71"),
        (_embedding_file(lmk_faces_idx=[-1, *range(71)]), r"lmk_faces_idx\.0"),
        (_embedding_file(lmk_bary_coords=[[1, 0]] * 72), r"lmk_bary_coords\.0"),
        (
            _embedding_file(lmk_bary_coords=[[1, 0, 0]] * 70 + [[0.5, 0.5, 0.5]] * 2),
            r"lmk_bary_coords\.70.*sum",
        ),
        (_embedding_file(lmk_bary_coords=[[float("nan"), 0, 0]] * 72), "lmk_bary_coords|Invalid JSON"),
        (_embedding_file(lmk_bary_coords=[[1e9, -1e9, 1]] * 72), r"lmk_bary_coords\.0"),
        (_embedding_file(other=1), "other"),
    ],
)
def test_broken_embeddings_are_refused_with_file_and_place(tmp_path, content, words):
    file = _written(tmp_path / "landmark_embedding.json", content)
    with pytest.raises(ModelError, match=rf"landmark_embedding\.json.*({words})"):
        load_landmark_embedding(file)


def test_the_constants_are_read_and_are_the_defaults(tmp_path):
    content = {
        "scale_transform": 4122.399989645386,
        "tx_transform": 0.2582781138863169,
        "ty_transform": -0.26074984122168304,
    }
    assert load_pose_transform(_written(tmp_path / "pose_transform_config.json", content)) == PoseTransform()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "Invalid JSON"),
        ({"tx_transform": 0.1, "ty_transform": 0.1}, "scale_transform"),
        ({"scale_transform": 0, "tx_transform": 0.1, "ty_transform": 0.1}, "scale_transform"),
        ({"scale_transform": "4122", "tx_transform": 0.1, "ty_transform": 0.1}, "scale_transform"),
        ({"scale_transform": 4122.0, "tx_transform": 1e9, "ty_transform": 0.1}, "tx_transform"),
    ],
)
def test_broken_constants_are_refused_with_file_and_place(tmp_path, content, words):
    file = _written(tmp_path / "pose_transform_config.json", content)
    with pytest.raises(ModelError, match=rf"pose_transform_config\.json.*{words}"):
        load_pose_transform(file)


@pytest.mark.parametrize("read", [load_landmark_embedding, load_pose_transform])
def test_missing_files_and_folders_are_refused(tmp_path, read):
    with pytest.raises(ModelError, match=r"none\.json: cannot be read"):
        read(tmp_path / "none.json")
    with pytest.raises(ModelError, match="not a file"):
        read(tmp_path)
