"""DECA's camera, light and pictures of the head.

Image space: x to the right and y down, both from -1 to 1 between the picture's borders, smaller z nearer. Normals point
out of the head; those of the world have y up and z to the viewer, projected ones y down and z away from the viewer.
Pictures are (B, C, H, W) float32, colours in [0, 1].
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .deca_raster import Rasterizer, interpolate, rasterize_pytorch3d
from .deca_skin import HeadSkin

__all__ = [
    "SH_FACTORS",
    "View",
    "depth_picture",
    "directional_shading",
    "into_picture",
    "lit",
    "point_shading",
    "project",
    "sh_shading",
    "shape_picture",
    "to_pixels",
    "view",
]

_AHEAD = 10.0  # added to z, so that all of a head lies before the eye
_GREY = 180 / 255
_TURNED_AWAY = 0.15  # z of the projected normals from which on shape pictures are black
_LAMPS = ((-1, 1, 1), (1, 1, 1), (-1, -1, 1), (1, -1, 1), (0, 0, 1))
_INTENSITY = 1.7

# Norms of the first nine spherical harmonics, times what is left of them in diffuse light (Ramamoorthi and Hanrahan,
# SIGGRAPH 2001, doi 10.1145/383259.383317).
SH_FACTORS = (
    1 / math.sqrt(4 * math.pi),
    *(3 * (2 * math.pi / 3 * math.sqrt(3 / (4 * math.pi)),)),
    *(3 * (math.pi / 4 * 3 * math.sqrt(5 / (12 * math.pi)),)),
    math.pi / 4 * 1.5 * math.sqrt(5 / (12 * math.pi)),
    math.pi / 4 * 0.5 * math.sqrt(5 / (4 * math.pi)),
)


@dataclass(frozen=True, eq=False)
class View:
    """What B pictures show of a head before any colour; 0 where they show none."""

    alpha: Tensor  # (B, 1, H, W), 1 where they show it
    grid: (
        Tensor  # (B, H, W, 2) where on the skin, x and y from -1 to 1; the skin's middle where there is none
    )
    normals: Tensor  # (B, 3, H, W) of the world
    away: Tensor  # (B, 1, H, W) z of the projected normals, below 0 where they face the viewer


def project(points: Tensor, cam: Tensor) -> Tensor:
    """(B, N, 3) image space of points (B, N, 3) in metres: weak perspective with cam (B, 3) scale, shift x, shift y."""
    scale, shift = cam[:, None, :1], functional.pad(cam[:, None, 1:], (0, 1))
    return scale * (points + shift) * points.new_tensor([1, -1, -1])


def to_pixels(points: Tensor, side: int) -> Tensor:
    """Image space in pixels from the upper left border, for all axes alike: published depths are scaled so as well."""
    return points * (side / 2) + side / 2


def into_picture(
    points: NDArray[np.float32], to_crop: NDArray[np.float64], side: int, size: tuple[int, int]
) -> NDArray[np.float64]:
    """Image space of a crop to that of the whole picture it was cut out of; more coordinates than x and y are kept.

    points   # (..., 2 or more) image space of the crop
    to_crop  # (3, 3) from the picture's pixels to the crop's, for columns (x, y, 1)
    side     # pixels of the crop
    size     # pixels of the picture, width and height
    """
    to_picture = np.linalg.inv(to_crop)
    placed = points.astype(np.float64)
    pixels = (placed[..., :2] / 2 + 0.5) * side
    pixels = pixels @ to_picture[:2, :2].T + to_picture[:2, 2]
    placed[..., :2] = 2 * pixels / size - 1
    return placed


def view(
    skin: HeadSkin,
    projected: Tensor,
    normals: Tensor,
    projected_normals: Tensor,
    height: int,
    width: int,
    rasterize: Rasterizer = rasterize_pytorch3d,
) -> View:
    """Look at a head: vertices (B, V, 3) in image space, and both kinds of normals (B, V, 3)."""
    fragments = rasterize(_ahead(projected), skin.triangles, height, width)
    uvs = skin.corner_uvs.expand(len(projected), -1, -1, -1)
    corners = [uvs, normals[:, skin.triangles], projected_normals[:, skin.triangles, 2:]]
    drawn = interpolate(fragments, torch.cat(corners, 3))
    alpha = (fragments.triangles >= 0).to(drawn.dtype)[:, None]
    return View(alpha, drawn[:, :2].permute(0, 2, 3, 1), drawn[:, 2:5], drawn[:, 5:])


def sh_shading(normals: Tensor, light: Tensor) -> Tensor:
    """(B, 3, H, W): light (B, 9, 3), a column a channel, on normals (B, 3, H, W) of the world, as long as they are."""
    x, y, z = normals.unbind(1)
    ones = torch.ones_like(x)
    basis = torch.stack([ones, x, y, z, x * y, x * z, y * z, x**2 - y**2, 3 * z**2 - 1], 1)
    factors = normals.new_tensor(SH_FACTORS)[:, None]
    return ((light * factors).transpose(1, 2) @ basis.flatten(2)).reshape(normals.shape)


def point_shading(points: Tensor, normals: Tensor, lamps: Tensor) -> Tensor:
    """(B, N, 3): lamps (B, L, 6), position and colour, on points and normals (B, N, 3); their mean, below 0 behind."""
    towards = functional.normalize(lamps[:, :, None, :3] - points[:, None], dim=3)
    facing = (normals[:, None] * towards).sum(3, keepdim=True)
    return (facing * lamps[:, :, None, 3:]).mean(1)


def directional_shading(normals: Tensor, lamps: Tensor) -> Tensor:
    """(B, N, 3): lamps (B, L, 6), direction towards each and colour, on normals (B, N, 3); their mean."""
    towards = functional.normalize(lamps[:, :, None, :3], dim=3)
    facing = (normals[:, None] * towards).sum(3, keepdim=True).clamp(0, 1)
    return (facing * lamps[:, :, None, 3:]).mean(1)


def lit(seen: View, albedo: Tensor, light: Tensor) -> Tensor:
    """(B, 3, H, W): the skin's colours (B, 3, h, w) in light (B, 9, 3), black where there is no head."""
    return _on(seen, albedo) * sh_shading(seen.normals, light) * seen.alpha


def shape_picture(seen: View, detailed: Tensor | None = None) -> Tensor:
    """(B, 3, H, W): the head in grey under five lamps, black where it faces away.

    `detailed` (B, 3, h, w) are normals over the skin, to be seen in place of the coarse ones.
    """
    normals = seen.normals if detailed is None else _on(seen, detailed) * seen.alpha
    flat = normals.flatten(2).transpose(1, 2)
    lamps = flat.new_tensor([(*towards, *(3 * (_INTENSITY,))) for towards in _LAMPS])[None]
    shading = directional_shading(flat, lamps).transpose(1, 2).reshape(normals.shape)
    return _GREY * shading * (seen.alpha * (seen.away < _TURNED_AWAY))


def depth_picture(
    skin: HeadSkin,
    projected: Tensor,
    height: int,
    width: int,
    rasterize: Rasterizer = rasterize_pytorch3d,
) -> Tensor:
    """(B, 1, H, W): 1 at the nearest vertex of all B heads, 0 at the furthest and where there is none."""
    depth = projected[..., 2:] - projected[..., 2:].min()
    nearness = 1 - depth / depth.max()
    ahead = torch.cat([projected[..., :2], depth + _AHEAD], 2)
    return interpolate(rasterize(ahead, skin.triangles, height, width), nearness[:, skin.triangles])


def _ahead(projected: Tensor) -> Tensor:
    return projected + projected.new_tensor([0, 0, _AHEAD])


def _on(seen: View, skin_map: Tensor) -> Tensor:
    return functional.grid_sample(
        skin_map, seen.grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
