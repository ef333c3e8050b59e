"""ResNet-50 (CVPR 2016, doi 10.1109/CVPR.2016.90) without its last layer, as three of the systems look at faces.

Parameters bear torchvision's names; the stride is in a block's 3x3 convolution, which is called version 1.5. Knows
nothing of what its features are used for.
"""

import torch
from torch import Tensor, nn

__all__ = ["FEATURES", "ResNet50"]

FEATURES = 2048  # channels of the last map
_WIDEN = 4  # times as many channels behind a block's last convolution as in its middle
_BLOCKS = (3, 4, 6, 3)
_STEM = 64


class ResNet50(nn.Module):
    """A stem and four layers of 3, 4, 6 and 3 blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STEM, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _layer(_STEM, 64, _BLOCKS[0], stride=1)
        self.layer2 = _layer(256, 128, _BLOCKS[1], stride=2)
        self.layer3 = _layer(512, 256, _BLOCKS[2], stride=2)
        self.layer4 = _layer(1024, 512, _BLOCKS[3], stride=2)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 2048, H / 32, W / 32), rounded up; not yet pooled."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return features


class _Bottleneck(nn.Module):
    """1x1 to few channels, 3x3, 1x1 to many, and the way past them."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = _WIDEN * width
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        past = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.bn3(self.conv3(out)) + past)


def _layer(channels_in: int, width: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = _Bottleneck(channels_in, width, stride)
    return nn.Sequential(first, *(_Bottleneck(_WIDEN * width, width, 1) for _ in range(blocks - 1)))
