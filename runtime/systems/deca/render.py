"""Pictures of a head, drawn by the CPU rasteriser: what each pixel shows, light, shape, depth.

Image space: x to the right and y down, both from -1 to 1 between the picture's borders, smaller z nearer. Normals of
the world have y up and z to the viewer, projected ones y down and z away from the viewer. Pictures are (H, W, C)
float32, colours in [0, 1].
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ....kernels.raster import Raster, interpolate
from . import loops
from .model import Head
from .skin import Skin

__all__ = ["View", "depth_picture", "lit", "seen_in", "sh_shading", "shape_picture", "view"]

Floats = NDArray[np.float32]

_GREY = 180 / 255
_LEAST_COVERED = 0.01
_TURNED_AWAY = 0.15  # z of the projected normals from which on shape pictures are black
_LAMPS = np.array([(-1, 1, 1), (1, 1, 1), (-1, -1, 1), (1, -1, 1), (0, 0, 1)], np.float32)
_INTENSITY = 1.7
# Norms of the first nine spherical harmonics, times what is left of them in diffuse light (Ramamoorthi and Hanrahan,
# SIGGRAPH 2001, doi 10.1145/383259.383317).
_SH_FACTORS = np.array(
    [
        1 / math.sqrt(4 * math.pi),
        *(3 * (2 * math.pi / 3 * math.sqrt(3 / (4 * math.pi)),)),
        *(3 * (math.pi / 4 * 3 * math.sqrt(5 / (12 * math.pi)),)),
        math.pi / 4 * 1.5 * math.sqrt(5 / (12 * math.pi)),
        math.pi / 4 * 0.5 * math.sqrt(5 / (4 * math.pi)),
    ],
    np.float32,
)


@dataclass(frozen=True, eq=False)
class View:
    """What a picture shows of a head before any colour; 0 where it shows none."""

    raster: Raster
    alpha: Floats  # (H, W, 1), 1 where it shows the head
    places: Floats  # (H, W, 2) where on the skin, x and y from -1 to 1
    covered: Floats  # (H, W, 1) how much of the skin's map around that place is skin
    normals: Floats  # (H, W, 3) of the world
    away: Floats  # (H, W, 1) z of the projected normals, below 0 where they face the viewer


def view(skin: Skin, head: Head, height: int, width: int) -> View:
    """Look at a head over its crop."""
    raster = _raster(skin, head.projected, height, width)
    # Where the skin was cut to be spread out, a vertex lies in two places: attributes of corners, then.
    corners = np.arange(3 * len(skin.triangles), dtype=np.int32).reshape(-1, 3)
    drawn = interpolate(
        np.concatenate(
            [
                skin.corner_places.reshape(-1, 2),
                head.normals[skin.triangles].reshape(-1, 3),
                head.projected_normals[skin.triangles, 2:].reshape(-1, 1),
            ],
            axis=1,
        ),
        raster,
        corners,
    )
    alpha = (raster.ids > 0).astype(np.float32)[..., None]
    places = drawn[..., :2]
    return View(raster, alpha, places, loops.sample(skin.covered, places), drawn[..., 2:5], drawn[..., 5:])


def shape_picture(seen: View, detailed: Floats | None = None) -> Floats:
    """The head in grey under five lamps, black where it faces away.

    `detailed` (256, 256, 3) are normals over the skin, to be seen in place of the coarse ones.
    """
    normals = seen.normals if detailed is None else _normals_in(seen, detailed)
    lamps = _LAMPS / np.linalg.norm(_LAMPS, axis=1, keepdims=True)
    facing = (normals @ lamps.T).clip(0, 1).mean(axis=2, keepdims=True) * np.float32(_INTENSITY * _GREY)
    shown = seen.alpha * (seen.away < _TURNED_AWAY)
    return np.repeat(facing * shown, 3, axis=2)


def lit(seen: View, albedo: Floats, light: Floats) -> Floats:
    """The skin's colours (256, 256, 3) in light (9, 3), black where there is no head."""
    return np.asarray(seen_in(seen, albedo) * sh_shading(seen.normals, light) * seen.alpha)


def sh_shading(normals: Floats, light: Floats) -> Floats:
    """(H, W, 3): light (9, 3), a column a channel, on normals (H, W, 3) of the world, as long as they are."""
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    basis = np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x**2 - y**2, 3 * z**2 - 1], axis=2)
    return np.asarray(basis @ (light * _SH_FACTORS[:, None]))


def depth_picture(skin: Skin, projected: Floats, seen: View) -> Floats:
    """(H, W): 1 at the nearest vertex of the whole head, 0 at the furthest and where there is none."""
    depth = projected[:, 2:] - projected[:, 2:].min()
    nearness = 1 - depth / depth.max()
    return interpolate(nearness, seen.raster, skin.triangles)[..., 0]


def seen_in(seen: View, skin_map: Floats) -> Floats:
    """(H, W, C): a map of the skin (256, 256, C) as the picture shows it, 0 where there is no head."""
    return np.asarray(loops.sample(np.ascontiguousarray(skin_map, np.float32), seen.places) * seen.alpha)


def _normals_in(seen: View, detailed: Floats) -> Floats:
    """(H, W, 3): normals of the skin; where it was cut to be spread out, the nothing beyond the cut does not count."""
    found = seen_in(seen, detailed) / np.maximum(seen.covered, _LEAST_COVERED)
    return np.where(seen.covered < _LEAST_COVERED, seen.normals, found)


def _raster(skin: Skin, projected: Floats, height: int, width: int) -> Raster:
    """The rasteriser cuts off what lies beyond -1 to 1; depths are made to fit."""
    clip = np.empty((len(projected), 4), np.float32)
    clip[:, :2] = projected[:, :2]
    clip[:, 2] = projected[:, 2] / max(1.0, float(np.abs(projected[:, 2]).max()))
    clip[:, 3] = 1
    return skin.rasterize(clip, skin.triangles, height, width)
