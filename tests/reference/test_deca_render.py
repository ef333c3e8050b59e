"""DECA's skin, normals, light and pictures are those written out by hand."""

import numpy as np
import pytest
import torch
from reenact.errors import ModelError
from reenact.reference.deca_pictures import landmarks_picture, side_by_side
from reenact.reference.deca_render import (
    depth_picture,
    directional_shading,
    into_picture,
    project,
    sh_shading,
    shape_picture,
    to_pixels,
    view,
)
from reenact.reference.deca_skin import detail_normals, head_skin, vertex_normals, world_to_uv
from reenact.reference.deca_synthetic import helix_skin
from reenact.reference.deca_texture import FlameTex, dense_mesh, hidden_colours, photo_texture
from reenact.reference.fill import image
from reenact.reference.synthetic import helix_model
from reenact.runtime.tracking.flame_crop import FaceSquare


@pytest.fixture(scope="module")
def skin():
    return helix_skin()


@pytest.fixture(scope="module")
def template():
    return torch.from_numpy(helix_model().v_template.astype(np.float32))[None]


def square_skin(**changes):
    """Two triangles that are the picture's whole skin: vertex 0 and 1 above, 2 and 3 below.

    It is a little wider than the picture, so that no pixel centre is on the triangles' common edge.
    """
    made = {
        "triangles": np.array([[0, 2, 1], [1, 2, 3]]),
        "uvs": np.array([[0, 1], [1.02, 1], [0, 0], [1.02, 0]], np.float32),
        "uv_triangles": np.array([[0, 2, 1], [1, 2, 3]]),
        "wrinkled": np.ones((256, 256), np.float32),
        "fixed_displacement": np.zeros((256, 256), np.float32),
    }
    return head_skin(**made | changes)


def test_the_camera_shifts_before_it_scales_and_looks_down_z():
    points = torch.tensor([[[0.1, 0.2, 0.3]]])
    placed = project(points, torch.tensor([[2.0, 0.5, -0.1]]))
    torch.testing.assert_close(placed, torch.tensor([[[1.2, -0.2, -0.6]]]))
    torch.testing.assert_close(to_pixels(placed, 224)[0, 0], torch.tensor([246.4, 89.6, 44.8]))


def test_points_go_back_to_the_picture():
    square = FaceSquare(120.3, 110.7, 99)
    points = np.array([[[-1.0, -1.0, 0.3], [1.0, 0.5, -0.2]]], np.float32)
    placed = into_picture(points, square.to_crop(), 224, (256, 240))
    step = 99 / 223
    left, top = 120.3 - 49.5, 110.7 - 49.5
    expected = [[left, top], [left + 224 * step, top + 168 * step]]
    np.testing.assert_allclose((placed[0, :, :2] + 1) / 2 * [256, 240], expected, atol=1e-9)
    np.testing.assert_allclose(placed[0, :, 2], [0.3, -0.2], atol=1e-7)
    assert points[0, 0, 0] == -1


def test_normals_are_weighted_by_area_and_short_where_there_is_little(skin):
    flat = square_skin()
    small = torch.tensor([[[0.0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]]])
    torch.testing.assert_close(vertex_normals(flat, small), torch.tensor([0.0, 0, 1]).expand(1, 4, 3))
    tiny = vertex_normals(flat, small * 5e-4)[0, :, 2]  # a doubled area of 2.5e-7 each
    torch.testing.assert_close(tiny, torch.tensor([0.25, 0.5, 0.5, 0.25]))
    bent = small.clone()
    bent[0, 3] = torch.tensor([3.0, 0.0, 3.0])
    a, b, c = bent[0, 1], bent[0, 2], bent[0, 3]
    expected = torch.tensor([0.0, 0, 1]) + torch.linalg.cross(b - a, c - a)
    torch.testing.assert_close(vertex_normals(flat, bent)[0, 1], expected / expected.norm())


def test_normals_point_out_of_the_head(skin, template):
    normals = vertex_normals(skin, template)[0, 300:-300]
    outwards = template[0, 300:-300] * torch.tensor([1.0, 0, 1])
    assert ((normals * outwards).sum(1) > 0).float().mean() > 0.99


def test_the_skins_picture_has_its_first_row_above(skin, template):
    flat = square_skin()
    spread = world_to_uv(flat, torch.tensor([[[0.0, 1], [1.02, 1], [0, 0], [1.02, 0]]]))
    row, column = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    seen = flat.uv_triangles >= 0
    assert seen.all()
    torch.testing.assert_close(spread[0, 0][seen], ((column + 0.5) / 256)[seen])
    torch.testing.assert_close(spread[0, 1][seen], (1 - (row + 0.5) / 256)[seen])
    # On the helix vertices rise from the picture's bottom to its top.
    heights = world_to_uv(skin, template)[0, 1]
    assert heights[20, 128] > 0.1 > -0.1 > heights[235, 128]


def test_detail_normals_are_those_of_the_dense_mesh():
    random = torch.Generator().manual_seed(0)
    flat = square_skin()
    corners = torch.rand(1, 4, 3, generator=random)
    heights = 0.02 * torch.rand(1, 1, 256, 256, generator=random)
    normals = vertex_normals(flat, corners)
    found = detail_normals(flat, corners, normals, heights)

    displaced = world_to_uv(flat, corners) + heights * world_to_uv(flat, normals)
    points = displaced[0].double().numpy().reshape(3, -1).T
    x, y = np.meshgrid(np.arange(2, 253), np.arange(5, 250), indexing="ij")
    p = (y * 256 + x).reshape(-1, 1)
    dense = np.concatenate([p + np.array(cell) for cell in ([0, 256, 1], [1, 256, 257])])
    assert len(dense) == 122_990
    a, b, c = points[dense].transpose(1, 0, 2)
    total = np.zeros((65536, 3))
    for corner in range(3):
        np.add.at(total, dense[:, corner], np.cross(b - a, c - a))
    expected = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-6)
    difference = np.abs(found[0].reshape(3, -1).T.numpy() - expected)
    assert difference.max() < 2e-3
    assert difference.mean() < 2e-5
    assert found[:, :, :5].eq(0).all()
    assert found[:, :, 251:].eq(0).all()
    assert found[..., :2].eq(0).all()
    assert found[..., 254:].eq(0).all()


def test_wrinkles_count_only_where_the_mask_says():
    mask = np.zeros((256, 256), np.float32)
    mask[:128] = 1
    half = square_skin(wrinkled=mask, fixed_displacement=np.full((256, 256), 0.1, np.float32))
    corners = torch.tensor([[[0.0, 1, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]]])
    bumps = 0.1 * torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    found = detail_normals(half, corners, vertex_normals(half, corners), bumps)[0, 2]
    below = found[140:245, 10:120]
    assert (below - 1).abs().max() < 1e-3
    assert found[10:120, 10:120].mean() < 0.5


def test_light_has_a_direction_and_a_colour():
    normals = torch.tensor([[0.0, 0, 1], [0, 0, -1], [1, 0, 0], [0, 1, 0]]).T.reshape(1, 3, 2, 2)
    light = torch.zeros(1, 9, 3)
    light[0, 0] = torch.tensor([1.0, 2, 3])
    light[0, 3, 0] = 1
    shading = sh_shading(normals, light)[0].flatten(1)
    ambient, z = 0.282095, 1.023327
    torch.testing.assert_close(shading[0], torch.tensor([ambient + z, ambient - z, ambient, ambient]))
    torch.testing.assert_close(shading[1:], torch.tensor([[2.0], [3.0]]).expand(2, 4) * ambient)


def test_lamps_do_not_shine_from_behind():
    normals = torch.tensor([[[0.0, 0, 1], [0, 0, -1]]])
    lamps = torch.tensor([[[0.0, 0, 9, 1, 2, 4], [0, 0, -1, 0, 0, 0]]])
    found = directional_shading(normals, lamps)
    torch.testing.assert_close(found, torch.tensor([[[0.5, 1, 2], [0, 0, 0]]]))


def test_a_head_seen_from_behind_is_black_in_shape_pictures():
    sheet = square_skin()
    corners = torch.tensor([[[-0.9, -0.9, 0], [0.95, -0.9, 0], [-0.9, 0.9, 0], [0.95, 0.9, 0]]])
    normals = torch.tensor([0.0, 0, 1]).expand(1, 4, 3)
    faced = shape_picture(view(sheet, corners, normals, -normals, 16, 16))
    turned = shape_picture(view(sheet, corners, normals, normals, 16, 16))
    lamps = (4 / 3**0.5 + 1) / 5 * 1.7
    expected = torch.full((3, 8, 8), 180 / 255 * lamps)
    torch.testing.assert_close(faced[0, :, 4:12, 4:12], expected)
    assert turned.max() == 0


def test_depth_is_1_at_the_nearest_and_0_at_the_furthest_of_all_heads():
    sheet = square_skin()
    corners = torch.tensor([[[-1.0, -1, -3], [1.02, -1, -3], [-1, 1, 1], [1.02, 1, 1]]])
    found = depth_picture(sheet, torch.cat([corners, corners - torch.tensor([0, 0, 4.0])]), 8, 8)
    rows = found[:, 0, :, 4]
    expected = 1 - (torch.arange(8.0) * 2 + 1) / 16
    torch.testing.assert_close(rows[0], expected / 2, atol=1e-5, rtol=0)
    torch.testing.assert_close(rows[1], expected / 2 + 0.5, atol=1e-5, rtol=0)


def test_skin_that_is_not_textured_has_the_colour_given():
    mask = np.zeros((256, 256), np.float32)
    mask[:, :128] = 1
    half = square_skin(wrinkled=mask)
    corners = torch.tensor([[[-1.0, -1, 0], [1.04, -1, 0], [-1, 1, 0], [1.04, 1, 0]]])
    row = torch.linspace(0, 1, 224)[:, None].expand(224, 224)
    found = photo_texture(half, row.expand(1, 3, -1, -1), corners, torch.tensor(0.7))
    assert found[..., 128:].eq(0.7).all()
    assert found[0, 0, 10, 50] < 0.1 < 0.9 < found[0, 0, 245, 50]


def test_hidden_skin_has_the_models_colours_in_the_light_dimmed():
    albedo = torch.tensor([0.2, 0.5, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 256, 256)
    shading = torch.tensor([2.0, 1.0, 0.5]).reshape(1, 3, 1, 1)
    found = hidden_colours(albedo, shading)
    torch.testing.assert_close(found[0, :, 3, 7], torch.tensor([0.28, 0.35, 0.35]))
    torch.testing.assert_close(hidden_colours(albedo, 0 * shading), torch.zeros(1, 3, 256, 256))


def test_an_albedo_models_blue_comes_out_last():
    albedo = FlameTex(2)
    pictures = torch.zeros(512, 512, 3)
    pictures[0, 2] = torch.tensor([0.1, 0.2, 0.3])  # blue, green, red
    albedo.texture_basis[0, :, 1] = pictures.flatten()
    albedo.texture_mean.fill_(0.5)
    found = albedo(torch.tensor([[7.0, 2.0]]))
    assert found.shape == (1, 3, 256, 256)
    torch.testing.assert_close(found[0, :, 0, 1], torch.tensor([1.1, 0.9, 0.7]))
    assert found[0, :, 1:].eq(0.5).all()


def test_a_dense_mesh_moves_along_its_normal():
    vertices, normals = np.eye(3), np.array([[0.0, 0, 2], [0, 0, 2], [0, 0, 2]])
    displacement = np.zeros((256, 256))
    displacement[7, 9] = 0.25
    found = dense_mesh(
        vertices,
        normals,
        displacement,
        np.array([[7, 9], [9, 7]]),
        np.array([[0, 1, 2]] * 2),
        np.full((2, 3), 1 / 3),
    )
    np.testing.assert_allclose(found, [[1 / 3, 1 / 3, 1 / 3 + 0.25], [1 / 3] * 3])


def test_marks_are_green_where_seen_and_red_where_hidden():
    photo = np.full((3, 100, 100), 0.5, np.float32)
    points = np.zeros((68, 4), np.float32)
    points[:, 0], points[:, 1] = 10 + np.arange(68), 50
    points[0] = [20.9, 20.9, 0, 1]
    points[67] = [80, 80, 0, 0]
    drawn = landmarks_picture(photo, points)
    assert drawn[:, 19, 20].tolist() == [0, 1, 0]
    assert drawn[:, 80, 80].tolist() == [1, 0, 0]
    assert drawn[:, 5, 5].tolist() == [0.5] * 3
    assert (drawn == 1).all(0).any()  # lines
    assert photo.min() == photo.max() == 0.5
    far = landmarks_picture(photo, np.full((68, 2), 1e30, np.float32))
    np.testing.assert_array_equal(far, photo)


@pytest.mark.parametrize("points", [np.zeros((67, 2)), np.zeros((68, 3)), np.full((68, 2), np.nan)])
def test_marks_of_another_shape_are_an_error(points):
    with pytest.raises(ValueError, match=r"landmarks must be \(68, 2 or 4\) and finite"):
        landmarks_picture(np.zeros((3, 8, 8), np.float32), points)


def test_pictures_stand_side_by_side_blue_first_and_cut_off():
    first, second = np.zeros((3, 2, 4), np.float32), np.full((3, 2, 4), 1.5, np.float32)
    first[0] = 0.999
    joined = side_by_side([first, second])
    assert joined.shape == (2, 8, 3)
    assert joined[0, 0].tolist() == [0, 0, 254]
    assert joined[1, 7].tolist() == [255] * 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uvs": np.zeros((4, 3), np.float32)}, r"uvs is \(4, 3\).*\(4, 2\)"),
        ({"uvs": np.full((4, 2), np.nan, np.float32)}, "uvs is .*finite"),
        ({"triangles": np.zeros((2, 3))}, "triangles is .* of float64; expected .* integers"),
        ({"uv_triangles": np.array([[0, 2, 4], [1, 2, 3]])}, "corners that do not exist"),
        ({"triangles": np.array([[0, 2, -1], [1, 2, 3]])}, "corners that do not exist"),
        ({"wrinkled": np.zeros((256, 256), np.uint8)}, "wrinkled is .* of uint8"),
        ({"fixed_displacement": np.zeros((128, 128), np.float32)}, r"fixed_displacement is \(128, 128\)"),
    ],
)
def test_a_skin_that_does_not_fit_together_is_refused(changes, words):
    with pytest.raises(ModelError, match=words):
        square_skin(**changes)


def test_an_exported_graph_has_normals_of_nothing_as_zeros(skin):
    pytest.importorskip("onnxscript", reason="graphs are exported with onnxscript, which is not installed")
    from reenact.export.onnx import compare, export_graph

    flat = square_skin()

    class Decoder(torch.nn.Module):
        def forward(self, vertices, cam, heights, light):
            normals = vertex_normals(flat, vertices)
            wrinkled = detail_normals(flat, vertices, normals, heights)
            return project(vertices, cam), normals, wrinkled, sh_shading(wrinkled, light)

    random = torch.Generator().manual_seed(0)
    inputs = {
        "vertices": torch.rand(1, 4, 3, generator=random),
        "cam": torch.rand(1, 3, generator=random),
        "heights": torch.from_numpy(image("heights", (1, 1, 256, 256), 0, 0.01)),
        "light": torch.rand(1, 9, 3, generator=random),
    }
    names = ["projected", "normals", "wrinkled", "shading"]
    graph = export_graph(Decoder(), inputs, names)
    operators = {node.op_type for node in graph.graph.node}
    assert not operators & {"ScatterND", "ScatterElements", "Einsum", "Loop", "If"}
    for size in (1.0, 1e-4, 0.0):
        given = inputs | {"vertices": size * inputs["vertices"]}
        expected = dict(zip(names, Decoder()(*given.values()), strict=True))
        assert max(difference.largest for difference in compare(graph, given, expected)) < 1e-4
