"""Building blocks that the published networks share, with the parameter names their authors gave them.

Feature maps are (B, C, H, W) float32. Nothing here knows of a system, a file or an input size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "DownBlock",
    "InvertedResidual",
    "Judgement",
    "PatchDiscriminator",
    "PoseEncoder",
    "ResidualBlock",
    "Spade",
    "UpBlock",
    "warp",
]

_SPADE_HIDDEN = 64  # channels between a condition map and its gamma and beta


class InvertedResidual(nn.Module):
    """MobileNetV2's block: 1x1 expansion, depthwise 3x3, linear 1x1 projection, each with batch norm.

    `final_norm` off leaves out the batch norm behind the projection, except where the block is residual
    (stride 1, as many channels out as in): then it always has one.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, stride: int, expansion: float, final_norm: bool
    ) -> None:
        super().__init__()
        hidden = int(channels_in * expansion)
        self.residual = stride == 1 and channels_in == channels_out
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(channels_in, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU()]
        layers += [
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, channels_out, 1, bias=False),
        ]
        if final_norm or self.residual:
            layers.append(nn.BatchNorm2d(channels_out))
        self.conv = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, H / stride, W / stride), rounded up."""
        out: Tensor = self.conv(features)
        return features + out if self.residual else out


class Spade(nn.Module):
    """Spatially adaptive normalisation (Park et al. 2019): a condition map scales and shifts normalised features.

    The condition is brought to the size of the features by nearest neighbour: pixel i has the cell
    floor(i * (cells / size)), the quotient in float32. At a few sizes, such as 164 for 16 cells, that is one cell
    below the exact quotient somewhere; the published weights were trained with it.
    """

    def __init__(self, channels: int, condition_channels: int) -> None:
        super().__init__()
        self.param_free_norm = nn.BatchNorm2d(channels, affine=False)
        self.mlp_shared = nn.Sequential(nn.Conv2d(condition_channels, _SPADE_HIDDEN, 3, 1, 1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(_SPADE_HIDDEN, channels, 3, 1, 1)
        self.mlp_beta = nn.Conv2d(_SPADE_HIDDEN, channels, 3, 1, 1)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Features (B, channels, H, W) and condition (B, condition_channels, h, w) to (B, channels, H, W)."""
        size = features.shape[2:]
        if condition.shape[2:] != size:
            condition = functional.interpolate(condition, size=size, mode="nearest")
        hidden = self.mlp_shared(condition)
        gamma: Tensor = self.mlp_gamma(hidden)
        beta: Tensor = self.mlp_beta(hidden)
        normalised: Tensor = self.param_free_norm(features)
        return normalised * (1 + gamma) + beta


class PoseEncoder(nn.Module):
    """A head pose as a map of 16 x 16: two transposed convolutions, 1 to 4 to 16 pixels a side."""

    def __init__(self, pose_dims: int, width: int) -> None:
        super().__init__()
        self.embedding_module1 = nn.Sequential(
            nn.ConvTranspose2d(pose_dims, 8 * width, 4, 1, 0, bias=False),
            nn.BatchNorm2d(8 * width),
            nn.ReLU(),
        )
        self.embedding_module2 = nn.Sequential(nn.ConvTranspose2d(8 * width, 4 * width, 4, 4, 0, bias=False))

    def forward(self, pose: Tensor) -> Tensor:
        """(B, pose_dims) to (B, 4 * width, 16, 16); no bound on the values."""
        embedding: Tensor = self.embedding_module2(self.embedding_module1(pose[:, :, None, None]))
        return embedding


class DownBlock(nn.Module):
    """Convolution 4/2/1 with bias, batch norm, ReLU: half the side."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 4, 2, 1)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, H // 2, W // 2)."""
        return torch.relu(self.norm(self.conv(features)))


class UpBlock(nn.Module):
    """Nearest x2, convolution 3/1/1 with bias, batch norm, ReLU: twice the side."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, 1, 1)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, 2 H, 2 W)."""
        return torch.relu(
            self.norm(self.conv(functional.interpolate(features, scale_factor=2, mode="nearest")))
        )


class ResidualBlock(nn.Module):
    """x + conv2(ReLU(norm(conv1(x)))), both convolutions 3/1/1 with bias; nothing behind the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        change: Tensor = self.conv2(torch.relu(self.norm(self.conv1(features))))
        return features + change


@dataclass(frozen=True)
class Judgement:
    """What a discriminator says of a picture."""

    feature_maps: tuple[Tensor, ...]  # of each block, (B, channels, h, w)
    prediction_map: Tensor  # (B, 1, h, w), no sigmoid


class PatchDiscriminator(nn.Module):
    """Unpadded 4x4 convolutions, instance norm from the second block on, LeakyReLU 0.2, pooling but in the last."""

    def __init__(self, channels_in: int, expansion: int, blocks: int, max_features: int) -> None:
        super().__init__()
        widths = [channels_in, *(min(max_features, expansion << (i + 1)) for i in range(blocks))]
        self.down_blocks = nn.ModuleList(
            _PatchBlock(widths[i], widths[i + 1], norm=i > 0, pool=i < blocks - 1) for i in range(blocks)
        )
        self.conv = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, x: Tensor) -> Judgement:
        """(B, channels_in, H, W), both sides large enough for all blocks."""
        maps = []
        for block in self.down_blocks:
            x = block(x)
            maps.append(x)
        return Judgement(tuple(maps), self.conv(x))


class _PatchBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, *, norm: bool, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 4)
        self.norm = nn.InstanceNorm2d(channels_out, affine=True) if norm else None
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        x = functional.leaky_relu(x, 0.2)
        return functional.avg_pool2d(x, 2) if self.pool else x


def warp(features: Tensor, field: Tensor) -> Tensor:
    """Sample features at a backward field: bilinear, zeros outside, pixel edges at -1 and 1.

    features: (B, C, H, W). field: (B, h, w, 2), x then y in [-1, 1]; another size than the features' is brought
    to theirs by nearest neighbour. Returns (B, C, H, W).
    """
    size = features.shape[2:]
    if field.shape[1:3] != size:
        field = functional.interpolate(field.permute(0, 3, 1, 2), size=size, mode="nearest").permute(
            0, 2, 3, 1
        )
    return functional.grid_sample(features, field, mode="bilinear", padding_mode="zeros", align_corners=False)
