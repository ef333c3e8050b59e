"""Every rewriting is the reference's own function: compared in float64, where nothing hides behind rounding."""

import copy

import pytest
import torch
from reenact.export.rewrite import (
    CellNorm,
    DoubledResidual,
    PoseMap,
    between_phases,
    folded,
    phases_of,
    shuffled,
    to_phases,
)
from reenact.reference import build
from reenact.reference.layers import (
    DownBlock,
    InvertedResidual,
    PoseEncoder,
    ResidualBlock,
    Spade,
    UpBlock,
)
from torch import nn
from torch.nn import functional

CELLS = 16


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def assert_same(ours, reference):
    assert ours.shape == reference.shape
    assert reference.std() > 0.01
    torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


def sides_of_convolutions(module, *inputs):
    """The side of the map that each convolution makes, in the order in which they run."""
    sides = []
    hooks = [
        conv.register_forward_hook(lambda conv, given, made: sides.append(made.shape[-1]))
        for conv in module.modules()
        if isinstance(conv, nn.Conv2d)
    ]
    module(*inputs)
    for hook in hooks:
        hook.remove()
    return sides


# 16, 32, 64, 80 and 128 have cells of 1, 2, 4, 5 and 8 pixels; 20 and 90 uneven ones; 4 and 12 fewer pixels than cells.
@pytest.mark.parametrize("size", [16, 32, 64, 80, 128, 20, 90, 12, 4])
def test_norms_by_cells_are_spade_with_its_relu(stirred, size):
    spade = stirred(Spade(5, 32))
    features, condition = random(1, 5, size, size), random(1, 32, CELLS, CELLS)
    assert_same(
        CellNorm(spade, CELLS, size).double()(features, condition), torch.relu(spade(features, condition))
    )


def test_norms_by_cells_count_the_cells_in_float32_as_published(stirred):
    spade = stirred(Spade(5, 32)).float()
    features, condition = random(1, 5, 164, 164).float(), random(1, 32, CELLS, CELLS).float()
    ours, reference = CellNorm(spade, CELLS, 164)(features, condition), torch.relu(spade(features, condition))
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
    exactly = condition[:, :, torch.arange(164) * CELLS // 164][..., torch.arange(164) * CELLS // 164]
    assert (torch.relu(spade(features, exactly)) - reference).abs().max() > 0.1


@pytest.mark.parametrize(
    ("size", "sides"),
    [(16, [16, 16]), (32, [32, 32]), (64, [48, 64]), (80, [48, 80]), (128, [48, 80]), (20, [20, 20])],
)
def test_norms_by_cells_compute_equal_pixels_once(stirred, size, sides):
    norm = CellNorm(stirred(Spade(5, 32)), CELLS, size).double()
    assert sides_of_convolutions(norm, random(1, 5, size, size), random(1, 32, CELLS, CELLS)) == sides


def test_norms_by_cells_work_for_another_number_of_cells(stirred):
    spade = stirred(Spade(3, 8))
    features, condition = random(1, 3, 42, 42), random(1, 8, 7, 7)
    assert_same(CellNorm(spade, 7, 42).double()(features, condition), torch.relu(spade(features, condition)))


def test_the_pose_map_is_the_pose_encoder(stirred):
    encoder = stirred(PoseEncoder(6, 8))
    assert_same(PoseMap(encoder)(random(1, 6)), encoder(random(1, 6)))


def test_the_pose_map_puts_each_cell_in_its_place(stirred):
    encoder = stirred(PoseEncoder(3, 2))
    made = encoder(random(1, 3))
    ours = PoseMap(encoder)(random(1, 3))
    assert len(ours.unique()) == ours.numel()  # so that no two places could be exchanged unseen
    assert_same(ours[:, :, 3:5, 11:14], made[:, :, 3:5, 11:14])


@pytest.mark.parametrize("side", [1, 5, 8])
@pytest.mark.parametrize("final_norm", [True, False])
def test_the_doubled_residual_is_the_block_behind_an_enlargement(stirred, side, final_norm):
    block = stirred(InvertedResidual(6, 4, stride=1, expansion=3, final_norm=final_norm))
    x = random(1, 6, side, side)
    assert_same(
        DoubledResidual(folded(block))(x), block(functional.interpolate(x, scale_factor=2, mode="nearest"))
    )


def test_the_doubled_residual_makes_its_widest_map_at_the_small_side(stirred):
    block = folded(stirred(InvertedResidual(6, 4, stride=1, expansion=3, final_norm=True)))
    assert set(sides_of_convolutions(DoubledResidual(block), random(1, 6, 8, 8))) == {8}


def test_four_kernels_stand_for_one_behind_an_enlargement():
    x, kernel = random(1, 3, 5, 5), random(2, 3, 3, 3)
    phases = torch.cat([functional.conv2d(x, each, padding=1) for each in phases_of(kernel)])
    enlarged = functional.interpolate(x, scale_factor=2, mode="nearest")
    assert_same(shuffled(phases), functional.conv2d(enlarged, kernel, padding=1))


def test_a_convolution_between_phases_is_the_convolution_of_the_whole():
    picture, kernel = random(1, 3, 10, 10), random(2, 3, 3, 3)
    made = functional.conv2d(to_phases(picture), between_phases(kernel), padding=1)
    assert_same(shuffled(made.reshape(4, 2, 5, 5)), functional.conv2d(picture, kernel, padding=1))


def test_phases_put_together_are_the_picture():
    picture = random(1, 3, 8, 8)
    assert torch.equal(shuffled(to_phases(picture).reshape(4, 3, 4, 4)), picture)
    assert torch.equal(to_phases(picture)[0, 3:6], picture[0, :, 0::2, 1::2])  # upper right


@pytest.mark.parametrize(
    "block",
    [
        DownBlock(4, 6),
        UpBlock(4, 6),
        ResidualBlock(4),
        InvertedResidual(4, 6, stride=2, expansion=3, final_norm=True),
        InvertedResidual(4, 4, stride=1, expansion=1, final_norm=False),
        nn.Sequential(nn.ConvTranspose2d(4, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6)),
    ],
    ids=lambda block: type(block).__name__,
)
def test_folding_leaves_no_norm_and_the_same_function(stirred, block):
    block = stirred(block)
    made = folded(block)
    assert not [module for module in made.modules() if isinstance(module, nn.BatchNorm2d)]
    assert_same(made(random(1, 4, 8, 8)), block(random(1, 4, 8, 8)))


@pytest.mark.parametrize("training", [True, False])
def test_folding_leaves_its_argument_untouched(stirred, training):
    network = stirred(build("face2face_rho/motion_net", mn_ngf=4)).train(training)
    before, kinds = copy.deepcopy(network.state_dict()), [type(module) for module in network.modules()]
    made = folded(network)
    assert not made.training
    assert network.training == training
    assert [type(module) for module in network.modules()] == kinds
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    own = {value.data_ptr() for value in network.state_dict().values()}
    assert not own & {value.data_ptr() for value in made.state_dict().values() if value.numel()}


def test_a_whole_network_folded_is_the_same_network(stirred):
    network = stirred(build("face2face_rho/motion_net", mn_ngf=4))
    inputs = [random(1, 9, 64 // k, 64 // k) for k in (16, 8, 4)]
    assert_same(folded(network)(*inputs).high, network(*inputs).high)
