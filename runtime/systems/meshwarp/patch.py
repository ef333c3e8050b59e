"""Small helpers of the layers that are drawn into eyes and mouth: polygon masks and fitted affine maps."""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["affine_between", "bounds", "polygon_mask"]

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]

_SHIFT = 5  # sub-pixel bits of polygon corners


def bounds(points: Floats, margin: float, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1) whole pixels around (N, 2) points inside a picture of (H, W, ...); None when outside it."""
    low = np.floor(points.min(axis=0) - margin)
    high = np.ceil(points.max(axis=0) + margin) + 1
    x0, y0 = max(0, int(low[0])), max(0, int(low[1]))
    x1, y1 = min(shape[1], int(high[0])), min(shape[0], int(high[1]))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def polygon_mask(points: Floats, box: tuple[int, int, int, int], soften: float = 0.0) -> Image:
    """(h, w) uint8 coverage of a polygon ((N, 2) pixels) in a box; edges blurred by `soften` pixels."""
    x0, y0, x1, y1 = box
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    corners = np.rint((points - (x0, y0)) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255, cv2.LINE_AA, _SHIFT)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), soften), np.uint8) if soften > 0.3 else mask


def affine_between(points: Floats, onto: Floats) -> Floats:
    """(2, 3) least-squares affine map that takes (N, 2) `points` to (N, 2) `onto`."""
    middle, target = points.mean(axis=0), onto.mean(axis=0)
    a, b = (points - middle).astype(np.float64), (onto - target).astype(np.float64)
    # A little weight on "no shear" keeps flat point sets solvable.
    normal = a.T @ a + 1e-3 * np.trace(a.T @ a) * np.eye(2)
    linear = np.linalg.solve(normal, a.T @ b + 1e-3 * np.trace(a.T @ a) * np.eye(2)).T
    return np.concatenate([linear, (target - linear @ middle)[:, None]], axis=1).astype(np.float32)
