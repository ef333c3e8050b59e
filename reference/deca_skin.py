"""The skin of FLAME's head as a picture of 256 x 256 (UV): what is always the same about it, normals, wrinkles.

Skin maps are (B, C, 256, 256), their rows from the top. Vertices are in metres. Reads no files.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..errors import ModelError
from .deca_raster import rasterize_pytorch3d
from .head_template import HeadTemplate

__all__ = [
    "UV_SIDE",
    "HeadSkin",
    "blended_detail_normals",
    "detail_normals",
    "head_skin",
    "skin_of",
    "vertex_normals",
    "world_to_uv",
]

UV_SIDE = 256  # pixels
_SHORTEST = 1e-6  # square metres; normals of less are shorter than 1, as the decoder's weights expect them
# Where the mesh of wrinkles begins and where its cells end; the published margins.
_TOP, _BOTTOM = 5, 250
_LEFT, _RIGHT = 2, 253

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class HeadSkin:
    """What a head of V vertices and F triangles is drawn with. Made by `head_skin`."""

    triangles: Tensor  # (F, 3) int64 numbers of vertices
    around: Tensor  # (V, most) int64 numbers of the triangles around each vertex; F where there are no more
    corner_uvs: Tensor  # (F, 3, 2) of the triangles' corners, -1 to 1, x to the right and y down in the skin's picture
    uv_triangles: Tensor  # (256, 256) int64, the triangle that each pixel shows; -1 where there is no skin
    uv_weights: Tensor  # (256, 256, 3) of its corners; 0 where there is no skin
    wrinkled: Tensor  # (1, 1, 256, 256) in [0, 1], where predicted wrinkles count
    fixed_displacement: Tensor  # (1, 1, 256, 256) metres along the normal, the same for everybody


def head_skin(
    triangles: Array, uvs: Array, uv_triangles: Array, wrinkled: Array, fixed_displacement: Array
) -> HeadSkin:
    """The constants of a head's topology.

    triangles           # (F, 3) integers, numbers of vertices
    uvs                 # (U, 2) in [0, 1], x to the right and y up in the skin's picture
    uv_triangles        # (F, 3) integers, numbers of uvs
    wrinkled            # (256, 256) in [0, 1]; the published mask `uv_face_eye_mask` over 255
    fixed_displacement  # (256, 256) metres

    Raises ModelError for another shape, a value that is not finite and a number of what does not exist.
    """
    count, side = len(triangles), (UV_SIDE, UV_SIDE)
    for name, values, shape in (
        ("triangles", triangles, (count, 3)),
        ("uvs", uvs, (len(uvs), 2)),
        ("uv_triangles", uv_triangles, (count, 3)),
        ("wrinkled", wrinkled, side),
        ("fixed_displacement", fixed_displacement, side),
    ):
        kind = "iu" if name.endswith("triangles") else "f"
        if values.shape != shape or values.dtype.kind not in kind or not np.isfinite(values).all():
            expected = "integers" if "i" in kind else "finite floating-point numbers"
            raise ModelError(
                f"the skin's {name} is {values.shape} of {values.dtype}; expected {shape} {expected}"
            )
    if not count or min(triangles.min(), uv_triangles.min()) < 0 or uv_triangles.max() >= len(uvs):
        raise ModelError("the skin's triangles name corners that do not exist, or there are none")
    # Down from up, with the rounding of the published code.
    places = np.concatenate([uvs, np.ones((len(uvs), 1), uvs.dtype)], 1).astype(np.float32) * 2 - 1
    places[:, 1] = -places[:, 1]
    shown = rasterize_pytorch3d(
        torch.from_numpy(places)[None], torch.from_numpy(uv_triangles.astype(np.int64)), *side
    )
    return HeadSkin(
        triangles=torch.from_numpy(triangles.astype(np.int64)),
        around=torch.from_numpy(_around(triangles)),
        corner_uvs=torch.from_numpy(places[:, :2])[uv_triangles.astype(np.int64)],
        uv_triangles=shown.triangles[0],
        uv_weights=shown.weights[0],
        wrinkled=torch.from_numpy(wrinkled.astype(np.float32))[None, None],
        fixed_displacement=torch.from_numpy(fixed_displacement.astype(np.float32))[None, None],
    )


def skin_of(template: HeadTemplate) -> HeadSkin:
    """The constants of DECA's own head; raises as `head_skin`."""
    wrinkled = template.face_eye_mask.astype(np.float32) / 255
    return head_skin(
        template.triangles, template.uvs, template.uv_triangles, wrinkled, template.fixed_displacement
    )


def world_to_uv(skin: HeadSkin, values: Tensor) -> Tensor:
    """(B, C, 256, 256): values (B, V, C) of the vertices spread over the skin, 0 where there is none."""
    corners = skin.triangles[skin.uv_triangles.clamp_min(0)]
    return (values[:, corners] * skin.uv_weights[..., None]).sum(3).permute(0, 3, 1, 2)


def vertex_normals(skin: HeadSkin, vertices: Tensor) -> Tensor:
    """(B, V, 3) of vertices (B, V, 3): the triangles' around each, weighted by their areas.

    Of length 1, or shorter where those are small: the sum of their doubled areas over 1e-6.
    """
    a, b, c = vertices[:, skin.triangles].unbind(2)
    faces = functional.pad(
        torch.linalg.cross(b - a, c - a), (0, 0, 0, 1)
    )  # around has a last one, of no area
    return _shortened(faces[:, skin.around].sum(2), -1)


def detail_normals(skin: HeadSkin, vertices: Tensor, normals: Tensor, heights: Tensor) -> Tensor:
    """(B, 3, 256, 256) normals of the skin with wrinkles on it; 0 along the borders of the picture.

    vertices  # (B, V, 3)
    normals   # (B, V, 3), as of `vertex_normals`
    heights   # (B, 1, 256, 256) metres, as decoded
    """
    along = world_to_uv(skin, normals)
    displaced = world_to_uv(skin, vertices) + (heights * skin.wrinkled) * along
    # The fixed part is no way for a gradient into the normals, as published.
    return _grid_normals(displaced + skin.fixed_displacement * along.detach())


def blended_detail_normals(skin: HeadSkin, detailed: Tensor, normals: Tensor) -> Tensor:
    """(B, 3, 256, 256): those of `detail_normals` where wrinkles count, elsewhere the coarse ones (B, V, 3).

    Later versions of DECA show these.
    """
    return detailed * skin.wrinkled + world_to_uv(skin, normals) * (1 - skin.wrinkled)


def _grid_normals(points: Tensor) -> Tensor:
    """(B, 3, 256, 256) of points (B, 3, 256, 256), each cell of which is two triangles.

    A sum of shifted pictures in place of one over triangles.
    """
    rows, columns = slice(_TOP, _BOTTOM), slice(_LEFT, _RIGHT)
    lower, beside = slice(_TOP + 1, _BOTTOM + 1), slice(_LEFT + 1, _RIGHT + 1)
    corner, below = points[:, :, rows, columns], points[:, :, lower, columns]
    right, across = points[:, :, rows, beside], points[:, :, lower, beside]
    first = torch.linalg.cross(below - corner, right - corner, dim=1)
    second = torch.linalg.cross(below - right, across - right, dim=1)
    total = torch.zeros_like(points)
    for normals, down, aside in (
        *((first, 0, 0), (first, 1, 0), (first, 0, 1)),
        *((second, 0, 1), (second, 1, 0), (second, 1, 1)),
    ):
        left, top = _LEFT + aside, _TOP + down
        ends = (left, UV_SIDE - _RIGHT - aside, top, UV_SIDE - _BOTTOM - down)
        total = total + functional.pad(normals, ends)
    return _shortened(total, 1)


def _shortened(sums: Tensor, axis: int) -> Tensor:
    length: Tensor = sums.norm(dim=axis, keepdim=True)
    return sums / length.clamp_min(_SHORTEST)


def _around(triangles: Array) -> NDArray[np.int64]:
    """(V, most) numbers of the triangles at each vertex, in rising order, filled up with their count."""
    flat = triangles.reshape(-1).astype(np.int64)
    order = np.argsort(flat, kind="stable")
    counts = np.bincount(flat)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    around = np.full((len(counts), counts.max()), len(triangles), np.int64)
    around[flat[order], place] = order // 3
    return around
