"""The losses are those of the publication, value and gradient, and what a golden cannot show holds as well."""

import pytest
import torch
from reenact.reference import parity
from reenact.reference.face2face_rho import MotionFields
from reenact.reference.fill import image
from reenact.reference.golden import read_golden
from reenact.reference.layers import Judgement
from reenact.reference.training import losses


def picture(name="a", size=64, batch=2):
    return torch.from_numpy(image(name, (batch, 3, size, size)))


def identity(side, batch=2):
    line = torch.linspace(-1, 1, side)
    x, y = torch.meshgrid(line, line, indexing="xy")
    return torch.stack([x, y], -1).expand(batch, side, side, 2)


def test_every_loss_and_gradient_agrees_with_the_golden(goldens):
    golden = read_golden(goldens / "face2face_rho/training_losses.json")
    report = parity.check(golden)
    assert {output.name: output.error for output in report.outputs if not output.passed} == {}
    assert {output.name for output in report.outputs} == set(golden.outputs)
    assert max(output.error for output in report.outputs if output.name != "grad_fake") < 1e-5


def test_the_face_weighs_more_only_inside_its_mask():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 1] = 1
    weight = losses.face_weight(mask, 4.0)
    assert weight.unique().tolist() == [1, 4]
    ours, target = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert losses.weighted_l1(ours, target, weight).item() == pytest.approx((4 + 3) / 4)


def test_a_weight_of_another_size_is_taken_by_nearest_neighbour():
    weight = torch.arange(16.0).reshape(1, 1, 4, 4)
    ours, target = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    assert losses.weighted_l1(ours, target, weight).item() == pytest.approx((0 + 2 + 8 + 10) / 4)


def test_fields_at_the_identity_cost_nothing_while_they_are_held():
    fields = MotionFields(identity(4), identity(8), identity(16))
    assert losses.init_field_loss(fields, 0, 5).item() == pytest.approx(0, abs=1e-4)
    moved = MotionFields(identity(4) + 0.1, identity(8), identity(16))
    assert losses.init_field_loss(moved, 0, 5).item() == pytest.approx(1000 / 3 * 0.1, rel=1e-4)
    assert losses.init_field_loss(moved, 3, 5).item() == pytest.approx(400 / 3 * 0.1, rel=1e-4)
    assert losses.init_field_loss(moved, 5, 5).item() == 0
    assert losses.init_field_loss(moved, 0, 0).item() == 0


def test_large_fields_are_not_resized_before_they_warp():
    assert losses.warped_source(picture(), identity(160)).shape == (2, 3, 160, 160)
    assert losses.warped_source(picture(), identity(16)).shape == (2, 3, 128, 128)


def test_a_pyramid_of_a_flat_picture_is_flat_but_for_its_dark_edges():
    whole, half = losses.pyramid(torch.ones(1, 3, 64, 64), (1, 0.5))
    assert torch.equal(whole, torch.ones(1, 3, 64, 64))
    assert half.shape == (1, 3, 32, 32)
    assert half[..., 2:-2, 2:-2].sub(1).abs().max() < 1e-6
    assert half[..., 0, 0].max() < 0.9


def test_the_target_of_a_perceptual_loss_gets_no_gradient(filled_vgg):
    ours, target = picture("a", 32).requires_grad_(), picture("b", 32).requires_grad_()
    losses.perceptual_loss(filled_vgg, ours, target, torch.ones(2, 1, 32, 32)).backward()
    assert ours.grad.abs().sum() > 0
    assert target.grad is None


def test_adversarial_losses_are_least_squares():
    real = Judgement((), torch.tensor([[[[0.5]]]]))
    fake = Judgement((), torch.tensor([[[[0.25]]]]))
    assert losses.discriminator_loss(real, fake).item() == pytest.approx(0.25 + 0.0625)
    assert losses.generator_adversarial_loss(fake).item() == pytest.approx(0.5625)


def test_losses_of_half_precision_maps_are_float32():
    half = Judgement((torch.ones(1, 2, 2, 2).half(),), torch.ones(1, 1, 2, 2).half())
    weight = torch.ones(1, 1, 4, 4)
    for loss in (
        losses.feature_matching_loss(half, half, weight),
        losses.generator_adversarial_loss(half),
        losses.discriminator_loss(half, half),
    ):
        assert loss.dtype == torch.float32
