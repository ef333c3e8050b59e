"""The mesh of the stand-in head: rings from the crown to the neck, two eyeballs, and how all of it is spread out flat.

There are as many vertices, triangles and UVs as FLAME has. Knows nothing of where the vertices lie.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "EYE_COLUMNS", "EYE_RINGS", "RINGS", "Mesh", "eye_vertex", "mesh", "ring_start"]

COLUMNS = (
    80  # vertices of a ring in the face; number 0 is at the back, 40 in front, and they go by the right cheek
)
RINGS = (14, 32, 50, 66, 76, 76, *(COLUMNS,) * 54, 60)  # vertices of each, below a single one at the crown
EYE_COLUMNS, EYE_RINGS = 18, 9  # of each eyeball, between its front and its back

_BORDER = 0.01  # of the flat picture
_FLAT_TOP, _FLAT_BOTTOM, _FLAT_CROWN = 0.8, 0.02, 0.99  # the rings are level lines there
_FLAT_EYES, _FLAT_EYE = (
    (0.08, 0.92),
    0.07,
)  # where their discs are across, as high as they are wide; their radius

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


class Mesh(NamedTuple):
    """Triangles run counter-clockwise seen from outside, and in the flat picture with y up."""

    triangles: Ints  # (9976, 3) numbers of vertices
    uv_triangles: Ints  # (9976, 3) numbers of uvs
    uvs: Doubles  # (5118, 2) in [0, 1], y up


def ring_start(ring: int) -> int:
    """The number of a ring's first vertex; the others follow."""
    return 1 + sum(RINGS[:ring])


def eye_vertex(eye: int) -> int:
    """The number of the first vertex, the foremost, of the eyeball at the right (0) or left (1) of the face."""
    return ring_start(len(RINGS)) + eye * (2 + EYE_COLUMNS * EYE_RINGS)


@cache
def mesh() -> Mesh:
    """The mesh; its arrays are read-only."""
    uvs = [(0.5, _FLAT_CROWN)]
    starts = []
    for ring, count in enumerate(RINGS):
        starts.append(len(uvs))
        height = _FLAT_TOP + (_FLAT_BOTTOM - _FLAT_TOP) * ring / (len(RINGS) - 1)
        uvs += [(_BORDER + (1 - 2 * _BORDER) * i / count, height) for i in range(count + 1)]
    both = [*_head(starts)]
    for eye in (0, 1):
        both += _eyeball(eye, len(uvs))
        uvs += _flat_eye(_FLAT_EYES[eye])
    corners = np.array(both, np.int64)
    made = Mesh(corners[:, :, 0].copy(), corners[:, :, 1].copy(), np.array(uvs))
    for values in made:
        values.flags.writeable = False
    return made


Corner = tuple[int, int]  # numbers of a vertex and of a uv
Triangles = Iterator[tuple[Corner, Corner, Corner]]


def _head(starts: list[int]) -> Triangles:
    def corner(ring: int, i: int) -> Corner:
        return ring_start(ring) + i % RINGS[ring], starts[ring] + i

    for i in range(RINGS[0]):
        yield (0, 0), corner(0, i), corner(0, i + 1)
    for ring in range(len(RINGS) - 1):
        upper, lower = RINGS[ring], RINGS[ring + 1]
        i = j = 0
        while i < upper or j < lower:
            ahead = (i + 1) * lower - (
                j + 1
            ) * upper  # of the next of the upper ring before the next of the lower
            if ahead < 0:
                yield corner(ring, i), corner(ring + 1, j), corner(ring, i + 1)
                i += 1
            else:
                yield corner(ring, i), corner(ring + 1, j), corner(ring + 1, j + 1)
                j += 1


def _eyeball(eye: int, uv_start: int) -> Triangles:
    start, count, last = eye_vertex(eye), EYE_COLUMNS, EYE_RINGS - 1

    def corner(ring: int, i: int) -> Corner:
        number = 1 + ring * count + i % count
        return start + number, uv_start + number

    def back(i: int) -> Corner:
        return start + 1 + EYE_RINGS * count, uv_start + 1 + EYE_RINGS * count + i

    for i in range(count):
        yield (start, uv_start), corner(0, i), corner(0, i + 1)
        for ring in range(last):
            yield corner(ring, i), corner(ring + 1, i), corner(ring + 1, i + 1)
            yield corner(ring, i), corner(ring + 1, i + 1), corner(ring, i + 1)
        yield corner(last, i), back(i), corner(last, i + 1)


def _flat_eye(across: float) -> list[tuple[float, float]]:
    """A disc, its rim the back of the eyeball, which has a UV in each of its triangles."""
    places = [(0.0, 0.0)]
    places += [
        (ring / (EYE_RINGS + 1), float(i)) for ring in range(1, EYE_RINGS + 1) for i in range(EYE_COLUMNS)
    ]
    places += [(1.0, i + 0.5) for i in range(EYE_COLUMNS)]
    angle = 2 * np.pi / EYE_COLUMNS
    return [
        (
            across + _FLAT_EYE * far * float(np.cos(i * angle)),
            0.92 + _FLAT_EYE * far * float(np.sin(i * angle)),
        )
        for far, i in places
    ]
