"""VGG19 is torchvision's, and its file is read or refused with the way to get it."""

import pytest
import torch
from reenact.errors import ModelError
from reenact.reference.training.vgg import VGG_URL, Vgg19, default_vgg_path, load_vgg

CONVOLUTIONS = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28]


@pytest.fixture(scope="module")
def state(filled_vgg):
    return filled_vgg.state_dict()


def test_its_parameters_have_torchvisions_names_and_are_frozen(state):
    assert list(state) == [f"features.{n}.{kind}" for n in CONVOLUTIONS for kind in ("weight", "bias")]
    assert tuple(state["features.28.weight"].shape) == (512, 512, 3, 3)
    assert not any(parameter.requires_grad for parameter in Vgg19().parameters())


def test_five_maps_come_from_behind_the_first_relu_of_each_size(filled_vgg):
    maps = filled_vgg(torch.zeros(1, 3, 64, 64))
    assert [tuple(features.shape[1:]) for features in maps] == [
        (64, 64, 64),
        (128, 32, 32),
        (256, 16, 16),
        (512, 8, 8),
        (512, 4, 4),
    ]
    assert all(features.min() >= 0 for features in maps)


def test_a_picture_is_normalised_as_imagenet_was(filled_vgg):
    grey = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None].expand(1, 3, 16, 16) * 2 - 1
    first = filled_vgg(grey)[0]
    expected = filled_vgg.features[0].bias.relu()
    assert torch.allclose(first[0, :, 8, 8], expected, atol=1e-5)


def test_the_published_file_is_read_with_its_classifier_passed_over(state, tmp_path):
    path = tmp_path / "vgg19-dcbb9e9d.pth"
    torch.save({**state, "features.30.weight": torch.ones(1), "classifier.0.bias": torch.ones(2)}, path)
    loaded = load_vgg(path)
    assert torch.equal(loaded.state_dict()["features.28.bias"], state["features.28.bias"])


def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(ModelError) as raised:
        load_vgg(tmp_path / "vgg.pth")
    for part in ("vgg.pth: is no file", VGG_URL, "--vgg", str(default_vgg_path())):
        assert part in str(raised.value)


def test_another_networks_file_is_refused(state, tmp_path):
    path = tmp_path / "vgg16.pth"
    torch.save({name: value for name, value in state.items() if ".28." not in name}, path)
    with pytest.raises(ModelError, match=r"2 of 26 entries .* first features\.28\.weight"):
        load_vgg(path)
