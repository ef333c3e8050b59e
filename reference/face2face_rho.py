"""Face2Face-rho (ECCV 2022, doi 10.1007/978-3-031-19778-9_4): its networks and its settings file.

A motion network turns landmark images into a backward sampling field; a rendering network warps the source's
features by that field and decodes them, conditioned on the head pose. Parameter names are the published ones,
so are the names of the settings. Pictures are RGB, (B, 3, S, S) float32 in [-1, 1].
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ReenactError
from .layers import (
    DownBlock,
    InvertedResidual,
    Judgement,
    PatchDiscriminator,
    PoseEncoder,
    ResidualBlock,
    Spade,
    UpBlock,
    warp,
)
from .settings import Kind, Value, read_settings

__all__ = [
    "NETWORKS",
    "MotionFields",
    "MotionNet",
    "MultiScaleDiscriminator",
    "RenderingNet",
    "SourceFeatures",
    "read_config",
]

_STAGES = 7  # inverted-residual stages of the encoder and of the decoder

_OFFICIAL_KEYS: Mapping[Kind, tuple[str, str]] = {  # of `[ROOT]`: for every run; for training as well
    "text": (
        "name checkpoints_dir model phase epoch",
        "init_type lr_policy dataset_mode dataroot",
    ),
    "bool": ("isTrain", "emphasize_face_area continue_train serial_batches"),
    "int": (
        "output_size load_iter headpose_dims headpose_embedding_ngf mn_ngf n_local_enhancers "
        "mn_n_downsampling mn_n_blocks_local",
        "disc_block_expansion disc_num_blocks disc_max_features init_field_epochs epoch_count niter "
        "niter_decay num_repeats batch_size num_threads",
    ),
    "float": (
        "",
        "init_gain warp_loss_weight reconstruction_loss_weight feature_matching_loss_weight "
        "face_area_weight_scale lr beta1",
    ),
    "ints": (
        "gpu_ids mobilev2_encoder_channels mobilev2_encoder_layers mobilev2_decoder_channels "
        "mobilev2_decoder_layers",
        "",
    ),
    "floats": ("mobilev2_encoder_expansion_factor mobilev2_decoder_expansion_factor", "loss_scales"),
}
_RUN_KEYS, _TRAIN_KEYS = (
    {name: kind for kind, lists in _OFFICIAL_KEYS.items() for name in lists[use].split()} for use in (0, 1)
)
_OTHER_NAMES = {
    "block_expansion": "disc_block_expansion",
    "num_blocks": "disc_num_blocks",
    "max_features": "disc_max_features",
}
_DISPLAY_KEYS = r"display_\w+|\w*html\w*|\w*_freq|save_by_iter|verbose"


@dataclass(frozen=True)
class SourceFeatures:
    """What is kept of a source photo of side S; all maps are behind a ReLU, so not negative.

    The channels are those of the released model.
    """

    x2_in: Tensor  # (B, 28, S/4, S/4)
    x3_in: Tensor  # (B, 72, S/8, S/8)
    x4_in: Tensor  # (B, 140, S/16, S/16)
    de_x4_in: Tensor  # (B, 280, S/16, S/16)

    def __iter__(self) -> Iterator[Tensor]:
        """The four maps in the order above."""
        return iter((self.x2_in, self.x3_in, self.x4_in, self.de_x4_in))


@dataclass(frozen=True)
class MotionFields:
    """Backward fields from coarse to fine, x then y, absolute and not bounded: -1 and 1 are the picture's edges."""

    low: Tensor  # (B, S/16, S/16, 2)
    middle: Tensor  # (B, S/8, S/8, 2)
    high: Tensor  # (B, S/4, S/4, 2); the one that the rendering network is driven by


class RenderingNet(nn.Module):
    """U-shaped MobileNetV2 whose features are warped between encoder and decoder.

    The three lists of each half go from the picture inwards: 8 channel numbers, and of each of the 7 stages
    between them the number of blocks and their expansion. Raises ReenactError where they do not fit together.
    """

    def __init__(
        self,
        *,
        headpose_dims: int = 6,
        headpose_embedding_ngf: int = 8,
        mobilev2_encoder_channels: Sequence[int] = (16, 8, 12, 28, 64, 72, 140, 280),
        mobilev2_encoder_layers: Sequence[int] = (1, 2, 2, 2, 2, 2, 1),
        mobilev2_encoder_expansion_factor: Sequence[float] = (1, 6, 6, 6, 6, 6, 6),
        mobilev2_decoder_channels: Sequence[int] = (16, 8, 14, 24, 64, 96, 140, 280),
        mobilev2_decoder_layers: Sequence[int] = (1, 2, 2, 2, 2, 2, 1),
        mobilev2_decoder_expansion_factor: Sequence[float] = (1, 6, 6, 6, 6, 6, 6),
    ) -> None:
        super().__init__()
        self.pose_dims = headpose_dims
        en, de = mobilev2_encoder_channels, mobilev2_decoder_channels
        layers, expansion = mobilev2_encoder_layers, mobilev2_encoder_expansion_factor
        _check_stages("mobilev2_encoder", en, layers, expansion)
        _check_stages("mobilev2_decoder", de, mobilev2_decoder_layers, mobilev2_decoder_expansion_factor)
        if en[-1] != de[-1]:
            raise ReenactError(
                f"mobilev2_decoder_channels ends with {de[-1]}, mobilev2_encoder_channels with {en[-1]}; "
                "the decoder begins with the encoder's last map, so they must be equal"
            )
        embedding = 4 * headpose_embedding_ngf

        def encode(i: int, stride: int, final_norm: bool = True) -> nn.Sequential:
            return _encoder_stage(en[i], en[i + 1], layers[i], expansion[i], stride, final_norm)

        self.src_headpose_encoder = PoseEncoder(headpose_dims, headpose_embedding_ngf)
        self.drv_headpose_encoder = PoseEncoder(headpose_dims, headpose_embedding_ngf)

        self.en_conv_block = nn.Sequential(
            nn.Conv2d(3, en[0], 3, 1, 1, bias=False), nn.BatchNorm2d(en[0]), nn.ReLU()
        )
        self.en_down_block1 = nn.Sequential(encode(0, 1), encode(1, 2), encode(2, 2, final_norm=False))
        self.en_SPADE1 = Spade(en[3], embedding)
        self.en_down_block2 = nn.Sequential(encode(3, 2), encode(4, 1, final_norm=False))
        self.en_SPADE_2 = Spade(en[5], embedding)
        self.en_down_block3 = nn.Sequential(encode(5, 2, final_norm=False))
        self.en_SPADE_3 = Spade(en[6], embedding)
        self.en_res_block = nn.Sequential(encode(6, 1, final_norm=False))
        self.en_SPADE_4 = Spade(en[7], embedding)

        layers, expansion = mobilev2_decoder_layers, mobilev2_decoder_expansion_factor

        def decode(i: int, skip: int = 0, *, up: bool = False, final_norm: bool = True) -> nn.Sequential:
            return _decoder_stage(de[i + 1] + skip, de[i], layers[i], expansion[i], up, final_norm)

        self.de_SPADE_1 = Spade(de[7], embedding)
        self.de_res_block = nn.Sequential(decode(6, final_norm=False))
        self.de_SPADE_2 = Spade(de[6] + en[6], embedding)
        self.de_up_block1 = nn.Sequential(decode(5, en[6], up=True))
        self.de_SPADE_3 = Spade(de[5] + en[5], embedding)
        self.de_up_block2 = nn.Sequential(decode(4, en[5]), decode(3, up=True))
        self.de_SPADE_4 = Spade(de[3] + en[3], embedding)
        self.de_up_block3 = nn.Sequential(decode(2, en[3], up=True), decode(1, up=True), decode(0))
        self.de_conv_block = nn.Sequential(nn.Conv2d(de[0], 3, 3, 1, 1, bias=False), nn.Tanh())

    def register_source(self, image: Tensor, headpose: Tensor) -> SourceFeatures:
        """Encode a source once.

        image: (B, 3, S, S) in [-1, 1], S a multiple of 16. headpose: (B, 6), axis-angle x, y, z in radians,
        then shift x, y and scale as the fit gives them. Raises ReenactError for other sizes.
        """
        _check_size(image, 16, "the source image", "the rendering network")
        pose = self.src_headpose_encoder(headpose)
        x2_in = torch.relu(self.en_SPADE1(self.en_down_block1(self.en_conv_block(image)), pose))
        x3_in = torch.relu(self.en_SPADE_2(self.en_down_block2(x2_in), pose))
        x4_in = torch.relu(self.en_SPADE_3(self.en_down_block3(x3_in), pose))
        de_x4_in = torch.relu(self.en_SPADE_4(self.en_res_block(x4_in), pose))
        return SourceFeatures(x2_in, x3_in, x4_in, de_x4_in)

    def decode(self, source: SourceFeatures, field: Tensor, headpose: Tensor) -> Tensor:
        """The source's features, moved by a field, as a picture.

        field: (B, h, w, 2) backward, x then y, -1 and 1 the edges; usually (B, S/4, S/4, 2), any other size is
        brought to each map's by nearest neighbour. headpose: (B, 6) of the driving face. Returns
        (B, 3, S, S) in [-1, 1]. Raises ReenactError where field and features do not fit together.
        """
        if field.ndim != 4 or field.shape[0] != source.x2_in.shape[0] or field.shape[3] != 2:
            raise ReenactError(
                f"the field has the shape {tuple(field.shape)}; expected (B, h, w, 2) with as many as the "
                f"source's features, B = {source.x2_in.shape[0]}"
            )
        pose = self.drv_headpose_encoder(headpose)
        x2, x3, x4, de_x4 = (warp(features, field) for features in source)
        x = self.de_res_block(torch.relu(self.de_SPADE_1(de_x4, pose)))
        x = self.de_up_block1(torch.relu(self.de_SPADE_2(torch.cat([x, x4], 1), pose)))
        x = self.de_up_block2(torch.relu(self.de_SPADE_3(torch.cat([x, x3], 1), pose)))
        x = self.de_up_block3(torch.relu(self.de_SPADE_4(torch.cat([x, x2], 1), pose)))
        picture: Tensor = self.de_conv_block(x)
        return picture

    def forward(
        self, image: Tensor, field: Tensor, source_headpose: Tensor, driving_headpose: Tensor
    ) -> Tensor:
        """`register_source` and `decode` in one; shapes as there."""
        return self.decode(self.register_source(image, source_headpose), field, driving_headpose)


class MotionNet(nn.Module):
    """Landmark images of source and driving to backward fields, from coarse to fine.

    `mn_ngf` is the width at the finest scale, `mn_n_downsampling` the halvings inside a scale and
    `mn_n_blocks_local` the residual blocks of each of the two finer scales.
    """

    def __init__(self, *, mn_ngf: int = 16, mn_n_downsampling: int = 2, mn_n_blocks_local: int = 3) -> None:
        super().__init__()
        self.smallest = 1 << mn_n_downsampling
        width = 4 * mn_ngf
        self.f1_model = nn.Sequential(
            nn.Conv2d(9, width, 3, 1, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *_downs(width, mn_n_downsampling),
            *_ups(width, mn_n_downsampling),
        )
        self.f1_motion = nn.Conv2d(width, 2, 3, 1, 1)
        self.model1_1, self.model1_2, self.model1_3 = _enhancer(
            2 * mn_ngf, mn_n_downsampling, mn_n_blocks_local
        )
        self.model2_1, self.model2_2, self.model2_3 = _enhancer(mn_ngf, mn_n_downsampling, mn_n_blocks_local)

    def forward(self, input1: Tensor, input2: Tensor, input3: Tensor) -> MotionFields:
        """Nine channels each: source landmark image, driving landmark image, source photo by nearest neighbour.

        input1: (B, 9, S/16, S/16), input2: (B, 9, S/8, S/8), input3: (B, 9, S/4, S/4), in [-1, 1]. S is a
        multiple of 64 in the released configuration. Raises ReenactError for other sizes.
        """
        self._check(input1, input2, input3)
        x = self.f1_model(input1)
        low = self.f1_motion(x)
        x = self.model1_2(self.model1_1(input2) + x)
        middle = self.model1_3(x) + _doubled(low)
        x = self.model2_2(self.model2_1(input3) + x)
        high = self.model2_3(x) + _doubled(middle)
        return MotionFields(*(field.permute(0, 2, 3, 1) for field in (low, middle, high)))

    def _check(self, *inputs: Tensor) -> None:
        side = 16 * inputs[0].shape[-1]
        step = 16 * self.smallest
        if side % step or side == 0:
            raise ReenactError(
                f"the motion network cannot run at S = {side} (input1 has the side {side // 16}); S must be "
                f"a multiple of {step}, such as {_neighbours(side, step)}"
            )
        for i, given in enumerate(inputs):
            expected = (inputs[0].shape[0], 9, side >> (4 - i), side >> (4 - i))
            if tuple(given.shape) != expected:
                raise ReenactError(
                    f"input{i + 1} of the motion network has the shape {tuple(given.shape)}; expected "
                    f"{expected} for S = {side}"
                )


class MultiScaleDiscriminator(nn.Module):
    """Judges a picture together with the driving landmark image; for training only, at one scale."""

    def __init__(
        self, *, disc_block_expansion: int = 32, disc_num_blocks: int = 4, disc_max_features: int = 512
    ) -> None:
        super().__init__()
        scale = PatchDiscriminator(6, disc_block_expansion, disc_num_blocks, disc_max_features)
        self.discs = nn.ModuleDict({"1": scale})

    def forward(self, image: Tensor, landmark_image: Tensor) -> Judgement:
        """image (B, 3, S, S) and landmark_image (B, 3, any, any), which is resized to it; both in [-1, 1]."""
        landmark_image = functional.interpolate(
            landmark_image, size=image.shape[2:], mode="bilinear", align_corners=False
        )
        judged: Judgement = self.discs["1"](torch.cat([image, landmark_image], 1))
        return judged


def read_config(path: Path) -> dict[str, Value]:
    """The settings of an official ini file, under their published names; `settings_of` picks a network's.

    What only training needs may be left out where `isTrain` is not True. Raises ReenactError that names the
    file and the key that is missing, unknown, of another kind or not to be had here.
    """
    config = read_settings(
        path,
        "ROOT",
        _RUN_KEYS | _TRAIN_KEYS,
        required=_RUN_KEYS.keys(),
        ignored=_DISPLAY_KEYS,
        other_names=_OTHER_NAMES,
    )
    missing = [key for key in _TRAIN_KEYS if key not in config]
    if config["isTrain"] and missing:
        raise ReenactError(f"{path}: [ROOT] lacks {', '.join(missing)}, which training (isTrain) needs")
    if config["n_local_enhancers"] != 2:
        raise ReenactError(
            f"{path}: n_local_enhancers is {config['n_local_enhancers']}; the motion network has 2, one for "
            "each of its finer inputs"
        )
    return config


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "rendering_net": RenderingNet,
    "motion_net": MotionNet,
    "discriminator": MultiScaleDiscriminator,
}


def _encoder_stage(
    channels_in: int, channels_out: int, blocks: int, expansion: float, stride: int, final_norm: bool
) -> nn.Sequential:
    """The first block has the stride; the others are residual and so keep their norm."""
    chain = [
        InvertedResidual(
            channels_out if i else channels_in,
            channels_out,
            stride=1 if i else stride,
            expansion=expansion,
            final_norm=final_norm or i < blocks - 1,
        )
        for i in range(blocks)
    ]
    return nn.Sequential(nn.Sequential(*chain))


def _decoder_stage(
    channels_in: int, channels_out: int, blocks: int, expansion: float, up: bool, final_norm: bool
) -> nn.Sequential:
    """All strides are 1; `up` doubles the side behind the last block."""
    chain: list[nn.Module] = [
        InvertedResidual(
            channels_out if i else channels_in,
            channels_out,
            stride=1,
            expansion=expansion,
            final_norm=final_norm,
        )
        for i in range(blocks)
    ]
    if up:
        chain.append(nn.Upsample(scale_factor=2, mode="nearest"))
    return nn.Sequential(nn.Sequential(*chain))


def _downs(width: int, count: int) -> list[nn.Module]:
    return [DownBlock(width << i, width << (i + 1)) for i in range(count)]


def _ups(width: int, count: int) -> list[nn.Module]:
    return [UpBlock(width << (i + 1), width << i) for i in reversed(range(count))]


def _enhancer(ngf: int, downsampling: int, blocks: int) -> tuple[nn.Sequential, nn.Sequential, nn.Conv2d]:
    """One finer scale: its entrance, which halves the side, its body, which ends doubled, and its field."""
    width = 2 * ngf
    body = nn.Sequential(
        *_downs(width, downsampling),
        *(ResidualBlock(width << downsampling) for _ in range(blocks)),
        *_ups(width, downsampling),
        UpBlock(width, ngf),
    )
    return nn.Sequential(DownBlock(9, width)), body, nn.Conv2d(ngf, 2, 3, 1, 1)


def _doubled(field: Tensor) -> Tensor:
    return functional.interpolate(field, scale_factor=2, mode="nearest")


def _check_size(image: Tensor, step: int, what: str, network: str) -> None:
    side = image.shape[-1]
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != side:
        raise ReenactError(f"{what} has the shape {tuple(image.shape)}; {network} needs (B, 3, S, S)")
    if side % step or side == 0:
        raise ReenactError(
            f"{what} has the side {side}; {network} needs a multiple of {step}, such as "
            f"{_neighbours(side, step)}"
        )


def _neighbours(side: int, step: int) -> str:
    below = side // step * step
    return f"{below} or {below + step}" if below else str(step)


def _check_stages(
    half: str, channels: Sequence[int], layers: Sequence[int], expansion: Sequence[float]
) -> None:
    for name, given, expected in (
        ("channels", channels, _STAGES + 1),
        ("layers", layers, _STAGES),
        ("expansion_factor", expansion, _STAGES),
    ):
        if len(given) != expected:
            raise ReenactError(f"{half}_{name} has {len(given)} numbers; expected {expected}")
        if min(given) <= 0:
            raise ReenactError(f"{half}_{name} contains {min(given)}; all must be above 0")
