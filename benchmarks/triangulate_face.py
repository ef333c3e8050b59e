"""A mirror-symmetric triangulation of the Face Mesh points that keeps the contours of eyes, lips and face."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..runtime.tracking.canonical import INNER_LIPS, LEFT_EYE, OUTER_LIPS, OVAL, RIGHT_EYE

__all__ = ["triangulate_face", "unfold"]

Doubles = NDArray[np.float64]
Indices = NDArray[np.int16]
Edge = tuple[int, int]

AXIS_BEHIND_CM = 9.0  # the unrolled cylinder's axis behind the mean of the points


def triangulate_face(neutral: NDArray[np.float32], mirror: Indices) -> tuple[Indices, Indices, Indices]:
    """Triangles (T, 3) of the skin, of the eye openings and of the mouth opening, clockwise in the picture.

    The person's right half is triangulated on its unrolled cylinder (constrained Delaunay), the left half
    mirrors it. Raises ValueError where contours cross there or points meet.
    """
    flat = unfold(neutral)
    middle = np.flatnonzero(mirror == np.arange(468))
    half = [int(i) for i in np.flatnonzero((flat[:, 0] < 0) | (mirror == np.arange(468)))]
    chain = [int(i) for i in middle[np.argsort(flat[middle, 1])]]
    kept = {_edge(a, b) for a, b in pairwise(chain)}
    for contour in (OVAL, OUTER_LIPS, INNER_LIPS, RIGHT_EYE):
        kept |= {_edge(a, b) for a, b in _sides(contour) if a in half and b in half}
    boundary = [i for i in OVAL if i in half]
    outline = [*chain, *(i for i in _from(boundary, chain[-1]) if i not in chain)]
    right = _triangulate(flat, half, kept, outline)
    left = mirror[right][:, ::-1]
    triangles = np.concatenate([right, left]).astype(np.int16)
    centres = flat[triangles].mean(axis=1)
    eyes = _inside(centres, flat[list(RIGHT_EYE)]) | _inside(centres, flat[list(LEFT_EYE)])
    mouth = _inside(centres, flat[list(INNER_LIPS)])
    return triangles[~eyes & ~mouth], triangles[eyes], triangles[mouth]


def unfold(neutral: NDArray[np.float32]) -> Doubles:
    """(468, 2) cm: the points on an unrolled upright cylinder, x right and y down."""
    points = neutral.astype(np.float64)
    depth = points[:, 2].mean() + AXIS_BEHIND_CM - points[:, 2]
    return np.stack([np.arctan2(points[:, 0], depth) * AXIS_BEHIND_CM, points[:, 1]], axis=1)


def _triangulate(flat: Doubles, points: Sequence[int], kept: set[Edge], outline: Sequence[int]) -> Indices:
    """Greedy shortest-edge triangulation inside `outline` with the edges `kept`, then flipped to Delaunay."""
    edges = sorted(kept)
    for number, edge in enumerate(edges):
        if _crosses(flat, edge, edges[:number]):
            raise ValueError(f"contour edge {edge} crosses another in the unrolled face")
    pairs = [(a, b) for k, a in enumerate(points) for b in points[k + 1 :] if _edge(a, b) not in kept]
    if min(float(np.linalg.norm(flat[a] - flat[b])) for a, b in pairs) < 1e-4:
        raise ValueError("two points of the unrolled face lie on each other")
    pairs.sort(key=lambda pair: float(np.linalg.norm(flat[pair[0]] - flat[pair[1]])))
    where = flat[np.asarray(points)]
    for a, b in pairs:
        middle = (flat[a] + flat[b]) / 2
        if not _inside(middle[None], flat[list(outline)])[0] or _crosses(flat, (a, b), edges):
            continue
        along = (flat[b] - flat[a]) / np.linalg.norm(flat[b] - flat[a])
        offset = where - flat[a]
        reach = offset @ along
        beside = np.abs(offset[:, 0] * along[1] - offset[:, 1] * along[0])
        if ((beside < 1e-6) & (reach > 1e-6) & (reach < np.linalg.norm(flat[b] - flat[a]) - 1e-6)).any():
            continue
        edges.append(_edge(a, b))
    return _flip_to_delaunay(flat, _faces(flat, points, edges), kept)


def _faces(flat: Doubles, points: Sequence[int], edges: Iterable[Edge]) -> list[tuple[int, int, int]]:
    """All empty triangles of a planar graph, clockwise in the picture (y down)."""
    near: dict[int, set[int]] = {i: set() for i in points}
    for a, b in edges:
        near[a].add(b)
        near[b].add(a)
    found = []
    where = flat[np.asarray(points)]
    for a in points:
        for b in near[a]:
            for c in near[a] & near[b]:
                if a < b < c:
                    corners = flat[[a, b, c]]
                    area = _cross(corners[1] - corners[0], corners[2] - corners[0])
                    shrunk = corners.mean(axis=0) + (corners - corners.mean(axis=0)) * 0.999
                    if abs(area) > 1e-9 and not _inside(where, shrunk).any():
                        found.append((a, b, c) if area > 0 else (a, c, b))
    return found


def _flip_to_delaunay(flat: Doubles, faces: list[tuple[int, int, int]], kept: set[Edge]) -> Indices:
    """Lawson's flips of all edges that are not kept, until every circumcircle is empty of its neighbour."""
    triangles = {frozenset(face) for face in faces}
    for _ in range(2000):
        owners: dict[Edge, list[int]] = {}
        for face in triangles:
            a, b, c = sorted(face)
            for edge, apex in (((a, b), c), ((b, c), a), ((a, c), b)):
                owners.setdefault(edge, []).append(apex)
        for (a, b), apexes in owners.items():
            if (a, b) in kept or len(apexes) != 2:
                continue
            c, d = apexes
            if _crosses(flat, (a, b), [_edge(c, d)]) and _opposite(flat, a, b, c, d) > np.pi + 1e-9:
                triangles -= {frozenset((a, b, c)), frozenset((a, b, d))}
                triangles |= {frozenset((c, d, a)), frozenset((c, d, b))}
                break
        else:
            break
    ordered = []
    for face in triangles:
        a, b, c = sorted(face)
        ordered.append((a, b, c) if _cross(flat[b] - flat[a], flat[c] - flat[a]) > 0 else (a, c, b))
    return np.array(sorted(ordered), np.int16)


def _opposite(flat: Doubles, a: int, b: int, c: int, d: int) -> float:
    """Sum of the angles at c and d over the edge a-b; above pi the edge is not Delaunay."""
    total = 0.0
    for apex in (c, d):
        u, v = flat[a] - flat[apex], flat[b] - flat[apex]
        total += float(np.arccos(np.clip(u @ v / (np.linalg.norm(u) * np.linalg.norm(v)), -1, 1)))
    return total


def _crosses(flat: Doubles, edge: Edge, others: Sequence[Edge]) -> bool:
    """Whether a segment properly crosses any of the others; shared ends do not count."""
    if not others:
        return False
    a, b = flat[edge[0]], flat[edge[1]]
    ends = np.asarray(others)
    p, q = flat[ends[:, 0]], flat[ends[:, 1]]
    free = ~(np.isin(ends, edge).any(axis=1))
    apart = _cross(b - a, p - a) * _cross(b - a, q - a) < -1e-14
    between = _cross(q - p, a - p) * _cross(q - p, b - p) < -1e-14
    return bool((free & apart & between).any())


def _cross(u: Doubles, v: Doubles) -> Doubles:
    return np.asarray(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0])


def _inside(points: Doubles, polygon: Doubles) -> NDArray[np.bool_]:
    """Even-odd test of (N, 2) points in a closed polygon (K, 2)."""
    x, y = points[:, :1], points[:, 1:]
    a, b = polygon, np.roll(polygon, -1, axis=0)
    straddles = (a[:, 1] > y) != (b[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
    return np.asarray((straddles & (x < at)).sum(axis=1) % 2 == 1)


def _edge(a: int, b: int) -> Edge:
    return (min(a, b), max(a, b))


def _sides(contour: Sequence[int]) -> Iterable[Edge]:
    return zip(contour, [*contour[1:], contour[0]], strict=True)


def _from(cycle: Sequence[int], start: int) -> list[int]:
    """The cyclic sequence turned so that it begins at `start`."""
    at = list(cycle).index(start)
    return [*cycle[at:], *cycle[:at]]
