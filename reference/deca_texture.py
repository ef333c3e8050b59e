"""Colours of the skin, by a model or out of a photo, and the mesh as fine as its wrinkles."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .deca_skin import HeadSkin, world_to_uv

__all__ = ["HIDDEN", "FlameTex", "dense_mesh", "hidden_colours", "photo_texture"]

HIDDEN = 0.7  # grey of skin that is not textured; what a texture model's lit colours are dimmed by there
_SIDE = 512  # pixels of the model's pictures

Array = NDArray[Any]


class FlameTex(nn.Module):
    """Skin colours as a mean and its `n_tex` main variations; black until the state of an albedo model is loaded."""

    texture_mean: Tensor  # (1, 1, 786432), pixel after pixel, each blue, green, red
    texture_basis: Tensor  # (1, 786432, n_tex)

    def __init__(self, n_tex: int = 50) -> None:
        super().__init__()
        numbers = 3 * _SIDE**2
        self.register_buffer("texture_mean", torch.zeros(1, 1, numbers))
        self.register_buffer("texture_basis", torch.zeros(1, numbers, n_tex))

    def forward(self, tex: Tensor) -> Tensor:
        """(B, n_tex) codes to (B, 3, 256, 256) RGB, about [0, 1]: every second pixel of every second row."""
        colours = self.texture_mean[0] + tex @ self.texture_basis[0].T
        pictures = colours.reshape(-1, _SIDE, _SIDE, 3)[:, ::2, ::2]
        return pictures.permute(0, 3, 1, 2).flip(1)


def photo_texture(skin: HeadSkin, photos: Tensor, projected: Tensor, elsewhere: Tensor) -> Tensor:
    """(B, C, 256, 256): what the photos show of the skin, and `elsewhere` where the mask says there is no face.

    photos     # (B, C, H, W), the crops that the head was found in
    projected  # (B, V, 3) image space
    elsewhere  # whatever broadcasts to the result; published are 0.7, and with a texture model `hidden_colours`

    Skin that faces away has the colours of what lies before it.
    """
    places = world_to_uv(skin, projected)[:, :2].permute(0, 2, 3, 1)
    seen = functional.grid_sample(photos, places, mode="bilinear", padding_mode="zeros", align_corners=False)
    return seen * skin.wrinkled + elsewhere * (1 - skin.wrinkled)


def hidden_colours(albedo: Tensor, shading: Tensor) -> Tensor:
    """(B, 3, 256, 256) for skin that no photo shows: a texture model's colours in the photo's light, dimmed.

    albedo   # (B, 3, 256, 256) of `FlameTex`
    shading  # (B, 3, 256, 256), that light on the wrinkled skin
    """
    return HIDDEN * albedo * shading


def dense_mesh(
    vertices: Array, normals: Array, displacement: Array, pixels: Array, corners: Array, weights: Array
) -> Array:
    """(N, 3) metres: a vertex for each of N pixels of the skin, moved along its normal by the wrinkles.

    vertices      # (V, 3) metres
    normals       # (V, 3)
    displacement  # (256, 256) metres
    pixels        # (N, 2) integers, row and column of each in the skin's picture
    corners       # (N, 3) integers, the vertices around it
    weights       # (N, 3) of them
    """
    at, along = (np.einsum("nij,ni->nj", values[corners], weights) for values in (vertices, normals))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    moved: Array = at + displacement[pixels[:, 0], pixels[:, 1], None] * along
    return moved
