"""Face2Face-rho learns drawn faces, and its checkpoints are the published ones."""

import pytest
import torch
from reenact.errors import ModelError
from reenact.reference import build, settings_of
from reenact.reference.checkpoints import find_checkpoint, load_into
from reenact.reference.training.board import NoBoard
from reenact.reference.training.loop import Options
from reenact.reference.training.settings import LossWeights

NETWORKS = ("rendering_net", "motion_net", "discriminator")


class Losses(NoBoard):
    def __init__(self):
        self.steps, self.shown = [], []

    def scalars(self, values, step):
        self.steps.append(values)

    def picture(self, name, picture, step):
        self.shown.append(picture)


def test_two_pairs_are_learned(small):
    board = Losses()
    trainer = small.trainer(
        Options(steps=30, log_every=1, pictures_every=29),
        learning_rate=4e-3,
        num_repeats=6,
        weights=LossWeights(scales=small.scales, init_field_epochs=2),
    )
    done = trainer.run(board)
    assert set(done.terms) == {"warp", "reconstruction", "gan", "feature_matching", "discriminator"}
    first, last = board.steps[0], board.steps[-1]
    assert first["loss/init_field"] > 100
    assert last["loss/reconstruction"] < 0.7 * first["loss/reconstruction"]
    assert last["loss/warp"] < 0.8 * first["loss/warp"]
    assert board.shown[-1].shape == (3, 2 * 64, 3 * 64)
    before, after = (
        (driving - fake).abs().mean()
        for _source, driving, fake in (sheet.split(64, 2) for sheet in board.shown)
    )
    assert after < 0.75 * before, (before, after)


def test_resumed_training_gives_the_same_bits(small, tmp_path):
    whole = small.trainer(Options(steps=3), folder=tmp_path / "whole")
    whole.run(NoBoard())
    small.trainer(Options(steps=1)).run(NoBoard())
    second = small.trainer(Options(steps=2))
    second.resume()
    second.run(NoBoard())
    for name in NETWORKS:
        files = [tmp_path / folder / f"latest_{name}.pth" for folder in ("whole", "checkpoints")]
        expected, given = (torch.load(file, weights_only=True) for file in files)
        assert all(torch.equal(expected[key], given[key]) for key in expected), name


def test_checkpoints_fit_the_published_networks_strictly(small, tmp_path):
    small.trainer(Options(steps=2)).run(NoBoard())
    for name in NETWORKS:
        full = f"face2face_rho/{name}"
        for suffix in ("0", "latest", "highest"):
            network = build(full, **settings_of(full, small.networks))
            load_into(network, find_checkpoint(tmp_path / "checkpoints", name, suffix))


def test_training_can_begin_with_published_weights_that_have_no_discriminator(small, tmp_path):
    small.trainer(Options(steps=1)).run(NoBoard())
    folder = tmp_path / "checkpoints"
    saved = torch.load(folder / "latest_motion_net.pth", weights_only=True)
    (folder / "latest_discriminator.pth").unlink()
    task = small.trainer(start="latest")
    assert torch.equal(task._state.networks["motion_net"].f1_motion.weight, saved["f1_motion.weight"])
    assert "no latest_discriminator.pth; the discriminator begins afresh" in small.said[-1]
    (folder / "latest_motion_net.pth").rename(folder / "7_motion_net.pth")
    with pytest.raises(ModelError, match="has no latest checkpoint of motion_net"):
        small.trainer(start="latest")


def test_the_field_is_computed_in_float32_under_mixed_precision(small):
    trainer = small.trainer(Options(steps=1, precision="amp"))
    seen = []
    network = trainer._state.networks["motion_net"]
    network.register_forward_hook(lambda module, inputs, fields: seen.append(fields.high.dtype))
    assert trainer.run(NoBoard()).terms["reconstruction"] > 0
    assert seen == [torch.float32]
