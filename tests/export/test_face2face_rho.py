"""Face2Face-rho's graphs are its published networks, in torch, in ONNX and on each backend."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from reenact.errors import ModelError, ReenactError
from reenact.export import exporter
from reenact.export import face2face_rho as rho
from reenact.export.face2face_rho_graphs import FrameGraph, Sizes, SourceGraph, require_released_layout
from reenact.export.onnx import compare
from reenact.reference.checkpoints import save_state
from reenact.reference.face2face_rho import MotionNet, RenderingNet
from reenact.runtime.bundle import Bundle
from reenact.runtime.engine import load
from torch.nn import functional

SIZE = 128  # of the bundle


@pytest.fixture(scope="module")
def checkpoint(rho_checkpoint):
    return rho.read_checkpoint(rho_checkpoint)


@pytest.fixture(scope="module")
def networks(checkpoint):
    found = (
        checkpoint.network("rendering_net", RenderingNet),
        checkpoint.network("motion_net", MotionNet),
    )
    for network in found:
        network.requires_grad_(False)
    return found


@pytest.fixture(scope="module")
def portrait():
    return dict(rho.samples(Sizes.of(SIZE)))["portrait"]


def graphs(networks, size):
    """The source's and the frame's module."""
    rendering, motion = networks
    made = (kind(rendering, motion, Sizes.of(size)) for kind in (SourceGraph, FrameGraph))
    return [module.eval().requires_grad_(False) for module in made]


def normal(image):
    """(H, W, 3) uint8 to (1, 3, H, W) in [-1, 1], as the published code reads pictures."""
    return (2 * image.float() / 255 - 1).permute(2, 0, 1)[None]


def published(networks, sizes, source, frame):
    """The four features and the levels 0..255 of the picture, step by step as the published code does it."""
    rendering, motion = networks
    picture = normal(source["image"])
    seen = picture
    if sizes.motion != sizes.picture:
        seen = functional.interpolate(
            picture, size=(sizes.motion, sizes.motion), mode="bilinear", align_corners=False
        )
    inputs = [
        torch.cat([normal(source[f"landmarks_{i}"]), normal(frame[f"driving_{i}"]), seen[:, :, ::k, ::k]], 1)
        for i, k in ((1, 16), (2, 8), (3, 4))
    ]
    features = rendering.register_source(picture, source["head_pose"][None])
    fake = rendering.decode(features, motion(*inputs).high, frame["head_pose"][None])
    return [*features], ((fake + 1) * 127.5)[0].permute(1, 2, 0)


def assert_truncated(image, levels):
    """Whole levels, cut off and not rounded, give or take float32's own rounding."""
    assert image.dtype == torch.uint8
    above = levels - image
    assert above.min() > -0.02
    assert above.max() < 1.02


# 128 is the motion network's size as well; 80 and 112 run it at 64 and 128.
@pytest.mark.parametrize(("size", "motion"), [(64, 64), (80, 64), (112, 128), (128, 128)])
@pytest.mark.parametrize("kind", ["random", "portrait"])
def test_both_graphs_are_the_published_networks(networks, size, motion, kind):
    sizes = Sizes.of(size)
    assert sizes == Sizes(size, motion)
    source, frame = dict(rho.samples(sizes))[kind]
    source_graph, frame_graph = graphs(networks, size)
    made = source_graph(*source.values())
    image = frame_graph(*made, *frame.values())
    features, levels = published(networks, sizes, source, frame)
    for name, ours, reference in zip(SourceGraph.outputs, made, features, strict=False):
        apart = float((ours - reference).abs().max())
        assert apart < 5e-5 + 1e-4 * float(reference.max()), name
    assert image.shape == (size, size, 3)
    assert levels.std() > 20
    assert_truncated(image, levels)


def test_the_picture_follows_the_driving_and_the_source(networks):
    source_graph, frame_graph = graphs(networks, 64)
    samples = dict(rho.samples(Sizes.of(64)))

    def picture(source, frame):
        return frame_graph(*source_graph(*samples[source][0].values()), *samples[frame][1].values()).float()

    still = picture("portrait", "portrait")
    for other in (picture("portrait", "random"), picture("random", "portrait")):
        assert (other - still).abs().mean() > 5


def test_making_graphs_leaves_the_networks_untouched(networks):
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    graphs(networks, 64)
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("size", "motion"), [(64, 64), (80, 64), (96, 128), (256, 256), (512, 512), (720, 704), (1440, 1472)]
)
def test_the_motion_network_runs_at_the_nearest_size_that_it_can(size, motion):
    assert Sizes.of(size) == Sizes(size, motion)


@pytest.mark.parametrize(
    ("size", "valid"),
    [(100, "96 or 112"), (63, "64 or 80"), (0, "64 or 80"), (-16, "64 or 80"), (4112, "4080 or 4096")],
)
def test_a_bad_size_names_good_ones(checkpoint, tmp_path, size, valid):
    with pytest.raises(ReenactError, match=rf"--size {size}: must be a multiple of 16 .*such as {valid};"):
        rho.export(checkpoint, size, tmp_path / "bundle", "none")
    assert list(tmp_path.iterdir()) == []


def test_the_exported_graphs_are_the_published_networks(rho_bundle, networks, portrait):
    source, frame = portrait
    with torch.no_grad():
        features, levels = published(networks, Sizes.of(SIZE), source, frame)
        shares = graphs(networks, SIZE)[0](*source.values())
    expected = dict(zip(SourceGraph.outputs, features, strict=False))
    differences = compare(onnx.load(rho_bundle / "source.onnx"), source, expected)
    assert [row.output for row in differences] == ["x2_in", "x3_in", "x4_in", "de_x4_in"]
    given = dict(zip(SourceGraph.outputs, shares, strict=True))
    differences += compare(onnx.load(rho_bundle / "frame.onnx"), {**given, **frame}, {"image": levels})
    assert max(row.largest for row in differences) < 1e-4


def test_the_bundle_opens_with_the_documented_names_and_shapes(rho_bundle):
    manifest = Bundle.open(rho_bundle).manifest
    assert (manifest.system, manifest.resolution, manifest.precision) == ("face2face_rho", SIZE, "fp32")
    assert manifest.preprocessing["motion_size"] == SIZE
    shapes = {
        name: {
            kind: {key: f"{entry.dtype} {entry.shape}" for key, entry in getattr(graph, kind).items()}
            for kind in ("inputs", "outputs")
        }
        for name, graph in manifest.graphs.items()
    }
    drawings = ["uint8 [8, 8, 3]", "uint8 [16, 16, 3]", "uint8 [32, 32, 3]"]
    kept = {
        "x2_in": "float32 [1, 28, 32, 32]",
        "x3_in": "float32 [1, 72, 16, 16]",
        "x4_in": "float32 [1, 140, 8, 8]",
        "de_x4_in": "float32 [1, 280, 8, 8]",
        "motion_1": "float32 [1, 64, 8, 8]",
        "motion_2": "float32 [1, 64, 8, 8]",
        "motion_3": "float32 [1, 32, 16, 16]",
    }
    picture, pose = {"image": "uint8 [128, 128, 3]"}, {"head_pose": "float32 [6]"}
    assert shapes == {
        "source": {
            "inputs": picture | {f"landmarks_{i}": kind for i, kind in enumerate(drawings, 1)} | pose,
            "outputs": kept,
        },
        "frame": {
            "inputs": kept | {f"driving_{i}": kind for i, kind in enumerate(drawings, 1)} | pose,
            "outputs": picture,
        },
    }


def test_the_bundle_says_where_its_weights_came_from(rho_bundle):
    weights = Bundle.open(rho_bundle).manifest.weights
    assert weights.licence == "made for these tests"
    assert "105_rendering_net.pth (sha256 " in weights.origin
    assert "105_motion_net.pth (sha256 " in weights.origin
    assert str(rho_bundle.parent.parent) not in (rho_bundle / "manifest.json").read_text()


def test_both_cpu_backends_agree_within_a_level(rho_bundle, portrait):
    source, frame = ({name: value.numpy() for name, value in inputs.items()} for inputs in portrait)
    pictures = []
    for backend in ("cpu", "openvino"):
        with (
            load(rho_bundle / "source.onnx", backend=backend, precision="fp32") as first,
            load(rho_bundle / "frame.onnx", backend=backend, precision="fp32") as second,
        ):
            pictures.append(second.run({**first.run(source), **frame})["image"].astype(int))
    apart = np.abs(pictures[0] - pictures[1])
    assert apart.max() <= 1
    assert np.count_nonzero(apart) < 0.01 * apart.size
    assert pictures[0].std() > 20


@pytest.mark.parametrize("graph", ["source", "frame"])
def test_a_graph_that_is_not_the_network_is_not_written(checkpoint, rho_bundle, tmp_path, monkeypatch, graph):
    def disturbed(module, inputs, outputs):
        name = "frame" if outputs == FrameGraph.outputs else "source"
        model = onnx.load(rho_bundle / f"{name}.onnx")
        if name == graph:
            weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4]
            largest = max(weights, key=lambda tensor: np.prod(tensor.dims[2:]) * tensor.dims[0])
            largest.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(largest), largest.name))
        return model

    monkeypatch.setattr(rho, "export_graph", disturbed)
    with pytest.raises(
        ReenactError, match=rf"graph {graph}: \w+ is .* from the reference.*nothing was written"
    ):
        rho.export(checkpoint, SIZE, tmp_path / "bundle", "none")
    assert list(tmp_path.iterdir()) == []


def test_the_releases_other_files_are_checked_and_kept_with_the_checkpoint(
    rho_checkpoint, small_home, tmp_path
):
    copied = link(rho_checkpoint, tmp_path / "published")
    transform = {"scale_transform": 4000.0, "tx_transform": 0.25, "ty_transform": -0.25}
    (copied / "pose_transform_config.json").write_text(json.dumps(transform))
    place = rho.add_checkpoint(copied).folder
    kept = [
        "checkpoint.json",
        "latest_motion_net.safetensors",
        "latest_rendering_net.safetensors",
        "pose_transform_config.json",
    ]
    assert sorted(path.name for path in place.iterdir()) == kept
    assert json.loads((place / "pose_transform_config.json").read_text()) == transform
    assert rho.read_checkpoint(None).folder == place

    (copied / "landmark_embedding.json").write_text(json.dumps({"lmk_faces_idx": [1]}))
    with pytest.raises(ModelError, match=r"landmark_embedding\.json, at lmk_faces_idx"):
        rho.add_checkpoint(copied)
    assert sorted(path.name for path in place.iterdir()) == kept


def test_networks_of_other_settings_do_not_fit_the_released_ones(rho_checkpoint, tmp_path):
    copied = link(rho_checkpoint, tmp_path / "published")
    (copied / "105_motion_net.pth").unlink()
    save_state(MotionNet(mn_ngf=4), copied / "105_motion_net.pth")
    with pytest.raises(ModelError, match=r"105_motion_net\.pth: does not fit MotionNet: .*settings"):
        rho.read_checkpoint(copied)


def link(published, folder):
    folder.mkdir()
    for path in published.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def test_a_system_that_cannot_be_exported_is_told_with_those_that_can():
    with pytest.raises(ReenactError, match="'meshwarp' cannot be exported; there is deca, face2face_rho"):
        exporter("meshwarp")
    assert exporter("face2face_rho") is rho


@pytest.mark.parametrize(
    ("rendering", "motion", "complaint"),
    [
        ({"mobilev2_decoder_layers": (2, 2, 2, 2, 2, 2, 1)}, {}, "outermost decoder stage"),
        ({"mobilev2_decoder_expansion_factor": (6, 6, 6, 6, 6, 6, 6)}, {}, "outermost decoder stage"),
        ({"mobilev2_decoder_channels": (16, 14, 14, 24, 64, 96, 140, 280)}, {}, "second decoder stage"),
        ({"mobilev2_decoder_expansion_factor": (1, 1, 6, 6, 6, 6, 6)}, {}, "second decoder stage"),
        ({"headpose_dims": 7}, {}, "headpose_dims must be 6"),
        ({}, {"mn_n_downsampling": 3}, "mn_n_downsampling must be 2"),
    ],
)
def test_networks_that_cannot_be_rewritten_are_named(rendering, motion, complaint):
    with pytest.raises(ReenactError, match=complaint):
        require_released_layout(RenderingNet(**rendering), MotionNet(**motion))


def test_the_released_networks_can_be_rewritten():
    require_released_layout(RenderingNet(), MotionNet())
