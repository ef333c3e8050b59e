"""One pixel thin lines and small dots drawn into uint8 pictures, the same pixels that OpenCV draws with LINE_4.

A stroke is a pair of point numbers; strokes are drawn in order, so later ones cover earlier ones. The fast function
has a plain Python twin, `*_reference`, that is the oracle of its test.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["DOT", "draw_strokes", "draw_strokes_reference"]

Ints = NDArray[np.int32]
Image = NDArray[np.uint8]
Pixel = tuple[int, ...]

DOT = -1  # in a stroke's second place: no line, but a plus of five pixels around the first point


def draw_strokes(image: Image, points: Ints, strokes: Ints, colours: Image) -> Image:
    """Draw lines and dots into a picture, clipped at its borders.

    image    # (H, W, C) uint8, H and W at least 1, written in place and returned
    points   # (N, 2) int32, x and y in pixels, inside the picture or not
    strokes  # (M, 2) int32 point numbers of both ends of a line, or of a point and DOT; drawn in this order
    colours  # (M, C) uint8, one a stroke

    A line is a walk from pixel to pixel that never steps diagonally; the order of its ends makes no difference.
    Raises ValueError on shapes or dtypes that differ and on numbers of points that do not exist.
    """
    _check(image, points, strokes, colours)
    _draw(image, points, strokes, colours)
    return image


def draw_strokes_reference(image: Image, points: Ints, strokes: Ints, colours: Image) -> Image:
    """Twin of `draw_strokes` in plain Python: each stroke becomes a list of pixels."""
    _check(image, points, strokes, colours)
    height, width = image.shape[:2]
    for (i, j), colour in zip(strokes.tolist(), colours, strict=True):
        x, y = points[i].tolist()
        if j == DOT:
            plus = [(x, y), (x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)]
            pixels: list[Pixel] = [(x, y) for x, y in plus if 0 <= x < width and 0 <= y < height]
        else:
            inside = _clipped((x, y), tuple(points[j].tolist()), width - 1, height - 1)
            pixels = _walked(*inside) if inside else []
        for x, y in pixels:
            image[y, x] = colour
    return image


def _clipped(first: Pixel, second: Pixel, right: int, bottom: int) -> tuple[Pixel, Pixel] | None:
    """The part of a line inside 0..right and 0..bottom, or None: OpenCV's rounding of Cohen and Sutherland."""

    def beside(x: int) -> int:
        return (x < 0) + 2 * (x > right)

    ends = [list(first), list(second)]
    codes = [beside(x) + 4 * (y < 0) + 8 * (y > bottom) for x, y in ends]
    if codes[0] & codes[1]:
        return None
    for k in (0, 1):
        if codes[k] & 12:
            (x0, y0), (x1, y1) = ends
            edge = 0 if codes[k] < 8 else bottom
            ends[k][0] += int(float(edge - ends[k][1]) * (x1 - x0) / (y1 - y0))
            ends[k][1] = edge
            codes[k] = beside(ends[k][0])
    if codes[0] & codes[1]:
        return None
    for k in (0, 1):
        if codes[k]:
            (x0, y0), (x1, y1) = ends
            edge = 0 if codes[k] == 1 else right
            ends[k][1] += int(float(edge - ends[k][0]) * (y1 - y0) / (x1 - x0))
            ends[k][0] = edge
    return tuple(ends[0]), tuple(ends[1])


def _walked(first: Pixel, second: Pixel) -> list[Pixel]:
    """All pixels between two, both included, side by side."""
    (x, y), (x1, y1) = sorted((first, second), key=lambda end: end[0])
    across, along = x1 - x, abs(y1 - y)
    down = 1 if y1 >= y else -1
    steep = along > across
    longer, shorter = (along, across) if steep else (across, along)
    pixels: list[Pixel] = []
    error = 0
    for _ in range(longer + shorter + 1):
        pixels.append((x, y))
        minor = error < 0
        error += 2 * longer if minor else -2 * shorter
        if minor == steep:
            x += 1
        else:
            y += down
    return pixels


def _check(image: Image, points: Ints, strokes: Ints, colours: Image) -> None:
    if image.ndim != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be (H, W, C) uint8 and not empty, not {image.shape} {image.dtype}")
    if points.ndim != 2 or points.shape[1] != 2 or points.dtype != np.int32:
        raise ValueError(f"points must be (N, 2) int32, not {points.shape} {points.dtype}")
    if strokes.ndim != 2 or strokes.shape[1] != 2 or strokes.dtype != np.int32:
        raise ValueError(f"strokes must be (M, 2) int32, not {strokes.shape} {strokes.dtype}")
    if colours.shape != (len(strokes), image.shape[2]) or colours.dtype != np.uint8:
        expected = (len(strokes), image.shape[2])
        raise ValueError(f"colours must be {expected} uint8, not {colours.shape} {colours.dtype}")
    if len(strokes) and not (
        strokes[:, 0].min() >= 0 and strokes.min() >= DOT and strokes.max() < len(points)
    ):
        raise ValueError(f"strokes name points outside 0..{len(points) - 1}")


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw(image: Image, points: Ints, strokes: Ints, colours: Image) -> None:
    for s in range(strokes.shape[0]):
        i, j = strokes[s, 0], strokes[s, 1]
        x0, y0 = np.int64(points[i, 0]), np.int64(points[i, 1])
        if j < 0:
            _plus(image, x0, y0, colours[s])
        else:
            _line(image, x0, y0, np.int64(points[j, 0]), np.int64(points[j, 1]), colours[s])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _plus(image: Image, x: int, y: int, colour: Image) -> None:
    height, width = image.shape[0], image.shape[1]
    for row in range(max(0, y - 1), min(height, y + 2)):
        reach = 1 if row == y else 0
        for column in range(max(0, x - reach), min(width, x + reach + 1)):
            for c in range(colour.shape[0]):
                image[row, column, c] = colour[c]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _line(image: Image, x0: int, y0: int, x1: int, y1: int, colour: Image) -> None:
    right, bottom = image.shape[1] - 1, image.shape[0] - 1
    code0 = (x0 < 0) + 2 * (x0 > right) + 4 * (y0 < 0) + 8 * (y0 > bottom)
    code1 = (x1 < 0) + 2 * (x1 > right) + 4 * (y1 < 0) + 8 * (y1 > bottom)
    if code0 & code1:
        return
    # First up and down, then sideways, always with the ends as they are by then: the order decides the rounding.
    if code0 & 12:
        edge = 0 if code0 < 8 else bottom
        x0 += int(float(edge - y0) * (x1 - x0) / (y1 - y0))
        y0 = edge
        code0 = (x0 < 0) + 2 * (x0 > right)
    if code1 & 12:
        edge = 0 if code1 < 8 else bottom
        x1 += int(float(edge - y1) * (x1 - x0) / (y1 - y0))
        y1 = edge
        code1 = (x1 < 0) + 2 * (x1 > right)
    if code0 & code1:
        return
    if code0:
        edge = 0 if code0 == 1 else right
        y0 += int(float(edge - x0) * (y1 - y0) / (x1 - x0))
        x0 = edge
    if code1:
        edge = 0 if code1 == 1 else right
        y1 += int(float(edge - x1) * (y1 - y0) / (x1 - x0))
        x1 = edge
    _walk(image, x0, y0, x1, y1, colour)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _walk(image: Image, x0: int, y0: int, x1: int, y1: int, colour: Image) -> None:
    if x1 < x0:
        x0, y0, x1, y1 = x1, y1, x0, y0
    across, along = x1 - x0, abs(y1 - y0)
    down = 1 if y1 >= y0 else -1
    steep = along > across
    longer, shorter = max(across, along), min(across, along)
    error = 0
    for _ in range(longer + shorter + 1):
        for c in range(colour.shape[0]):
            image[y0, x0, c] = colour[c]
        if error < 0:
            error += 2 * longer
            minor = True
        else:
            error -= 2 * shorter
            minor = False
        if minor == steep:
            x0 += 1
        else:
            y0 += down
