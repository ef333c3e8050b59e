"""Putting pictures together: blending a layer through a mask, with a plain NumPy twin as its oracle."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["blend", "blend_reference"]

Image = NDArray[np.uint8]


def blend(canvas: Image, layer: Image, mask: Image, x: int, y: int) -> None:
    """Blend a layer over a canvas in place: canvas * (1 - mask / 255) + layer * mask / 255.

    canvas # (H, W, 3) uint8
    layer  # (h, w, 3) uint8, its corner at column x, row y of the canvas; parts outside are left out
    mask   # (h, w) uint8, 0 keeps the canvas, 255 shows the layer

    Raises ValueError when layer and mask differ in size.
    """
    if layer.shape[:2] != mask.shape:
        raise ValueError(f"layer {layer.shape[:2]} and mask {mask.shape} must have one size")
    _blend(canvas, layer, mask, x, y)


def blend_reference(canvas: Image, layer: Image, mask: Image, x: int, y: int) -> None:
    """Twin of `blend` in float64."""
    height, width = canvas.shape[:2]
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + layer.shape[0], height), min(x + layer.shape[1], width)
    if top >= bottom or left >= right:
        return
    rows, columns = slice(top - y, bottom - y), slice(left - x, right - x)
    part = mask[rows, columns, None] / 255.0
    mixed = canvas[top:bottom, left:right] * (1 - part) + layer[rows, columns] * part
    canvas[top:bottom, left:right] = np.floor(mixed + 0.5).astype(np.uint8)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _blend(canvas: Image, layer: Image, mask: Image, x: int, y: int) -> None:
    for row in range(max(0, -y), min(layer.shape[0], canvas.shape[0] - y)):
        for column in range(max(0, -x), min(layer.shape[1], canvas.shape[1] - x)):
            part = np.int32(mask[row, column])
            if part == 0:
                continue
            for c in range(3):
                under = np.int32(canvas[y + row, x + column, c])
                over = np.int32(layer[row, column, c])
                canvas[y + row, x + column, c] = (under * (255 - part) + over * part + 127) // 255
