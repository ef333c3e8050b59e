"""DECA at run time gives what the reference gives: heads, wrinkles, textures, pictures."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from reenact.errors import BundleError
from reenact.runtime.bundle import Bundle
from reenact.runtime.systems.deca import render
from reenact.runtime.systems.deca.model import Deca
from reenact.runtime.systems.deca.pictures import landmarks_picture, side_by_side
from reenact.runtime.systems.deca.reconstruction import grid, reconstruct, reposed
from reenact.runtime.systems.deca.skin import Skin
from reenact.runtime.systems.protocol import SystemSettings
from reenact.runtime.tracking.flame_crop import FaceSquare
from reenact.runtime.tracking.flame_fit import View

torch = pytest.importorskip("torch", reason="the reference is in torch, which is not installed")


@pytest.fixture(scope="module")
def deca(deca_export):
    with Deca(SystemSettings(deca_export.folder, backend="cpu")) as opened:
        yield opened


@pytest.fixture(scope="module")
def views():
    random = np.random.default_rng(0)
    crops = random.random((2, 3, 224, 224), np.float32)
    crops[1] *= 0.3
    return [View(crop, FaceSquare(100, 90, 120).to_crop()) for crop in crops]


@pytest.fixture(scope="module")
def made(deca, views):
    """The second of two faces that were looked at together, its head turned and its jaw open."""
    seen = reconstruct(deca, views)[1]
    pose = np.array([0.1, -0.4, 0.05, 0.25, 0.02, 0], np.float32)
    exp = np.random.default_rng(1).normal(0, 0.7, 50).astype(np.float32)
    return dataclasses.replace(reposed(deca, seen, exp, pose, seen.fit.cam), crop=seen.crop)


@pytest.fixture(scope="module")
def expected(deca_export, made):
    """The same by the reference: head, wrinkles, view, skin."""
    from reenact.reference import deca as published
    from reenact.reference.deca_skin import blended_detail_normals, head_skin
    from reenact.reference.flame import Flame

    files = deca_export.files
    flame = Flame(files.flame, files.landmarks).requires_grad_(False)
    template = files.template
    skin = head_skin(
        *(template.triangles, template.uvs, template.uv_triangles),
        *(template.face_eye_mask / np.float32(255), template.fixed_displacement),
    )
    names = ("shape", "tex", "exp", "pose", "cam", "light")
    codes = published.Codes(**{name: torch.from_numpy(getattr(made.fit, name))[None] for name in names})
    with torch.no_grad():
        head = published.decode(flame, skin, codes)
        d_detail = deca_export.checkpoint.networks["d_detail"]
        wrinkled = published.wrinkles(d_detail, skin, codes, torch.from_numpy(made.detail)[None], head)
        blended = blended_detail_normals(skin, wrinkled.normals, head.normals)
    return codes, head, wrinkled, blended, published.look(skin, head), skin


def apart(ours, theirs):
    """Largest distance of our (H, W, C) or (N, C) to their batch of one, channels first where it is a picture."""
    theirs = theirs[0].numpy()
    return np.abs(ours - (theirs.transpose(1, 2, 0) if theirs.ndim == 3 and ours.ndim == 3 else theirs))


def test_two_faces_looked_at_together_are_what_each_is_alone(deca, views):
    both = deca.fit(views)
    for view, fit in zip(views, both, strict=True):
        (alone,) = deca.fit([view])
        assert np.abs(alone.exp - fit.exp).max() < 1e-5
        assert np.abs(alone.light - fit.light).max() < 1e-5
    assert np.abs(both[0].exp - both[1].exp).max() > 1e-3
    assert deca.fit([]) == []


def test_the_head_is_the_references(made, expected):
    _, head, *_ = expected
    assert apart(made.head.vertices, head.vertices).max() < 1e-6
    assert apart(made.head.projected, head.projected).max() < 1e-5
    for ours, theirs in (
        (made.head.normals, head.normals),
        (made.head.projected_normals, head.projected_normals),
    ):
        assert (apart(ours, theirs).max(axis=1) > 1e-3).mean() < 0.01
    assert apart(made.head.landmarks_2d, head.landmarks_2d).max() < 1e-3
    assert apart(made.head.landmarks_3d, head.landmarks_3d).max() < 1e-3
    assert 0 < made.head.landmarks_3d[:, 3].sum() < 68  # the turned head hides some


def test_the_landmarks_alone_are_those_of_the_whole_head(deca, made):
    points = deca.points(made.person, made.fit.exp, made.fit.pose)
    scale, x, y = made.fit.cam
    px = 112 * scale * (points.landmarks_3d[:, :2] + [x, y]) * [1, -1] + 112
    assert np.abs(px - made.head.landmarks_3d[:, :2]).max() < 1e-3
    assert points.keypoints.shape == points.keypoints_unturned.shape == (72, 3)
    assert np.abs(points.keypoints[30] - points.landmarks_3d[30]).max() < 1e-6
    still = deca.points(made.person, made.fit.exp, made.fit.pose * np.float32([0, 0, 0, 1, 1, 1]))  # type: ignore[arg-type]
    assert np.abs(points.keypoints_unturned - still.keypoints).max() < 1e-6


def test_wrinkles_and_their_normals_are_the_references(made, expected):
    _, _, wrinkled, blended, _, _ = expected
    assert np.abs(made.wrinkles.heights - wrinkled.heights[0, 0].numpy()).max() < 1e-7
    assert np.abs(made.wrinkles.displacement - wrinkled.displacement[0, 0].numpy()).max() < 1e-7
    assert (apart(made.wrinkles.normals, blended) > 1e-3).mean() < 0.005


def test_pictures_show_what_the_reference_shows(deca, made, expected):
    from reenact.reference.deca_render import depth_picture, lit, shape_picture

    codes, head, _, blended, seen, skin = expected
    alike = made.view.alpha[..., 0] == seen.alpha[0, 0].numpy()
    assert (~alike).mean() < 0.01
    albedo = np.random.default_rng(2).random((256, 256, 3), np.float32)
    theirs = torch.from_numpy(albedo.transpose(2, 0, 1))[None]
    for ours, wanted in (
        (made.view.normals, seen.normals),
        (render.shape_picture(made.view), shape_picture(seen)),
        (render.shape_picture(made.view, made.wrinkles.normals), shape_picture(seen, blended)),
        (render.lit(made.view, albedo, made.fit.light), lit(seen, theirs, codes.light)),
        (
            render.depth_picture(deca.skin, made.head.projected, made.view)[..., None],
            depth_picture(skin, head.projected, 224, 224),
        ),
    ):
        assert ours.max() > 0.3
        assert (apart(ours, wanted)[alike] > 5e-3).mean() < 0.01


def test_the_back_of_the_head_has_no_seam_where_the_skin_is_cut(deca, made):
    """There no wrinkles count, so that the wrinkled head looks like the coarse one."""
    around = np.array([0, np.pi, 0, 0, 0, 0], np.float32)
    back = reposed(deca, made, made.fit.exp, around, made.fit.cam)
    coarse, detailed = (render.shape_picture(back.view, map_) for map_ in (None, back.wrinkles.normals))
    across = back.head.projected[0, 0] * 112 + 112  # the crown's place, above the cut
    middle = slice(int(across) - 20, int(across) + 20)
    assert coarse[:, middle].max() > 0.5
    assert np.abs(coarse - detailed)[:, middle].max() < 0.03


def test_the_texture_is_the_photo_on_the_skin(deca, made, expected):
    from reenact.reference.deca_texture import photo_texture

    _, head, _, _, _, skin = expected
    photo = torch.from_numpy(made.crop)[None]
    wanted = photo_texture(skin, photo, head.projected, photo.new_tensor(0.7))
    texture = deca.skin.texture(made.crop, made.head.projected, 0.7)
    assert (apart(texture, wanted) > 5e-3).mean() < 0.005


def test_a_colour_models_skin_is_what_the_code_says(deca, made, deca_export):
    from reenact.reference.deca_texture import FlameTex

    colours = deca_export.files.albedo
    reference = FlameTex()
    reference.load_state_dict(
        {
            "texture_mean": torch.from_numpy(colours.mean)[None, None],
            "texture_basis": torch.from_numpy(colours.basis)[None],
        }
    )
    assert deca.has_albedo
    tex = np.random.default_rng(5).normal(0, 1, 50).astype(np.float32)
    assert apart(deca.albedo(tex), reference(torch.from_numpy(tex)[None])).max() < 1e-6
    assert np.abs(deca.albedo(tex) - made.albedo).max() > 0.02


def test_skin_that_no_photo_shows_has_the_models_colours_in_the_photos_light(deca, views, deca_export):
    from reenact.reference.deca_render import sh_shading
    from reenact.reference.deca_texture import hidden_colours

    (one,) = reconstruct(deca, views[:1])
    light = one.fit.light * np.linspace(-0.5, 1, 9, dtype=np.float32)[:, None] ** 2
    (lit,) = reconstruct(deca, views[:1], [dataclasses.replace(one.fit, light=light)])
    for given in (one, lit):
        assert given.albedo is not None
        albedo, normals = (
            torch.from_numpy(values.transpose(2, 0, 1).copy())[None]
            for values in (given.albedo, given.wrinkles.normals)
        )
        shading = sh_shading(normals, torch.from_numpy(given.fit.light)[None])
        hidden = deca_export.files.template.face_eye_mask == 0
        wanted = hidden_colours(albedo, shading)
        assert apart(given.texture, wanted)[hidden].max() < 1e-5
    assert np.abs(one.texture - lit.texture)[hidden].mean() > 0.02
    assert (one.texture == lit.texture)[~hidden].all()


def test_the_dense_mesh_has_a_vertex_a_pixel_of_skin_and_no_bridges(deca, made):
    shown = Bundle.open(deca._bundle.folder).arrays("skin")["pixel_triangles"] >= 0
    dense = deca.skin.dense_mesh(
        made.head.vertices, made.head.normals, made.wrinkles.displacement, made.texture
    )
    assert len(dense.vertices) == len(dense.colours) == shown.sum()
    assert dense.triangles.max() == len(dense.vertices) - 1
    assert len(np.unique(dense.triangles)) > 0.98 * len(dense.vertices)
    sides = dense.vertices[dense.triangles] - np.roll(dense.vertices[dense.triangles], 1, axis=1)
    assert np.linalg.norm(sides, axis=2).max() < 0.01  # metres
    front = dense.vertices[dense.triangles].mean(axis=1)
    cross = np.cross(sides[:, 1], sides[:, 2])
    outwards = (cross * (front - made.head.vertices.mean(axis=0))).sum(axis=1)
    assert (outwards > 0).mean() > 0.85


def test_charts_that_touch_on_the_spread_out_skin_are_not_joined():
    """Four sheets side by side: the second follows the first, the third is far away, the fourth behind it."""
    left, right = np.array([0, 0.25, 0.5, 0.75]), np.array([0.25, 0.5, 0.75, 1])
    uvs = np.stack([[(a, 1), (b, 1), (a, 0), (b, 0)] for a, b in zip(left, right, strict=True)])
    uvs = uvs.reshape(-1, 2).astype(np.float32)
    uv_triangles = np.concatenate([[[i, i + 2, i + 1], [i + 1, i + 2, i + 3]] for i in (0, 4, 8, 12)])
    uv_triangles[uv_triangles == 4], uv_triangles[uv_triangles == 6] = 1, 3  # the first two are one chart
    triangles = uv_triangles.copy()
    triangles[triangles == 13] = 8  # the fourth hangs on the third by a corner, in the mesh alone
    place = np.c_[uvs, np.zeros(16)].astype(np.float32)
    place[8:12] += [5, 0, 0]
    place[12:] += [5, 0, 3]
    column = (np.arange(256) + 0.5) / 256
    across, down = np.meshgrid(column, column)
    sheet, x = np.divmod(across * 4, 1)
    second = x + down > 1  # beyond the diagonal from the lower left to the upper right
    shown = (2 * sheet + second).astype(np.int32)
    weights = np.where(
        second[..., None],
        np.stack([1 - down, 1 - x, x + down - 1], 2),
        np.stack([1 - x - down, down, x], 2),
    ).astype(np.float32)
    side, landmarks = (256, 256), (68, 3)
    arrays = {
        "triangles": triangles.astype(np.int32),
        "uvs": uvs,
        "uv_triangles": uv_triangles.astype(np.int32),
        "face_eye_mask": np.full(side, 255, np.uint8),
        "fixed_displacement": np.zeros(side, np.float32),
        "pixel_triangles": shown,
        "pixel_weights": weights,
        "landmark_corners": np.zeros(landmarks, np.int32),
        "landmark_weights": np.zeros(landmarks, np.float32),
    }
    flat, ahead = np.zeros(side, np.float32), np.tile(np.float32([0, 0, 1]), (16, 1))  # type: ignore[arg-type]
    skin = Skin(arrays, 16)
    assert np.abs(skin.spread(place)[:, :128, :2] - np.stack([across, 1 - down], 2)[:, :128]).max() < 1e-5
    dense = skin.dense_mesh(place, ahead, flat, np.zeros((*side, 3), np.float32))
    assert len(dense.vertices) == 256**2
    assert len(dense.triangles) == 2 * 255 * (127 + 63 + 63)  # a column each is left out at two borders


def test_the_grid_shows_five_pictures_in_their_order_and_a_sixth_with_a_colour_model(made):
    shown = grid(dataclasses.replace(made, albedo=None))
    assert shown.shape == (224, 1120, 3)
    lit = grid(made)
    assert (lit[:, :1120] == shown).all()
    assert (lit[:, 1120:] == side_by_side([render.lit(made.view, made.albedo, made.fit.light)])).all()
    assert lit[:, 1120:][made.view.alpha[..., 0] > 0].max(axis=1).mean() > 30
    photo = (made.crop.transpose(1, 2, 0) * 255).astype(np.uint8)
    assert (shown[:, :224] == photo).all()
    assert 0 < (shown[:, 224:448] != photo).any(axis=2).mean() < 0.3
    assert (shown[:, 672:896][made.view.alpha[..., 0] == 0] == 0).all()
    assert (shown[:, 896:] != shown[:, 672:896]).any()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_stays_as_it_is_over_heads_and_their_pictures(deca):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    random = np.random.default_rng(0)
    crops, to_crop = random.random((4, 3, 224, 224), np.float32), FaceSquare(100, 90, 120).to_crop()
    (first,) = reconstruct(deca, [View(crops[0], to_crop)])
    for number in range(160):
        view = View(crops[number % 4].copy(), to_crop)
        (fit,) = deca.fit([view])
        (one,) = reconstruct(deca, [view], [fit], first.detail[None], first.person)
        grid(one)
        if number == 59:
            settled = resident()
    assert resident() - settled < 0.1 * 100  # megabytes; a crop alone is six times that a frame


def test_landmarks_are_drawn_as_the_reference_draws_them():
    from reenact.reference import deca_pictures

    random = np.random.default_rng(4)
    photo = random.random((80, 90, 3), np.float32)
    points = np.c_[random.uniform(-20, 110, (68, 3)), random.integers(0, 2, 68)].astype(np.float32)
    points[3] = np.float32([1e9, -1e9, 0, 1])  # type: ignore[arg-type]
    for landmarks in (points, points[:, :2]):
        theirs = deca_pictures.landmarks_picture(photo.transpose(2, 0, 1), landmarks)
        assert (landmarks_picture(photo, landmarks) == theirs.transpose(1, 2, 0)).all()
    assert side_by_side([photo, photo]).shape == (80, 180, 3)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("triangles", lambda values: values + 5000),
        ("uvs", lambda values: values * np.float32(np.nan)),
        ("pixel_weights", lambda values: values[:5]),
        ("face_eye_mask", lambda values: values.astype(np.int64)),
        ("landmark_corners", None),
    ],
)
def test_damaged_arrays_are_named(deca_export, name, change):
    arrays = Bundle.open(deca_export.folder).arrays("skin")
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays[name])
    with pytest.raises(BundleError, match=name):
        Skin(arrays, 5023)
