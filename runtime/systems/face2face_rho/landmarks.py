"""The 72 keypoints of Face2Face-rho: drawn as the three small pictures that its networks see, and their text files.

Coordinates are normalised over the square crop: x right, y down, -1 and 1 at the picture's borders. Left and right
are the picture's. Knows nothing of trackers and engines.
"""

import math
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....errors import ReenactError
from ....kernels.lines import DOT, draw_strokes
from ...files import read_small_file, replace_file

__all__ = [
    "CONTOUR",
    "LEFT_BROW",
    "LEFT_EYE",
    "MOUTH",
    "NOSE",
    "NOSE_TIP",
    "POINTS",
    "RIGHT_BROW",
    "RIGHT_EYE",
    "SCALES",
    "draw_landmark_images",
    "read_head_pose",
    "read_landmarks",
    "write_head_pose",
    "write_landmarks",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Image = NDArray[np.uint8]

POINTS = 72
CONTOUR = range(17)  # 0..8 from the left temple down to the chin, 9..16 from the right temple down
LEFT_BROW, RIGHT_BROW = range(17, 22), range(22, 27)  # from left to right
NOSE = range(27, 36)  # 27..30 down the bridge to the tip, 31..35 the base from left to right
LEFT_EYE = range(36, 44)  # 36 outer corner, 37..39 upper lid, 40 inner corner, 41..43 lower lid
RIGHT_EYE = range(44, 52)  # 44 inner corner, 45..47 upper lid, 48 outer corner, 49..51 lower lid
MOUTH = range(52, 72)  # see `_STROKES` for its order
NOSE_TIP = 30

SCALES = (16, 8, 4)  # the pictures' sides are the output's over these

# Per scale what is drawn, in this order: colour, lines through these points, single dots. The channels belong in
# this order beside a photo in RGB; 49 is never drawn and 48-48 is one pixel: the published networks learned it so.
_BLUE, _GREEN, _RED = (0, 0, 255), (0, 255, 0), (255, 0, 0)
_CYAN, _MAGENTA, _YELLOW, _GREY = (0, 255, 255), (255, 0, 255), (255, 255, 0), (125, 125, 125)
_Part = tuple[tuple[int, int, int], tuple[tuple[int, ...], ...], tuple[int, ...]]
_STROKES: tuple[tuple[_Part, ...], ...] = (
    (
        (_RED, (), (42,)),
        (_YELLOW, (), (50,)),
        (_MAGENTA, (), (30,)),
        (_CYAN, ((52, 57),), ()),
        (_GREY, ((0, 8, 9),), ()),
    ),
    (
        (_BLUE, ((17, 21),), ()),
        (_GREEN, ((26, 22),), ()),
        (_RED, ((36, 38, 40, 42, 36),), ()),
        (_YELLOW, ((48, 46, 44, 50, 48),), ()),
        (_MAGENTA, ((27, 33, 31), (33, 35)), ()),
        (_CYAN, ((52, 62, 57, 71, 52),), (63, 70)),
        (_GREY, ((0, 4, 8, 13, 9),), ()),
    ),
    (
        (_BLUE, ((17, 18, 19, 20, 21),), ()),
        (_GREEN, ((26, 25, 24, 23, 22),), ()),
        (_RED, ((36, 37, 38, 39, 40, 41, 42, 43, 36),), ()),
        (_YELLOW, ((48, 47, 46, 45, 44, 51, 50, 48, 48),), ()),
        (_MAGENTA, ((27, 28, 29, 30, 33), (31, 32, 33), (35, 34, 33)), ()),
        (
            _CYAN,
            (
                (52, 54, 53, 62, 58, 59, 57, 65, 66, 71, 69, 68, 52),
                (55, 56, 63, 61, 60, 64, 70, 67, 55),
            ),
            (),
        ),
        (_GREY, ((0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 15, 14, 13, 12, 11, 10, 9),), ()),
    ),
)

_FARTHEST = 1 << 20  # pixels; points further away are drawn from there, in whole numbers that cannot overflow
_MAX_BYTES = 100_000  # of a text file; real ones have 3,000
_MOST = 1e6  # no number in them is near it


def draw_landmark_images(keypoints: Floats, size: int) -> tuple[Image, Image, Image]:
    """Draw the keypoints as the networks expect them, pixel by pixel.

    keypoints  # (72, 2) float32, [-1, 1] over the crop; points outside are clipped at the borders
    size       # the output's side in pixels, at least 16

    Returns (side, side, 3) uint8 for the sides size // 16, size // 8 and size // 4. Raises ReenactError for points
    that are not finite, ValueError for another shape or a smaller size.
    """
    if keypoints.shape != (POINTS, 2):
        raise ValueError(f"keypoints must be ({POINTS}, 2), not {keypoints.shape}")
    if size < SCALES[0]:
        raise ValueError(f"size must be at least {SCALES[0]}, not {size}")
    points = keypoints.astype(np.float32)
    if not np.isfinite(points).all():
        bad = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise ReenactError(
            f"keypoint {bad} is {points[bad].tolist()}, not a place in the picture; look for it in the tracking or "
            "the landmark file"
        )
    halves = (points + np.float32(1)) / np.float32(2)
    first, second, third = (
        _drawn(halves, size // scale, *table) for scale, table in zip(SCALES, _tables(), strict=True)
    )
    return first, second, third


def _drawn(halves: Floats, side: int, strokes: Ints, colours: Image) -> Image:
    """One picture of points (72, 2) in 0..1; pixels are truncated towards zero, not rounded."""
    pixels = np.clip(halves * np.float32(side - 1), -_FARTHEST, _FARTHEST).astype(np.int32)
    return draw_strokes(np.zeros((side, side, 3), np.uint8), pixels, strokes, colours)


@cache
def _tables() -> tuple[tuple[Ints, Image], ...]:
    """Per scale strokes (M, 2) and their colours (M, 3), as `draw_strokes` takes them."""
    tables = []
    for parts in _STROKES:
        strokes: list[tuple[int, int]] = []
        colours: list[tuple[int, int, int]] = []
        for colour, lines, dots in parts:
            drawn = [ends for line in lines for ends in pairwise(line)] + [(dot, DOT) for dot in dots]
            strokes += drawn
            colours += [colour] * len(drawn)
        tables.append((np.array(strokes, np.int32), np.array(colours, np.uint8)))
    return tuple(tables)


def read_landmarks(path: str | Path) -> Floats:
    """(72, 2) float32 keypoints of a text file: 72 lines `x y`; ReenactError names the file and line that is wrong."""
    return _read(Path(path), "landmarks", POINTS, 2)


def read_head_pose(path: str | Path) -> Floats:
    """(6,) float32 of a text file of 6 lines: axis-angle x, y, z in radians, shift x, y and scale.

    Raises ReenactError that names the file and the line that is wrong.
    """
    return _read(Path(path), "a head pose", 6, 1)[:, 0]


def write_landmarks(path: str | Path, keypoints: Floats) -> None:
    """Write (72, 2) keypoints with all digits; ReenactError where that fails or a value is not finite."""
    _write(Path(path), keypoints, (POINTS, 2))


def write_head_pose(path: str | Path, head_pose: Floats) -> None:
    """Write a head pose (6,) with all digits; ReenactError where that fails or a value is not finite."""
    _write(Path(path), head_pose, (6,))


def _read(path: Path, what: str, rows: int, columns: int) -> Floats:
    """(rows, columns) float32 of a text file with one row a line; numbers are read as float64 first."""
    lines = _text(path, what).splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    expected = f"{rows} lines of {columns} number{'s' * (columns > 1)}"
    if len(lines) != rows:
        raise ReenactError(f"{path}: {len(lines)} lines, but {what} are {expected}; fit the picture again")
    values = np.empty((rows, columns), np.float32)
    for number, line in enumerate(lines, 1):
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        if len(row) != columns:
            raise ReenactError(
                f"{path}, line {number}: {line.strip()[:60]!r} is not what is expected: {expected}"
            )
        if not all(math.isfinite(value) and abs(value) <= _MOST for value in row):
            raise ReenactError(
                f"{path}, line {number}: {line.strip()[:60]!r} is not a finite number of sensible size"
            )
        values[number - 1] = row
    return values


def _text(path: Path, what: str) -> str:
    content = read_small_file(path, _MAX_BYTES, f"the text file with {what}")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ReenactError(f"{path}, line {line}: not plain text, so no file with {what}") from error


def _write(path: Path, values: Floats, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"{path}: expected {shape}, not {values.shape}")
    if not np.isfinite(values).all():
        raise ReenactError(
            f"{path}: values that are not finite are not written; look for them in the tracking"
        )
    rows: Iterable[list[float]] = values.reshape(shape[0], -1).tolist()
    text = "".join(" ".join(repr(value) for value in row) + "\n" for row in rows)
    try:
        replace_file(path, text.encode("ascii"))
    except OSError as error:
        raise ReenactError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
