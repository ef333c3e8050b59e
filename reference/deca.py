"""DECA (SIGGRAPH 2021, doi 10.1145/3450626.3459936): a face's shape, expression, pose, light and wrinkles from a photo.

The networks, and the way from photos to codes and from codes to a head. How a head is drawn is in `deca_render.py`.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .deca_render import View, project, sh_shading, to_pixels, view
from .deca_skin import HeadSkin, detail_normals, vertex_normals
from .deca_texture import HIDDEN, FlameTex, photo_texture
from .flame import Flame, points_on
from .resnet import FEATURES, ResNet50

__all__ = [
    "NETWORKS",
    "SIDE",
    "Codes",
    "Coloured",
    "DetailDecoder",
    "Encoder",
    "Head",
    "Wrinkles",
    "codes_of",
    "colours",
    "decode",
    "detail_latent",
    "encode",
    "look",
    "wrinkles",
]

SIDE = 224  # pixels of the photos
_SIZES = {"shape": 100, "tex": 50, "exp": 50, "pose": 6, "cam": 3, "light": 27}
_DETAIL = 128
_JAW = slice(3, 6)  # in the pose
_HIDDEN = 1024
_MAX_Z = 0.01  # metres
_COARSEST = 8  # pixels of the decoder's first map
_WIDTHS = (128, 128, 64, 64, 32, 16)  # of the decoder's maps, 8 to 256 pixels
# An argument slipped into this place when the decoder was written; its weights were trained with it.
_DECODER_EPSILON = 0.8
_HIDDEN_LANDMARK = 0.1  # z of the projected normal from which on a landmark counts as hidden


@dataclass(frozen=True, eq=False)
class Codes:
    """What E_flame sees in B photos; the names are the published ones."""

    shape: Tensor  # (B, 100) identity
    tex: Tensor  # (B, 50) skin colours
    exp: Tensor  # (B, 50) expression
    pose: Tensor  # (B, 6) rotations of the head and of the jaw, axis-angles
    cam: Tensor  # (B, 3) scale, shift x, shift y
    light: Tensor  # (B, 9, 3) spherical harmonics, a column a channel


@dataclass(frozen=True, eq=False)
class Head:
    """B heads as FLAME has them and where they are in their photos."""

    vertices: Tensor  # (B, V, 3) metres
    projected: Tensor  # (B, V, 3) image space of the photo
    normals: Tensor  # (B, V, 3) of the world
    projected_normals: Tensor  # (B, V, 3) of the projected vertices
    landmarks_2d: Tensor  # (B, 68, 2) pixels of the photo; the contour is where a viewer sees it
    landmarks_3d: (
        Tensor  # (B, 68, 4) x, y and depth in pixels, all on the skin; 1 where they face the viewer, else 0
    )


@dataclass(frozen=True, eq=False)
class Wrinkles:
    """What the detail decoder adds to B heads, over the skin."""

    heights: Tensor  # (B, 1, 256, 256) metres, as decoded
    displacement: Tensor  # (B, 1, 256, 256) metres, with what everybody has; nowhere masked, as published
    normals: Tensor  # (B, 3, 256, 256) of the world


@dataclass(frozen=True, eq=False)
class Coloured:
    """Colours of B skins, (B, 3, 256, 256) each."""

    shading: Tensor  # of the wrinkled skin in the photo's light
    photo: Tensor  # what the photo shows, light included


class Encoder(nn.Module):
    """ResNet-50 and two linear layers; `outsize` numbers a photo."""

    def __init__(self, outsize: int) -> None:
        super().__init__()
        self.encoder = ResNet50()
        self.layers = nn.Sequential(nn.Linear(FEATURES, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, outsize))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) float32 RGB in [0, 1] to (B, outsize); ValueError for another shape."""
        if images.ndim != 4 or images.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"photos must be (B, 3, {SIDE}, {SIDE}), not {tuple(images.shape)}")
        numbers: Tensor = self.layers(self.encoder(images).mean((2, 3)))
        return numbers


class DetailDecoder(nn.Module):
    """From jaw, expression and detail code to wrinkles, as heights over the skin."""

    def __init__(self) -> None:
        super().__init__()
        first = _WIDTHS[0]
        self.l1 = nn.Sequential(
            nn.Linear(_JAW.stop - _JAW.start + _SIZES["exp"] + _DETAIL, first * _COARSEST**2)
        )
        layers: list[nn.Module] = [nn.BatchNorm2d(first)]
        for before, width in pairwise(_WIDTHS):
            layers += [
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(before, width, 3, 1, 1),
                nn.BatchNorm2d(width, _DECODER_EPSILON),
                nn.LeakyReLU(0.2),
            ]
        self.conv_blocks = nn.Sequential(*layers, nn.Conv2d(_WIDTHS[-1], 1, 3, 1, 1), nn.Tanh())

    def forward(self, latent: Tensor) -> Tensor:
        """(B, 181) of `detail_latent` to (B, 1, 256, 256) metres, at most 0.01 either way."""
        first: Tensor = self.l1(latent)
        heights: Tensor = self.conv_blocks(first.reshape(-1, _WIDTHS[0], _COARSEST, _COARSEST))
        return _MAX_Z * heights


def encode(e_flame: nn.Module, e_detail: nn.Module, images: Tensor) -> tuple[Codes, Tensor]:
    """What the encoders see in photos (B, 3, 224, 224) RGB in [0, 1]: codes, and details (B, 128)."""
    return codes_of(e_flame(images)), e_detail(images)


def decode(flame: Flame, skin: HeadSkin, codes: Codes) -> Head:
    """The heads that codes describe, in photos of 224 pixels.

    To animate somebody take shape and cam of their codes, and exp and pose[:, 3:] of others'.
    """
    posed = flame(codes.shape, codes.exp, codes.pose)
    projected = project(posed.vertices, codes.cam)
    projected_normals = vertex_normals(skin, projected)
    contour = to_pixels(project(flame.landmarks_2d(posed), codes.cam)[..., :2], SIDE)
    fixed = to_pixels(project(flame.landmarks_3d(posed), codes.cam), SIDE)
    corners = flame.faces_tensor[flame.full_lmk_faces_idx]
    turned = points_on(projected_normals, corners, flame.full_lmk_bary_coords)[..., 2:]
    seen = (turned < _HIDDEN_LANDMARK).to(fixed.dtype)
    normals = vertex_normals(skin, posed.vertices)
    return Head(posed.vertices, projected, normals, projected_normals, contour, torch.cat([fixed, seen], 2))


def wrinkles(d_detail: nn.Module, skin: HeadSkin, codes: Codes, detail: Tensor, head: Head) -> Wrinkles:
    """Details (B, 128) of a person on heads decoded from these codes."""
    heights = d_detail(detail_latent(codes.pose, codes.exp, detail))
    normals = detail_normals(skin, head.vertices, head.normals, heights)
    return Wrinkles(heights, heights + skin.fixed_displacement, normals)


def colours(skin: HeadSkin, codes: Codes, head: Head, wrinkled: Wrinkles, images: Tensor) -> Coloured:
    """The skins' colours in the photos (B, 3, 224, 224) that the codes were seen in; grey where there is no face."""
    grey = images.new_tensor(HIDDEN)
    photo = photo_texture(skin, images, head.projected, grey)
    return Coloured(sh_shading(wrinkled.normals, codes.light), photo)


def look(skin: HeadSkin, head: Head) -> View:
    """The heads from the camera of their photos, 224 pixels a side."""
    return view(skin, head.projected, head.normals, head.projected_normals, SIDE, SIDE)


def codes_of(parameters: Tensor) -> Codes:
    """E_flame's (B, 236) taken apart."""
    parts = dict(zip(_SIZES, torch.split(parameters, list(_SIZES.values()), 1), strict=True))
    return Codes(**parts | {"light": parts["light"].reshape(-1, 9, 3)})


def detail_latent(pose: Tensor, exp: Tensor, detail: Tensor) -> Tensor:
    """(B, 181) for the detail decoder: jaw and expression as they shall be seen, detail (B, 128) of the person."""
    return torch.cat([pose[:, _JAW], exp, detail], 1)


def _e_flame() -> Encoder:
    return Encoder(sum(_SIZES.values()))


def _e_detail() -> Encoder:
    return Encoder(_DETAIL)


NETWORKS = {"d_detail": DetailDecoder, "e_detail": _e_detail, "e_flame": _e_flame, "flametex": FlameTex}
