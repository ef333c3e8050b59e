"""The rasteriser's kernels, compiled for the CPU, against published numbers, the plain twins and the CPU's loops."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from reenact.kernels import raster_device as device
from reenact.kernels.launch import Launcher
from reenact.kernels.raster import Raster, antialias, cull, edge_neighbours, interpolate, rasterize
from reenact.kernels.raster_reference import (
    antialias_reference,
    cull_reference,
    interpolate_reference,
    rasterize_reference,
)

GOLDENS = Path(__file__).resolve().parents[1] / "goldens/rasterizer"
SIZES = [(1, 1), (1, 37), (29, 1), (7, 5), (64, 33), (40, 71)]
LAYOUTS: tuple[device.Layout, ...] = ("NCHW", "NHWC")
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


def soup(seed: int, count: int = 40, reach: float = 1.3) -> tuple[Floats, Ints]:
    """Unrelated triangles in perspective, some cut by the picture's borders."""
    rng = np.random.default_rng(seed)
    vertices = rng.uniform(-1, 1, (3 * count, 4)) * [reach, reach, 1, 1]
    vertices[:, 3] = rng.uniform(0.5, 2, 3 * count)
    vertices[:, :3] *= vertices[:, 3:]
    return vertices.astype(np.float32), np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


def sheet(seed: int, cells: int = 8) -> tuple[Floats, Ints]:
    """A crumpled sheet with w = 1 that folds over itself."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.linspace(-0.9, 0.9, cells + 1), np.linspace(-0.9, 0.9, cells + 1))
    vertices = np.stack([x, y, np.zeros_like(x), np.ones_like(x)], axis=-1).reshape(-1, 4)
    vertices[:, :3] += rng.normal(0, 0.25, (len(vertices), 3)) * [1, 1, 0.8]
    corner = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
    a, b, c, d = (
        part.ravel() for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:])
    )
    triangles = np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])
    vertices[:, 2] = np.clip(vertices[:, 2], -1, 1)
    return vertices.astype(np.float32), np.ascontiguousarray(triangles, np.int32)


def drawn(launcher: Launcher, vertices: Floats, triangles: Ints, height: int, width: int) -> Raster:
    """`rasterize` into poisoned arrays."""
    keys = np.full((height, width), 0x3D3D3D3D3D3D3D3D, np.uint64)
    raster = Raster(np.full((height, width, 3), np.nan, np.float32), np.full((height, width), -77, np.int32))
    device.rasterize(launcher, vertices, triangles, keys, raster.ids, raster.uvz)
    return raster


def assert_same(found: Raster, expected: Raster) -> None:
    """The same triangles but where two lie at practically one depth, and the same weights but for rounding."""
    differ = found.ids != expected.ids
    assert differ.sum() <= max(1, 0.002 * differ.size)
    np.testing.assert_allclose(found.uvz[differ, 2], expected.uvz[differ, 2], atol=1e-3)
    np.testing.assert_allclose(found.uvz[~differ], expected.uvz[~differ], atol=2e-3)
    assert (np.abs(found.uvz - expected.uvz)[~differ] > 1e-4).mean() <= 0.002  # in slivers alone


@pytest.mark.parametrize("name", ["mesh_64", "soup_64"])
def test_the_published_pictures_come_out(launcher: Launcher, name: str) -> None:
    golden = dict(np.load(GOLDENS / f"{name}.npz", allow_pickle=False))
    strides = {
        k: v["stride"] for k, v in json.loads((GOLDENS / f"{name}.json").read_text())["outputs"].items()
    }
    vertices, triangles = golden["in:pos"], golden["in:tri"]
    raster = drawn(launcher, vertices, triangles, 64, 64)
    stable, ideal = golden["out:stable"].reshape(64, 64) > 0, golden["out:id_ideal"].reshape(64, 64)
    np.testing.assert_array_equal(raster.ids[stable], ideal[stable])
    assert (raster.ids != golden["out:id_snap16"].reshape(64, 64)).sum() <= (2 if name == "mesh_64" else 0)
    np.testing.assert_allclose(raster.uvz[stable], golden["out:uvz"][0].transpose(1, 2, 0)[stable], atol=1e-4)
    published = Raster(np.ascontiguousarray(golden["out:uvz"][0].transpose(1, 2, 0)), ideal.astype(np.int32))
    if golden["in:cull"].any():
        device.cull(launcher, published.ids, published.uvz, vertices, triangles)
        away = np.append(golden["in:cull"], 0)[ideal - 1] > 0
        np.testing.assert_array_equal(published.ids, np.where(away, 0, ideal))
        np.testing.assert_array_equal(published.uvz[away], 0)
    image = np.full((4, 64, 64), np.nan, np.float32)
    attributes = device.Attributes(golden["in:attr"], image)
    device.interpolate(launcher, [attributes], published.ids, published.uvz, triangles, layout="NCHW")
    outlines = np.full(len(triangles), 0xCD, np.uint8)
    device.outlines(launcher, vertices, triangles, edge_neighbours(triangles), outlines)
    smooth = np.full((4, 64, 64), np.nan, np.float32)
    device.antialias(
        launcher, image, smooth, published.ids, published.uvz, vertices, triangles, outlines, layout="NCHW"
    )
    for key, picture in (("attr_culled", image), ("attr_aa", smooth)):
        step = strides[key]
        np.testing.assert_allclose(picture[:, ::step, ::step], golden[f"out:{key}"][0], atol=1e-4)
    rows, columns = golden["out:aa_index"].T
    np.testing.assert_allclose(smooth[:, rows, columns].T, golden["out:aa_value"], atol=1e-4)
    smooth[:, rows, columns] = image[:, rows, columns]
    np.testing.assert_allclose(smooth, image, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_rasters_of_many_meshes_agree_with_the_twin(launcher: Launcher, size: tuple[int, int]) -> None:
    for seed in range(4):
        vertices, triangles = soup(seed, reach=3) if seed % 2 else sheet(seed)
        found, expected = (
            drawn(launcher, vertices, triangles, *size),
            rasterize_reference(vertices, triangles, *size),
        )
        assert_same(found, expected)
        kept = Raster(expected.uvz.copy(), expected.ids.copy())
        device.cull(launcher, kept.ids, kept.uvz, vertices, triangles)
        plain = cull_reference(expected, vertices, triangles)
        np.testing.assert_array_equal(kept.ids, plain.ids)
        np.testing.assert_array_equal(kept.uvz, plain.uvz)


def test_large_pictures_and_fine_meshes_agree_with_the_loops(launcher: Launcher) -> None:
    for vertices, triangles, size in (
        (*sheet(1, cells=60), (311, 517)),
        (*sheet(2, cells=2), (700, 401)),
        (*soup(3, 2), (2, 3001)),
    ):
        assert_same(drawn(launcher, vertices, triangles, *size), rasterize(vertices, triangles, *size))


def test_meshes_that_reach_behind_the_eye_agree_with_the_twin(launcher: Launcher) -> None:
    for seed in range(6):
        vertices, triangles = soup(seed, 30)
        vertices += np.random.default_rng(seed).normal(0, 1, vertices.shape).astype(np.float32)
        vertices[seed] = [np.nan, np.inf, 1e15, -1e15][seed % 4]
        vertices[3 + seed] = 0
        found = drawn(launcher, vertices, triangles, 37, 53)
        assert np.isfinite(found.uvz).all()
        expected = rasterize_reference(vertices, triangles, 37, 53)
        assert_same(found, expected)


def test_of_triangles_at_one_depth_the_later_is_seen(launcher: Launcher) -> None:
    for depth in (-0.5, 0.0, -0.0, 1.0):
        vertices = np.array([[-1, -1, depth, 1], [3, -1, depth, 1], [-1, 3, depth, 1]], np.float32)
        triangles = np.array([[0, 1, 2]] * 5, np.int32)
        found = drawn(launcher, vertices, triangles, 6, 6)
        assert (found.ids == 5).all()
        assert (found.uvz[..., 2] == depth).all()
    farther = np.concatenate([vertices - np.array([0, 0, 1.5, 0], np.float32), vertices])
    assert (
        drawn(launcher, farther, np.array([[3, 4, 5], [0, 1, 2], [3, 4, 5]], np.int32), 6, 6).ids == 2
    ).all()


def test_zeros_of_both_signs_are_one_depth(launcher: Launcher) -> None:
    flat = [[-1, -1, 0, 1], [3, -1, 0, 1], [-1, 3, 0, 1]]
    rising = [
        [0.0, 0.0, -0.0, 1],
        [1, 0, -0.5, 1],
        [0, 1, -0.5, 1],
    ]  # from the middle pixel's centre to the eye
    vertices = np.array([*rising, *flat], np.float32)
    found = drawn(launcher, vertices, np.array([[0, 1, 2], [3, 4, 5]], np.int32), 5, 5)
    assert found.ids[2].tolist() == [2, 2, 2, 1, 1]


@pytest.mark.parametrize("reach", [2.0, 1e4, 1e12, 8e37])
def test_corners_far_outside_are_cut_off_without_overflow(launcher: Launcher, reach: float) -> None:
    vertices = np.array([[-reach, -1, 0, 1], [reach, -1, 0, 1], [0, reach, 0, 1]], np.float32)
    triangle = np.array([[0, 1, 2]], np.int32)
    found, expected = (
        drawn(launcher, vertices, triangle, 33, 40),
        rasterize_reference(vertices, triangle, 33, 40),
    )
    np.testing.assert_array_equal(found.ids, expected.ids)
    assert found.ids.all() == (reach > 2)


def test_what_is_no_triangle_is_left_out(launcher: Launcher) -> None:
    vertices, triangles = sheet(4, cells=2)
    none = drawn(launcher, vertices, np.empty((0, 3), np.int32), 3, 4)
    assert not none.ids.any()
    assert not none.uvz.any()
    broken = np.concatenate([triangles, [[0, 1, 9], [-1, 0, 1], [2**31 - 1, 0, 1], [3, 3, 4]]]).astype(
        np.int32
    )
    found, expected = drawn(launcher, vertices, broken, 30, 30), drawn(launcher, vertices, triangles, 30, 30)
    np.testing.assert_array_equal(found.ids, expected.ids)
    # The same where a raster belongs to other triangles: no memory beyond the arrays is touched.
    found.ids[:5] = len(triangles) + 1
    found.ids[5:9] = -4
    image = np.full((30, 30, 4), np.nan, np.float32)
    sets = [device.Attributes(vertices, image)]
    device.interpolate(launcher, sets, found.ids, found.uvz, broken, layout="NHWC")
    assert not image[:9].any()
    assert np.isfinite(image).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sets_of_attributes_fill_their_channels_and_no_others(
    launcher: Launcher, layout: device.Layout, dtype: str
) -> None:
    rng = np.random.default_rng(7)
    for size, channels in (((1, 1), (1,)), ((13, 9), (2, 1, 16)), ((31, 40), (19, 8, 3, 33))):
        vertices, triangles = sheet(5)
        raster = rasterize_reference(vertices, triangles, *size)
        sets, wholes = [], []
        for n, count in enumerate(channels):
            corners = rng.normal(size=(len(vertices), count)).astype(np.float32)
            shape = (count + 3, *size) if layout == "NCHW" else (*size, count + 3)
            whole = np.full((1, *shape) if n % 2 else shape, 77, dtype)
            sets.append(device.Attributes(corners, whole, n))
            wholes.append(
                whole.reshape(shape) if layout == "NHWC" else np.moveaxis(whole.reshape(shape), 0, -1)
            )
            wholes[-1][..., n : n + count] = np.nan
        device.interpolate(launcher, sets, raster.ids, raster.uvz, triangles, layout=layout)
        for entry, whole in zip(sets, wholes, strict=True):
            last = entry.offset + entry.corners.shape[1]
            expected = interpolate_reference(entry.corners, raster, triangles)
            tolerance = 4e-3 if dtype == "float16" else 3e-6
            np.testing.assert_allclose(whole[..., entry.offset : last], expected, atol=tolerance)
            assert (whole[..., : entry.offset] == 77).all()
            assert (whole[..., last:] == 77).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_outlines_are_blended_like_the_twins(
    launcher: Launcher, size: tuple[int, int], layout: device.Layout, dtype: str
) -> None:
    wrong: list[Any] = []
    changed = 0
    for seed in range(3):
        vertices, triangles = soup(seed, 20) if seed % 2 else sheet(seed, cells=5)
        raster = cull(rasterize(vertices, triangles, *size), vertices, triangles)
        corners = np.random.default_rng(seed).normal(size=(len(vertices), 4 + 6 * seed)).astype(np.float32)
        image = interpolate(corners, raster, triangles).astype(dtype)
        # Moved a little, so that edges lie also where no raster of their own would have them.
        vertices[:, :2] += np.random.default_rng(seed).normal(0, 0.4 / max(size), (len(vertices), 2))
        neighbours = edge_neighbours(triangles)
        outlines = np.full(len(triangles), 0xCD, np.uint8)
        device.outlines(launcher, vertices, triangles, neighbours, outlines)
        channels = image.shape[2]
        given = image if layout == "NHWC" else np.ascontiguousarray(image.transpose(2, 0, 1))
        out = np.full((*size, channels + 2) if layout == "NHWC" else (channels + 2, *size), np.nan, dtype)
        device.antialias(
            launcher,
            given,
            out,
            raster.ids,
            raster.uvz,
            vertices,
            triangles,
            outlines,
            layout=layout,
            offset=1,
        )
        found = out if layout == "NHWC" else out.transpose(1, 2, 0)
        assert np.isnan(found[..., [0, -1]]).all()
        plain = image.astype(np.float32)
        expected = antialias_reference(plain, raster, vertices, triangles, neighbours)
        changed += int((expected != plain).any(axis=-1).sum())
        difference = np.abs(found[..., 1:-1].astype(np.float32) - expected).max(axis=-1)
        wrong.append((difference > (1e-2 if dtype == "float16" else 1e-4)).ravel())
        assert np.isfinite(found[..., 1:-1]).all()
    # An edge within rounding of a limit may fall on its other side.
    assert np.concatenate(wrong).mean() <= 0.002
    assert changed > 30 or min(size) < 10


def test_the_whole_way_agrees_with_the_loops_on_a_fine_mesh(launcher: Launcher) -> None:
    vertices, triangles = sheet(9, cells=40)
    corners = np.random.default_rng(1).normal(size=(len(vertices), 19)).astype(np.float32)
    kept = cull(rasterize(vertices, triangles, 128, 128), vertices, triangles)
    neighbours = edge_neighbours(triangles)
    expected = antialias(interpolate(corners, kept, triangles), kept, vertices, triangles, neighbours)
    found = drawn(launcher, vertices, triangles, 128, 128)
    device.cull(launcher, found.ids, found.uvz, vertices, triangles)
    image, smooth = (np.full((128, 128, 19), np.nan, np.float32) for _ in range(2))
    sets = [device.Attributes(corners, image)]
    device.interpolate(launcher, sets, found.ids, found.uvz, triangles, layout="NHWC")
    outlines = np.full(len(triangles), 0xCD, np.uint8)
    device.outlines(launcher, vertices, triangles, neighbours, outlines)
    device.antialias(
        launcher, image, smooth, found.ids, found.uvz, vertices, triangles, outlines, layout="NHWC"
    )
    assert (np.abs(smooth - expected).max(axis=-1) > 1e-2).mean() < 0.003
    assert np.median(np.abs(smooth - expected)) < 1e-5


def test_arrays_that_do_not_fit_are_named(launcher: Launcher) -> None:
    vertices, triangles = sheet(1, cells=2)
    raster = rasterize(vertices, triangles, 4, 5)
    ids, uvz = raster.ids, raster.uvz
    keys, outlines = np.zeros((4, 5), np.int64), np.zeros(len(triangles), np.uint8)
    image, other = np.zeros((2, 4, 5), np.float32), np.zeros((2, 4, 5), np.float32)
    frozen = ids.copy()
    frozen.flags.writeable = False
    pair = np.zeros((len(vertices), 2), np.float32)

    def draw(**changes: Any) -> None:
        device.rasterize(
            launcher,
            **{"vertices": vertices, "triangles": triangles, "keys": keys, "ids": ids, "uvz": uvz} | changes,
        )

    def fill(*sets: device.Attributes, layout: Any = "NCHW") -> None:
        device.interpolate(launcher, sets, ids, uvz, triangles, layout=layout)

    def blend(picture: Any, out: Any, **changes: Any) -> None:
        device.antialias(
            launcher, picture, out, ids, uvz, vertices, triangles, outlines, **{"layout": "NCHW"} | changes
        )

    draw()
    wrong = {
        "vertices: .*any, 4": lambda: draw(vertices=vertices[:, :3].copy()),
        "triangles: .*int64": lambda: draw(triangles=triangles.astype(np.int64)),
        "keys: .*int64 or uint64": lambda: draw(keys=keys.astype(np.int32)),
        "keys: .*sides 1..32768": lambda: draw(keys=keys[:0]),
        r"ids: .*\(4, 5\) int32 that may be written": lambda: draw(ids=frozen),
        r"uvz: .*\(4, 5, 3\)": lambda: draw(uvz=uvz[:3]),
        "contiguous": lambda: draw(vertices=vertices[::2]),
        "0 sets": lambda: fill(),
        "attributes 1: .*float64": lambda: fill(
            device.Attributes(pair, image), device.Attributes(pair.astype(np.float64), other)
        ),
        r"attributes 1: .*\(9, any\)": lambda: fill(
            device.Attributes(pair, image), device.Attributes(pair[:8], other)
        ),
        "out 0: 2 channels; expected room for 2 from 1": lambda: fill(device.Attributes(pair, image, 1)),
        r"out 0: .*\(4, 5, C\)": lambda: fill(device.Attributes(pair, image), layout="NHWC"),
        "layout is 'CHW'": lambda: fill(device.Attributes(pair, image), layout="CHW"),
        "out 1: float16; expected float32": lambda: fill(
            device.Attributes(pair, image), device.Attributes(pair, other.astype(np.float16))
        ),
        "out: shares memory": lambda: blend(image, image),
        "out: float16; expected float32": lambda: blend(image, other.astype(np.float16)),
        "image: .*float64": lambda: blend(image.astype(np.float64), other),
        r"image: .*\(C, 4, 5\)": lambda: blend(image[:, :3].copy(), other),
        "out: 2 channels; expected room for 2 from 1": lambda: blend(image, other, offset=1),
        "neighbours": lambda: device.outlines(launcher, vertices, triangles, triangles[:2], outlines),
        r"out: .*\(8\) uint8": lambda: device.outlines(
            launcher, vertices, triangles, triangles, outlines[:2]
        ),
    }
    for message, call in wrong.items():
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="vertices: list is no array"):
        draw(vertices=[[0.0]])
