"""The skin of FLAME's head: its triangles, how it is spread out as a picture of 256 x 256 (UV), wrinkles and colours.

Skin maps are (256, 256, C) float32, rows from the top. Vertices are in metres, x to the picture's right, y up, z to the
viewer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import BundleError
from ....kernels.raster import Raster, rasterize
from . import loops

__all__ = ["GREY", "UV_SIDE", "DenseMesh", "Skin", "to_bytes"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

UV_SIDE = 256  # pixels
GREY = 0.7  # of skin that is not textured; a colour model's lit colours are dimmed by it there
# Where the mesh of wrinkles begins and where its cells end; the published margins.
_TOP, _BOTTOM = 5, 250
_LEFT, _RIGHT = 2, 253


@dataclass(frozen=True, eq=False)
class DenseMesh:
    """A vertex for each pixel of the skin that is part of it, joined in both ways of the picture."""

    vertices: Floats  # (N, 3) metres
    colours: NDArray[np.uint8]  # (N, 3) RGB
    triangles: Ints  # (M, 3)


class Skin:
    """What is the same about every head; made of a bundle's arrays, of which BundleError names the one at fault."""

    triangles: Ints  # (F, 3) numbers of vertices
    uvs: Floats  # (U, 2) in [0, 1], x to the right and y up
    uv_triangles: Ints  # (F, 3) numbers of uvs

    def __init__(self, arrays: Mapping[str, NDArray[Any]], vertices: int) -> None:
        """`vertices`: how many the mesh has."""
        side, count = (UV_SIDE, UV_SIDE), len(arrays.get("triangles", ()))
        uvs = len(arrays.get("uvs", ()))
        for name, dtype, shape, most in (
            ("triangles", np.int32, (count, 3), vertices),
            ("uvs", np.float32, (uvs, 2), 1),
            ("uv_triangles", np.int32, (count, 3), uvs),
            ("face_eye_mask", np.uint8, side, 256),
            ("fixed_displacement", np.float32, side, 1),
            ("pixel_triangles", np.int32, side, count),
            ("pixel_weights", np.float32, (*side, 3), 2),
            ("landmark_corners", np.int32, (68, 3), vertices),
            ("landmark_weights", np.float32, (68, 3), 2),
        ):
            values = arrays.get(name)
            if values is None or values.dtype != dtype or values.shape != shape or not count:
                raise BundleError(
                    f"the bundle's skin has no {name} {shape} {np.dtype(dtype)}; export it again"
                )
            outside = (values < -1) | (values > most if dtype == np.float32 else values >= most)
            if not np.isfinite(values).all() or outside.any():
                raise BundleError(f"the bundle's skin has values out of range in {name}; export it again")
        self.rasterize: Callable[[Floats, Ints, int, int], Raster] = rasterize  # or another of the same rules
        self.triangles, self.uvs = arrays["triangles"], arrays["uvs"]
        self.uv_triangles = arrays["uv_triangles"]
        self._wrinkled = arrays["face_eye_mask"].astype(np.float32)[..., None] / np.float32(255)
        self._fixed = arrays["fixed_displacement"][..., None]
        self._shown = arrays["pixel_triangles"]
        self._corners = np.where(self._shown[..., None] < 0, np.int32(-1), self.triangles[self._shown])
        self._weights = arrays["pixel_weights"]
        self.covered: Floats = (self._shown >= 0).astype(np.float32)[
            ..., None
        ]  # (256, 256, 1), 1 where there is skin
        self._landmarks = arrays["landmark_corners"], arrays["landmark_weights"]
        places = np.stack([2 * self.uvs[:, 0] - 1, 1 - 2 * self.uvs[:, 1]], 1)
        self.corner_places: Floats = places[self.uv_triangles]  # (F, 3, 2), -1 to 1 with y down

    def normals(self, vertices: Floats) -> Floats:
        """(V, 3) of vertices (V, 3), weighted by area; of length 1, or shorter where the areas are small."""
        return np.asarray(loops.vertex_normals(vertices, self.triangles))

    def at_landmarks(self, values: Floats) -> Floats:
        """(68, C) of values (V, C) of the vertices, where the landmarks that stay with the skin are."""
        corners, weights = self._landmarks
        return np.asarray((values[corners] * weights[..., None]).sum(axis=1))

    def spread(self, values: Floats) -> Floats:
        """The map of values (V, C) of the vertices, 0 where there is no skin."""
        return np.asarray(
            loops.spread(np.ascontiguousarray(values, np.float32), self._corners, self._weights)
        )

    def displacement(self, heights: Floats) -> Floats:
        """(256, 256) metres: decoded heights and what everybody has, nowhere masked, as published."""
        return np.asarray(heights + self._fixed[..., 0])

    def detail_normals(self, vertices: Floats, normals: Floats, heights: Floats) -> Floats:
        """The map of normals with wrinkles (256, 256) on them; 0 along the picture's borders."""
        along = self.spread(normals)
        points = self.spread(vertices) + (heights[..., None] * self._wrinkled + self._fixed) * along
        return np.asarray(loops.grid_normals(points, _TOP, _BOTTOM, _LEFT, _RIGHT))

    def blended(self, detailed: Floats, normals: Floats) -> Floats:
        """The map of normals with wrinkles where those count, elsewhere of the coarse ones (V, 3).

        DECA's later versions show these; the others are spoilt where the skin was cut to be spread out.
        """
        return np.asarray(detailed * self._wrinkled + self.spread(normals) * (1 - self._wrinkled), np.float32)

    def texture(self, crop: Floats, projected: Floats, elsewhere: Floats | float) -> Floats:
        """What a crop (3, 224, 224) shows of the skin, and `elsewhere` where the mask says there is no face.

        Skin that faces away has the colours of what lies before it.
        """
        places = self.spread(projected[:, :2])
        seen = loops.sample(np.ascontiguousarray(crop.transpose(1, 2, 0)), places)
        return np.asarray(seen * self._wrinkled + elsewhere * (1 - self._wrinkled), np.float32)

    def dense_mesh(
        self, vertices: Floats, normals: Floats, displacement: Floats, texture: Floats
    ) -> DenseMesh:
        """The skin as fine as its wrinkles (256, 256), coloured by its texture."""
        covered = self._corners[..., 0] >= 0
        along = self.spread(normals)[covered]
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), np.float32(1e-12))
        moved = self.spread(vertices)[covered] + displacement[covered][:, None] * along
        number = np.where(covered, np.cumsum(covered).reshape(covered.shape) - 1, -1).astype(np.int32)
        corner, below = number[:-1, :-1], number[1:, :-1]
        beside, across = number[:-1, 1:], number[1:, 1:]
        cells = np.stack([corner, below, beside, beside, below, across], -1).reshape(-1, 3)
        triangles = cells[(cells >= 0).all(axis=1)]
        chart = self._charts()[self._shown[covered]][triangles]
        triangles = triangles[
            (chart == chart[:, :1]).all(axis=1)
        ]  # those between two charts would be bridges
        return DenseMesh(moved, to_bytes(texture[covered]), triangles)

    def _charts(self) -> Ints:
        """(F,) a number of the connected part of the spread-out skin that each triangle belongs to."""
        part = np.arange(len(self.uvs), dtype=np.int32)
        while True:
            lowest = part[self.uv_triangles].min(axis=1)
            new = part.copy()
            np.minimum.at(new, self.uv_triangles, lowest[:, None])
            new = new[new]
            if (new == part).all():
                return np.asarray(part[self.uv_triangles[:, 0]])
            part = new


def to_bytes(colours: Floats) -> NDArray[np.uint8]:
    """Colours in [0, 1] as bytes, cut off, not rounded, as published."""
    return np.asarray((colours * 255).clip(0, 255), np.uint8)
