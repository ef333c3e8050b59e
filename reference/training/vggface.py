"""VGGFace2's ResNet-50 (arXiv 1710.08092), which recognises people: what it says of two pictures should be alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ...errors import ModelError
from ...runtime.files import read_small_file
from ..checkpoints import load_state, require_fit
from ..pickles import ARRAYS, REFUSED, PickleReader, PickleRefusedError, dense, end_of_pickle
from ..resnet import ResNet50

__all__ = ["VGGFACE_FILE", "VggFace", "load_vggface"]

VGGFACE_FILE = "resnet50_ft_weight.pkl"

_MOST_BYTES = 1 << 29  # the published file has about 165 million
_MOST_STEPS = 30_000  # of its pickle: about 30 an array, of some 330 arrays
_WHAT = f"VGGFace2's ResNet-50 as PyTorch's, {VGGFACE_FILE}"
_COUNTER = "num_batches_tracked"
_LAST = "fc."  # says who of VGGFace2 it is; not used


class VggFace(ResNet50):
    """As it was trained in Caffe: strides in the blocks' first convolutions, a first pooling without a border; frozen.

    Freshly made its weights are random; `load_vggface` gives one that knows faces.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maxpool = nn.MaxPool2d(3, 2, 0, ceil_mode=True)
        for layer in (self.layer2, self.layer3, self.layer4):
            one, three = (cast(nn.Conv2d, layer[0].get_submodule(name)) for name in ("conv1", "conv2"))
            one.stride, three.stride = three.stride, one.stride
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224), as `identity_input` makes them, to (B, 2048)."""
        features: Tensor = super().forward(images)
        return features.mean((2, 3))


def load_vggface(path: Path) -> VggFace:
    """The network with the weights of a file: the published pickle, not executed, or a plain state dict.

    Raises ModelError where it is missing, damaged or another network's.
    """
    state = _pickled(path) if path.suffix == ".pkl" else load_state(path)
    network = VggFace()
    expected = network.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(_LAST)}
    for name, there in expected.items():
        if name.endswith(_COUNTER):
            state.setdefault(name, torch.zeros_like(there))
    require_fit(path, _WHAT, state, expected)
    network.load_state_dict(state)
    return network


def _pickled(path: Path) -> dict[str, Tensor]:
    content = read_small_file(path, _MOST_BYTES, _WHAT, ModelError)
    try:
        end_of_pickle(content, REFUSED, _MOST_STEPS)
        arrays = PickleReader(content, ARRAYS).load()
        if not isinstance(arrays, Mapping):
            raise PickleRefusedError(f"holds a {type(arrays).__name__}, not arrays by name")
        state = {str(name): torch.tensor(dense(value, _shape(value))) for name, value in arrays.items()}
    except PickleRefusedError as error:
        raise ModelError(f"{path}: {error}; take {_WHAT}") from error
    broken = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if broken:
        raise ModelError(f"{path}: {broken[0]} has values that are not finite; fetch the file again")
    return state


def _shape(value: object) -> tuple[int, ...]:
    shape = getattr(value, "shape", None)
    if not isinstance(shape, tuple):
        raise PickleRefusedError(f"holds a {type(value).__name__} where an array was expected")
    return shape
