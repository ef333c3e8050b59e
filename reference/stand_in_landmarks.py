"""The 68 landmarks of the stand-in head, as the published embedding has them: triangles and their corners' weights."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .flame import FlameLandmarks
from .stand_in_mesh import COLUMNS, RINGS, mesh, ring_start
from .stand_in_surface import EYES, LIDS, LIPS, angles, surface

__all__ = ["stand_in_landmarks"]

Doubles = NDArray[np.float64]
Place = tuple[int, float]  # a ring, and a column of it, which may lie between two vertices

_FRONT = COLUMNS // 2
_CHEEK, _SIDE = (
    18,
    int(np.argmin(np.abs(angles(COLUMNS) - np.pi / 2))),
)  # columns, the first counted from the front
_YAWS = np.radians([*range(40), *range(-1, -40, -1)])  # of the rows of the contour
# The contour from the ear to the chin: rings, and how far from the front a viewer ever sees it there.
_CONTOUR = ((21, 84), (26, 84), (31, 84), (36, 83), (41, 80), (45, 73), (48, 57), (50, 33), (50, 0))


@cache
def stand_in_landmarks() -> FlameLandmarks:
    """The embedding; its arrays are read-only, the weights float32."""
    rows = [[_embedded(place) for place in _contour(yaw)] for yaw in _YAWS]
    inner = [_embedded(_place(ring, x)) for ring, x in _inner()]
    parts = {
        "static": inner,
        "dynamic": [point for row in rows for point in row],
        "full": [*rows[0], *inner],
    }
    shapes = {"static": (51,), "dynamic": (len(_YAWS), 17), "full": (1, 68)}
    fields: dict[str, NDArray[Any]] = {}
    for name, points in parts.items():
        triangles, weights = zip(*points, strict=True)
        fields[f"{name}_lmk_faces_idx"] = np.array(triangles, np.int64).reshape(shapes[name])
        fields[f"{name}_lmk_bary_coords"] = np.array(weights, np.float32).reshape(*shapes[name], 3)
    for values in fields.values():
        values.flags.writeable = False
    return FlameLandmarks(**fields)


def _inner() -> list[tuple[int, float]]:
    """A ring and x of each, in the order of the iBUG 300-W annotation: brows, nose, eyes, lips outside and inside."""
    brow = [(15, -0.054), (14, -0.047), (13, -0.037), (13, -0.026), (14, -0.015)]
    ridge = [(21, 0.0), (25, 0.0), (28, 0.0), (30, 0.0)]
    base = [(33, x) for x in (-0.012, -0.006, 0.0, 0.006, 0.012)]
    eye = EYES[0][0]
    wide, inward = 0.97 * LIDS.half, 0.4 * LIDS.half
    lids = [
        *((LIDS.upper, eye - wide), (LIDS.upper, eye - inward), (LIDS.upper, eye + inward)),
        *((LIDS.upper, eye + wide), (LIDS.lower, eye + inward), (LIDS.lower, eye - inward)),
    ]
    mirrored = [(ring, -x) for ring, x in lids]
    corner, inside = 0.98 * LIPS.half, 0.85 * LIPS.half
    upper, lower = (
        [(37, x) for x in (-0.016, -0.006, 0.0, 0.006, 0.016)],
        [(46, x) for x in (0.014, 0.007, 0.0)],
    )
    outer = [(LIPS.upper, -corner), *upper, (LIPS.upper, corner), *lower, (46, -0.007), (46, -0.014)]
    rims = [
        *((LIPS.upper, x) for x in (-inside, -0.009, 0.0, 0.009, inside)),
        *((LIPS.lower, x) for x in (0.009, 0.0, -0.009)),
    ]
    return [
        *brow,
        *((ring, -x) for ring, x in reversed(brow)),
        *ridge,
        *base,
        *lids,
        *(mirrored[i] for i in (3, 2, 1, 0, 5, 4)),
        *outer,
        *rims,
    ]


def _place(ring: int, x: float) -> Place:
    """Where the front of a ring crosses x."""
    columns = np.arange(_FRONT - 24, _FRONT + 25)
    return ring, float(np.interp(x, _ring(ring)[columns, 0], columns))


def _contour(yaw: float) -> list[Place]:
    """The outline's 17 points for a viewer to whom the head is turned by `yaw` towards +x, from the -x ear on."""
    left, right = ([_outline(ring, most, yaw, side) for ring, most in _CONTOUR] for side in (-1, 1))
    return [*left, *right[-2::-1]]


def _outline(ring: int, most: float, yaw: float, side: int) -> Place:
    """Where a ring's one side reaches furthest out, were it an ellipse; at most `most` degrees from the front."""
    angle = angles(COLUMNS)
    cheek = _FRONT + _CHEEK
    x, _, z = _ring(ring)[cheek]
    wide, deep = x / np.sin(angle[cheek]), (z - _ring(ring)[_SIDE, 2]) / np.cos(angle[cheek])
    furthest = np.arctan2(wide * np.cos(yaw), deep * np.sin(side * yaw))
    column = np.interp(min(furthest, np.radians(most)), angle, np.arange(COLUMNS))
    return ring, _FRONT + side * (float(column) - _FRONT)


def _ring(ring: int) -> Doubles:
    assert RINGS[ring] == COLUMNS
    return surface()[ring_start(ring) : ring_start(ring + 1)]


@cache
def _below() -> dict[tuple[int, int], int]:
    """The triangle on the inside of each edge, by the edge's direction."""
    corners = mesh().triangles.tolist()
    return {(triangle[i], triangle[(i + 1) % 3]): n for n, triangle in enumerate(corners) for i in range(3)}


def _embedded(place: Place) -> tuple[int, tuple[float, ...]]:
    """A triangle below a ring, one of whose sides has the point, and the weights of its corners."""
    ring, column = place
    first = int(column)
    share = column - first
    edge = ring_start(ring) + first % COLUMNS, ring_start(ring) + (first + 1) % COLUMNS
    triangle = _below()[
        edge[1], edge[0]
    ]  # a ring's columns run the other way round in the triangles below it
    shares = dict(zip(edge, (1 - share, share), strict=True))
    return triangle, tuple(shares.get(corner, 0.0) for corner in mesh().triangles[triangle].tolist())
