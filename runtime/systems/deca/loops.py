"""The compiled loops of DECA's geometry, on arrays that `skin.py` has made: normals, maps of the skin, samples.

Their twins are the functions of the same purpose in the reference, the oracle of their tests.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["grid_normals", "sample", "spread", "vertex_normals"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

_SHORTEST = 1e-6  # square metres; normals of less are shorter than 1, as the decoder's weights expect them


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def vertex_normals(vertices: Floats, triangles: Ints) -> Floats:
    """(V, 3): the sums of the doubled areas around each vertex, over their length or 1e-6 where that is more."""
    out = np.zeros_like(vertices)
    for i in range(triangles.shape[0]):
        a, b, c = triangles[i, 0], triangles[i, 1], triangles[i, 2]
        ux, uy, uz = (
            vertices[b, 0] - vertices[a, 0],
            vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )
        vx, vy, vz = (
            vertices[c, 0] - vertices[a, 0],
            vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            out[corner, 0] += x
            out[corner, 1] += y
            out[corner, 2] += z
    for i in range(out.shape[0]):
        _shorten(out[i])
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _shorten(vector: Floats) -> None:
    length = math.sqrt(vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2])
    over = np.float32(1 / max(length, _SHORTEST))
    for k in range(3):
        vector[k] *= over


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def spread(values: Floats, corners: Ints, weights: Floats) -> Floats:
    """(H, W, C): values (V, C) at the corners (H, W, 3) by weights (H, W, 3); corners below 0 show nothing."""
    height, width = corners.shape[:2]
    out = np.zeros((height, width, values.shape[1]), np.float32)
    for y in range(height):
        for x in range(width):
            if corners[y, x, 0] >= 0:
                for i in range(3):
                    for k in range(values.shape[1]):
                        out[y, x, k] += weights[y, x, i] * values[corners[y, x, i], k]
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def grid_normals(points: Floats, top: int, bottom: int, left: int, right: int) -> Floats:
    """(H, W, 3) of points (H, W, 3), each cell of whose rows and columns in these bounds is two triangles."""
    out = np.zeros_like(points)
    first, second = np.empty(3, np.float32), np.empty(3, np.float32)
    for y in range(top, bottom):
        for x in range(left, right):
            corner, below = points[y, x], points[y + 1, x]
            beside, across = points[y, x + 1], points[y + 1, x + 1]
            _cross(corner, below, beside, first)
            _cross(beside, below, across, second)
            for k in range(3):
                out[y, x, k] += first[k]
                out[y + 1, x, k] += first[k] + second[k]
                out[y, x + 1, k] += first[k] + second[k]
                out[y + 1, x + 1, k] += second[k]
    for y in range(points.shape[0]):
        for x in range(points.shape[1]):
            _shorten(out[y, x])
    return out


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _cross(a: Floats, b: Floats, c: Floats, out: Floats) -> None:
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    out[0], out[1], out[2] = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sample(picture: Floats, places: Floats) -> Floats:
    """(h, w, C): a picture (H, W, C) at places (h, w, 2), x and y from -1 to 1 between its borders; 0 beyond."""
    height, width, channels = picture.shape
    out = np.zeros((places.shape[0], places.shape[1], channels), np.float32)
    for j in range(places.shape[0]):
        for i in range(places.shape[1]):
            x = ((places[j, i, 0] + 1) * width - 1) / 2
            y = ((places[j, i, 1] + 1) * height - 1) / 2
            if not (x > -1 and x < width and y > -1 and y < height):
                continue
            left, top = math.floor(x), math.floor(y)
            for row in (top, top + 1):
                down = 1 - abs(y - row)
                if row < 0 or row >= height:
                    continue
                for column in (left, left + 1):
                    if column < 0 or column >= width:
                        continue
                    share = np.float32(down * (1 - abs(x - column)))
                    for k in range(channels):
                        out[j, i, k] += share * picture[row, column, k]
    return out
