"""The compiled loops of `raster.py`, on arrays that it has checked.

Where a loop is given a band of rows, `first` is the band's first row in the picture and its arrays hold the band only.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["SUBPIXELS", "antialias", "cull", "draw", "interpolate", "outlines", "places", "project", "shade"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]
Corner = tuple[int, int, float]  # x and y in 1/16 pixel from the picture's middle, z / w

SUBPIXELS = 16  # positions a pixel that a corner may take, along x and along y

_NOWHERE = (
    64  # a vertex that is not finite, or lies in the eye; lower bits: which of the six planes it lies beyond
)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def project(vertices: Floats, height: int, width: int) -> tuple[Ints, Floats, Bytes]:
    """(V, 2) positions in 1/16 pixel, (V,) z / w, and (V,) 0 where these two hold, else why not."""
    snapped = np.zeros((vertices.shape[0], 2), np.int32)
    depth = np.zeros(vertices.shape[0], np.float32)
    state = np.zeros(vertices.shape[0], np.uint8)
    half_x, half_y = np.float32(width * (SUBPIXELS // 2)), np.float32(height * (SUBPIXELS // 2))
    for i in range(vertices.shape[0]):
        x, y, z, w = vertices[i, 0], vertices[i, 1], vertices[i, 2], vertices[i, 3]
        if not (math.isfinite(x) and math.isfinite(y) and math.isfinite(z) and math.isfinite(w)):
            state[i] = _NOWHERE
            continue
        state[i] = (x < -w) | (x > w) << 1 | (y < -w) << 2 | (y > w) << 3 | (z < -w) << 4 | (z > w) << 5
        if state[i] == 0:
            if w == 0:
                state[i] = _NOWHERE
                continue
            snapped[i, 0], snapped[i, 1] = np.rint(x / w * half_x), np.rint(y / w * half_y)
            depth[i] = z / w
    return snapped, depth, state


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def draw(
    vertices: Floats,
    snapped: Ints,
    depth: Floats,
    state: Bytes,
    triangles: Ints,
    first: int,
    height: int,
    nearest: Floats,
    ids: Ints,
) -> None:
    """Lower `nearest` and set `ids` wherever a triangle is nearest."""
    polygon, spare = (
        np.empty((9, 4)),
        np.empty((9, 4)),
    )  # a triangle cut by six planes has nine corners at most
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        worst = state[i] | state[j] | state[k]
        if worst == 0:
            a = (np.int64(snapped[i, 0]), np.int64(snapped[i, 1]), float(depth[i]))
            b = (np.int64(snapped[j, 0]), np.int64(snapped[j, 1]), float(depth[j]))
            c = (np.int64(snapped[k, 0]), np.int64(snapped[k, 1]), float(depth[k]))
            _fill(a, b, c, t + 1, first, height, nearest, ids)
        elif worst < _NOWHERE and state[i] & state[j] & state[k] == 0:
            polygon[0], polygon[1], polygon[2] = vertices[i], vertices[j], vertices[k]
            count = _cut(polygon, spare)
            if not _project_cut(polygon, count, height, ids.shape[1]):
                continue
            a = (np.int64(polygon[0, 0]), np.int64(polygon[0, 1]), polygon[0, 2])
            for n in range(1, count - 1):
                b = (np.int64(polygon[n, 0]), np.int64(polygon[n, 1]), polygon[n, 2])
                c = (np.int64(polygon[n + 1, 0]), np.int64(polygon[n + 1, 1]), polygon[n + 1, 2])
                _fill(a, b, c, t + 1, first, height, nearest, ids)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _fill(
    a: Corner, b: Corner, c: Corner, number: int, first: int, height: int, nearest: Floats, ids: Ints
) -> None:
    rows, width = ids.shape
    # The first pixel's centre lies this far from the picture's middle.
    middle_x, middle_y = SUBPIXELS // 2 * (width - 1), SUBPIXELS // 2 * (height - 1)
    top = max((min(a[1], b[1], c[1]) + middle_y + SUBPIXELS - 1) // SUBPIXELS, first)
    bottom = min((max(a[1], b[1], c[1]) + middle_y) // SUBPIXELS, first + rows - 1)
    left = max((min(a[0], b[0], c[0]) + middle_x + SUBPIXELS - 1) // SUBPIXELS, 0)
    right = min((max(a[0], b[0], c[0]) + middle_x) // SUBPIXELS, width - 1)
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    if top > bottom or left > right or area == 0:
        return
    if area < 0:
        b, c, area = c, b, -area
    x, y = SUBPIXELS * left - middle_x, SUBPIXELS * top - middle_y
    # Twice the areas that the pixel centre makes with the edges opposite a, b and c, and their steps.
    area_a, right_a, down_a = _edge(b, c, x, y)
    area_b, right_b, down_b = _edge(c, a, x, y)
    area_c, right_c, down_c = _edge(a, b, x, y)
    slope_b, slope_c = (b[2] - a[2]) / area, (c[2] - a[2]) / area
    z = a[2] + area_b * slope_b + area_c * slope_c
    z_right, z_down = right_b * slope_b + right_c * slope_c, down_b * slope_b + down_c * slope_c
    area_a -= _shared(right_a, down_a)
    area_b -= _shared(right_b, down_b)
    area_c -= _shared(right_c, down_c)
    for row in range(top - first, bottom - first + 1):
        in_a, in_b, in_c = area_a, area_b, area_c
        for column in range(left, right + 1):
            if (in_a | in_b | in_c) >= 0:
                depth = np.float32(z + z_right * (column - left))
                if depth <= nearest[row, column]:
                    nearest[row, column] = depth
                    ids[row, column] = number
            in_a += right_a
            in_b += right_b
            in_c += right_c
        area_a += down_a
        area_b += down_b
        area_c += down_c
        z += z_down


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _edge(a: Corner, b: Corner, x: int, y: int) -> tuple[int, int, int]:
    """Twice the area of a, b and (x, y), and how it grows a pixel to the right and a pixel down."""
    across, along = b[0] - a[0], b[1] - a[1]
    return across * (y - a[1]) - along * (x - a[0]), -SUBPIXELS * along, SUBPIXELS * across


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _shared(right: int, down: int) -> int:
    """0 where a pixel centre on the edge belongs to this triangle, else 1: left and upper edges keep theirs."""
    return 0 if right > 0 or (right == 0 and down > 0) else 1


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _cut(polygon: Doubles, spare: Doubles) -> int:
    """Cut the triangle in the polygon's first three rows to the frustum, in place; returns the number of corners."""
    count = 3
    for plane in range(6):
        axis, side = plane // 2, 1.0 - 2.0 * (plane % 2)
        kept = 0
        for end in range(count):
            start = end - 1 if end else count - 1
            before = polygon[start, 3] + side * polygon[start, axis]
            after = polygon[end, 3] + side * polygon[end, axis]
            if (before >= 0) != (after >= 0):
                part = before / (before - after)
                for n in range(4):
                    spare[kept, n] = (1 - part) * polygon[start, n] + part * polygon[end, n]
                # On the plane, whatever was lost between numbers of very unlike size.
                spare[kept, axis] = -side * spare[kept, 3]
                kept += 1
            if after >= 0:
                spare[kept] = polygon[end]
                kept += 1
        count = kept
        polygon[:count] = spare[:count]
    return count


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _project_cut(polygon: Doubles, count: int, height: int, width: int) -> bool:
    """Replace (x, y, z) by position in 1/16 pixel and z / w, rounded like whole triangles; False if w is 0."""
    half_x, half_y = np.float32(width * (SUBPIXELS // 2)), np.float32(height * (SUBPIXELS // 2))
    for n in range(count):
        x, y, z, w = (
            np.float32(polygon[n, 0]),
            np.float32(polygon[n, 1]),
            np.float32(polygon[n, 2]),
            np.float32(polygon[n, 3]),
        )
        if not w > 0:
            return False
        polygon[n, 0], polygon[n, 1], polygon[n, 2] = np.rint(x / w * half_x), np.rint(y / w * half_y), z / w
    return True


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def shade(vertices: Floats, triangles: Ints, first: int, height: int, ids: Ints, uvz: Floats) -> None:
    """Weights and depth of the triangle that each pixel shows."""
    rows, width = ids.shape
    for row in range(rows):
        y = (2 * (first + row) + 1) / height - 1
        for column in range(width):
            t = ids[row, column] - 1
            if t < 0:
                uvz[row, column] = 0
                continue
            x = (2 * column + 1) / width - 1
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            w0, w1, w2 = float(vertices[i, 3]), float(vertices[j, 3]), float(vertices[k, 3])
            x0, y0 = vertices[i, 0] - x * w0, vertices[i, 1] - y * w0
            x1, y1 = vertices[j, 0] - x * w1, vertices[j, 1] - y * w1
            x2, y2 = vertices[k, 0] - x * w2, vertices[k, 1] - y * w2
            a0, a1, a2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
            area = a0 + a1 + a2
            if area == 0:  # only rounding gave it one
                a0, a1, a2, area = 0.0, 0.0, 1.0, 1.0
            u, v = min(max(a0 / area, 0.0), 1.0), min(max(a1 / area, 0.0), 1.0)
            over = max(u + v, 1.0)
            z = a0 * vertices[i, 2] + a1 * vertices[j, 2] + a2 * vertices[k, 2]
            uvz[row, column, 0] = u / over
            uvz[row, column, 1] = v / over
            uvz[row, column, 2] = min(max(z / (a0 * w0 + a1 * w1 + a2 * w2), -1.0), 1.0)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def interpolate(attributes: Floats, triangles: Ints, ids: Ints, uvz: Floats, out: Floats) -> None:
    """Fill the (rows, W, A) `out` with the corners' attributes."""
    rows, width = ids.shape
    for row in range(rows):
        for column in range(width):
            t = ids[row, column] - 1
            if t < 0:
                out[row, column] = 0
                continue
            u, v = uvz[row, column, 0], uvz[row, column, 1]
            w = np.float32(1) - u - v
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            for n in range(out.shape[2]):
                out[row, column, n] = u * attributes[i, n] + v * attributes[j, n] + w * attributes[k, n]


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def cull(vertices: Floats, triangles: Ints, ids: Ints, uvz: Floats, kept_ids: Ints, kept_uvz: Floats) -> None:
    """Copy ids and uvz but for the pixels that show a back."""
    back = np.empty(triangles.shape[0] + 1, np.bool_)
    back[0] = True
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0, w0 = float(vertices[i, 0]), float(vertices[i, 1]), float(vertices[i, 3])
        x1, y1, w1 = float(vertices[j, 0]), float(vertices[j, 1]), float(vertices[j, 3])
        x2, y2, w2 = float(vertices[k, 0]), float(vertices[k, 1]), float(vertices[k, 3])
        turn = x0 * (y1 * w2 - w1 * y2) - y0 * (x1 * w2 - w1 * x2) + w0 * (x1 * y2 - y1 * x2)
        back[t + 1] = turn > 0
    for row in range(ids.shape[0]):
        for column in range(ids.shape[1]):
            gone = back[ids[row, column]]
            kept_ids[row, column] = 0 if gone else ids[row, column]
            for n in range(3):
                kept_uvz[row, column, n] = 0 if gone else uvz[row, column, n]


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def places(vertices: Floats, height: int, width: int) -> Doubles:
    """(V, 2) positions in pixels, pixel centres at halves."""
    out = np.empty((vertices.shape[0], 2))
    for i in range(vertices.shape[0]):
        w = float(vertices[i, 3])
        out[i, 0], out[i, 1] = (vertices[i, 0] / w + 1) * width / 2, (vertices[i, 1] / w + 1) * height / 2
    return out


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def outlines(places: Doubles, triangles: Ints, neighbours: Ints) -> Bytes:
    """(T + 1,) by id, bit k set where the edge opposite corner k has no neighbour or one that is folded back."""
    out = np.zeros(triangles.shape[0] + 1, np.uint8)
    for t in range(triangles.shape[0]):
        turned = _turned(places, triangles[t, 0], triangles[t, 1], triangles[t, 2])
        for k in range(3):
            other = neighbours[t, k]
            if other < 0 or turned == _turned(
                places, other, triangles[t, (k + 1) % 3], triangles[t, (k + 2) % 3]
            ):
                out[t + 1] |= 1 << k
    return out


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _turned(places: Doubles, i: int, j: int, k: int) -> bool:
    across, along = places[j, 0] - places[i, 0], places[j, 1] - places[i, 1]
    return bool(across * (places[k, 1] - places[i, 1]) < along * (places[k, 0] - places[i, 0]))


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def antialias(
    image: Floats,
    ids: Ints,
    uvz: Floats,
    places: Doubles,
    triangles: Ints,
    outlines: Bytes,
    first: int,
    out: Floats,
) -> None:
    """Fill a band of the blended picture; all but `out` belong to the whole picture."""
    last, width = first + out.shape[0], out.shape[1]
    out[:] = image[first:last]
    for row in range(max(first - 1, 0), min(last + 1, ids.shape[0])):
        for column in range(width):
            here = ids[row, column]
            for down in range(2):
                next_row, next_column = row + down, column + 1 - down
                if next_row == ids.shape[0] or next_column == width:
                    continue
                there = ids[next_row, next_column]
                # Nearly all pairs inside a fine mesh differ, but have no outline: they must be passed quickly.
                if here != there and (outlines[here] | outlines[there]) != 0:
                    _blend(image, ids, uvz, places, triangles, outlines, row, column, down == 1, first, out)


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _blend(
    image: Floats,
    ids: Ints,
    uvz: Floats,
    places: Doubles,
    triangles: Ints,
    outlines: Bytes,
    row: int,
    column: int,
    down: bool,
    first: int,
    out: Floats,
) -> None:
    """Blend a pixel and the one to its right or below it into whichever of them is concerned, if in the band."""
    next_row, next_column = (row + 1, column) if down else (row, column + 1)
    one, two = ids[row, column], ids[next_row, next_column]
    if two == 0 or (one > 0 and uvz[row, column, 2] < uvz[next_row, next_column, 2]):
        number, sign, y, x = one, 1.0, row, column
    else:
        number, sign, y, x = two, -1.0, next_row, next_column
    if outlines[number] == 0:
        return
    share = _share(places, triangles[number - 1], outlines[number], x + 0.5, y + 0.5, sign, down)
    if share == 0:
        return
    into_row, into_column = (row, column) if share > 0 else (next_row, next_column)
    if not first <= into_row < first + out.shape[0]:
        return
    part = np.float32(share)
    for n in range(image.shape[2]):
        change = part * (image[next_row, next_column, n] - image[row, column, n])
        out[into_row - first, into_column, n] += change


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _share(
    places: Doubles, triangle: Ints, outline: int, x: float, y: float, sign: float, down: bool
) -> float:
    """Which part of the difference is handed over: to the pair's first pixel if positive, to its second if negative.

    (x, y) is the centre of the pixel that shows the triangle. For a pair one above the other x and y change places.
    """
    along, across = (1, 0) if down else (0, 1)
    x, y = (y, x) if down else (x, y)
    chosen, farthest, steep = -1, -np.inf, False
    for k in range(3):
        i, j = triangle[(k + 1) % 3], triangle[(k + 2) % 3]
        ax, ay = places[i, along] - x, places[i, across] - y
        bx, by = places[j, along] - x, places[j, across] - y
        if (ay < 0) == (by < 0):
            continue
        distance = sign * (ax * (by - ay) - ay * (bx - ax)) / (by - ay)
        if distance > farthest:
            chosen, farthest, steep = k, distance, abs(by - ay) >= abs(bx - ax)
    if chosen < 0 or not outline >> chosen & 1 or not steep or not -1 / 16 < farthest < 17 / 16:
        return 0.0
    return sign * (0.5 - min(max(farthest, 0.0), 1.0))
