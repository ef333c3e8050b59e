"""DECA agrees with its golden numbers, and heads do what their codes say."""

import dataclasses

import pytest
import torch
from reenact.reference import build, parity
from reenact.reference.deca import Codes, codes_of, decode, detail_latent, look, wrinkles
from reenact.reference.deca_raster import rasterize_standard
from reenact.reference.deca_render import (
    lit,
    shape_picture,
    view,
)
from reenact.reference.deca_synthetic import helix_skin
from reenact.reference.fill import Rules, fill
from reenact.reference.flame import Flame
from reenact.reference.golden import read_golden
from reenact.reference.synthetic import helix_landmarks, helix_model

PARTS = [
    *("crop", "d_detail", "decode_helix", "e2e", "e_detail", "e_flame", "flame_helix", "flametex", "losses"),
    *("rasterize_helix", "rotations", "shading", "upsample_mesh", "vertex_normals_helix", "world2uv_helix"),
]
EXACT = {
    "rasterize_helix": ("pix_to_face",),
    "world2uv_helix": ("pix_to_face",),
    "decode_helix": ("alpha_images", "pos_mask"),
    "crop": ("_size",),
}


@pytest.fixture(scope="module")
def flame():
    return Flame(helix_model(), helix_landmarks()).requires_grad_(False)


@pytest.fixture(scope="module")
def skin():
    return helix_skin()


def codes(**changes):
    """Of a plain head that fills the picture, looking ahead in white light."""
    light = torch.zeros(1, 9, 3)
    light[:, 0] = 3.0
    made = {
        **{
            name: torch.zeros(1, count)
            for name, count in (("shape", 100), ("tex", 50), ("exp", 50), ("pose", 6))
        },
        "cam": torch.tensor([[6.0, 0.0, 0.0]]),
        "light": light,
    }
    return Codes(**made | changes)


@pytest.mark.parametrize("part", PARTS)
def test_the_part_agrees_with_its_golden(goldens, part):
    golden = read_golden(goldens / f"deca/{part}.json")
    report = parity.check(golden)
    assert [output.name for output in report.outputs] == list(golden.outputs)
    assert {output.name: output.error for output in report.outputs if not output.passed} == {}
    for output in report.outputs:
        if output.name.endswith(EXACT.get(part, ("never",))):
            assert output.beyond == 0, output.name
        if output.name in ("vertices", "dense_vertices", "joints_posed", "uv_vertices"):
            assert output.error * golden.outputs[output.name].absmax < 1e-6, output.name
        if output.name.endswith(("_tform", "_center")) or output.name.startswith("landmarks"):
            assert output.error * golden.outputs[output.name].absmax < 1e-3, output.name


@pytest.mark.parametrize(
    ("name", "parameters", "entries"),
    [
        ("e_flame", 25_848_108, 322),
        ("e_detail", 25_737_408, 322),
        ("d_detail", 1_773_345, 44),
        ("flametex", 0, 2),
    ],
)
def test_networks_are_as_large_as_published(name, parameters, entries):
    with torch.device("meta"):
        network = build(f"deca/{name}")
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == entries
    assert not network.training


def test_the_decoders_norms_have_their_odd_epsilon():
    norms = [m for m in build("deca/d_detail").modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [norm.eps for norm in norms] == [1e-5, *[0.8] * 5]


def test_wrinkles_are_at_most_a_centimetre_high():
    network = build("deca/d_detail").requires_grad_(False)
    network.get_parameter("conv_blocks.21.bias").fill_(50.0)
    assert network(torch.randn(2, 181)).eq(0.01).all()


@pytest.mark.parametrize("shape", [(1, 3, 256, 256), (3, 224, 224), (1, 1, 224, 224)])
def test_photos_of_another_size_are_an_error(shape):
    with torch.device("meta"), pytest.raises(ValueError, match=r"photos must be \(B, 3, 224, 224\), not"):
        build("deca/e_flame")(torch.zeros(shape))


def test_parameters_are_taken_apart_in_their_order():
    parts = codes_of(torch.arange(236.0)[None])
    firsts = {name: values.flatten()[0].item() for name, values in vars(parts).items()}
    assert firsts == {"shape": 0, "tex": 100, "exp": 150, "pose": 200, "cam": 206, "light": 209}
    assert parts.light[0, 1].tolist() == [212, 213, 214]  # a row a function, a column a channel


def test_the_decoder_sees_jaw_expression_and_detail_but_not_the_heads_turn():
    pose = torch.tensor([[9.0, 9.0, 9.0, 1.0, 2.0, 3.0]])
    latent = detail_latent(pose, torch.full((1, 50), 4.0), torch.full((1, 128), 5.0))
    assert latent[0, :4].tolist() == [1, 2, 3, 4]
    assert latent.unique().tolist() == [1, 2, 3, 4, 5]
    assert latent.shape == (1, 181)


def test_a_view_is_empty_where_there_is_no_head(flame, skin):
    head = decode(flame, skin, codes())
    seen = look(skin, head)
    nobody = seen.alpha[0, 0] == 0
    assert 0.2 < nobody.float().mean() < 0.8
    assert seen.grid[0][nobody].eq(0).all()
    assert seen.normals[0][:, nobody].eq(0).all()
    middle = seen.normals[0, :, 112, 112]
    assert middle[2] > 0.5  # towards the viewer
    assert seen.away[0, 0, 112, 112] < -0.5
    for picture in (lit(seen, torch.ones(1, 3, 256, 256), codes().light), shape_picture(seen)):
        assert picture[0][:, nobody].eq(0).all()
        assert picture[0, :, 112, 112].min() > 0.1


def test_both_rasterisers_show_nearly_the_same_head(flame, skin):
    head = decode(flame, skin, codes())
    given = (skin, head.projected, head.normals, head.projected_normals, 120, 160)
    first, second = view(*given), view(*given, rasterize=rasterize_standard)
    assert first.alpha.shape == (1, 1, 120, 160)
    assert (first.alpha != second.alpha).float().mean() < 0.002
    assert ((first.grid - second.grid).abs().amax(3) > 1e-3).float().mean() < 0.01


def test_landmarks_on_the_far_side_are_told_from_those_seen(flame, skin):
    ahead = decode(flame, skin, codes()).landmarks_3d[0, :, 3]
    behind = decode(flame, skin, codes(pose=torch.tensor([[0.0, torch.pi, 0, 0, 0, 0]]))).landmarks_3d[
        0, :, 3
    ]
    assert 0.3 < ahead.mean() < 0.9
    assert ((ahead + behind) >= 1).all()
    assert (ahead + behind == 1).float().mean() > 0.7


def test_expressions_of_others_move_the_face_and_leave_its_bones(flame, skin):
    own = codes(shape=torch.randn(1, 100, generator=torch.Generator().manual_seed(0)))
    other = torch.randn(1, 50, generator=torch.Generator().manual_seed(1))
    jaw = torch.tensor([[0.0, 0, 0, 0.3, 0, 0]])
    still, moved = (decode(flame, skin, c) for c in (own, dataclasses.replace(own, exp=other, pose=jaw)))
    assert (still.landmarks_2d - moved.landmarks_2d).abs().max() > 1
    detail = torch.randn(1, 128, generator=torch.Generator().manual_seed(2))
    network = build("deca/d_detail").requires_grad_(False)
    fill(network, Rules())
    heights = [
        wrinkles(network, skin, c, detail, head).heights
        for c, head in ((own, still), (dataclasses.replace(own, exp=other), moved))
    ]
    assert (heights[0] - heights[1]).abs().max() > 1e-4


def test_pictures_and_landmarks_have_gradients_in_every_code(flame, skin):
    given = codes(pose=torch.tensor([[0.1, 0.2, 0, 0.1, 0, 0]]))
    leaves = {name: values.clone().requires_grad_() for name, values in vars(given).items() if name != "tex"}
    made = dataclasses.replace(given, **leaves)
    head = decode(flame, skin, made)
    albedo = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    (lit(look(skin, head), albedo, made.light).square().mean() + 1e-4 * head.landmarks_2d.sum()).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all(), name
        assert leaf.grad.abs().max() > 0, name
