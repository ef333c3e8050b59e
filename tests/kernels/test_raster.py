"""The CPU rasteriser against published numbers, against its plain twins, and against answers known without either."""

import json
from pathlib import Path

import numpy as np
import pytest
from reenact.kernels.raster import Raster, antialias, cull, edge_neighbours, interpolate, rasterize
from reenact.kernels.raster_reference import (
    antialias_reference,
    cull_reference,
    edge_neighbours_reference,
    interpolate_reference,
    rasterize_reference,
)

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = (TESTS / "goldens/rasterizer", TESTS.parent / "../shared/goldens/rasterizer")
SIZES = [(1, 1), (1, 40), (33, 1), (7, 5), (64, 33), (31, 70)]


class Golden:
    """One golden scene: `scene["pos"]` for inputs, `scene.seen(name)` for results as (row, column, ...)."""

    def __init__(self, name):
        path = next(
            (folder / f"{name}.npz" for folder in FOLDERS if (folder / f"{name}.npz").is_file()), None
        )
        if path is None:
            pytest.skip(f"../shared/goldens/rasterizer/{name}.npz is absent: too large for the repository")
        self.arrays = dict(np.load(path, allow_pickle=False))
        described = json.loads(path.with_suffix(".json").read_text())
        self.size = described["config"]["resolution"][0]
        self.stride = {key: value["stride"] for key, value in described["outputs"].items()}

    def __getitem__(self, name):
        return self.arrays[f"in:{name}"]

    def ids(self, name):
        return self.arrays[f"out:{name}"].reshape(self.size, self.size).astype(np.int32)

    def published(self):
        """The raster of exactly covered pixels."""
        uvz = self.arrays["out:uvz"]
        if self.stride["uvz"] != 1:
            pytest.skip("this golden holds only every few pixels of uvz")
        return Raster(np.ascontiguousarray(uvz[0].transpose(1, 2, 0)), self.ids("id_ideal"))

    def error(self, name, picture, where):
        """The largest difference to a stored picture over the pixels `where`."""
        step = self.stride[name]
        stored = self.arrays[f"out:{name}"][0].transpose(1, 2, 0)
        difference = np.abs(picture[::step, ::step] - stored).max(axis=-1)
        assert where[::step, ::step].sum() > 3
        return difference[where[::step, ::step]].max()


@pytest.mark.parametrize("name", ["mesh_64", "soup_64", "mesh_256", "soup_256"])
def test_pixels_show_the_published_triangles(name):
    golden = Golden(name)
    raster = rasterize(golden["pos"], golden["tri"], golden.size, golden.size)
    ideal, stable = golden.ids("id_ideal"), golden.ids("stable") > 0
    assert np.array_equal(raster.ids[stable], ideal[stable])
    assert (raster.ids != ideal).sum() <= (0.04 if golden.size == 64 else 0.01) * (ideal > 0).sum()
    # Two centres of mesh_64 lie on a corner where two triangles are at one depth: only there may the order count.
    assert (raster.ids != golden.ids("id_snap16")).sum() <= (2 if name == "mesh_64" else 0)
    same = raster.ids == ideal
    assert golden.error("uvz", raster.uvz, same) < 1e-6
    assert golden.error("attr", interpolate(golden["attr"], raster, golden["tri"]), same) < 1e-6
    if golden["cull"].any():
        raster = cull(raster, golden["pos"], golden["tri"])
        away = golden["cull"][ideal - 1].astype(bool) & (ideal > 0)
        assert np.array_equal(raster.ids[same], np.where(away, 0, ideal)[same])
    assert golden.error("attr_culled", interpolate(golden["attr"], raster, golden["tri"]), same) < 1e-6


@pytest.mark.parametrize("name", ["mesh_64", "soup_64"])
def test_outlines_are_blended_as_published(name):
    golden = Golden(name)
    raster, triangles = golden.published(), golden["tri"]
    if golden["cull"].any():
        raster = cull(raster, golden["pos"], triangles)
    image = interpolate(golden["attr"], raster, triangles)
    blended = antialias(image, raster, golden["pos"], triangles, edge_neighbours(triangles))
    assert golden.error("attr_aa", blended, np.ones(raster.ids.shape, bool)) < 1e-5
    rows, columns = golden.arrays["out:aa_index"].T
    np.testing.assert_allclose(blended[rows, columns], golden.arrays["out:aa_value"], atol=1e-5)
    blended[rows, columns] = image[rows, columns]
    assert np.abs(blended - image).max() < 1e-6


def soup(rng, count=40, reach=1.3, perspective=True):
    """Unrelated triangles, near and far, some cut by the picture's borders."""
    vertices = rng.uniform(-1, 1, (3 * count, 4)) * [reach, reach, 1, 1]
    vertices[:, 3] = rng.uniform(0.5, 2, 3 * count) if perspective else 1
    vertices[:, :3] *= vertices[:, 3:]
    return vertices.astype(np.float32), np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


def sphere(turns=9, around=13, stretch=0.9):
    """A closed ball with w = 1."""
    down, along = np.meshgrid(
        np.linspace(0, np.pi, turns), np.arange(around) * 2 * np.pi / around, indexing="ij"
    )
    x, y, z = np.sin(down) * np.cos(along), np.cos(down), np.sin(down) * np.sin(along)
    vertices = stretch * np.stack([x, y, z, np.full_like(x, 1 / stretch)], axis=-1).reshape(-1, 4)
    i, j = np.meshgrid(np.arange(turns - 1), np.arange(around), indexing="ij")
    a, b = i * around + j, i * around + (j + 1) % around
    quads = np.stack([a, b, a + around, b, b + around, a + around], axis=-1)
    return vertices.astype(np.float32), quads.reshape(-1, 3).astype(np.int32)


def same_rasters(fast, plain):
    """Asserts that two rasters agree but for triangles at practically one depth."""
    differ = fast.ids != plain.ids
    assert differ.mean() < 1e-3
    np.testing.assert_allclose(fast.uvz[differ, 2], plain.uvz[differ, 2], atol=1e-5)
    np.testing.assert_allclose(fast.uvz[~differ], plain.uvz[~differ], atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", [1, 3])
def test_all_steps_agree_with_their_twins_on_many_meshes(size, threads):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        vertices, triangles = sphere() if seed == 0 else soup(rng, reach=3, perspective=seed % 2 > 0)
        raster = rasterize(vertices, triangles, *size, threads=threads)
        plain = rasterize_reference(vertices, triangles, *size)
        same_rasters(raster, plain)
        kept, plain_kept = cull(plain, vertices, triangles), cull_reference(plain, vertices, triangles)
        assert np.array_equal(kept.ids, plain_kept.ids)
        assert np.array_equal(kept.uvz, plain_kept.uvz)
        attributes = rng.normal(size=(len(vertices), seed + 1)).astype(np.float32)
        image = interpolate(attributes, plain, triangles, threads=threads)
        np.testing.assert_allclose(image, interpolate_reference(attributes, plain, triangles), atol=2e-6)
        neighbours = edge_neighbours(triangles)
        # Moved a little, so that edges lie also where no raster of their own would have them.
        moved = vertices + rng.normal(0, 0.4 / max(size), vertices.shape).astype(np.float32)
        blended = antialias(image, kept, moved, triangles, neighbours, threads=threads)
        plain_blended = antialias_reference(image, kept, moved, triangles, neighbours)
        np.testing.assert_allclose(blended, plain_blended, atol=2e-5)


def test_meshes_that_reach_behind_the_eye_agree_with_the_twin():
    covered = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        vertices, triangles = soup(rng, 30)
        vertices += rng.normal(0, 1.0, vertices.shape).astype(np.float32)
        assert (vertices[:, 3] < 0).any()
        raster = rasterize(vertices, triangles, 37, 53)
        same_rasters(raster, rasterize_reference(vertices, triangles, 37, 53))
        covered += (raster.ids > 0).sum()
    assert covered > 8 * 37 * 53 / 2


def test_a_picture_is_the_same_whatever_the_number_of_threads():
    vertices, triangles = soup(np.random.default_rng(3), 60, reach=2)
    one = rasterize(vertices, triangles, 45, 38)
    image = interpolate(vertices, one, triangles)
    neighbours = edge_neighbours(triangles)
    blended = antialias(image, one, vertices, triangles, neighbours)
    assert not np.array_equal(blended, image)
    for threads in (2, 7, 100):
        many = rasterize(vertices, triangles, 45, 38, threads=threads)
        assert np.array_equal(many.ids, one.ids)
        assert np.array_equal(many.uvz, one.uvz)
        assert np.array_equal(interpolate(vertices, many, triangles, threads=threads), image)
        again = antialias(image, many, vertices, triangles, neighbours, threads=threads)
        assert np.array_equal(again, blended)


def quad(z=0.0):
    """The whole picture as two triangles."""
    vertices = np.array([[-1, -1, z, 1], [1, -1, z, 1], [1, 1, z, 1], [-1, 1, z, 1]], np.float32)
    return vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (16, 16), (17, 31)])
def test_attributes_that_are_places_come_back_at_the_pixel_centres(size):
    height, width = size
    vertices, triangles = quad()
    vertices *= np.array([[1], [1.5], [2], [0.7]], np.float32)  # the same places, in perspective
    raster = rasterize(vertices, triangles, height, width)
    assert (raster.ids > 0).all()
    x, y, _, w = np.moveaxis(interpolate(vertices, raster, triangles), -1, 0)
    np.testing.assert_allclose(
        x / w, np.broadcast_to((2 * np.arange(width) + 1) / width - 1, size), atol=1e-5
    )
    rows = ((2 * np.arange(height) + 1) / height - 1)[:, None]
    np.testing.assert_allclose(y / w, np.broadcast_to(rows, size), atol=1e-5)


def test_triangles_around_a_point_share_every_pixel_without_gap_or_overlap():
    rng = np.random.default_rng(5)
    for size in ((16, 16), (31, 18)):
        for middle in (np.zeros(2), rng.uniform(-0.5, 0.5, 2), np.array([1 / 16, -3 / 16])):
            vertices = np.zeros((5, 4), np.float32)
            vertices[:4, :2], vertices[4, :2], vertices[:, 3] = quad()[0][:, :2], middle, 1
            triangles = np.array([[0, 1, 4], [2, 1, 4], [2, 3, 4], [0, 3, 4]], np.int32)
            shown = [rasterize(vertices, one[None], *size).ids for one in triangles]
            assert np.array_equal(np.sum(shown, axis=0), np.ones(size))


def test_the_nearest_is_seen_and_of_equals_the_later():
    near, far = quad(-0.5)[0], quad(0.5)[0]
    triangles = np.concatenate([quad()[1], quad()[1] + 4])
    behind = rasterize(np.concatenate([near, far]), triangles, 6, 6)
    assert set(np.unique(behind.ids)) == {1, 2}
    assert (behind.uvz[..., 2] == -0.5).all()
    assert set(np.unique(rasterize(np.concatenate([far, near]), triangles, 6, 6).ids)) == {3, 4}
    assert set(np.unique(rasterize(np.concatenate([near, near]), triangles, 6, 6).ids)) == {3, 4}


def test_only_what_lies_between_near_and_far_is_seen():
    vertices, triangles = quad()
    vertices[:, 2] = [-3, 3, 3, -3]  # from far before the near plane to far beyond the far one
    raster = rasterize(vertices, triangles, 6, 60)
    assert np.array_equal(np.flatnonzero(raster.ids[3]), np.arange(20, 40))
    np.testing.assert_allclose(raster.uvz[3, 20:40, 2], (2 * np.arange(20, 40) + 1) / 20 - 3, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", range(4))
def test_a_corner_that_is_not_finite_takes_only_its_own_triangles_away(bad, axis):
    vertices, triangles = quad()
    vertices[1, axis] = bad  # a corner of the first triangle alone
    raster = rasterize(vertices, triangles, 8, 8)
    assert np.array_equal(raster.ids, rasterize(quad()[0], triangles[[1]], 8, 8).ids * 2)
    assert np.isfinite(raster.uvz).all()
    assert np.isfinite(interpolate(quad()[0], raster, triangles)).all()


def test_a_corner_in_the_eye_takes_its_triangles_away():
    vertices, triangles = quad()
    vertices[1] = 0
    assert np.array_equal(np.unique(rasterize(vertices, triangles, 8, 8).ids), [0, 2])
    assert np.array_equal(np.unique(rasterize_reference(vertices, triangles, 8, 8).ids), [0, 2])


def test_flat_triangles_are_left_out():
    vertices = np.array(
        [[-1, -1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 1], [1e-9, 0, 0, 1], [0, 1e-9, 0, 1]], np.float32
    )
    flat = np.array([[0, 1, 2], [0, 0, 1], [2, 3, 4]], np.int32)
    assert not rasterize(vertices, flat, 9, 9).ids.any()
    none = rasterize(vertices, np.empty((0, 3), np.int32), 3, 2)
    assert not none.ids.any()
    assert not none.uvz.any()


@pytest.mark.parametrize("reach", [2.0, 1e4, 1e12, 8e37])
def test_corners_far_outside_are_cut_off_without_overflow(reach):
    vertices = np.array([[-reach, -1, 0, 1], [reach, -1, 0, 1], [0, reach, 0, 1]], np.float32)
    raster = rasterize(vertices, np.array([[0, 1, 2]], np.int32), 64, 64)
    assert raster.ids[:, 16:48].all()
    assert raster.ids.all() == (reach > 2)
    beside = vertices + np.array([3 * reach, 0, 0, 0], np.float32)
    assert not rasterize(beside, np.array([[0, 1, 2]], np.int32), 64, 64).ids[:, 0].any()


def test_backs_become_background_and_hide_what_lies_behind():
    vertices = np.concatenate([quad(-0.5)[0], quad(0.5)[0]])
    back, front = quad()[1], quad()[1][:, ::-1] + 4
    triangles = np.ascontiguousarray(np.concatenate([back, front]))
    raster = rasterize(vertices, triangles, 5, 5)
    assert (raster.ids > 0).all()
    kept = cull(raster, vertices, triangles)
    assert not kept.ids.any()
    assert not kept.uvz.any()
    alone = rasterize(vertices, front, 5, 5)
    assert np.array_equal(cull(alone, vertices, front).ids, alone.ids)


def test_neighbours_are_the_corners_across_each_edge():
    triangles = np.array([[0, 1, 2], [2, 1, 3], [4, 5, 6], [6, 5, 7], [5, 6, 8], [1, 3, 3]], np.int32)
    expected = [[3, -1, -1], [-1, -1, 0], [-1] * 3, [-1] * 3, [-1] * 3, [-1] * 3]
    assert edge_neighbours(triangles).tolist() == expected
    assert edge_neighbours_reference(triangles).tolist() == expected
    assert edge_neighbours(np.empty((0, 3), np.int32)).shape == (0, 3)
    rng = np.random.default_rng(2)
    for triangles in (sphere()[1], rng.integers(0, 12, (60, 3), np.int32), np.zeros((4, 3), np.int32)):
        assert np.array_equal(edge_neighbours(triangles), edge_neighbours_reference(triangles))


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("border", [3.7, 4.2, 4.5, 4.9])
def test_an_outline_is_blended_by_the_part_of_the_pixel_that_it_covers(border, down):
    vertices, triangles = quad()
    vertices[1:3, 0] = border / 4 - 1  # of eight pixels
    vertices[:, 1] *= 2  # no corner in the picture
    if down:
        vertices[:, :2] = vertices[:, 1::-1].copy()
    raster = rasterize(vertices, triangles, 8, 8)
    image = interpolate(np.ones((4, 1), np.float32), raster, triangles)
    neighbours = edge_neighbours(triangles)
    blended = antialias(image, raster, vertices, triangles, neighbours)[..., 0]
    covered = np.clip(border - np.arange(8), 0, 1)
    expected = np.broadcast_to(covered[:, None] if down else covered, (8, 8))
    np.testing.assert_allclose(blended, expected, atol=1e-6)
    # Were the outline joined to a triangle on its other side, nothing would be blended.
    vertices = np.concatenate([vertices, [[9, 9, 0, 1]]]).astype(np.float32)
    joined = np.where(neighbours < 0, np.int32(4), neighbours)
    assert np.array_equal(antialias(image, raster, vertices, triangles, joined), image)


@pytest.mark.parametrize(
    ("vertices", "triangles", "size", "message"),
    [
        (np.zeros((3, 3), np.float32), np.zeros((1, 3), np.int32), (4, 4), r"vertices must be \(V, 4\)"),
        (np.zeros((3, 4)), np.zeros((1, 3), np.int32), (4, 4), "float64"),
        (np.zeros((3, 4), np.float32), np.zeros((1, 3), np.int64), (4, 4), "triangles must be.*int64"),
        (np.zeros((3, 4), np.float32), np.zeros(3, np.int32), (4, 4), r"triangles must be \(T, 3\)"),
        (np.zeros((3, 4), np.float32), np.full((1, 3), 3, np.int32), (4, 4), "outside 0..2"),
        (np.zeros((3, 4), np.float32), np.full((1, 3), -1, np.int32), (4, 4), "outside 0..2"),
        (np.zeros((3, 4), np.float32), np.zeros((1, 3), np.int32), (0, 4), "not 0 and 4"),
        (np.zeros((3, 4), np.float32), np.zeros((1, 3), np.int32), (4, 32769), "1..32768"),
    ],
)
def test_wrong_meshes_and_sizes_are_refused(vertices, triangles, size, message):
    with pytest.raises(ValueError, match=message):
        rasterize(vertices, triangles, *size)


def test_arrays_that_do_not_fit_the_raster_are_refused():
    vertices, triangles = quad()
    raster = rasterize(vertices, triangles, 4, 5)
    image = interpolate(vertices, raster, triangles)
    neighbours = edge_neighbours(triangles)
    wrong = {
        "attributes must be": lambda: interpolate(vertices.astype(np.float64), raster, triangles),
        "outside 0..2": lambda: interpolate(vertices[:3], raster, triangles),
        "not among these 1": lambda: interpolate(vertices, raster, triangles[:1]),
        "ids must be": lambda: cull(Raster(raster.uvz, raster.ids[0]), vertices, triangles),
        "uvz must be": lambda: cull(Raster(raster.uvz[:3], raster.ids), vertices, triangles),
        "vertices must be": lambda: cull(raster, vertices[:, :3], triangles),
        "image must be": lambda: antialias(image[:3], raster, vertices, triangles, neighbours),
        "neighbours must be": lambda: antialias(image, raster, vertices, triangles, neighbours[:1]),
        "neighbours name": lambda: antialias(image, raster, vertices, triangles, neighbours + 4),
        "triangles must be": lambda: edge_neighbours(triangles.astype(np.uint32)),
        "threads must be 1": lambda: rasterize(vertices, triangles, 4, 5, threads=0),
    }
    for message, call in wrong.items():
        with pytest.raises(ValueError, match=message):
            call()
