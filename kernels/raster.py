"""Triangle meshes as pictures: which triangle each pixel shows, attributes over it, back faces, smooth outlines.

Clip space is (x, y, z, w): x / w runs from -1 at the left border to 1 at the right one, y / w from -1 at the top to 1
at the bottom, z / w from -1 (nearest) to 1. Pixel (row j, column i) shows what lies at its centre,
x / w = (2 i + 1) / W - 1 and y / w = (2 j + 1) / H - 1. The rules are those of nvdiffrast's CUDA rasteriser. Each
function has a plain twin in `raster_reference.py`, the oracle of its tests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from . import raster_loops as loops

__all__ = ["MAX_SIDE", "Raster", "antialias", "cull", "edge_neighbours", "interpolate", "rasterize"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

MAX_SIDE = 32768  # pixels; corners in 1/16 pixel then stay whole numbers in float32


@dataclass(frozen=True, eq=False)
class Raster:
    """What each pixel of a picture shows; all zero where it shows no triangle."""

    uvz: (
        Floats  # (H, W, 3): weights u, v of the triangle's first two corners (the third has 1 - u - v), z / w
    )
    ids: Ints  # (H, W): number of the triangle + 1, or 0


def rasterize(vertices: Floats, triangles: Ints, height: int, width: int, *, threads: int = 1) -> Raster:
    """Find the nearest triangle of each pixel; either side of a triangle is seen.

    vertices   # (V, 4) float32, clip space
    triangles  # (T, 3) int32

    Corners are rounded to 1/16 pixel; a pixel centre on an edge belongs to one of the two triangles that share it.
    At the same depth the later triangle is seen. What lies outside -w <= x, y, z <= w is cut off; a triangle with a
    corner that is not finite, or of no area once rounded, is left out. Weights and depth come from the corners as
    they are, perspective-correct. Raises ValueError on shapes, dtypes and numbers out of range.
    """
    _check_mesh(vertices, triangles)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"height and width must lie in 1..{MAX_SIDE}, not {height} and {width}")
    vertices, triangles = np.ascontiguousarray(vertices), np.ascontiguousarray(triangles)
    raster = Raster(np.empty((height, width, 3), np.float32), np.zeros((height, width), np.int32))
    nearest = np.full((height, width), np.inf, np.float32)
    corners = loops.project(vertices, height, width)

    def draw(first: int, last: int) -> None:
        ids, uvz = raster.ids[first:last], raster.uvz[first:last]
        loops.draw(vertices, *corners, triangles, first, height, nearest[first:last], ids)
        loops.shade(vertices, triangles, first, height, ids, uvz)

    _in_bands(draw, height, threads)
    return raster


def interpolate(attributes: Floats, raster: Raster, triangles: Ints, *, threads: int = 1) -> Floats:
    """(H, W, A) float32: the corners' attributes in each pixel, 0 where it shows no triangle.

    attributes  # (V, A) float32; several sets are drawn in one go when joined along A
    triangles   # (T, 3) int32, those of the raster

    Raises ValueError on shapes, dtypes and numbers out of range.
    """
    if attributes.ndim != 2 or attributes.dtype != np.float32:
        raise ValueError(f"attributes must be (V, A) float32, not {attributes.shape} {attributes.dtype}")
    _check_triangles(triangles, len(attributes))
    ids, uvz = _checked(raster, triangles)
    attributes, triangles = np.ascontiguousarray(attributes), np.ascontiguousarray(triangles)
    out = np.empty((*ids.shape, attributes.shape[1]), np.float32)

    def fill(first: int, last: int) -> None:
        loops.interpolate(attributes, triangles, ids[first:last], uvz[first:last], out[first:last])

    _in_bands(fill, len(out), threads)
    return out


def cull(raster: Raster, vertices: Floats, triangles: Ints) -> Raster:
    """Empty each pixel that shows a triangle's back: one whose corners run clockwise in the picture.

    What lies behind does not come to light. Arguments as for `rasterize`; raises ValueError like it.
    """
    _check_mesh(vertices, triangles)
    ids, uvz = _checked(raster, triangles)
    kept = Raster(np.empty_like(uvz), np.empty_like(ids))
    loops.cull(np.ascontiguousarray(vertices), np.ascontiguousarray(triangles), ids, uvz, kept.ids, kept.uvz)
    return kept


def edge_neighbours(triangles: Ints) -> Ints:
    """(T, 3) int32: the third corner of the triangle across the edge opposite each corner, or -1.

    There is none at the border of a mesh, where more than two triangles meet, and for triangles that name a vertex
    twice. It depends on `triangles` (T, 3) int32 alone: make it once. Raises ValueError on shapes and dtypes.
    """
    _check_triangles(triangles, None)
    numbers = np.flatnonzero((triangles != np.roll(triangles, 1, axis=1)).all(axis=1))
    if not len(numbers):
        return np.full(triangles.shape, -1, np.int32)
    sound = triangles[numbers].astype(np.int64)
    ends = np.sort(np.stack([np.roll(sound, -1, axis=1), np.roll(sound, -2, axis=1)]), axis=0)
    edges = (ends[0] * (sound.max() + 1) + ends[1]).reshape(-1)
    order = np.argsort(edges)
    _, starts, counts = np.unique(edges[order], return_index=True, return_counts=True)
    pairs = order[starts[counts == 2, None] + [0, 1]]
    found = np.full(edges.shape, -1, np.int32)
    found[pairs] = sound.reshape(-1)[pairs[:, ::-1]]
    neighbours = np.full(triangles.shape, -1, np.int32)
    neighbours[numbers] = found.reshape(-1, 3)
    return neighbours


def antialias(
    image: Floats,
    raster: Raster,
    vertices: Floats,
    triangles: Ints,
    neighbours: Ints,
    *,
    threads: int = 1,
) -> Floats:
    """(H, W, C) float32: the picture with its outlines blended by how far they cut into each pixel.

    image       # (H, W, C) float32, what `interpolate` gave for this raster
    neighbours  # (T, 3) int32 of `edge_neighbours`

    Of two pixels side by side that show different triangles, the nearer triangle is asked for an edge between the
    centres that is an outline: one without neighbour or whose neighbour is folded behind. Its place hands up to half
    of the colours' difference to one of the pixels. All w must be positive. The other arguments are those of
    `rasterize`; raises ValueError on shapes, dtypes and numbers out of range.
    """
    _check_mesh(vertices, triangles)
    ids, uvz = _checked(raster, triangles)
    if image.ndim != 3 or image.shape[:2] != ids.shape or image.dtype != np.float32:
        raise ValueError(f"image must be {(*ids.shape, 'C')} float32, not {image.shape} {image.dtype}")
    if neighbours.shape != triangles.shape or neighbours.dtype != np.int32:
        raise ValueError(
            f"neighbours must be {triangles.shape} int32, not {neighbours.shape} {neighbours.dtype}"
        )
    if neighbours.size and not (neighbours.min() >= -1 and neighbours.max() < len(vertices)):
        raise ValueError(f"neighbours name vertices outside 0..{len(vertices) - 1}")
    image, triangles = np.ascontiguousarray(image), np.ascontiguousarray(triangles)
    places = loops.places(np.ascontiguousarray(vertices), *ids.shape)
    outlines = loops.outlines(places, triangles, np.ascontiguousarray(neighbours))
    out = np.empty_like(image)

    def blend(first: int, last: int) -> None:
        loops.antialias(image, ids, uvz, places, triangles, outlines, first, out[first:last])

    _in_bands(blend, len(out), threads)
    return out


def _in_bands(work: Callable[[int, int], None], height: int, threads: int) -> None:
    """Call work(first, last) for bands of rows that make up the picture, each in a thread of its own.

    All that can fail in a thread fails in the caller's own band as well, so no error is lost.
    """
    if threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")
    bands = min(threads, height)
    borders = [height * k // bands for k in range(bands + 1)]
    others = [Thread(target=work, args=borders[k : k + 2]) for k in range(1, bands)]
    for thread in others:
        thread.start()
    work(borders[0], borders[1])
    for thread in others:
        thread.join()


def _check_mesh(vertices: Floats, triangles: Ints) -> None:
    if vertices.ndim != 2 or vertices.shape[1] != 4 or vertices.dtype != np.float32:
        raise ValueError(f"vertices must be (V, 4) float32, not {vertices.shape} {vertices.dtype}")
    _check_triangles(triangles, len(vertices))


def _check_triangles(triangles: Ints, vertex_count: int | None) -> None:
    if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.dtype != np.int32:
        raise ValueError(f"triangles must be (T, 3) int32, not {triangles.shape} {triangles.dtype}")
    if not triangles.size:
        return
    if triangles.min() < 0 or (vertex_count is not None and triangles.max() >= vertex_count):
        raise ValueError(f"triangles name vertices outside 0..{(vertex_count or 0) - 1}")


def _checked(raster: Raster, triangles: Ints) -> tuple[Ints, Floats]:
    """Ids and uvz of a raster that may have been made from these triangles."""
    ids, uvz = raster.ids, raster.uvz
    if ids.ndim != 2 or ids.dtype != np.int32 or not ids.size:
        raise ValueError(f"the raster's ids must be (H, W) int32 and not empty, not {ids.shape} {ids.dtype}")
    if uvz.shape != (*ids.shape, 3) or uvz.dtype != np.float32:
        raise ValueError(f"the raster's uvz must be {(*ids.shape, 3)} float32, not {uvz.shape} {uvz.dtype}")
    if ids.min() < 0 or ids.max() > len(triangles):
        raise ValueError(f"the raster shows triangles that are not among these {len(triangles)}")
    return np.ascontiguousarray(ids), np.ascontiguousarray(uvz)
