"""FLAME poses heads as its paper says, whatever their size, and may be differentiated and exported."""

import cv2
import numpy as np
import pytest
import torch
from reenact.errors import ModelError
from reenact.reference.flame import (
    Flame,
    FlameLandmarks,
    FlameMesh,
    FlameModel,
    contour_rows,
    contour_yaw,
    points_on,
)
from reenact.reference.rotations import rodrigues
from reenact.reference.synthetic import helix_landmarks, helix_model
from torch import nn

JOINTS = np.array([[0, 0, 0], [0, 1, 0], [0.25, 1.5, 0.5], [-0.5, 2, 1], [0.5, 2, 1]])
VERTICES = 15


def fields(**changes):
    """A model of 15 vertices, 3 for each joint, in numbers that float32 holds exactly and that nothing bends."""
    template = np.concatenate([JOINTS, np.arange(30).reshape(-1, 3) % 7 / 4 - 0.5])
    made = {
        "f": np.stack([np.arange(12), np.arange(12) + 1, np.arange(12) + 3], 1).astype(np.uint32),
        "v_template": template,
        "shapedirs": np.zeros((VERTICES, 3, 400)),
        "posedirs": np.zeros((VERTICES, 3, 36)),
        "J_regressor": np.eye(5, VERTICES),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], np.uint32),
        "weights": np.eye(5)[np.arange(VERTICES) % 5],
    }
    return made | changes


def landmark_fields(**changes):
    """Landmarks on the 12 triangles of that model."""
    random = np.random.default_rng(1)
    made: dict[str, np.ndarray] = {}
    for kind, shape in (("static", (51,)), ("dynamic", (79, 17)), ("full", (1, 68))):
        made[f"{kind}_lmk_faces_idx"] = random.integers(0, 12, shape)
        made[f"{kind}_lmk_bary_coords"] = random.dirichlet([1, 1, 1], shape)
    return made | changes


def codes(count=4, n_shape=100, n_exp=50, dtype=torch.float32):
    """Shape, expression, pose and eye pose, the same numbers for every type."""
    random = torch.Generator().manual_seed(0)
    sizes_and_scales = ((n_shape, 1.0), (n_exp, 1.0), (6, 0.4), (6, 0.2))
    return [
        (scale * torch.randn(count, size, generator=random, dtype=torch.float64)).to(dtype)
        for size, scale in sizes_and_scales
    ]


def turned(mesh, *, root=(0, 0, 0), jaw=(0, 0, 0), **more):
    """The small mesh with shape and expression zero."""
    pose = torch.tensor([[*root, *jaw]], dtype=torch.float64)
    zeros = [torch.zeros(1, n, dtype=torch.float64) for n in (100, 50)]
    return mesh.double()(*zeros, pose, **more)


@pytest.fixture(scope="module")
def helix():
    return Flame(helix_model(), helix_landmarks()).requires_grad_(False)


def test_codes_of_zero_give_exactly_the_template(helix):
    mesh = FlameMesh(FlameModel(**fields()))
    head = mesh(torch.zeros(2, 100), torch.zeros(2, 50), torch.zeros(2, 6))
    assert torch.equal(head.vertices, mesh.v_template.expand(2, -1, -1))
    assert torch.equal(head.joints, head.joints_rest)
    head = helix(torch.zeros(1, 100), torch.zeros(1, 50), torch.zeros(1, 6))
    assert torch.equal(head.shaped[0], helix.v_template)
    np.testing.assert_allclose(
        head.vertices[0], helix.v_template, atol=3e-8
    )  # weights sum up to 1 within rounding


def test_a_batch_is_its_heads_one_by_one(helix):
    given = codes()
    batch = helix(*given)
    for i in range(4):
        single = helix(*(code[i : i + 1] for code in given))
        for ours, theirs in (
            (batch.vertices[i], single.vertices[0]),
            (helix.landmarks_2d(batch)[i], helix.landmarks_2d(single)[0]),
            (helix.landmarks_3d(batch)[i], helix.landmarks_3d(single)[0]),
        ):
            np.testing.assert_allclose(ours, theirs, atol=5e-7)


def test_float32_is_as_near_to_float64_as_a_micrometre(helix):
    rough = helix(*codes())
    fine = Flame(helix_model(), helix_landmarks()).double()(*codes(dtype=torch.float64))
    assert fine.vertices.dtype == torch.float64
    assert rough.vertices.dtype == torch.float32
    np.testing.assert_allclose(rough.vertices, fine.vertices, atol=1e-6)


def test_each_joint_carries_what_hangs_on_it():
    root, neck, jaw, left, right = (
        (0.3, -0.5, 0.2),
        (0.1, 0.2, -0.3),
        (0.4, 0.0, 0.1),
        (0, 0.3, 0),
        (0.2, 0, 0),
    )
    mesh = FlameMesh(FlameModel(**fields()))
    mesh.neck_pose.copy_(torch.tensor([neck]))
    head = turned(mesh, root=root, jaw=jaw, eye_pose=torch.tensor([[*left, *right]], dtype=torch.float64))

    turns = [cv2.Rodrigues(np.array(vector, np.float64))[0] for vector in (root, neck, jaw, left, right)]
    expected = fields()["v_template"].copy()
    for vertex in range(VERTICES):
        joint = vertex % 5
        for carrier in {0: (0,), 1: (1, 0)}.get(joint, (joint, 1, 0)):
            expected[vertex] = JOINTS[carrier] + turns[carrier] @ (expected[vertex] - JOINTS[carrier])
    np.testing.assert_allclose(head.vertices[0], expected, atol=3e-7)
    np.testing.assert_allclose(head.joints[0], expected[:5], atol=3e-7)


def test_a_vertex_between_joints_goes_the_mean_way():
    weights = np.eye(5)[np.arange(VERTICES) % 5]
    weights[7] = [0.25, 0, 0.75, 0, 0]
    place = np.array([0.5, 0.25, 1.0])
    template = fields()["v_template"]
    template[7] = place
    head = turned(FlameMesh(FlameModel(**fields(weights=weights, v_template=template))), jaw=(0.5, 0, 0))
    opened = JOINTS[2] + cv2.Rodrigues(np.array([0.5, 0, 0]))[0] @ (place - JOINTS[2])
    np.testing.assert_allclose(head.vertices[0, 7], 0.25 * place + 0.75 * opened, atol=3e-8)


def test_shape_and_expression_are_the_first_columns_of_their_own():
    directions = np.random.default_rng(0).normal(size=(VERTICES, 3, 400)).astype(np.float32)
    mesh = FlameMesh(FlameModel(**fields(shapedirs=directions)), n_shape=3, n_exp=2)
    shape, expression = torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([[0.0, -1.0]])
    head = mesh(shape, expression, torch.zeros(1, 6))
    expected = fields()["v_template"] + 2.0 * directions[..., 2] - directions[..., 301]
    np.testing.assert_allclose(head.shaped[0], expected, atol=1e-6)
    np.testing.assert_allclose(head.joints_rest[0], expected[:5], atol=1e-6)


def test_rotations_bend_the_skin_but_for_that_of_the_root():
    directions = np.zeros((VERTICES, 3, 36))
    directions[4, 1, 9 + 5] = 2.0  # of the jaw's matrix, row 1 and column 2
    directions[4, 2, 5] = 4.0  # of the neck's
    rigid = np.eye(5)[np.zeros(VERTICES, int)]
    mesh = FlameMesh(FlameModel(**fields(posedirs=directions, weights=rigid)))
    jaw = cv2.Rodrigues(np.array([0.5, 0, 0]))[0]
    expected = fields()["v_template"].copy()
    expected[4, 1] += 2 * jaw[1, 2]
    np.testing.assert_allclose(turned(mesh, jaw=(0.5, 0, 0)).vertices[0], expected, atol=3e-8)
    rolled = turned(mesh, root=(0.5, 0, 0)).vertices[0].numpy()
    np.testing.assert_allclose(rolled, fields()["v_template"] @ jaw.T, atol=3e-8)


def test_an_eye_pose_stands_in_for_the_models_own(helix):
    shape, expression, pose, eyes = codes(1)
    own = Flame(helix_model(), helix_landmarks()).requires_grad_(False)
    own.eye_pose.copy_(eyes)
    assert torch.equal(own(shape, expression, pose).vertices, helix(shape, expression, pose, eyes).vertices)
    assert torch.equal(
        own(shape, expression, pose, 0 * eyes).vertices, helix(shape, expression, pose).vertices
    )
    assert not torch.equal(own(shape, expression, pose).vertices, helix(shape, expression, pose).vertices)


@pytest.mark.parametrize(
    ("degrees", "row"),
    [
        *((0.0, 0), (0.5, 0), (0.51, 1), (1.5, 2), (2.5, 2), (38.4, 38), (39.0, 39), (39.6, 39), (90.0, 39)),
        *((-0.4, 0), (-0.5, 0), (-0.51, 40), (-1.0, 40), (-1.5, 41), (-38.0, 77), (-38.6, 78), (-39.4, 78)),
        *((-39.6, 78), (-90.0, 78)),
    ],
)
def test_the_contour_has_a_row_a_degree(degrees, row):
    assert contour_rows(torch.tensor([degrees])).tolist() == [row]


def test_the_contours_yaw_is_that_of_head_and_neck_together():
    def yaw(root, neck):
        others = torch.zeros(3, 3, dtype=torch.float64)
        given = torch.cat([torch.tensor([root, neck], dtype=torch.float64).deg2rad(), others])
        return contour_yaw(rodrigues(given)[None]).item()

    assert yaw([0, 25, 0], [0, 0, 0]) == pytest.approx(25)
    assert yaw([0, -25, 0], [0, 40, 0]) == pytest.approx(15)
    assert yaw([30, 0, 0], [0, 0, 0]) == pytest.approx(0, abs=1e-6)
    assert yaw([0, 0, 0], [0, 120, 0]) == pytest.approx(60)
    # The neck turns first: a nod and then a roll of the head look ahead, a roll of the neck and then a nod aside.
    assert yaw([0, 0, 90], [40, 0, 0]) == pytest.approx(0, abs=1e-6)
    assert yaw([40, 0, 0], [0, 0, 90]) == pytest.approx(-40)


def test_positive_yaw_turns_the_face_to_the_right_of_the_picture():
    ahead = torch.tensor([0.0, 0.0, 1.0])
    assert (rodrigues(torch.tensor([0.0, 0.5, 0.0])) @ ahead)[0] > 0.4


def test_landmarks_are_weighted_corners(helix):
    landmarks = helix_landmarks()
    shape, expression, _, _ = codes(3)
    yaw = torch.tensor([0.0, 20.0, -60.0]).deg2rad()
    pose = torch.nn.functional.pad(yaw[:, None], (1, 4))
    head = helix(shape, expression, pose)
    faces, found = helix.faces_tensor.numpy(), helix.landmarks_2d(head)
    for i, row in enumerate((0, 20, 78)):
        triangles = [*landmarks.dynamic_lmk_faces_idx[row], *landmarks.static_lmk_faces_idx]
        weights = [*landmarks.dynamic_lmk_bary_coords[row], *landmarks.static_lmk_bary_coords]
        expected = [
            sum(
                w * head.vertices[i, corner].numpy()
                for w, corner in zip(weight, faces[triangle], strict=True)
            )
            for triangle, weight in zip(triangles, weights, strict=True)
        ]
        np.testing.assert_allclose(found[i], expected, atol=3e-8)
    still = helix.landmarks_3d(head)
    np.testing.assert_allclose(still[:, 17:], found[:, 17:], atol=3e-8)
    first = (
        landmarks.full_lmk_bary_coords[0, 0]
        @ head.vertices[1, faces[landmarks.full_lmk_faces_idx[0, 0]]].numpy()
    )
    np.testing.assert_allclose(still[1, 0], first, atol=3e-8)


def test_points_may_differ_from_head_to_head():
    vertices = torch.arange(24.0).reshape(2, 4, 3)
    corners = torch.tensor([[[0, 1, 2]], [[3, 1, 0]]])
    weights = torch.tensor([[[0.5, 0.25, 0.25]], [[1.0, 0.0, 0.0]]])
    assert points_on(vertices, corners, weights).tolist() == [[[2.25, 3.25, 4.25]], [[21, 22, 23]]]


def test_codes_have_gradients_even_at_rest_and_the_model_has_none():
    flame = Flame(helix_model(), helix_landmarks())
    given = [torch.zeros(1, size, requires_grad=True) for size in (100, 50, 6, 6)]
    flame.landmarks_2d(flame(*given)).square().sum().backward()
    assert [entry.requires_grad for entry in flame.parameters()] == [False, False]
    for code in given[:3]:
        assert code.grad is not None
        assert torch.isfinite(code.grad).all()
        assert code.grad.abs().max() > 1e-6


def test_an_exported_graph_computes_the_same_without_scattering():
    pytest.importorskip("onnxscript", reason="graphs are exported with onnxscript, which is not installed")
    from reenact.export.onnx import compare, export_graph

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.flame = Flame(FlameModel(**fields()), FlameLandmarks(**landmark_fields()))

        def forward(self, shape, expression, pose):
            head = self.flame(shape, expression, pose)
            return head.vertices, self.flame.landmarks_2d(head), self.flame.landmarks_3d(head)

    decoder = Decoder()
    inputs = dict(zip(("shape", "expression", "pose"), codes(2), strict=False))
    names = ["vertices", "landmarks_2d", "landmarks_3d"]
    graph = export_graph(decoder, inputs, names)
    operators = {node.op_type for node in graph.graph.node}
    assert not operators & {"ScatterND", "ScatterElements", "Einsum", "EyeLike", "Loop", "If", "Atan2"}
    for pose in (inputs["pose"], torch.zeros(2, 6)):
        given = inputs | {"pose": pose}
        expected = dict(zip(names, decoder(*given.values()), strict=True))
        assert max(difference.largest for difference in compare(graph, given, expected)) < 1e-6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shapedirs": np.zeros((VERTICES, 3, 10))}, r"shapedirs is \(15, 3, 10\).*\(15, 3, 400\)"),
        ({"v_template": np.array(1.0)}, "v_template"),
        ({"f": np.zeros((12, 4), int)}, r"f is \(12, 4\).*\(12, 3\)"),
        ({"f": np.full((12, 3), VERTICES)}, "f names number 15, but there are 15"),
        ({"f": np.full((12, 3), -1)}, "f names number -1"),
        ({"f": np.zeros((12, 3))}, "f is .* of float64; expected .* integers"),
        ({"weights": np.full((VERTICES, 5), np.nan)}, "weights has values that are not finite"),
        ({"weights": np.full((VERTICES, 5), None)}, "weights is .* of object"),
        ({"kintree_table": np.array([[-1, 0, 1, 2, 3], range(5)])}, r"parents \[-1, 0, 1, 2, 3\]"),
        ({"kintree_table": np.zeros((2, 24), int)}, r"kintree_table is \(2, 24\)"),
        ({"posedirs": np.zeros((VERTICES, 3, 207))}, "posedirs"),
        ({"J_regressor": np.zeros((24, VERTICES))}, "J_regressor"),
    ],
)
def test_another_body_model_or_a_damaged_one_is_refused(changes, words):
    with pytest.raises(ModelError, match=f"FLAME's .*{words}"):
        FlameModel(**fields(**changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"static_lmk_faces_idx": np.zeros(68, int)}, r"static_lmk_faces_idx is \(68,\)"),
        ({"dynamic_lmk_bary_coords": np.zeros((79, 17))}, "dynamic_lmk_bary_coords"),
        (
            {"full_lmk_bary_coords": np.full((1, 68, 3), np.inf)},
            "full_lmk_bary_coords has values that are not",
        ),
    ],
)
def test_other_landmarks_are_refused(changes, words):
    with pytest.raises(ModelError, match=words):
        FlameLandmarks(**landmark_fields(**changes))


def test_landmarks_of_a_larger_mesh_are_refused():
    landmarks = FlameLandmarks(**landmark_fields(dynamic_lmk_faces_idx=np.full((79, 17), 12)))
    with pytest.raises(ModelError, match="dynamic_lmk_faces_idx names number 12, but there are 12"):
        Flame(FlameModel(**fields()), landmarks)


@pytest.mark.parametrize("counts", [{"n_shape": 301}, {"n_exp": 101}, {"n_shape": 0}, {"n_exp": -1}])
def test_more_components_than_there_are_is_an_error(counts):
    with pytest.raises(ModelError, match="1 to 300 shape and 1 to 100 expression"):
        FlameMesh(FlameModel(**fields()), **counts)
