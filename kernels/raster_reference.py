"""Plain NumPy twins of `raster.py`, the oracles of its tests: one triangle or one pair of pixels at a time, in float64.

They take what the functions of `raster.py` take and check nothing.
"""

import math

import numpy as np
from numpy.typing import NDArray

from .raster import Raster
from .raster_loops import SUBPIXELS

__all__ = [
    "antialias_reference",
    "cull_reference",
    "edge_neighbours_reference",
    "interpolate_reference",
    "rasterize_reference",
]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]


def rasterize_reference(vertices: Floats, triangles: Ints, height: int, width: int) -> Raster:
    """Twin of `rasterize`."""
    size = np.array([width, height])
    nearest = np.full((height, width), np.inf, np.float32)
    ids = np.zeros((height, width), np.int32)
    for t, triangle in enumerate(triangles):
        for part in _visible_parts(vertices[triangle], size):
            rows, columns, depth = _covered(part, size)
            nearer = depth <= nearest[rows, columns]
            nearest[rows[nearer], columns[nearer]] = depth[nearer]
            ids[rows[nearer], columns[nearer]] = t + 1
    uvz = np.zeros((height, width, 3), np.float32)
    for row, column in np.argwhere(ids):
        corners = vertices[triangles[ids[row, column] - 1]].astype(np.float64)
        uvz[row, column] = _shade(corners, (2 * column + 1) / width - 1, (2 * row + 1) / height - 1)
    return Raster(uvz, ids)


def interpolate_reference(attributes: Floats, raster: Raster, triangles: Ints) -> Floats:
    """Twin of `interpolate`."""
    out = np.zeros((*raster.ids.shape, attributes.shape[1]), np.float32)
    hit = raster.ids > 0
    u, v = raster.uvz[hit, 0].astype(np.float64), raster.uvz[hit, 1].astype(np.float64)
    weights = np.stack([u, v, 1 - u - v], axis=-1)
    out[hit] = np.einsum("pk,pka->pa", weights, attributes[triangles[raster.ids[hit] - 1]])
    return out


def cull_reference(raster: Raster, vertices: Floats, triangles: Ints) -> Raster:
    """Twin of `cull`: the sign of the determinant of (x, y, w)."""
    away = np.linalg.det(vertices[triangles][..., [0, 1, 3]].astype(np.float64)) > 0
    kept = (raster.ids > 0) & ~np.append(away, False)[raster.ids - 1]
    return Raster(np.where(kept[..., None], raster.uvz, np.float32(0)), np.where(kept, raster.ids, 0))


def edge_neighbours_reference(triangles: Ints) -> Ints:
    """Twin of `edge_neighbours`."""
    third: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for t, triangle in enumerate(triangles.tolist()):
        if len(set(triangle)) == 3:
            for k in range(3):
                edge = tuple(sorted((triangle[k - 2], triangle[k - 1])))
                third.setdefault(edge, []).append((t, k))
    neighbours = np.full(triangles.shape, -1, np.int32)
    for places in third.values():
        if len(places) == 2:
            (s, j), (t, k) = places
            neighbours[s, j], neighbours[t, k] = triangles[t, k], triangles[s, j]
    return neighbours


def antialias_reference(
    image: Floats, raster: Raster, vertices: Floats, triangles: Ints, neighbours: Ints
) -> Floats:
    """Twin of `antialias`: what each pair of pixels adds to one of them."""
    ids, depth = raster.ids, raster.uvz[..., 2]
    height, width = ids.shape
    places = vertices[:, :2].astype(np.float64) / vertices[:, 3:]
    places = (places + 1) * np.array([width, height]) / 2
    out = image.astype(np.float64)
    for down in (0, 1):
        for row in range(height - down):
            for column in range(width - 1 + down):
                p, q = (row, column), (row + down, column + 1 - down)
                if ids[p] == ids[q]:
                    continue
                of_p = ids[q] == 0 or (ids[p] > 0 and depth[p] < depth[q])
                centre, t = (p, ids[p] - 1) if of_p else (q, ids[q] - 1)
                origin = np.array([centre[1] + 0.5, centre[0] + 0.5])
                corners = places[triangles[t]] - origin
                others = [
                    places[o] - origin if o >= 0 else corner
                    for o, corner in zip(neighbours[t], corners, strict=True)
                ]
                share = _share(corners, others, 1.0 if of_p else -1.0, bool(down))
                change = share * (image[q].astype(np.float64) - image[p])
                out[p if share > 0 else q] += change
    return out.astype(np.float32)


def _share(corners: Doubles, others: list[Doubles], sign: float, down: bool) -> float:
    """Which part of the colour difference a pair of pixels hands over: positive to the first, negative to the second.

    `corners` and `others`, the third corners of the neighbouring triangles, are in pixels from the centre of the
    pixel that shows the triangle.
    """
    silhouette = [
        (_area(others[k], corners[k - 2], corners[k - 1]) < 0) == (_area(*corners) < 0) for k in range(3)
    ]
    if not any(silhouette):
        return 0.0
    if down:
        corners = corners[:, ::-1]
    distance = np.full(3, -np.inf)
    for k in range(3):
        (ax, ay), (bx, by) = corners[k - 2], corners[k - 1]
        if (ay < 0) != (by < 0):
            distance[k] = sign * (ax * (by - ay) - ay * (bx - ax)) / (by - ay)
    k = int(np.argmax(distance))  # the first of equals
    dx, dy = corners[k - 1] - corners[k - 2]
    if not (silhouette[k] and abs(dy) >= abs(dx) and -1 / 16 < distance[k] < 17 / 16):
        return 0.0
    return float(sign * (0.5 - min(max(distance[k], 0.0), 1.0)))


def _area(a: Doubles, b: Doubles, c: Doubles) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _visible_parts(corners: Floats, size: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], Doubles]]:
    """The triangles that a triangle is drawn as: itself, or a fan over what of it lies in the frustum.

    Each is (3, 2) positions in 1/16 pixel from the picture's middle, and (3,) depth.
    """
    if not np.isfinite(corners).all():
        return []
    polygon = [corner.astype(np.float64) for corner in corners]
    if (np.abs(corners[:, :3]) > corners[:, 3:]).any():
        for axis in range(3):
            for side in (1.0, -1.0):
                polygon = _clip(polygon, axis, side)
    clipped = np.array(polygon, np.float32).reshape(-1, 4)
    if (clipped[:, 3] <= 0).any():
        return []
    half = (size * (SUBPIXELS // 2)).astype(np.float32)
    places = np.rint(clipped[:, :2] / clipped[:, 3:] * half).astype(np.int64)
    depth = (clipped[:, 2] / clipped[:, 3]).astype(np.float64)
    fans = [[0, k, k + 1] for k in range(1, len(polygon) - 1)]
    return [(places[fan], depth[fan]) for fan in fans]


def _clip(polygon: list[Doubles], axis: int, side: float) -> list[Doubles]:
    """What of a polygon lies where w + side * coordinate >= 0."""
    kept = []
    for k, end in enumerate(polygon):
        start = polygon[k - 1]
        before, after = start[3] + side * start[axis], end[3] + side * end[axis]
        if (before >= 0) != (after >= 0):
            part = before / (before - after)
            cut = (1 - part) * start + part * end
            cut[axis] = -side * cut[3]
            kept.append(cut)
        if after >= 0:
            kept.append(end)
    return kept


def _covered(
    part: tuple[NDArray[np.int64], Doubles], size: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Rows, columns and depth of the pixels whose centre a triangle covers."""
    corners, depth = part
    area = _cross(corners[1] - corners[0], corners[2] - corners[0])
    if area < 0:
        corners, depth, area = corners[::-1], depth[::-1], -area
    middle = SUBPIXELS // 2 * (size - 1)  # of the picture, from the centre of its first pixel
    low = np.maximum(-((-corners.min(axis=0) - middle) // SUBPIXELS), 0)
    high = np.minimum((corners.max(axis=0) + middle) // SUBPIXELS, size - 1)
    xs, ys = np.meshgrid(*(np.arange(low[axis], high[axis] + 1) for axis in (0, 1)))
    samples = SUBPIXELS * np.stack([xs, ys], axis=-1) - middle
    inside: Bools = np.full(xs.shape, area > 0)
    weighted = np.zeros(xs.shape)
    for k in range(3):
        start, edge = corners[k - 2], corners[k - 1] - corners[k - 2]
        value = _cross(edge, samples - start)
        owns_its_edge = edge[1] < 0 or (edge[1] == 0 and edge[0] > 0)
        inside &= value >= (0 if owns_its_edge else 1)
        weighted += value * (depth[k] - depth[0])
    rows, columns = ys[inside], xs[inside]
    return rows, columns, (depth[0] + weighted[inside] / area).astype(np.float32)


def _cross(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def _shade(corners: Doubles, x: float, y: float) -> tuple[float, float, float]:
    """Perspective-correct weights of the first two corners, and depth, at a place in clip space."""
    reach = corners[:, :2] - np.array([x, y]) * corners[:, 3:]
    areas = np.array(
        [reach[k - 2, 0] * reach[k - 1, 1] - reach[k - 2, 1] * reach[k - 1, 0] for k in range(3)]
    )
    if areas.sum() == 0:
        areas = np.array([0.0, 0.0, 1.0])
    u, v = np.clip(areas[:2] / areas.sum(), 0, 1)
    over = max(u + v, 1)
    z = float(areas @ corners[:, 2] / (areas @ corners[:, 3]))
    return u / over, v / over, min(max(z, -1.0), 1.0) if math.isfinite(z) else 1.0
