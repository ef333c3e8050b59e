"""Exact rewritings of the reference's building blocks for deployment: the same function, fewer steps.

Sums are reordered, so results agree to float32 rounding, not bit for bit. Every function leaves its argument
untouched and gives modules of its own, in eval mode. Feature maps are (B, C, H, W).
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..reference.layers import DownBlock, InvertedResidual, PoseEncoder, ResidualBlock, Spade, UpBlock

__all__ = [
    "CellNorm",
    "DoubledResidual",
    "PoseMap",
    "between_phases",
    "folded",
    "nearest_index",
    "phases_of",
    "shuffled",
    "to_phases",
]


Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network) -> Network:
    """A copy whose batch norms behind convolutions are folded into them."""
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            for i in range(1, len(module)):
                norm = module[i]
                if isinstance(norm, nn.BatchNorm2d):
                    before = module[i - 1]
                    assert isinstance(before, (nn.Conv2d, nn.ConvTranspose2d))
                    transposed = isinstance(before, nn.ConvTranspose2d)
                    module[i - 1] = fuse_conv_bn_eval(before, norm, transpose=transposed)
                    module[i] = nn.Identity()
        elif isinstance(module, (DownBlock, UpBlock)):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
        elif isinstance(module, ResidualBlock):
            module.conv1 = fuse_conv_bn_eval(module.conv1, module.norm)
            module.norm = nn.Identity()  # type: ignore[assignment]
    return network


class PoseMap(nn.Module):
    """`PoseEncoder` as two matrix products."""

    def __init__(self, encoder: PoseEncoder) -> None:
        super().__init__()
        first, norm = encoder.embedding_module1[0], encoder.embedding_module1[1]
        second = encoder.embedding_module2[0]
        assert isinstance(first, nn.ConvTranspose2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(second, nn.ConvTranspose2d)
        first = fuse_conv_bn_eval(first, norm, transpose=True)
        pose_dims, hidden, cells, _ = first.weight.shape
        self.hidden, self.cells, self.finer, self.channels = (
            hidden,
            cells,
            second.weight.shape[2],
            second.weight.shape[1],
        )
        # (pose, cell y, cell x, hidden) and (hidden, channel, finer y, finer x)
        self.first = nn.Parameter(
            first.weight.detach().permute(0, 2, 3, 1).reshape(pose_dims, -1).contiguous()
        )
        assert first.bias is not None
        self.bias = nn.Parameter(first.bias.detach().repeat(cells * cells))
        self.second = nn.Parameter(second.weight.detach().reshape(hidden, -1).contiguous())

    def forward(self, pose: Tensor) -> Tensor:
        """(1, pose) to (1, channels, 16, 16)."""
        hidden = torch.relu(pose @ self.first + self.bias).reshape(self.cells * self.cells, self.hidden)
        spread = (hidden @ self.second).reshape(self.cells, self.cells, self.channels, self.finer, self.finer)
        side = self.cells * self.finer
        return spread.permute(2, 0, 3, 1, 4).reshape(1, self.channels, side, side)


def nearest_index(cells: int, size: int) -> Tensor:
    """(size,) int64: which cell each pixel takes when `cells` are enlarged to `size` by nearest neighbour."""
    line = torch.arange(cells, dtype=torch.float32).reshape(1, 1, cells)
    return functional.interpolate(line, size=size, mode="nearest").reshape(size).long()


# What differs of a cell's pixels: behind one 3x3 convolution the one at each end, behind two the two at each end.
_ONCE, _TWICE = 3, 5


class CellNorm(nn.Module):
    """`Spade` for a condition of few cells: x * scale + shift, computed only where a cell's pixels differ.

    The batch norm is folded into the two convolutions behind the hidden layer, which become one. Pixels that are
    equal to one that is computed are looked up.
    """

    def __init__(self, spade: Spade, cells: int, size: int) -> None:
        super().__init__()
        index = nearest_index(cells, size)
        shared = spade.mlp_shared[0]
        last, looked_up = _thinned(index, _TWICE)
        first, spread = _thinned(last, _ONCE)
        self.hidden = nn.Sequential(
            Gathered(first, cells), copy.deepcopy(shared), nn.ReLU(), Gathered(spread, len(first))
        )
        self.scale_shift = nn.Sequential(_scale_shift(spade), Gathered(looked_up, len(last)))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (1, C, size, size) and condition (1, c, cells, cells) to (1, C, size, size), behind the ReLU."""
        scale, shift = self.scale_shift(self.hidden(condition)).chunk(2, 1)
        return torch.relu(x * scale + shift)


class Gathered(nn.Module):
    """Rows and columns of a square map of side `rows` by index; nothing where that is every row once.

    Columns are taken by a product with zeros and ones: backends copy rows quickly, but single numbers one by one.
    """

    def __init__(self, index: Tensor, rows: int) -> None:
        super().__init__()
        self.whole = torch.equal(index, torch.arange(rows))
        self.register_buffer("index", index)
        self.register_buffer("choice", functional.one_hot(index, rows).T.float().contiguous())
        self.index: Tensor
        self.choice: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, cells, cells) to (B, C, len(index), len(index))."""
        return x if self.whole else (x @ self.choice).index_select(2, self.index)


def _thinned(cell_of: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """A line of pixels, each of a cell, with at most `kept` pixels a cell.

    cell_of: (n,) int64, ascending. Returns the cells of the kept pixels (m,) and for each of the n pixels which
    of the m stands for it. Nothing is left out where any cell has fewer than `kept`.
    """
    lengths = torch.bincount(cell_of)
    if int(lengths.min()) < kept:
        return cell_of, torch.arange(len(cell_of))
    offset = torch.arange(len(cell_of)) - (torch.cumsum(lengths, 0) - lengths)[cell_of]
    left = lengths[cell_of] - offset  # 1 at the cell's last pixel
    margin = kept // 2
    place = torch.where(offset < margin, offset, torch.where(left <= margin, kept - left, margin))
    return torch.arange(len(lengths)).repeat_interleave(kept), cell_of * kept + place


def _scale_shift(spade: Spade) -> nn.Conv2d:
    """One convolution for a * (1 + gamma) and beta + b * (1 + gamma), where the batch norm is a * x + b."""
    norm, gamma, beta = spade.param_free_norm, spade.mlp_gamma, spade.mlp_beta
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert gamma.bias is not None
    assert beta.bias is not None
    a = torch.rsqrt(norm.running_var + norm.eps)
    b = -norm.running_mean * a
    made = nn.Conv2d(gamma.in_channels, 2 * gamma.out_channels, 3, 1, 1)
    weight = torch.cat([gamma.weight * _column(a), beta.weight + gamma.weight * _column(b)])
    bias = torch.cat([a * (1 + gamma.bias), beta.bias + b * (1 + gamma.bias)])
    made.weight, made.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return made


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def phases_of(kernel: Tensor) -> Tensor:
    """A 3x3 kernel behind a nearest x2 enlargement, as four 3x3 kernels on the map before it.

    (..., 3, 3) to (4, ..., 3, 3): for the upper left, upper right, lower left and lower right pixel of each four.
    """
    # rows: of the enlarged map's three taps, which row of the small map each falls on
    early = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=kernel.dtype)
    late = torch.tensor([[0.0, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=kernel.dtype)
    return torch.stack([rows @ kernel @ columns.T for rows in (early, late) for columns in (early, late)])


def between_phases(kernel: Tensor) -> Tensor:
    """A 3x3 kernel (O, I, 3, 3) on a map as one on its four phases: (4 O, 4 I, 3, 3), phases first."""
    outs, ins = kernel.shape[:2]
    made = kernel.new_zeros(4, outs, 4, ins, 3, 3)
    for y in (0, 1):
        for x in (0, 1):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    row, column = y + dy, x + dx
                    phase = 2 * (row % 2) + column % 2
                    made[2 * y + x, :, phase, :, row // 2 + 1, column // 2 + 1] = kernel[:, :, dy + 1, dx + 1]
    return made.reshape(4 * outs, 4 * ins, 3, 3)


def to_phases(picture: Tensor) -> Tensor:
    """(1, C, 2 H, 2 W) to (1, 4 C, H, W), phases first."""
    return torch.cat([picture[:, :, y::2, x::2] for y in (0, 1) for x in (0, 1)], 1)


def shuffled(phases: Tensor) -> Tensor:
    """(4, C, H, W) phases to (1, C, 2 H, 2 W)."""
    _, channels, height, width = phases.shape
    spread = phases.reshape(2, 2, channels, height, width).permute(2, 3, 0, 4, 1)
    return spread.reshape(1, channels, 2 * height, 2 * width)


class DoubledResidual(nn.Module):
    """A folded `InvertedResidual` behind a nearest x2 enlargement, computed on the map before it.

    The expansion is pointwise and so runs on a quarter of the pixels; the depthwise convolution becomes one for
    each of the four phases.
    """

    def __init__(self, block: InvertedResidual) -> None:
        super().__init__()
        expand, relu, depthwise, project = (
            layer for layer in (block.conv[0], block.conv[2], block.conv[3], block.conv[6])
        )
        assert isinstance(depthwise, nn.Conv2d)
        self.expand = nn.Sequential(expand, relu)
        self.depthwise = nn.ModuleList(
            _with(depthwise, kernel) for kernel in phases_of(depthwise.weight.detach())
        )
        self.project = project

    def forward(self, x: Tensor) -> Tensor:
        """(1, channels_in, H, W) to (1, channels_out, 2 H, 2 W)."""
        hidden = self.expand(x)
        phases = torch.cat([torch.relu(conv(hidden)) for conv in self.depthwise])
        return shuffled(self.project(phases))


def _with(conv: nn.Conv2d, kernel: Tensor) -> nn.Conv2d:
    made = copy.deepcopy(conv)
    made.weight = nn.Parameter(kernel)
    return made
