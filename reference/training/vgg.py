"""VGG19 up to relu5_1, as perceptual losses look at pictures; with torchvision's parameter names."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import ModelError
from ..checkpoints import load_state

__all__ = ["VGG_FILE", "VGG_URL", "Vgg19", "default_vgg_path", "load_vgg"]

VGG_FILE = "vgg19-dcbb9e9d.pth"
VGG_URL = f"https://download.pytorch.org/models/{VGG_FILE}"

_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)  # 0 is a pooling
_TAPS = (1, 6, 11, 20, 29)  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]


class Vgg19(nn.Module):
    """The first 30 layers of torchvision's VGG19, frozen: `features.<n>.weight` and `.bias`.

    Freshly made its weights are random; `load_vgg` gives one that has seen ImageNet.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in _WIDTHS:
            if width:
                layers += [nn.Conv2d(before, width, 3, 1, 1), nn.ReLU()]
                before = width
            else:
                layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION)[:, None, None], persistent=False)
        self.requires_grad_(False)

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) RGB in [-1, 1], sides of at least 16, to the five maps behind relu1_1 .. relu5_1.

        Their channels are 64, 128, 256, 512, 512, their sides those of the picture over 1, 2, 4, 8, 16.
        """
        x = ((picture + 1) / 2 - self.mean) / self.deviation
        maps = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in _TAPS:
                maps.append(x)
        return tuple(maps)


def default_vgg_path() -> Path:
    """Where torchvision itself would keep the file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE


def load_vgg(path: Path) -> Vgg19:
    """VGG19 with the weights of torchvision's file; what the file has beyond the layers used is passed over.

    Raises ModelError that says where to get the file where it is missing, damaged or another network's.
    """
    get_it = f"fetch {VGG_URL} (548 MB) and name it with --vgg, or put it at {default_vgg_path()}"
    if not path.is_file():
        raise ModelError(f"{path}: is no file; training compares pictures with VGG19: {get_it}")
    state = load_state(path)
    network = Vgg19()
    wanted = network.state_dict()
    odd = [name for name, there in wanted.items() if name not in state or state[name].shape != there.shape]
    if odd:
        raise ModelError(
            f"{path}: is not VGG19 as torchvision has it ({len(odd)} of {len(wanted)} entries are missing or "
            f"of another shape, first {odd[0]}); {get_it}"
        )
    network.load_state_dict({name: state[name] for name in wanted})
    return network
