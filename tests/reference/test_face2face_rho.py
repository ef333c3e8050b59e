"""The networks of Face2Face-rho keep their promises at sizes, batches and settings without golden numbers."""

import pytest
import torch
from reenact.errors import ReenactError
from reenact.reference import build, settings_of
from reenact.reference.face2face_rho import MotionNet, RenderingNet, SourceFeatures, read_config
from reenact.reference.fill import image
from reenact.reference.layers import InvertedResidual, Spade, warp

SOURCE_POSE = torch.tensor([[0.09, 0.22, 0.09, 0.27, -0.26, 0.0013], [-0.1, 0.0, 0.1, 0.2, -0.3, 0.0011]])
DRIVING_POSE = torch.tensor([[-0.04, 0.19, 0.02, 0.28, -0.24, 0.0011], [0.2, -0.2, 0.0, 0.25, -0.2, 0.0015]])


@pytest.fixture(scope="module")
def rendering_net(filled):
    return filled("rendering_net")


@pytest.fixture(scope="module")
def motion_net(filled):
    return filled("motion_net")


@pytest.fixture
def write(tmp_path):
    def make(text):
        path = tmp_path / "test.ini"
        path.write_text(text)
        return path

    return make


def picture(name, size, batch=2, channels=3):
    return torch.from_numpy(image(name, (batch, channels, size, size)))


def field(size, batch=2):
    return picture("field", size, batch, channels=2).permute(0, 2, 3, 1)


def motion_inputs(size, batch=2):
    return [picture(f"input{i}", size // k, batch, channels=9) for i, k in enumerate((16, 8, 4))]


@pytest.mark.parametrize(
    ("name", "parameters", "entries"),
    [("rendering_net", 4_533_456, 503), ("motion_net", 6_781_302, 179), ("discriminator", 2_761_921, 16)],
)
def test_networks_are_as_large_as_published(name, parameters, entries):
    network = build(f"face2face_rho/{name}")
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == entries
    assert not network.training


def test_only_two_blocks_end_without_a_norm(rendering_net):
    bare = [
        name
        for name, module in rendering_net.named_modules()
        if isinstance(module, InvertedResidual) and not isinstance(module.conv[-1], torch.nn.BatchNorm2d)
    ]
    assert bare == ["en_res_block.0.0.0", "de_res_block.0.0.0"]


def test_splitting_off_the_source_changes_no_bit(rendering_net):
    whole = rendering_net(picture("source", 128), field(32), SOURCE_POSE, DRIVING_POSE)
    source = rendering_net.register_source(picture("source", 128), SOURCE_POSE)
    assert torch.equal(rendering_net.decode(source, field(32), DRIVING_POSE), whole)
    assert torch.equal(rendering_net.decode(source, field(32), DRIVING_POSE), whole)


@pytest.mark.parametrize("size", [256, 320])
def test_rendering_works_at_other_sizes(rendering_net, size):
    source = rendering_net.register_source(picture("source", size, 1), SOURCE_POSE[:1])
    shapes = [tuple(features.shape) for features in source]
    assert shapes == [
        (1, 28, size // 4, size // 4),
        (1, 72, size // 8, size // 8),
        (1, 140, size // 16, size // 16),
        (1, 280, size // 16, size // 16),
    ]
    assert all((features >= 0).all() for features in source)
    result = rendering_net.decode(source, field(size // 4, 1), DRIVING_POSE[:1])
    assert result.shape == (1, 3, size, size)
    assert result.std() > 0.1
    assert result.abs().max() <= 1


@pytest.mark.parametrize("size", [64, 256, 320])
def test_motion_works_at_other_sizes(motion_net, size):
    fields = motion_net(*motion_inputs(size, 1))
    assert fields.low.shape == (1, size // 16, size // 16, 2)
    assert fields.middle.shape == (1, size // 8, size // 8, 2)
    assert fields.high.shape == (1, size // 4, size // 4, 2)


def test_a_batch_of_two_equals_two_single_runs(rendering_net, motion_net):
    both = rendering_net(picture("source", 64), field(16), SOURCE_POSE, DRIVING_POSE)
    motion = motion_net(*motion_inputs(64)).high
    for i in range(2):
        one = slice(i, i + 1)
        single = rendering_net(
            picture("source", 64)[one], field(16)[one], SOURCE_POSE[one], DRIVING_POSE[one]
        )
        torch.testing.assert_close(both[one], single, rtol=0, atol=5e-5)
        alone = motion_net(*(given[one] for given in motion_inputs(64))).high
        torch.testing.assert_close(motion[one], alone, rtol=0, atol=1e-5)
    assert (both[0] - both[1]).abs().max() > 0.1


def test_source_and_driving_poses_go_through_their_own_encoders(rendering_net):
    same = rendering_net(picture("source", 64), field(16), SOURCE_POSE, DRIVING_POSE)
    swapped = rendering_net(picture("source", 64), field(16), DRIVING_POSE, SOURCE_POSE)
    source = rendering_net.register_source(picture("source", 64), SOURCE_POSE)
    turned = rendering_net.register_source(picture("source", 64), DRIVING_POSE)
    assert (same - swapped).abs().max() > 1e-3
    assert (source.x2_in - turned.x2_in).abs().max() > 1e-3


def test_a_field_of_another_size_drives_the_decoder_by_its_nearest_entries(rendering_net):
    source = rendering_net.register_source(picture("source", 128, 1), SOURCE_POSE[:1])
    small = field(16, 1)
    blown_up = small.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(
        rendering_net.decode(source, small, DRIVING_POSE[:1]),
        rendering_net.decode(source, blown_up, DRIVING_POSE[:1]),
    )


def test_warp_counts_from_the_pixels_edges_and_is_black_outside():
    features = torch.arange(1.0, 17).reshape(1, 1, 4, 4)
    centres = (torch.arange(4) * 2 + 1) / 4 - 1
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1)[None]
    torch.testing.assert_close(warp(features, grid), features)
    half_a_pixel_out = grid.clone()
    half_a_pixel_out[:, :, 0, 0] = -1
    torch.testing.assert_close(warp(features, half_a_pixel_out)[0, 0, :, 0], features[0, 0, :, 0] / 2)


def test_spade_looks_its_condition_up_by_the_nearest_cell():
    torch.manual_seed(0)
    spade = Spade(5, 32).eval()
    condition = torch.randn(1, 32, 16, 16)
    features = torch.randn(1, 5, 28, 28)
    cells = torch.arange(28) * 16 // 28
    chosen = condition[:, :, cells][:, :, :, cells]
    assert torch.equal(spade(features, condition), spade(features, chosen))


@pytest.mark.parametrize(("side", "valid"), [(100, "96 or 112"), (8, "16")])
def test_rendering_says_which_sides_are_valid(rendering_net, side, valid):
    with pytest.raises(ReenactError, match=f"side {side}; .* multiple of 16, such as {valid}$"):
        rendering_net.register_source(torch.zeros(1, 3, side, side), SOURCE_POSE[:1])


@pytest.mark.parametrize("shape", [(1, 3, 64, 32), (1, 4, 64, 64), (3, 64, 64)])
def test_rendering_refuses_what_is_no_square_picture(rendering_net, shape):
    with pytest.raises(ReenactError, match=r"needs \(B, 3, S, S\)"):
        rendering_net.register_source(torch.zeros(shape), SOURCE_POSE[:1])


@pytest.mark.parametrize("shape", [(2, 16, 16, 2), (1, 2, 16, 16), (16, 16, 2)])
def test_rendering_refuses_a_field_that_does_not_fit(rendering_net, shape):
    source = SourceFeatures(*(torch.zeros(1, c, 4, 4) for c in (28, 72, 140, 280)))
    with pytest.raises(ReenactError, match=r"the field has the shape .* expected \(B, h, w, 2\)"):
        rendering_net.decode(source, torch.zeros(shape), DRIVING_POSE[:1])


@pytest.mark.parametrize(("size", "valid"), [(1440, "1408 or 1472"), (720, "704 or 768"), (32, "64")])
def test_motion_says_which_sizes_are_valid(motion_net, size, valid):
    given = [torch.zeros(1, 9, size // k, size // k) for k in (16, 8, 4)]
    with pytest.raises(ReenactError, match=f"S = {size} .* multiple of 64, such as {valid}$"):
        motion_net(*given)


def test_motion_says_which_input_has_the_wrong_shape(motion_net):
    first, second, third = motion_inputs(64, 1)
    with pytest.raises(ReenactError, match=r"input2 .* expected \(1, 9, 8, 8\) for S = 64"):
        motion_net(first, third, third)
    with pytest.raises(ReenactError, match="input1"):
        motion_net(first[:, :, :2], second, third)


def test_other_settings_make_other_networks():
    motion = MotionNet(mn_ngf=4, mn_n_downsampling=1, mn_n_blocks_local=1).eval()
    assert motion(*motion_inputs(32, 1)).high.shape == (1, 8, 8, 2)
    rendering = RenderingNet(
        headpose_dims=3,
        headpose_embedding_ngf=2,
        mobilev2_encoder_channels=(4, 4, 6, 6, 8, 8, 10, 12),
        mobilev2_decoder_channels=(4, 4, 4, 6, 6, 8, 10, 12),
        mobilev2_encoder_layers=(1, 1, 1, 1, 1, 1, 2),
        mobilev2_decoder_layers=(1,) * 7,
        mobilev2_encoder_expansion_factor=(1, 2, 2, 2, 2, 2, 1.5),
        mobilev2_decoder_expansion_factor=(1,) * 7,
    ).eval()
    result = rendering(picture("source", 32), field(8), SOURCE_POSE[:, :3], DRIVING_POSE[:, :3])
    assert result.shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mobilev2_encoder_layers": (1, 2)}, "mobilev2_encoder_layers has 2 numbers; expected 7"),
        ({"mobilev2_decoder_channels": (16,) * 7 + (0,)}, "mobilev2_decoder_channels contains 0"),
        ({"mobilev2_decoder_channels": (16,) * 8}, "ends with 16, mobilev2_encoder_channels with 280"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(config, message):
    with pytest.raises(ReenactError, match=message):
        build("face2face_rho/rendering_net", **config)


def test_the_official_settings_file_is_read(write, rho_ini):
    config = read_config(write(rho_ini))
    assert config["mobilev2_decoder_channels"] == [16, 8, 14, 24, 64, 96, 140, 280]
    assert config["epoch"] == "105"
    assert config["load_iter"] == 0
    assert config["isTrain"] is False
    for name in ("rendering_net", "motion_net"):
        full = f"face2face_rho/{name}"
        official = build(full, **settings_of(full, config)).state_dict()
        released = build(full).state_dict()
        assert [(k, v.shape) for k, v in official.items()] == [(k, v.shape) for k, v in released.items()]


def test_a_bool_is_true_only_for_the_exact_text(write, rho_ini):
    assert read_config(write(rho_ini.replace("isTrain = False", "isTrain = true")))["isTrain"] is False


def test_both_spellings_of_the_discriminators_settings_are_read(write, rho_ini):
    assert read_config(write(rho_ini + "block_expansion = 16\n"))["disc_block_expansion"] == 16
    with pytest.raises(ReenactError, match="disc_num_blocks is there under two names"):
        read_config(write(rho_ini + "num_blocks = 4\ndisc_num_blocks = 4\n"))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("mn_ngf = 16\n", "", r"\[ROOT\] lacks mn_ngf"),
        ("mn_ngf = 16", "mn_nfg = 16", "unknown key mn_nfg .* did you mean mn_ngf"),
        ("mn_ngf = 16", "mn_ngf = sixteen", "mn_ngf is 'sixteen'; expected an integer"),
        ("mn_ngf = 16", "mn_ngf = 16\nmn_ngf = 16", "mn_ngf is there twice"),
        ("16,8,12,28", "16;8;12;28", "mobilev2_encoder_channels is .* expected integers separated by commas"),
        ("= 1,6,6", "= 1,nan,6", "mobilev2_encoder_expansion_factor is .* expected numbers"),
        ("n_local_enhancers = 2", "n_local_enhancers = 1", "n_local_enhancers is 1"),
        ("isTrain = False", "isTrain = True", "lacks init_type, .* which training"),
        ("[ROOT]", "[TRAIN]", r"no section \[ROOT\]; its sections are: \[TRAIN\]"),
        ("[ROOT]", "", "expected an ini file"),
    ],
)
def test_a_wrong_settings_file_is_named_with_its_key(write, rho_ini, before, after, message):
    path = write(rho_ini.replace(before, after))
    with pytest.raises(ReenactError, match=message) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_foreign_settings_file_is_an_error(tmp_path):
    with pytest.raises(ReenactError, match="cannot be read"):
        read_config(tmp_path / "none.ini")
    (tmp_path / "binary.ini").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReenactError, match="not UTF-8"):
        read_config(tmp_path / "binary.ini")
