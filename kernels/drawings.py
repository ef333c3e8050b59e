"""Strokes drawn on a GPU, several small pictures in one launch, pixel by pixel what `lines.draw_strokes` draws.

The kernel is in `csrc/lines.cu`; `draw_reference` is its plain twin. Every pixel looks through all strokes of its
picture: made for pictures of a hundred pixels a side and a hundred strokes.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import View
from .launch import Kernel, Launcher, blocks_for, views
from .lines import DOT, draw_strokes_reference

__all__ = ["MOST_PICTURES", "Drawing", "draw", "draw_reference"]

Image = NDArray[np.uint8]

MOST_PICTURES = 8  # in one launch
_FARTHEST = 1 << 20  # pixels; normalised points further away are drawn from there


@dataclass(frozen=True)
class Drawing:
    """One picture and what is drawn into it.

    out      # (H, W, C) uint8
    points   # (N, 2), x before y: int32 pixels, or float32 where -1 and 1 are the centres of the border pixels; these
               become pixels as landmarks of Face2Face-rho do, (point + 1) / 2 * (side - 1) truncated towards zero
    strokes  # (M, 2) int32 point numbers of both ends of a line, or of a point and `lines.DOT`; drawn in this order
    colours  # (M, C) uint8, one a stroke
    over     # draw over what `out` shows; else on black

    A stroke that names points that do not exist or are not finite is left out.
    """

    out: Any
    points: Any
    strokes: Any
    colours: Any
    over: bool = False


class _Picture(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("out", "points", "strokes", "colours")),
        *((name, ctypes.c_int32) for name in ("height", "width", "channels", "point_count", "stroke_count")),
        *((name, ctypes.c_int32) for name in ("normalised", "over", "first_block")),
    )


class _Params(ctypes.Structure):
    _fields_ = (("pictures", _Picture * MOST_PICTURES), ("number", ctypes.c_int32))


def draw(launcher: Launcher, drawings: Sequence[Drawing]) -> None:
    """Draw up to MOST_PICTURES pictures in one launch, on the launcher's stream.

    Raises ValueError and TypeError for arrays that do not fit each other, naming them.
    """
    if not 1 <= len(drawings) <= MOST_PICTURES:
        raise ValueError(f"{len(drawings)} drawings; one launch takes 1 to {MOST_PICTURES}")
    params = _Params(number=len(drawings))
    blocks = 0
    for i, drawing in enumerate(drawings):
        names = ("out", "points", "strokes", "colours")
        seen = views(launcher, {f"{name} {i}": getattr(drawing, name) for name in names})
        out, points, strokes, colours = seen.values()
        _check(i, out, points, strokes, colours)
        height, width, channels = out.shape
        params.pictures[i] = _Picture(
            out=out.address,
            points=points.address,
            strokes=strokes.address,
            colours=colours.address,
            height=height,
            width=width,
            channels=channels,
            point_count=points.shape[0],
            stroke_count=strokes.shape[0],
            normalised=points.dtype == "float32",
            over=drawing.over,
            first_block=blocks,
        )
        blocks += blocks_for(height * width)
    launcher.launch(Kernel("lines.cu", "draw_strokes"), params, (blocks, 1, 1))


def draw_reference(drawing: Drawing) -> Image:
    """Twin of `draw` in plain Python: the picture, a new array."""
    points, strokes = np.asarray(drawing.points), np.asarray(drawing.strokes)
    known = np.isfinite(points).all(axis=1)
    if points.dtype == np.float32:
        sides = np.array([drawing.out.shape[1] - 1, drawing.out.shape[0] - 1], np.float32)
        halves = (np.where(known[:, None], points, 0) + np.float32(1)) / np.float32(2)
        with np.errstate(over="ignore"):
            pixels = np.clip(halves * sides, -_FARTHEST, _FARTHEST).astype(np.int32)
    else:
        pixels = points
    drawn = [
        s
        for s, (i, j) in enumerate(strokes.tolist())
        if 0 <= i < len(points) and known[i] and (j == DOT or (0 <= j < len(points) and known[j]))
    ]
    image = drawing.out.copy() if drawing.over else np.zeros_like(drawing.out)
    return draw_strokes_reference(image, pixels, strokes[drawn], np.asarray(drawing.colours)[drawn])


def _check(i: int, out: View, points: View, strokes: View, colours: View) -> None:
    if len(out.shape) != 3 or out.dtype != "uint8" or 0 in out.shape or not out.writeable:
        raise ValueError(
            f"out {i}: {out.shape} {out.dtype}; expected (H, W, C) uint8, not empty, that can be written"
        )
    if len(points.shape) != 2 or points.shape[1] != 2 or points.dtype not in ("int32", "float32"):
        raise ValueError(f"points {i}: {points.shape} {points.dtype}; expected (N, 2) int32 or float32")
    if len(strokes.shape) != 2 or strokes.shape[1] != 2 or strokes.dtype != "int32":
        raise ValueError(f"strokes {i}: {strokes.shape} {strokes.dtype}; expected (M, 2) int32")
    expected = (strokes.shape[0], out.shape[2])
    if colours.shape != expected or colours.dtype != "uint8":
        raise ValueError(f"colours {i}: {colours.shape} {colours.dtype}; expected {expected} uint8")
