"""ResNet-50 has the published parameters, keeps its stride in the 3x3 and takes photos of any size."""

import pytest
import torch
from reenact.reference.resnet import FEATURES, ResNet50


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ResNet50().eval().requires_grad_(False)


def test_it_is_torchvisions_without_the_last_layer(network):
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 25_557_032 - 2_049_000
    assert len(state) == 318
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["layer4.2.conv2.weight"].shape == (512, 512, 3, 3)
    assert state["layer3.5.bn3.running_var"].shape == (1024,)
    assert {name.split(".")[0] for name in state} == {"conv1", "bn1", *(f"layer{i}" for i in range(1, 5))}
    assert not any(name.endswith("bias") and "conv" in name for name in state)


def test_only_first_blocks_have_a_convolution_on_the_way_past(network):
    names = [
        name.removesuffix(".downsample") for name, _ in network.named_modules() if name.endswith("downsample")
    ]
    assert names == [f"layer{i}.0" for i in range(1, 5)]


def test_the_stride_is_in_the_middle_convolution(network):
    strides = [getattr(network, f"layer{i}")[0] for i in range(1, 5)]
    assert [block.conv1.stride for block in strides] == [(1, 1)] * 4
    assert [block.conv2.stride for block in strides] == [(1, 1), (2, 2), (2, 2), (2, 2)]
    assert [block.downsample[0].stride for block in strides] == [(1, 1), (2, 2), (2, 2), (2, 2)]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 33), (32, 32)])
def test_maps_have_a_32nd_of_the_sides_rounded_up(network, height, width):
    features = network(torch.rand(2, 3, height, width))
    assert features.shape == (2, FEATURES, -(-height // 32), -(-width // 32))


def test_a_silent_block_passes_on_what_it_got(network):
    block = ResNet50().eval().get_submodule("layer2.1").requires_grad_(False)
    block.get_parameter("bn3.weight").zero_()
    block.get_parameter("bn3.bias").zero_()
    x = torch.randn(1, 512, 4, 4)
    assert torch.equal(block(x), x.relu())


def test_the_first_pooling_pads_its_border(network):
    stem = torch.nn.Sequential(network.conv1, network.bn1, torch.nn.ReLU(), network.maxpool)
    assert stem(torch.rand(1, 3, 224, 224)).shape == (1, 64, 56, 56)
