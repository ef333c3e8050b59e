"""The mesh warp against its plain twin, and against answers that are known without either."""

import numpy as np
import pytest
from reenact.kernels.mesh import identity_flow, mesh_flow, mesh_flow_reference, resample, resample_reference


def _grid_mesh(rng, height, width, cells):
    """A regular mesh over the picture whose inner vertices are pushed about, without folding."""
    xs, ys = np.meshgrid(np.linspace(0, width - 1, cells + 1), np.linspace(0, height - 1, cells + 1))
    sources = np.stack([xs, ys], axis=-1).reshape(-1, 2).astype(np.float32)
    targets = sources.copy()
    inner = ((xs > 0) & (xs < width - 1) & (ys > 0) & (ys < height - 1)).reshape(-1)
    reach = 0.3 * np.array([width, height]) / cells
    targets[inner] += (rng.uniform(-1, 1, (inner.sum(), 2)) * reach).astype(np.float32)
    corner = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    triangles = np.concatenate(
        [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)]
    ).astype(np.int32)
    return targets, sources, triangles


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 33), (120, 201)])
def test_mesh_flow_agrees_with_its_twin_and_leaves_no_hole(size):
    rng = np.random.default_rng(sum(size))
    targets, sources, triangles = _grid_mesh(rng, size[0], size[1], cells=4)
    poison = np.full((*size, 2), np.nan, np.float32)
    fast = mesh_flow(targets, sources, triangles, poison.copy())
    plain = mesh_flow_reference(targets, sources, triangles, poison.copy())
    if min(size) > 1:
        assert np.isfinite(fast).all()
    both = np.isfinite(fast) & np.isfinite(plain)
    assert both.mean() > 0.99 or min(size) == 1
    np.testing.assert_allclose(fast[both], plain[both], atol=2e-3)


def test_a_mesh_that_does_not_move_gives_the_identity():
    _, sources, triangles = _grid_mesh(np.random.default_rng(0), 40, 50, cells=5)
    flow = mesh_flow(sources, sources, triangles, np.zeros((40, 50, 2), np.float32))
    np.testing.assert_allclose(flow, identity_flow(40, 50), atol=1e-4)


def test_later_triangles_cover_earlier_ones():
    targets = np.array([[0, 0], [9, 0], [0, 9], [0, 0], [9, 0], [0, 9]], np.float32)
    sources = np.concatenate([targets[:3], targets[3:] + 100]).astype(np.float32)
    below, above = [0, 1, 2], [3, 4, 5]
    flow = mesh_flow(targets, sources, np.array([below, above], np.int32), identity_flow(10, 10))
    np.testing.assert_allclose(flow[2, 3], [103, 102], atol=1e-4)
    flow = mesh_flow(targets, sources, np.array([above, below], np.int32), identity_flow(10, 10))
    np.testing.assert_allclose(flow[2, 3], [3, 2], atol=1e-4)


def test_pixels_outside_every_triangle_keep_their_flow():
    triangle = np.array([[2, 2], [5, 2], [2, 5]], np.float32)
    flow = mesh_flow(triangle, triangle + 50, np.array([[0, 1, 2]], np.int32), identity_flow(8, 8))
    assert flow[6, 6].tolist() == [6, 6]
    assert flow[2, 2].tolist() == [52, 52]


def test_flat_triangles_and_vertices_far_outside_are_harmless():
    targets = np.array([[1, 1], [2, 2], [3, 3], [-1e7, -5], [1e7, -5], [3, 1e7], [np.nan, 0]], np.float32)
    flow = identity_flow(6, 6)
    mesh_flow(targets, targets, np.array([[0, 1, 2], [0, 1, 6]], np.int32), flow)
    assert np.array_equal(flow, identity_flow(6, 6))
    mesh_flow(targets, targets, np.array([[3, 4, 5]], np.int32), flow)
    assert np.isfinite(flow).all()


@pytest.mark.parametrize(
    ("targets", "triangles", "message"),
    [
        (np.zeros((3, 3), np.float32), np.zeros((1, 3), np.int32), "targets"),
        (np.zeros((3, 2), np.float32), np.zeros((1, 3), np.int64), "int32"),
        (np.zeros((3, 2), np.float32), np.full((1, 3), 3, np.int32), "outside 0..2"),
    ],
)
def test_wrong_arrays_are_refused_by_name(targets, triangles, message):
    with pytest.raises(ValueError, match=message):
        mesh_flow(targets, np.zeros((3, 2), np.float32), triangles, identity_flow(4, 4))


def test_resample_agrees_with_its_twin_also_outside_the_picture():
    rng = np.random.default_rng(4)
    image = rng.integers(0, 256, (23, 31, 3), dtype=np.uint8)
    # OpenCV keeps 5 bits of the fraction of a pixel; on such places both must agree to the last bit but rounding.
    flow = (rng.integers(-32 * 12, 32 * 40, (41, 37, 2)) / 32).astype(np.float32)
    fast, plain = resample(image, flow).astype(int), resample_reference(image, flow).astype(int)
    assert np.abs(fast - plain).max() <= 1


def test_resample_through_the_identity_is_the_picture():
    image = np.random.default_rng(5).integers(0, 256, (17, 19, 3), dtype=np.uint8)
    assert np.array_equal(resample(image, identity_flow(17, 19)), image)
