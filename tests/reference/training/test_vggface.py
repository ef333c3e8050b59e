"""VGGFace2's network is Caffe's variant of ResNet-50, and its published pickle is read without executing it."""

import os
import pickle

import numpy as np
import pytest
import torch
from reenact.errors import ModelError
from reenact.reference.fill import Rules, fill
from reenact.reference.training.vggface import VggFace, load_vggface
from torch.nn import functional


@pytest.fixture(scope="module")
def network():
    made = VggFace()
    fill(made, Rules(gain={r"bn3\.weight": 0.25}))
    return made.eval()


def test_strides_are_in_the_first_convolutions_and_the_pooling_has_no_border(network):
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        stem = torch.relu(network.bn1(network.conv1(x)))
        assert stem.shape[2:] == (112, 112)
        pooled = network.maxpool(stem)
        assert pooled.shape[2:] == (56, 56)
        assert torch.equal(pooled[:, :, -1, -1], stem[:, :, 110:, 110:].amax((2, 3)))
        block, before = network.layer2[0], network.layer1(pooled)
        narrow = functional.conv2d(before, block.conv1.weight, stride=2)
        out = torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(narrow)))))
        expected = torch.relu(block.bn3(block.conv3(out)) + block.downsample(before))
        assert torch.allclose(block(before), expected, atol=1e-5)
        assert network(x).shape == (1, 2048)


def pickled(network, path, protocol=2, **more):
    arrays = {
        name: value.numpy() for name, value in network.state_dict().items() if "num_batches" not in name
    }
    path.write_bytes(pickle.dumps(arrays | more, protocol=protocol))
    return path


def test_the_published_pickle_is_read(network, tmp_path):
    classes = {"fc.weight": np.zeros((4, 2048), np.float32), "fc.bias": np.zeros(4, np.float32)}
    read = load_vggface(pickled(network, tmp_path / "resnet50_ft_weight.pkl", **classes))
    for name, value in network.state_dict().items():
        if "num_batches" not in name:
            assert torch.equal(read.state_dict()[name], value), name
    assert not any(parameter.requires_grad for parameter in read.parameters())


def test_a_plain_state_dict_is_read_too(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "vggface.pth")
    assert torch.equal(load_vggface(tmp_path / "vggface.pth").conv1.weight, network.conv1.weight)


class Wicked:
    def __reduce__(self):
        return os.system, ("echo executed",)


def test_what_is_not_the_network_is_refused(network, tmp_path):
    path = tmp_path / "resnet50_ft_weight.pkl"
    path.write_bytes(pickle.dumps({"conv1.weight": Wicked()}))
    with pytest.raises(ModelError, match=r"asks for .*system, which is no array"):
        load_vggface(path)
    path.write_bytes(pickle.dumps({"conv1.weight": np.zeros((2, 2), np.float32)}, protocol=2))
    with pytest.raises(ModelError, match="does not fit VGGFace2's ResNet-50"):
        load_vggface(path)
    path.write_bytes(pickle.dumps([1], protocol=2))
    with pytest.raises(ModelError, match="holds a list, not arrays by name"):
        load_vggface(path)
    path.write_bytes(pickle.dumps({"conv1.weight": "text"}, protocol=2))
    with pytest.raises(ModelError, match="holds a str where an array was expected"):
        load_vggface(path)
    path.write_bytes(pickled(network, path).read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"cut short|damaged"):
        load_vggface(path)
