"""The stand-in is a whole head of FLAME's counts whose parts are where they belong and move as they should."""

from collections import Counter

import numpy as np
import pytest
import torch
from reenact.kernels.raster import rasterize
from reenact.reference.flame import Flame, points_on
from reenact.reference.stand_in import (
    EXPRESSIONS,
    SHAPES,
    stand_in_landmarks,
    stand_in_model,
    stand_in_template,
)
from reenact.reference.stand_in_mesh import eye_vertex, mesh, ring_start
from reenact.reference.stand_in_surface import EYE_RADIUS, EYES, LIDS, surface

MIRRORED = [  # of each landmark, the one on the other cheek
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
]
CHIN, NOSE_TIP, UPPER_RIM, LOWER_RIM = 8, 30, 62, 66


@pytest.fixture(scope="module")
def model():
    return stand_in_model()


@pytest.fixture(scope="module")
def flame(model):
    return Flame(model, stand_in_landmarks(), n_shape=300, n_exp=100).requires_grad_(False)


def posed(flame, *, shape=(), expression=(), pose=(0,) * 6, eyes=(0,) * 6):
    """The head with these (column, amount) alone, and its landmarks, in float64."""
    codes = [torch.zeros(1, 300), torch.zeros(1, 100)]
    for code, given in zip(codes, (shape, expression), strict=True):
        for column, amount in given:
            code[0, column] = amount
    head = flame(*codes, torch.tensor([pose], dtype=torch.float32), torch.tensor([eyes], dtype=torch.float32))
    return head.vertices[0].double().numpy(), flame.landmarks_2d(head)[0].double().numpy()


@pytest.fixture(scope="module")
def still(flame):
    return posed(flame)


def test_counts_are_those_of_flame(model):
    assert (len(model.v_template), len(model.f)) == (5023, 9976)
    assert mesh().uvs.shape == (5118, 2)
    assert set(mesh().triangles.ravel()) == set(range(5023))
    assert set(mesh().uv_triangles.ravel()) == set(range(5118))
    for name, values in vars(model).items():
        assert values.dtype == (np.int64 if name in ("f", "kintree_table") else np.float32), name


def edges(triangles):
    return np.concatenate([triangles[:, [i, (i + 1) % 3]] for i in range(3)])


def test_the_skin_is_closed_but_for_the_neck_and_the_eyes_are_whole():
    count = Counter(map(tuple, edges(mesh().triangles).tolist()))
    assert set(count.values()) == {1}
    border = [edge for edge in count if edge[::-1] not in count]
    neck = set(range(ring_start(60), eye_vertex(0)))
    assert {corner for edge in border for corner in edge} == neck
    assert len(border) == len(neck) == 60
    for eye in (0, 1):
        first, last = eye_vertex(eye), eye_vertex(eye + 1)
        own = ((mesh().triangles >= first) & (mesh().triangles < last)).all(1)
        corners = len(edges(mesh().triangles[own])) // 2
        assert last - first - corners + own.sum() == 2  # Euler's number of a ball


def test_triangles_face_outwards():
    a, b, c = surface()[mesh().triangles].transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)
    assert np.linalg.norm(normals, axis=1).min() > 1e-9
    volumes = (a * normals).sum(1) / 6
    of_eyes = mesh().triangles.min(1) >= eye_vertex(0)
    ball = 4 / 3 * np.pi * EYE_RADIUS**3
    assert 0.85 * 2 * ball < volumes[of_eyes].sum() < 2 * ball
    assert 0.003 < volumes[~of_eyes].sum() < 0.006  # cubic metres; a head has about four litres
    middle = surface()[mesh().triangles].mean(1)
    outer = np.abs(middle[:, 0]) > 0.05
    assert ((normals[:, 0] * middle[:, 0])[outer] > 0).mean() > 0.98
    # From the front, whatever is nearest shows its face.
    seen = rasterize(*flat_view(surface()), 200, 200).ids
    front = np.unique(seen[seen > 0]) - 1
    assert len(front) > 3000
    assert (normals[front, 2] > 0).mean() > 0.99


def flat_view(place) -> tuple[np.ndarray, np.ndarray]:
    """A view from the front for the rasteriser."""
    corners = np.stack([place[:, 0] / 0.2, -place[:, 1] / 0.25, -place[:, 2] / 0.3, np.ones(len(place))], 1)
    return corners.astype(np.float32), mesh().triangles.astype(np.int32)


def test_the_head_is_of_a_heads_size_and_both_cheeks_are_alike(still):
    place, landmarks = still
    np.testing.assert_allclose(place.min(0), (-0.085, -0.20, -0.11), atol=0.012)
    np.testing.assert_allclose(place.max(0), (0.085, 0.137, 0.115), atol=0.012)
    skin = place[: eye_vertex(0)]
    assert np.abs(skin[:, 0].min() + skin[:, 0].max()) < 1e-7
    np.testing.assert_allclose(landmarks, landmarks[MIRRORED] * (-1, 1, 1), atol=2e-6)


def test_landmarks_lie_where_they_belong(still):
    place, landmarks = still
    assert landmarks[NOSE_TIP, 2] > place[:, 2].max() - 0.004
    assert (np.diff(landmarks[27:31, 1]) < -0.005).all()  # down the nose
    assert (np.diff(landmarks[17:27, 0]) > 0.005).all()  # along the brows
    assert (landmarks[17:27, 1] > landmarks[36:48, 1].max() + 0.003).all()
    for first, eye in ((36, EYES[0]), (42, EYES[1])):
        lids = landmarks[first : first + 6]
        assert np.linalg.norm(lids.mean(0)[:2] - eye[:2]) < 0.002
        assert np.linalg.norm(lids[0] - lids[3]) == pytest.approx(2 * LIDS.half, abs=0.003)
        assert (np.linalg.norm(lids[[1, 2, 4, 5]] - eye, axis=1) - EYE_RADIUS < 0.0035).all()
        assert (lids[[1, 2], 1] - lids[[5, 4], 1] > 0.006).all()
    lips = landmarks[48:60]
    assert lips[:, 0].argmin() == 0
    assert lips[:, 0].argmax() == 6
    assert (landmarks[61:64, 1] - landmarks[[67, 66, 65], 1] < 0.001).all()  # a closed mouth
    assert (landmarks[61:64, 1] < landmarks[50:53, 1].min()).all()
    assert (landmarks[65:68, 1] > landmarks[56:59, 1].max()).all()
    assert landmarks[CHIN].argmin() == 1
    assert (np.diff(landmarks[:9, 1]) < 0).all()
    assert (np.diff(landmarks[:9, 0]) > -1e-3).all()


def test_landmarks_lie_on_triangles_that_have_them():
    landmarks = stand_in_landmarks()
    for kind in ("static", "dynamic", "full"):
        weights = getattr(landmarks, f"{kind}_lmk_bary_coords")
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    for field in ("faces_idx", "bary_coords"):
        static, dynamic, full = (
            getattr(landmarks, f"{k}_lmk_{field}") for k in ("static", "dynamic", "full")
        )
        np.testing.assert_array_equal(full[0, 17:], static)
        np.testing.assert_array_equal(full[0, :17], dynamic[0])


def outlines(place):
    landmarks = stand_in_landmarks()
    corners = torch.from_numpy(mesh().triangles.copy())[landmarks.dynamic_lmk_faces_idx.copy()]
    weights = torch.from_numpy(landmarks.dynamic_lmk_bary_coords.astype(np.float64))
    many = torch.from_numpy(place.copy()).expand(79, -1, -1)
    return points_on(many, corners, weights).numpy()


def test_the_outline_goes_with_the_yaw():
    rows = outlines(surface())
    right, left = rows[:40], rows[[0, *range(40, 79)]]  # by degrees of yaw, either way
    np.testing.assert_allclose(left, right[:, ::-1] * (-1, 1, 1), atol=1e-6)
    # The far cheek's points move to the front, evenly; the near cheek's stay.
    far, near = right[:, 9:], right[:, :8]
    assert (far[39, 3:, 2] - far[0, 3:, 2] > 0.02).all()
    assert np.abs(np.diff(far, axis=0)).max() < 0.006
    assert (np.diff(far[..., 2], axis=0) > -1e-4).all()
    np.testing.assert_allclose(near, np.broadcast_to(near[0], near.shape), atol=1e-9)


@pytest.mark.parametrize("degrees", [20, 39])
def test_turned_points_lie_on_the_outline_that_is_seen(flame, degrees):
    place, landmarks = posed(flame, pose=(0, np.radians(degrees), 0, 0, 0, 0))
    for point in landmarks[11:16]:
        at_height = np.abs(place[: eye_vertex(0), 1] - point[1]) < 0.004
        front = at_height & (place[: eye_vertex(0), 2] > 0.01)
        assert place[: eye_vertex(0)][front, 0].max() - point[0] < 0.004


def test_weights_are_shares_and_eyeballs_belong_to_their_joint(model):
    np.testing.assert_allclose(model.weights.sum(1), 1, atol=1e-6)
    assert model.weights.min() >= 0
    for eye, joint in ((0, 4), (1, 3)):
        assert (model.weights[eye_vertex(eye) : eye_vertex(eye + 1), joint] == 1).all()
    assert (model.weights[: eye_vertex(0), 3:] == 0).all()
    assert (model.weights[ring_start(60) : eye_vertex(0), 0] == 1).all()
    assert model.weights[0].tolist() == [0, 1, 0, 0, 0]


def test_joints_are_means_of_vertices(model):
    assert model.J_regressor.min() >= 0
    np.testing.assert_allclose(model.J_regressor.sum(1), 1, atol=1e-6)
    joints = model.J_regressor @ model.v_template
    np.testing.assert_allclose(joints[3:], (EYES[1], EYES[0]), atol=1e-6)
    np.testing.assert_allclose(joints[:, 0], (0, 0, 0, 0.0315, -0.0315), atol=1e-6)
    assert joints[3, 0] > 0  # the left eye is at the picture's right
    assert (np.diff(joints[:3, 1]) > 0.03).all()


def test_the_jaw_opens_the_mouth_and_nothing_else(flame, still):
    place, landmarks = posed(flame, pose=(0, 0, 0, 0.3, 0, 0))
    opened = landmarks[UPPER_RIM] - landmarks[LOWER_RIM]
    assert 0.012 < opened[1] < 0.03
    assert np.abs(landmarks[UPPER_RIM] - still[1][UPPER_RIM]).max() < 0.001
    assert still[1][CHIN, 1] - landmarks[CHIN, 1] > 0.012
    corners = landmarks[[48, 54]] - still[1][[48, 54]]
    assert (corners[:, 1] < -0.003).all()  # they go half the way
    assert (corners[:, 1] > -0.015).all()
    moved = np.linalg.norm(place - still[0], axis=1)
    assert moved[still[0][:, 1] > 0.02].max() < 1e-4
    assert moved[still[0][:, 1] < -0.16].max() < 2e-4
    assert moved[still[0][:, 2] < -0.05].max() < 1e-4
    middle = np.linalg.norm(edges_of(place) / edges_of(still[0]), axis=1)
    assert np.median(middle) == pytest.approx(3**0.5, rel=0.02)


def edges_of(place):
    """Lengths of the triangles' sides."""
    corners = place[mesh().triangles]
    return np.linalg.norm(corners - np.roll(corners, 1, 1), axis=2)


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_eye_turns_alone_and_its_lid_follows(flame, still, mirrored):
    eyes = (0, 0, 0, 0.3, 0, 0) if mirrored else (0.3, 0, 0, 0, 0, 0)  # the left one first; down
    place, landmarks = posed(flame, eyes=eyes)
    eye = 0 if mirrored else 1
    pupil, other = eye_vertex(eye), eye_vertex(1 - eye)
    np.testing.assert_allclose(
        place[pupil] - EYES[eye], (0, -EYE_RADIUS * np.sin(0.3), EYE_RADIUS * np.cos(0.3)), atol=1e-6
    )
    np.testing.assert_allclose(place[other], still[0][other], atol=1e-7)
    lids = slice(37, 39) if mirrored else slice(43, 45)
    assert (landmarks[lids, 1] - still[1][lids, 1] < -0.0008).all()
    np.testing.assert_allclose(landmarks[48:], still[1][48:], atol=1e-7)


def test_closed_lids_meet_and_cover_the_eyes(flame, still):
    place, landmarks = posed(flame, expression=[(EXPRESSIONS.index("lids closed"), 1.0)])
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        assert landmarks[upper, 1] - landmarks[lower, 1] < 0.0005

    def white(vertices):
        ids = rasterize(*flat_view(vertices), 300, 300).ids
        shown = mesh().triangles[ids[ids > 0] - 1].min(1) >= eye_vertex(0)
        return int(shown.sum())

    assert white(still[0]) > 80
    assert white(place) < 0.03 * white(still[0])
    place, _ = posed(flame, expression=[(EXPRESSIONS.index("left lid closed"), 1.0)])
    assert 0.4 < white(place) / white(still[0]) < 0.6


@pytest.mark.parametrize(
    ("name", "landmark", "way"),
    [
        ("lips apart", LOWER_RIM, (0, -0.006, 0)),
        ("smile", 54, (0.005, 0.006, -0.002)),
        ("smile", 48, (-0.005, 0.006, -0.002)),
        ("corners down", 48, (0, -0.005, 0)),
        ("brows up", 24, (0, 0.005, 0)),
        ("frown", 22, (-0.003, -0.003, 0)),
        ("pucker", 51, (0, 0, 0.005)),
        ("upper lip up", UPPER_RIM, (0, 0.005, 0)),
        ("lower lip down", LOWER_RIM, (0, -0.005, 0)),
        ("jaw to the left", CHIN, (0.006, 0, 0)),
        ("left corner up", 54, (0.004, 0.006, -0.002)),
        ("left corner up", 48, (0, 0, 0)),
        ("nose wrinkled", NOSE_TIP, (0, 0.004, 0)),
    ],
)
def test_the_first_expressions_do_what_they_are_called(flame, still, name, landmark, way):
    _, landmarks = posed(flame, expression=[(EXPRESSIONS.index(name), 1.0)])
    np.testing.assert_allclose(landmarks[landmark] - still[1][landmark], way, atol=0.002)


@pytest.mark.parametrize(
    ("name", "landmark", "way"),
    [
        ("nose length", NOSE_TIP, (0, -0.001, 0.003)),
        ("chin length", CHIN, (0, -0.004, 0.001)),
        ("eye distance", 43, (0.002, 0, 0)),
        ("mouth width", 54, (0.002, 0, 0)),
    ],
)
def test_the_first_shapes_do_what_they_are_called(flame, still, name, landmark, way):
    _, landmarks = posed(flame, shape=[(SHAPES.index(name), 1.0)])
    np.testing.assert_allclose(landmarks[landmark] - still[1][landmark], way, atol=0.001)


def test_the_head_stretches_along_each_axis(flame, still):
    place, _ = posed(flame, shape=[(SHAPES.index("width"), 2.0), (SHAPES.index("depth"), -1.0)])
    np.testing.assert_allclose(place, still[0] * (1.07, 1, 0.965), atol=1e-6)


def test_all_columns_differ_and_the_later_ones_are_small(model):
    flat = model.shapedirs.reshape(-1, 400).astype(np.float64)
    sizes = np.sqrt((flat**2).mean(0))
    assert sizes.min() > 1e-6
    assert np.abs(flat).max() < 0.02
    assert sizes[290:300].max() < sizes[15:25].min() / 5
    unit = flat / np.linalg.norm(flat, axis=0)
    alike = np.abs(unit.T @ unit) - np.eye(400)
    assert alike.max() < 0.999
    assert np.linalg.svd(unit[:, :30], compute_uv=False).min() > 0.01


def test_shapes_leave_the_eyeballs_round(flame):
    random = np.random.default_rng(1)
    shape = [(column, random.normal()) for column in range(3, 300)]
    place, _ = posed(flame, shape=shape)
    for eye in (0, 1):
        ball = place[eye_vertex(eye) : eye_vertex(eye + 1)]
        assert np.linalg.norm(ball - ball.mean(0), axis=1) == pytest.approx(EYE_RADIUS, abs=1e-5)


def test_the_flat_skin_covers_each_place_once():
    flat = mesh()
    a, b, c = flat.uvs[flat.uv_triangles].transpose(1, 0, 2)
    across, up = b - a, c - a
    areas = (across[:, 0] * up[:, 1] - across[:, 1] * up[:, 0]) / 2
    assert areas.min() > 1e-6
    assert flat.uvs.min() >= 0
    assert flat.uvs.max() <= 1
    corners = np.stack([2 * flat.uvs[:, 0] - 1, 1 - 2 * flat.uvs[:, 1], *np.tile([[0], [1]], 5118)], 1)
    shown = rasterize(corners.astype(np.float32), flat.uv_triangles.astype(np.int32), 512, 512).ids
    assert (shown > 0).mean() == pytest.approx(areas.sum(), abs=0.003)
    vertex = np.full(5118, -1)
    vertex[flat.uv_triangles] = flat.triangles
    np.testing.assert_array_equal(vertex[flat.uv_triangles], flat.triangles)  # one vertex a UV


def test_the_masks_are_where_the_face_is():
    template = stand_in_template()
    landmarks = stand_in_landmarks()
    corners = template.uvs[template.uv_triangles[landmarks.static_lmk_faces_idx]]
    places = (corners * landmarks.static_lmk_bary_coords[..., None]).sum(1)
    columns, rows = (places[:, 0] * 256).astype(int), ((1 - places[:, 1]) * 256).astype(int)
    assert (template.face_mask[rows, columns] == 255).all()
    assert set(np.unique(template.face_mask)) == {0, 255}
    assert 0.2 < (template.face_mask > 0).mean() < 0.5
    crown = template.uvs[template.uv_triangles[(template.triangles == 0).any(1)]].mean((0, 1))
    assert template.face_mask[int((1 - crown[1]) * 256), int(crown[0] * 256)] == 0
    eyes = template.face_eye_mask != template.face_mask
    pupils = [
        template.uvs[template.uv_triangles[template.triangles == eye_vertex(eye)]].mean(0) for eye in (0, 1)
    ]
    for u, v in pupils:
        assert eyes[int((1 - v) * 256), int(u * 256)]
    assert (template.face_eye_mask >= template.face_mask).all()
    np.testing.assert_array_equal(template.triangles, stand_in_model().f)


def test_it_is_the_same_every_time_and_cannot_be_changed(model):
    first = model.shapedirs.copy()
    for made in (stand_in_model, surface, mesh):
        made.cache_clear()
    again = stand_in_model()
    assert again is not model
    np.testing.assert_array_equal(again.shapedirs, first)
    with pytest.raises(ValueError, match="read-only"):
        again.v_template[0] = 1
