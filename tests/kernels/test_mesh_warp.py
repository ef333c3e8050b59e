"""The mesh warp's kernels against the CPU's functions and their plain twins."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from reenact.kernels import mesh as on_cpu
from reenact.kernels.launch import Launcher
from reenact.kernels.mesh import identity_flow, mesh_flow_reference, resample_reference
from reenact.kernels.mesh_warp import ORIGIN_VALUES, Mesh, mesh_flow, mesh_warp

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


def aligned(rows: int) -> Floats:
    """(rows, ORIGIN_VALUES) of rubbish at a multiple of 16 bytes."""
    memory = np.full(rows * ORIGIN_VALUES + 4, np.nan, np.float32)
    start = -memory.ctypes.data % 16 // 4
    return memory[start : start + rows * ORIGIN_VALUES].reshape(rows, ORIGIN_VALUES)


def mesh_of(targets: Any, sources: Any, triangles: Any, size: tuple[int, int]) -> Mesh:
    triangles = np.asarray(triangles, np.int32).reshape(-1, 3)
    places = np.asarray(targets, np.float32), np.asarray(sources, np.float32)
    return Mesh(*places, triangles, np.zeros(size, np.int32), aligned(len(triangles)))


def flow_of(launcher: Launcher, mesh: Mesh) -> Floats:
    flow = np.full((*mesh.owners.shape, 2), np.nan, np.float32)
    mesh_flow(launcher, mesh, flow)
    assert not mesh.owners.any()
    return flow


def on_the_cpu(mesh: Mesh) -> Floats:
    flow = np.full((*mesh.owners.shape, 2), np.nan, np.float32)
    return on_cpu.mesh_flow(mesh.targets, mesh.sources, mesh.triangles, flow)


def grid_mesh(random: np.random.Generator, size: tuple[int, int], cells: int, push: float) -> Mesh:
    """A regular mesh over a picture whose vertices are pushed about; by more than half a cell it folds."""
    height, width = size
    xs, ys = np.meshgrid(np.linspace(0, width - 1, cells + 1), np.linspace(0, height - 1, cells + 1))
    sources = np.stack([xs, ys], axis=-1).reshape(-1, 2)
    targets = sources + random.uniform(-push, push, sources.shape) * (width / cells, height / cells)
    corner = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    triangles = [np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))]
    return mesh_of(targets, sources, random.permutation(np.concatenate(triangles)), size)


SIZES = [(1, 1), (1, 40), (7, 5), (64, 33), (120, 201), (333, 257)]


@pytest.mark.parametrize("push", [0.0, 0.3, 1.5])
@pytest.mark.parametrize("size", SIZES)
def test_each_pixel_has_the_cpus_triangle_and_its_place(
    launcher: Launcher, size: tuple[int, int], push: float
) -> None:
    random = np.random.default_rng(sum(size))
    for cells in (1, 4, 13):
        mesh = grid_mesh(random, size, cells, push)
        found, expected = flow_of(launcher, mesh), on_the_cpu(mesh)
        covered = np.isfinite(expected)
        np.testing.assert_array_equal(np.isfinite(found), covered)
        wrong = np.abs(found[covered] - expected[covered])
        assert wrong.max(initial=0) <= (5e-4 if push < 1 else 0.05)
        # In a sliver whose edge a pixel's centre only touches, the CPU's place runs past the triangle; the kernel's
        # stays within.
        assert np.count_nonzero(wrong > 2e-3) <= 1 + 1e-4 * wrong.size


@pytest.mark.parametrize("push", [0.3, 1.5])
@pytest.mark.parametrize("size", SIZES[2:5])
def test_the_flow_agrees_with_the_plain_twin(launcher: Launcher, size: tuple[int, int], push: float) -> None:
    mesh = grid_mesh(np.random.default_rng(sum(size)), size, 5, push)
    found = flow_of(launcher, mesh)
    poison = np.full((*size, 2), np.nan, np.float32)
    plain = mesh_flow_reference(mesh.targets, mesh.sources, mesh.triangles, poison)
    # The twin counts a centre within 1e-9 as inside, kernel and CPU within 1e-4 pixel.
    assert (np.isfinite(found) != np.isfinite(plain)).mean() < 2e-3
    both = np.isfinite(found) & np.isfinite(plain)
    assert both.mean() > 0.5
    assert (np.abs(found[both] - plain[both]) > 2e-3).mean() < 2e-3


def test_later_triangles_cover_earlier_ones(launcher: Launcher) -> None:
    corners = np.array([[0, 0], [40, 0], [0, 40]], np.float32)
    targets, sources = np.concatenate([corners] * 3), np.concatenate([corners, corners + 100, corners + 200])
    below, between, above = [0, 1, 2], [3, 4, 5], [6, 7, 8]
    for order, shift in (([below, between, above], 200), ([above, between, below], 0)):
        flow = flow_of(launcher, mesh_of(targets, sources, order, (50, 50)))
        np.testing.assert_allclose(flow[2, 3], [3 + shift, 2 + shift], atol=1e-4)
        np.testing.assert_allclose(flow[30, 5], [5 + shift, 30 + shift], atol=1e-4)
        assert np.isnan(flow[45, 45]).all()


def test_pixels_outside_every_triangle_keep_their_flow(launcher: Launcher) -> None:
    mesh = mesh_of([[2, 2], [5, 2], [2, 5]], [[52, 52], [55, 52], [52, 55]], [[0, 1, 2]], (8, 8))
    flow = identity_flow(8, 8)
    mesh_flow(launcher, mesh, flow)
    assert flow[6, 6].tolist() == [6, 6]
    assert flow[2, 2].tolist() == [52, 52]


def test_triangles_without_area_or_vertices_are_left_out(launcher: Launcher) -> None:
    targets = [[1, 1], [2, 2], [3, 3], [np.nan, 0], [np.inf, 5], [0, 5], [5, -np.inf], [5, 0], [5, 5]]
    memory = np.array(targets, np.float32)
    places = memory[:7]  # what follows in memory are places too, but no vertices
    triangles = [[0, 1, 2], [0, 1, 3], [0, 4, 5], [0, 5, 6], [0, 5, 7], [5, 7, 8], [-1, 0, 5]]
    assert np.isnan(flow_of(launcher, mesh_of(places, places, triangles, (6, 6)))).all()
    assert np.isnan(flow_of(launcher, mesh_of(memory, memory, [], (6, 6)))).all()
    assert np.isfinite(flow_of(launcher, mesh_of(memory, memory, triangles, (6, 6)))).any()


def test_vertices_far_outside_are_harmless(launcher: Launcher) -> None:
    targets = [[-1e7, -5], [1e7, -5], [3, 1e7], [3e38, 3e38], [-3e38, 3e38], [0, -3e38]]
    flow = flow_of(launcher, mesh_of(targets, targets, [[0, 1, 2]], (60, 50)))
    np.testing.assert_allclose(flow, identity_flow(60, 50), atol=0.02)
    assert np.isfinite(flow_of(launcher, mesh_of(targets, np.zeros((6, 2)), [[3, 4, 5]], (60, 50)))).all()


@pytest.mark.parametrize("thin", [1e-2, 1e-4, 1e-6])
def test_slivers_take_no_place_beyond_their_own(launcher: Launcher, thin: float) -> None:
    targets = [[0, 0], [30, 30], [15 + thin, 15 - thin]]
    sources = [[10, 20], [40, 50], [0, 70]]
    flow = flow_of(launcher, mesh_of(targets, sources, [[0, 1, 2]], (31, 31)))
    covered = flow[np.isfinite(flow[..., 0])]
    assert len(covered) >= 30
    assert (covered >= [0, 20]).all()
    assert (covered <= [40, 70]).all()


def test_a_centre_on_the_edge_of_a_sliver_takes_no_place_beyond_it(launcher: Launcher) -> None:
    mesh = mesh_of([[0, 5e-5], [30, 5e-5], [15, 6e-5]], [[10, 20], [40, 20], [60, 70]], [[0, 1, 2]], (31, 31))
    flow = flow_of(launcher, mesh)
    assert (on_the_cpu(mesh)[0, 15] < -100).all()
    assert (flow[0] == [10, 20]).all()
    assert np.isnan(flow[1:]).all()


@pytest.mark.parametrize("push", [0.3, 1.5])
@pytest.mark.parametrize("size", SIZES)
def test_the_fused_warp_is_the_twins_flow_and_resampling(
    launcher: Launcher, size: tuple[int, int], push: float
) -> None:
    random = np.random.default_rng(sum(size))
    mesh = grid_mesh(random, size, 4, push)
    photo = random.integers(0, 256, (max(size[0] - 3, 1), size[1] + 2, 3), dtype=np.uint8)
    flow = identity_flow(*size)
    mesh_flow(launcher, mesh, flow)
    expected = resample_reference(photo, flow)
    out = np.full((*size, 3), 99, np.uint8)
    mesh_warp(launcher, mesh, photo, out)
    assert not mesh.owners.any()
    # The same places; a sum next to a half is rounded to its other side.
    distance = np.abs(out.astype(int) - expected)
    assert distance.max() <= 1
    assert np.count_nonzero(distance) <= 1 + 1e-4 * distance.size


def test_the_fused_warp_is_both_twins_from_mesh_to_picture(launcher: Launcher) -> None:
    random = np.random.default_rng(5)
    mesh = grid_mesh(random, (120, 160), 6, 0.3)
    photo = random.integers(0, 256, (120, 160, 3), dtype=np.uint8)
    out = np.full((120, 160, 3), 99, np.uint8)
    mesh_warp(launcher, mesh, photo, out)
    flow = mesh_flow_reference(mesh.targets, mesh.sources, mesh.triangles, identity_flow(120, 160))
    distance = np.abs(out.astype(int) - resample_reference(photo, flow))
    # Places differ by 1e-4 pixel at most, levels by 0.05: some sums are rounded to the other side of a half.
    assert distance.max() <= 1
    assert (distance > 0).mean() < 1e-3


def test_places_anywhere_are_mirrored_at_the_photos_borders(launcher: Launcher) -> None:
    photo = np.random.default_rng(6).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    corners = np.array([[0, 0], [39, 0], [0, 39], [39, 39]], np.float32)
    mesh = mesh_of(corners, corners * 2 - 31, [[0, 1, 2], [1, 3, 2]], (40, 40))
    out = np.full((40, 40, 3), 99, np.uint8)
    mesh_warp(launcher, mesh, photo, out)
    flow = mesh_flow_reference(mesh.targets, mesh.sources, mesh.triangles, identity_flow(40, 40))
    np.testing.assert_array_equal(out, resample_reference(photo, flow))
    for wild in (np.nan, np.inf, -np.inf, 3e38):
        wilds = mesh_of(corners, np.full((4, 2), wild), [[0, 1, 2]], (40, 40))
        mesh_warp(launcher, wilds, photo, out)
        np.testing.assert_array_equal(out[39, 39], resample_reference(photo, identity_flow(40, 40))[39, 39])


def test_halves_are_rounded_as_the_twin_rounds_them(launcher: Launcher) -> None:
    photo = np.random.default_rng(8).integers(0, 256, (33, 33, 3), dtype=np.uint8)
    corners = np.array([[0, 0], [31, 0], [0, 31], [31, 31]], np.float32)
    mesh = mesh_of(corners, corners + np.array([0.5, 0]), [[0, 1, 2], [1, 3, 2]], (32, 32))
    out = np.full((32, 32, 3), 99, np.uint8)
    mesh_warp(launcher, mesh, photo, out)
    shifted = identity_flow(32, 32) + np.array([0.5, 0], np.float32)
    np.testing.assert_array_equal(out, resample_reference(photo, shifted))


def test_a_mesh_that_does_not_move_gives_the_photo(launcher: Launcher) -> None:
    random = np.random.default_rng(7)
    mesh = grid_mesh(random, (40, 50), 5, 0.0)
    photo = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    out = np.full_like(photo, 99)
    mesh_warp(launcher, mesh, photo, out)
    np.testing.assert_array_equal(out, photo)


def given() -> dict[str, Any]:
    corners = np.array([[0, 0], [4, 0], [0, 4]], np.float32)
    mesh = mesh_of(corners, corners, [[0, 1, 2]], (6, 7))
    fields = ("targets", "sources", "triangles", "owners", "origins")
    return {**{name: getattr(mesh, name) for name in fields}, "photo": np.zeros((4, 5, 3), np.uint8)}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"targets": np.zeros((3, 3), np.float32)}, r"targets: .* expected both \(N, 2\) float32"),
        ({"sources": np.zeros((4, 2), np.float32)}, r"sources: .* expected both \(N, 2\) float32"),
        ({"sources": np.zeros((3, 2), np.float64)}, r"sources: .* expected both \(N, 2\) float32"),
        ({"triangles": np.zeros((1, 3), np.int64)}, r"triangles: .* expected \(M, 3\) int32"),
        ({"triangles": np.zeros((2, 3), np.int32)}, r"origins: .* expected \(2, 12\) float32"),
        ({"owners": np.zeros((6, 7), np.float32)}, r"owners: .* expected \(H, W\) int32"),
        ({"owners": np.zeros((0, 7), np.int32)}, "owners: .* not empty"),
        ({"origins": np.zeros(17, np.float32)[5:].reshape(1, 12)}, "origins: .* multiple of 16 bytes"),
        ({"photo": np.zeros((4, 5, 4), np.uint8)}, r"photo: .* expected \(h, w, 3\) uint8"),
        ({"photo": np.zeros((4, 5, 3), np.float32)}, r"photo: .* expected \(h, w, 3\) uint8"),
        ({"photo": np.zeros((0, 5, 3), np.uint8)}, "photo: .* not empty"),
        ({"out": np.zeros((6, 8, 3), np.uint8)}, r"out: .* expected \(6, 7, 3\) uint8"),
        ({"out": np.zeros((6, 7, 3), np.int8)}, r"out: .* expected \(6, 7, 3\) uint8"),
    ],
)
def test_arrays_that_do_not_fit_are_named(launcher: Launcher, changed: dict[str, Any], named: str) -> None:
    arrays = {**given(), "out": np.full((6, 7, 3), 99, np.uint8), **changed}
    photo, out = arrays.pop("photo"), arrays.pop("out")
    before = out.copy()
    with pytest.raises(ValueError, match=named):
        mesh_warp(launcher, Mesh(**arrays), photo, out)
    np.testing.assert_array_equal(out, before)
    assert not arrays["owners"].any()


def test_flows_that_do_not_fit_shared_memory_and_other_devices_are_refused(launcher: Launcher) -> None:
    class OnGpu:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return {"shape": (3, 2), "typestr": "<f4", "data": (4096, False), "version": 3}

    arrays = given()
    arrays.pop("photo")
    for flow in (np.zeros((7, 6, 2), np.float32), np.zeros((6, 7, 2)), identity_flow(6, 7)):
        flow.flags.writeable = flow.dtype != np.float32
        with pytest.raises(ValueError, match=r"flow: .* expected \(6, 7, 2\) float32 that can be written"):
            mesh_flow(launcher, Mesh(**arrays), flow)
    photo = np.zeros((6, 7, 3), np.uint8)
    with pytest.raises(ValueError, match="out: shares memory with photo"):
        mesh_warp(launcher, Mesh(**arrays), photo, photo)
    with pytest.raises(ValueError, match="targets: lies on cuda:0; these kernels run on cpu"):
        mesh_flow(launcher, Mesh(**{**arrays, "targets": OnGpu()}), identity_flow(6, 7))
