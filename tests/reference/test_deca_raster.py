"""Which triangle a pixel shows is what each rule's own words say, and moves with the vertices."""

import numpy as np
import pytest
import torch
from reenact.reference import deca_raster
from reenact.reference.deca_raster import interpolate, rasterize_pytorch3d, rasterize_standard


def brute_force(vertices, triangles, height, width, rule):
    """Numbers (H, W), -1 for none, and weights (H, W, 3), in double precision from each rule's own words."""
    shown, weights = np.full((height, width), -1), np.zeros((height, width, 3))
    nearest = np.full((height, width), np.inf)
    x, y = (np.arange(width) * 2 + 1) / width - 1, (np.arange(height) * 2 + 1) / height - 1
    points = np.stack(np.meshgrid(x, y), -1)
    for number, corners in enumerate(vertices[triangles].astype(np.float64)):
        try:
            system = np.linalg.inv(np.concatenate([corners[:, :2], np.ones((3, 1))], 1).T)
        except np.linalg.LinAlgError:
            continue
        share = np.concatenate([points, np.ones((height, width, 1))], 2) @ system.T
        z = corners[:, 2]
        depth = share @ z if rule is rasterize_pytorch3d else 1 / (share @ (1 / z))
        better = (share > 0).all(2) & (depth < nearest)
        shown[better], weights[better], nearest[better] = number, share[better], depth[better]
    return shown, weights


@pytest.mark.parametrize("rasterize", [rasterize_pytorch3d, rasterize_standard])
@pytest.mark.parametrize(("height", "width"), [(24, 24), (20, 33), (31, 12)])
def test_each_pixel_shows_the_nearest_triangle(rasterize, height, width, monkeypatch):
    monkeypatch.setattr(deca_raster, "_PAIRS", 1000)
    random = np.random.default_rng(3)
    vertices = random.uniform(-1.3, 1.3, (2, 40, 3))
    vertices[..., 2] = random.uniform(0.5, 5, (2, 40))
    triangles = random.permuted(np.tile(np.arange(40), (60, 1)), axis=1)[:, :3]
    found = rasterize(torch.from_numpy(vertices), torch.from_numpy(triangles), height, width)
    for i in range(2):
        shown, weights = brute_force(vertices[i], triangles, height, width, rasterize)
        assert 0.7 < (shown >= 0).mean() < 1
        np.testing.assert_array_equal(found.triangles[i], shown)
        np.testing.assert_allclose(found.weights[i], weights, atol=1e-6)


@pytest.mark.parametrize("rasterize", [rasterize_pytorch3d, rasterize_standard])
def test_of_equally_near_triangles_the_first_is_seen(rasterize, monkeypatch):
    monkeypatch.setattr(deca_raster, "_PAIRS", 100)
    vertices = torch.tensor([[[-3.0, -1, 2], [3, -1, 2], [0, 5, 2]]])
    triangles = torch.tensor([[0, 1, 2]] * 4)
    assert rasterize(vertices, triangles, 16, 16).triangles.eq(0).all()


@pytest.mark.parametrize("rasterize", [rasterize_pytorch3d, rasterize_standard])
def test_triangles_without_a_place_show_nothing(rasterize):
    vertices = torch.tensor(
        [[[-1.0, -1, 2], [1, 1, 2], [torch.nan, 0, 2], [torch.inf, 0, 2], [5, 5, 2], [9, 5, 2], [5, 9, 2]]]
    )
    triangles = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 2, 3], [4, 5, 6]])
    found = rasterize(vertices, triangles, 8, 8)
    assert found.triangles.eq(-1).all()
    assert found.weights.eq(0).all()


def test_a_triangle_without_area_is_seen_by_the_standard_rule_alone():
    vertices = torch.tensor([[[-0.5, -0.5, 2], [0.5, 0.5, 2], [0, 0, 2]]])
    triangles = torch.tensor([[0, 1, 2]])
    assert rasterize_pytorch3d(vertices, triangles, 8, 8).triangles.eq(-1).all()
    found = rasterize_standard(vertices, triangles, 8, 8)
    assert found.triangles[0, 2:6, 2:6].eq(0).all()
    assert found.triangles.eq(0).sum() == 16
    assert found.weights[0, 2, 5].tolist() == [1, 0, 0]


def test_a_centre_on_an_edge_is_outside_but_for_two_edges_of_the_standard_rule():
    vertices = torch.tensor([[[-1.0, -1, 2], [1, -1, 2], [-1, 1, 2]]])
    diagonal = torch.eye(4, dtype=torch.bool).flip(1)
    for rasterize, triangle, seen in (
        (rasterize_pytorch3d, [0, 1, 2], False),
        (rasterize_pytorch3d, [1, 2, 0], False),
        (rasterize_standard, [0, 1, 2], False),  # the edge across from its first corner
        (rasterize_standard, [2, 0, 1], True),
        (rasterize_standard, [1, 2, 0], True),
    ):
        found = rasterize(vertices, torch.tensor([triangle]), 4, 4).triangles[0] == 0
        assert found[diagonal].eq(seen).all()
        assert found.sum() == (10 if seen else 6)


def test_a_rasterisers_arguments_are_checked():
    with pytest.raises(
        ValueError, match=r"vertices must be \(B, V, 3\) and triangles \(F, 3\), not \(4, 3\)"
    ):
        rasterize_pytorch3d(torch.zeros(4, 3), torch.zeros(1, 3, dtype=torch.int64), 8, 8)


@pytest.mark.parametrize("rasterize", [rasterize_pytorch3d, rasterize_standard])
def test_what_a_pixel_shows_moves_with_the_vertices(rasterize):
    vertices = torch.tensor([[[-0.9, -0.8, 2], [0.7, -0.9, 3], [0.1, 0.95, 4]]], dtype=torch.float64)
    colours = torch.rand(1, 1, 3, 2, dtype=torch.float64)
    triangles = torch.tensor([[0, 1, 2]])

    def drawn(vertices):
        fragments = rasterize(vertices, triangles, 5, 5)
        return interpolate(fragments, colours)

    assert torch.autograd.gradcheck(drawn, vertices.requires_grad_(), eps=1e-6, atol=1e-5)
