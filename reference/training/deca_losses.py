"""What DECA's networks are trained to make small, each term without its weight in the sum; single numbers in float32.

Landmarks are (B, 68, 2 or more) in [-1, 1] over the photo. Photos are (B, 3, 224, 224) RGB in [0, 1], skin maps
(B, C, 256, 256).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "IDENTITY_SIDE",
    "code_loss",
    "eye_closure_loss",
    "identity_input",
    "identity_loss",
    "landmark_loss",
    "light_loss",
    "lip_closure_loss",
    "mrf_loss",
    "photometric_loss",
    "shading_smoothness_loss",
    "skin_patch",
    "symmetry_loss",
]

IDENTITY_SIDE = 224  # pixels that the face recognition network sees
_EYE_PAIRS = ((37, 41), (38, 40), (43, 47), (44, 46))  # upper and lower lids
_LIP_PAIRS = ((61, 67), (62, 66), (63, 65))  # upper and lower inner lips
_VGGFACE_MEAN_BGR = (91.4953, 103.8827, 131.0912)
_CUT = 10  # pixels of the photo's border that the recognition does not see
_PATCH = slice(50, 206)  # rows and columns of the skin that hold the face
_NO_WEIGHT = 1e-8
_MRF_EPSILON, _MRF_BANDWIDTH = 1e-5, 0.5


def landmark_loss(ours: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    """L1 of the points, weighted by how much each tells and by what is seen (B, 68) of the target."""
    weight = _landmark_weights(ours) * seen
    distance = (ours[..., :2] - target[..., :2]).abs().sum(2)
    return (weight * distance).sum() / (2 * weight.sum() + _NO_WEIGHT)


def eye_closure_loss(ours: Tensor, target: Tensor) -> Tensor:
    """How far the lids' distances differ from those of the target."""
    return _opening_loss(ours, target, _EYE_PAIRS)


def lip_closure_loss(ours: Tensor, target: Tensor) -> Tensor:
    """How far the lips' distances differ from those of the target."""
    return _opening_loss(ours, target, _LIP_PAIRS)


def photometric_loss(rendered: Tensor, photos: Tensor, covered: Tensor, skin: Tensor) -> Tensor:
    """L1 of pictures (B, 3, H, W) where the photos show skin.

    covered  # (B, 1, H, W), 1 where the drawn head shows its face; elsewhere it counts as black
    skin     # (B, 1, H, W), 1 where the photos show skin
    """
    return (skin * (rendered * covered - photos).abs()).mean()


def identity_input(photos: Tensor) -> Tensor:
    """What VGGFace2's ResNet-50 (arXiv 1710.08092) sees of photos: blue first, 0..255 about the mean, and 2 x - 1.

    The last is one too many; it stays, as the published weights of the terms were found with it.
    """
    mean = photos.new_tensor(_VGGFACE_MEAN_BGR)[:, None, None]
    inner = (photos.flip(1) * 255 - mean)[:, :, _CUT:-_CUT, _CUT:-_CUT]
    size = (IDENTITY_SIDE, IDENTITY_SIDE)
    return functional.interpolate(2 * inner - 1, size, mode="bilinear", align_corners=False)


def identity_loss(features: Callable[[Tensor], Tensor], rendered: Tensor, photos: Tensor) -> Tensor:
    """1 - cosine of what a recognition network, (B, 3, 224, 224) to (B, n), says of both."""
    ours, theirs = features(identity_input(rendered)), features(identity_input(photos))
    return 1 - functional.cosine_similarity(ours.flatten(1), theirs.flatten(1)).mean()


def code_loss(codes: Tensor) -> Tensor:
    """Half of the squares of shape, expression or texture codes (B, n), summed up."""
    return codes.square().sum() / 2


def light_loss(light: Tensor) -> Tensor:
    """How coloured light (B, 9, 3) is."""
    return (light.mean(2, keepdim=True) - light).square().mean()


def shading_smoothness_loss(shading: Tensor) -> Tensor:
    """Squared steps from pixel to pixel of shading (B, C, H, W)."""
    across = shading[:, :, 1:-1, 1:] - shading[:, :, 1:-1, :-1]
    down = shading[:, :, 1:, 1:-1] - shading[:, :, :-1, 1:-1]
    return across.square().mean() + down.square().mean()


def symmetry_loss(heights: Tensor, hidden: Tensor) -> Tensor:
    """Wrinkles (B, 1, 256, 256) that no photo shows, where `hidden` is 1, against those mirrored; summed up."""
    return (hidden * (heights - heights.flip(3).detach()).abs()).sum()


def skin_patch(skin_map: Tensor) -> Tensor:
    """(B, C, 256, 256): the face's part of a skin map, enlarged to its size."""
    inner = skin_map[:, :, _PATCH, _PATCH]
    return functional.interpolate(inner, skin_map.shape[2:], mode="bilinear", align_corners=False)


def mrf_loss(ours: Tensor, target: Tensor) -> Tensor:
    """Implicit diversified Markov random field (arXiv 1810.08771) of one layer's features (B, C, h, w); summed over B.

    Each place of ours is asked which place of the target it looks like; that all of them are named counts.
    """
    return torch.stack([_mrf(mine, theirs) for mine, theirs in zip(ours, target, strict=True)]).sum()


def _mrf(ours: Tensor, target: Tensor) -> Tensor:
    """Of one picture's features (C, h, w) each."""
    middle = target.mean(0)
    mine, theirs = (functional.normalize(features - middle, dim=0).flatten(1) for features in (ours, target))
    distance = (1 - theirs.T @ mine) / 2  # from every place of the target to every one of ours
    relative = distance / (distance.amin(0, keepdim=True) + _MRF_EPSILON)
    likeness = torch.exp((1 - relative) / _MRF_BANDWIDTH)
    shares = likeness / likeness.sum(0, keepdim=True)
    loss: Tensor = -shares.amax(1).mean().log()
    return loss


def _landmark_weights(like: Tensor) -> Tensor:
    """(68,) more for the jaw's corners, nose and mouth, most for what turns and opens."""
    weights = like.new_ones(68)
    weights[[5, 6, 10, 11]] = 2
    weights[27:36] = 1.5
    weights[48:68] = 1.5
    weights[[30, 31, 35, 48, 54]] = 3
    return weights


def _opening_loss(ours: Tensor, target: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    upper, lower = (list(row) for row in zip(*pairs, strict=True))
    mine, theirs = ((points[:, upper, :2] - points[:, lower, :2]).norm(dim=2) for points in (ours, target))
    loss: Tensor = (mine - theirs).abs().mean()
    return loss
