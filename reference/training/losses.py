"""What the networks of Face2Face-rho are trained to make small; the losses of other systems are made of the same.

Pictures are (B, 3, S, S) float32 in [-1, 1], fields (B, h, w, 2) backward, x then y. Every loss is a single number
in float32, also where networks ran in half precision.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..face2face_rho import MotionFields
from ..layers import Judgement
from .vgg import Vgg19

__all__ = [
    "discriminator_loss",
    "face_weight",
    "feature_matching_loss",
    "generator_adversarial_loss",
    "init_field_loss",
    "perceptual_loss",
    "pyramid",
    "reconstruction_loss",
    "warp_loss",
    "warped_source",
    "weighted_l1",
]

_SCALES = 3  # fields of the motion network
_SMALLEST_WARP = 128  # pixels; a field with a smaller side is enlarged to this first


def face_weight(mask: Tensor, inside: float) -> Tensor:
    """(B, 1, S, S) weights: `inside` where the mask (B, 1, S, S) is true or above 0, elsewhere 1."""
    return torch.where(mask > 0, inside, 1.0).to(torch.float32)


def weighted_l1(ours: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of |ours - target| * weight; the weight (B, 1, any, any) is brought to their size by nearest neighbour."""
    if weight.shape[2:] != ours.shape[2:]:
        weight = functional.interpolate(weight, size=ours.shape[2:], mode="nearest")
    return ((ours.float() - target.float()).abs() * weight).mean()


def warped_source(source: Tensor, field: Tensor) -> Tensor:
    """The source sampled by a field, (B, 3, h, w); a field smaller than 128 is first enlarged to 128 x 128."""
    field = field.float()
    if min(field.shape[1:3]) < _SMALLEST_WARP:
        field = functional.interpolate(
            field.permute(0, 3, 1, 2), size=(_SMALLEST_WARP,) * 2, mode="bilinear", align_corners=False
        ).permute(0, 2, 3, 1)
    return functional.grid_sample(source, field, mode="bilinear", padding_mode="zeros", align_corners=False)


def warp_loss(fields: MotionFields, source: Tensor, driving: Tensor, weight: float) -> Tensor:
    """weight / 3 times L1 of the source, moved by each of the three fields, and the driving picture at its size."""
    total = source.new_zeros(())
    for field in (fields.low, fields.middle, fields.high):
        warped = warped_source(source, field)
        there = functional.interpolate(driving, size=warped.shape[2:], mode="bilinear", align_corners=False)
        total = total + functional.l1_loss(warped, there)
    return weight / _SCALES * total


def init_field_loss(fields: MotionFields, epoch: int, epochs: int) -> Tensor:
    """Holds the fields near the identity while the motion network has learned nothing yet.

    1000 * (epochs - epoch) / epochs, a third for each scale, times L1 of field and identity, whose corners are at
    exactly -1 and 1. Zero from epoch number `epochs` on.
    """
    total = fields.low.new_zeros((), dtype=torch.float32)
    if epoch >= epochs:
        return total
    for field in (fields.low, fields.middle, fields.high):
        y, x = (torch.linspace(-1, 1, side, device=field.device) for side in field.shape[1:3])
        identity = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
        total = total + functional.l1_loss(field.float(), identity.expand(field.shape))
    return 1000 * (epochs - epoch) / epochs / _SCALES * total


def pyramid(picture: Tensor, scales: Sequence[float]) -> list[Tensor]:
    """A picture at each of `scales`, which are 1 over whole numbers; its sides are rounded up.

    Blurred with a Gaussian of sigma (1 / scale - 1) / 2, zeros outside, then every (1 / scale)-th pixel is taken;
    scale 1 is the picture itself.
    """
    with torch.autocast(picture.device.type, enabled=False):
        return [_smaller(picture.float(), round(1 / scale)) for scale in scales]


def perceptual_loss(vgg: Vgg19, ours: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Sum of the weighted L1 of the five feature maps; no gradient goes into the target."""
    with torch.no_grad():
        expected = vgg(target)
    total = ours.new_zeros((), dtype=torch.float32)
    for mine, theirs in zip(vgg(ours), expected, strict=True):
        total = total + weighted_l1(mine, theirs, weight)
    return total


def reconstruction_loss(
    vgg: Vgg19, fake: Tensor, driving: Tensor, weight: Tensor, scales: Sequence[float]
) -> Tensor:
    """The perceptual loss summed over a pyramid of both pictures."""
    total = fake.new_zeros((), dtype=torch.float32)
    for ours, target in zip(pyramid(fake, scales), pyramid(driving, scales), strict=True):
        total = total + perceptual_loss(vgg, ours, target, weight)
    return total


def generator_adversarial_loss(fake: Judgement) -> Tensor:
    """Least squares: mean of (1 - D(fake))^2."""
    return (1 - fake.prediction_map.float()).square().mean()


def discriminator_loss(real: Judgement, fake: Judgement) -> Tensor:
    """Least squares: mean of (1 - D(real))^2 + D(fake)^2."""
    right = (1 - real.prediction_map.float()).square()
    return (right + fake.prediction_map.float().square()).mean()


def feature_matching_loss(real: Judgement, fake: Judgement, weight: Tensor) -> Tensor:
    """Sum over the discriminator's maps of the weighted L1 of real and fake."""
    total = weight.new_zeros(())
    for theirs, ours in zip(real.feature_maps, fake.feature_maps, strict=True):
        total = total + weighted_l1(ours, theirs, weight)
    return total


def _smaller(picture: Tensor, step: int) -> Tensor:
    """Blurred along rows and columns in turn, which is the same as at once; only kept pixels are computed."""
    if step == 1:
        return picture
    sigma = (step - 1) / 2
    reach = round(4 * sigma)
    x = torch.arange(-reach, reach + 1, device=picture.device, dtype=torch.float32)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(picture.shape[1], 1, -1)
    channels = picture.shape[1]
    picture = functional.conv2d(
        picture, kernel[..., None], stride=(step, 1), padding=(reach, 0), groups=channels
    )
    return functional.conv2d(
        picture, kernel[:, :, None], stride=(1, step), padding=(0, reach), groups=channels
    )
