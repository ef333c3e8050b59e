"""The modules behind Face2Face-rho's graphs: `source` runs once a photo, `frame` once a driving frame.

Both take and give what the runtime has: uint8 pictures (H, W, 3) in RGB. The rewritings are those of `rewrite`; what
the motion network's first convolutions make of the source is computed once a photo.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ReenactError
from ..reference.face2face_rho import MotionNet, RenderingNet
from ..reference.layers import InvertedResidual, warp
from .rewrite import CellNorm, DoubledResidual, PoseMap, between_phases, folded, phases_of, to_phases

__all__ = [
    "SCALES",
    "Fourth",
    "FrameGraph",
    "Sizes",
    "SourceGraph",
    "normalised",
    "require_released_layout",
]

SCALES = (16, 8, 4)
"""The motion network's inputs, from coarse to fine: parts of the motion size."""
_CELLS = 16  # a side of the pose embedding
_POSE = 6  # numbers of a head pose


@dataclass(frozen=True)
class Sizes:
    """Sides in pixels: of the picture, and of the picture as the motion network sees it."""

    picture: int
    motion: int

    @classmethod
    def of(cls, picture: int) -> "Sizes":
        """For any multiple of 16: the motion network takes multiples of 64, so the nearest of these is its size.

        Where the two differ the field is brought to the features' size by nearest neighbour, so that it is as fine
        as at the motion size. Raises ReenactError for other sizes.
        """
        if picture % 16 or not 64 <= picture <= 4096:
            below = min(max(picture // 16 * 16, 64), 4080)
            raise ReenactError(
                f"--size {picture}: must be a multiple of 16 from 64 to 4096, such as {below} or {below + 16}; "
                "multiples of 64 are best"
            )
        return cls(picture, max(64, (picture + 32) // 64 * 64))


def require_released_layout(rendering: RenderingNet, motion: MotionNet) -> None:
    """ReenactError that names the setting where networks are built otherwise than the rewritings expect."""
    stages = [_blocks(stage) for stage in rendering.de_up_block3]
    wrong = None
    if len(stages[2]) != 1 or stages[2][0].residual or _expands(stages[2][0]):
        wrong = "the outermost decoder stage (first in mobilev2_decoder_*) must be one block of expansion 1 that widens"
    elif stages[1][0].residual or not _expands(stages[1][0]):
        wrong = "the second decoder stage must expand, and not keep its width in the first block"
    elif rendering.pose_dims != _POSE:
        wrong = f"headpose_dims must be {_POSE}"
    elif motion.smallest != 4:
        wrong = "mn_n_downsampling must be 2"
    if wrong:
        raise ReenactError(f"these networks can be trained but not exported: {wrong}")


class SourceGraph(nn.Module):
    """A photo and its fit to everything that frames need of it."""

    inputs = ("image", "landmarks_1", "landmarks_2", "landmarks_3", "head_pose")
    outputs = ("x2_in", "x3_in", "x4_in", "de_x4_in", "motion_1", "motion_2", "motion_3")

    def __init__(self, rendering: RenderingNet, motion: MotionNet, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.rendering = folded(rendering)
        self.entrances = nn.ModuleList(_source_part(conv) for conv in _entrances(motion))
        self.small = Fourth(sizes)

    def forward(
        self, image: Tensor, landmarks_1: Tensor, landmarks_2: Tensor, landmarks_3: Tensor, head_pose: Tensor
    ) -> tuple[Tensor, ...]:
        """image (S, S, 3), landmarks of sides M/16, M/8, M/4 (s, s, 3), all uint8; head_pose (6,) float32."""
        picture = normalised(image)
        features = self.rendering.register_source(picture, head_pose[None])
        small = self.small(picture)
        shares = [
            entrance(torch.cat([normalised(landmarks), small[:, :, :: scale // 4, :: scale // 4]], 1))
            for entrance, landmarks, scale in zip(
                self.entrances, (landmarks_1, landmarks_2, landmarks_3), SCALES, strict=True
            )
        ]
        return (*features, *shares)


class Fourth(nn.Module):
    """The photo as the motion network sees it: every fourth pixel, behind a bilinear resize to the motion size.

    The resize is a product with a fixed matrix on each side: backends disagree about their own by up to 2e-4.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.same = sizes.motion == sizes.picture
        if not self.same:
            line = torch.eye(sizes.picture)[None]  # one line for each pixel
            resized = functional.interpolate(line, size=sizes.motion, mode="linear", align_corners=False)
            self.register_buffer("matrix", resized[0, :, ::4].T.contiguous())
            self.matrix: Tensor

    def forward(self, picture: Tensor) -> Tensor:
        """(1, 3, S, S) to (1, 3, M/4, M/4)."""
        return picture[:, :, ::4, ::4] if self.same else self.matrix @ picture @ self.matrix.T


class FrameGraph(nn.Module):
    """One driving frame's landmark images and head pose to the picture."""

    inputs = (*SourceGraph.outputs, "driving_1", "driving_2", "driving_3", "head_pose")
    outputs = ("image",)

    def __init__(self, rendering: RenderingNet, motion: MotionNet, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.motion = _Motion(motion)
        self.decoder = _Decoder(rendering, sizes.picture)

    def forward(
        self,
        x2_in: Tensor,
        x3_in: Tensor,
        x4_in: Tensor,
        de_x4_in: Tensor,
        motion_1: Tensor,
        motion_2: Tensor,
        motion_3: Tensor,
        driving_1: Tensor,
        driving_2: Tensor,
        driving_3: Tensor,
        head_pose: Tensor,
    ) -> Tensor:
        """What the source graph gave, landmark images (s, s, 3) uint8, head_pose (6,); (S, S, 3) uint8."""
        drawn = [normalised(image) for image in (driving_1, driving_2, driving_3)]
        field = self.motion([motion_1, motion_2, motion_3], drawn)
        image: Tensor = self.decoder([x2_in, x3_in, x4_in, de_x4_in], field, head_pose[None])
        return image


class _Motion(nn.Module):
    """`MotionNet` from the source's shares and the driving's landmark images to the finest field."""

    def __init__(self, network: MotionNet) -> None:
        super().__init__()
        self.entrances = nn.ModuleList(_driving_part(conv) for conv in _entrances(network))
        quick = folded(network)
        self.coarse = quick.f1_model[3:]
        self.middle, self.fine = quick.model1_2, quick.model2_2
        self.fields = nn.ModuleList([quick.f1_motion, quick.model1_3, quick.model2_3])

    def forward(self, shares: list[Tensor], drawn: list[Tensor]) -> Tensor:
        """Shares and drawings (1, c, s, s) from coarse to fine; the field (1, M/4, M/4, 2)."""
        entered = [
            torch.relu(share + entrance(image))
            for share, entrance, image in zip(shares, self.entrances, drawn, strict=True)
        ]
        x = self.coarse(entered[0])
        field = self.fields[0](x)
        for body, to_field, entrance in zip(
            (self.middle, self.fine), list(self.fields)[1:], entered[1:], strict=True
        ):
            x = body(entrance + x)
            field = to_field(x) + functional.interpolate(field, scale_factor=2, mode="nearest")
        finest: Tensor = field.permute(0, 2, 3, 1)
        return finest


class _Decoder(nn.Module):
    """`RenderingNet.decode`, ending in uint8."""

    def __init__(self, network: RenderingNet, size: int) -> None:
        super().__init__()
        quick = folded(network)
        self.pose = PoseMap(network.drv_headpose_encoder)
        self.norms = nn.ModuleList(
            CellNorm(spade, _CELLS, size // scale)
            for spade, scale in zip(
                (network.de_SPADE_1, network.de_SPADE_2, network.de_SPADE_3, network.de_SPADE_4),
                (16, 16, 8, 4),
                strict=True,
            )
        )
        self.stages = nn.ModuleList([quick.de_res_block, quick.de_up_block1, quick.de_up_block2])
        self.tail = _Tail(quick, size)

    def forward(self, source: list[Tensor], field: Tensor, head_pose: Tensor) -> Tensor:
        """Features x2_in, x3_in, x4_in, de_x4_in, the field and the head pose (1, 6); (S, S, 3) uint8."""
        pose = self.pose(head_pose)
        x2, x3, x4, x = (warp(features, field) for features in source)
        for norm, stage, skip in zip(self.norms, self.stages, (x4, x3, x2), strict=False):
            x = torch.cat([stage(norm(x, pose)), skip], 1)
        image: Tensor = self.tail(self.norms[3](x, pose))
        return image


class _Tail(nn.Module):
    """The last two enlargements: the widest maps are only ever made at the size before them.

    The last projection and the last convolution are both linear and become one; what the projection's bias gives
    at the borders, where the convolution sees zeros, is a constant picture.
    """

    def __init__(self, quick: RenderingNet, size: int) -> None:
        super().__init__()
        first, second, last = (_blocks(stage) for stage in quick.de_up_block3)
        self.first = nn.Sequential(*first)
        self.second = nn.Sequential(DoubledResidual(second[0]), *second[1:])
        depthwise, project = last[0].conv[0], last[0].conv[3]
        picture = quick.de_conv_block[0]
        assert isinstance(depthwise, nn.Conv2d)
        assert isinstance(project, nn.Conv2d)
        assert isinstance(picture, nn.Conv2d)
        channels = depthwise.out_channels
        self.depthwise = nn.Conv2d(4 * channels, 4 * channels, 3, 1, 1, groups=4 * channels)
        self.depthwise.weight = nn.Parameter(
            phases_of(depthwise.weight.detach()).reshape(4 * channels, 1, 3, 3)
        )
        assert depthwise.bias is not None
        assert project.bias is not None
        self.depthwise.bias = nn.Parameter(depthwise.bias.detach().repeat(4))
        kernel = torch.einsum("omyx,mi->oiyx", picture.weight.detach(), project.weight.detach()[:, :, 0, 0])
        self.picture = nn.Conv2d(4 * channels, 12, 3, 1, 1, bias=False)
        self.picture.weight = nn.Parameter(between_phases(kernel))
        flat = project.bias.detach()[None, :, None, None].expand(1, -1, size, size)
        self.register_buffer(
            "constant", to_phases(functional.conv2d(flat, picture.weight.detach(), padding=1))
        )
        self.constant: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, S/4, S/4) to (S, S, 3) uint8."""
        x = self.second(self.first(x))
        x = torch.relu(self.depthwise(torch.cat([x, x, x, x], 1)))
        picture = torch.tanh(self.picture(x) + self.constant)
        levels = ((picture + 1) * 127.5).to(torch.uint8)
        side = levels.shape[-1]
        return levels.reshape(2, 2, 3, side, side).permute(3, 0, 4, 1, 2).reshape(2 * side, 2 * side, 3)


def _blocks(stage: nn.Module) -> list[InvertedResidual]:
    """The inverted residuals of a decoder stage, without the enlargement at its end."""
    return [block for block in stage[0] if isinstance(block, InvertedResidual)]  # type: ignore[index]


def _expands(block: InvertedResidual) -> bool:
    """Whether it begins with an expansion and not with the depthwise convolution."""
    first = block.conv[0]
    return isinstance(first, nn.Conv2d) and first.groups == 1


def _entrances(network: MotionNet) -> list[nn.Conv2d]:
    """Folded first convolutions of the three scales, nine channels in; a ReLU follows each."""
    quick = folded(network)
    convolutions = [quick.f1_model[0], quick.model1_1[0].conv, quick.model2_1[0].conv]
    return [conv for conv in convolutions if isinstance(conv, nn.Conv2d)]


def _source_part(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution's share of the source: landmark image and photo, with the bias."""
    return _share(conv, [0, 1, 2, 6, 7, 8], bias=True)


def _driving_part(conv: nn.Conv2d) -> nn.Conv2d:
    return _share(conv, [3, 4, 5], bias=False)


def _share(conv: nn.Conv2d, channels: list[int], *, bias: bool) -> nn.Conv2d:
    made = copy.deepcopy(conv)
    made.in_channels = len(channels)
    made.weight = nn.Parameter(conv.weight.detach()[:, channels].clone())
    if not bias:
        made.bias = None
    return made


def normalised(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(H, W, 3) uint8 to (1, 3, H, W) in [-1, 1]."""
    return (image.to(dtype) * (2 / 255) - 1).permute(2, 0, 1)[None]
