"""ONNX's operators that resize or sample maps, as torch functions; parameters as in `elementary`."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ....errors import BundleError

__all__ = ["SAMPLING"]

Numbers = Sequence[int]
Change = tuple[int, int, float]
"""Of one axis: its size, the size wanted, and the scale by which places are found."""


def _resize(
    x: Tensor,
    roi: Sequence[float] | None = None,  # noqa: ARG001
    scales: Sequence[float] | None = None,
    sizes: Numbers | None = None,
    *,
    antialias: int = 0,
    axes: Numbers | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,  # noqa: ARG001
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    if antialias or exclude_outside or keep_aspect_ratio_policy != "stretch":
        raise BundleError(
            "Resize with antialias, exclude_outside or a kept aspect ratio is not known to the torch backend"
        )
    chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in axes]
    changes = {}
    for i, axis in enumerate(chosen):
        size = x.shape[axis]
        scale = float(scales[i]) if scales else (sizes[i] / size if sizes else 1.0)
        changes[axis] = (size, sizes[i] if sizes else int(np.floor(size * scale)), scale)
    changes = {axis: change for axis, change in changes.items() if change[2] != 1 or change[0] != change[1]}
    way = _as_torch(mode, coordinate_transformation_mode, nearest_mode, cubic_coeff_a)
    exact = all(wanted == size * scale for size, wanted, scale in changes.values())
    whole = mode != "nearest" or all(scale == int(scale) for _, _, scale in changes.values())
    if way and exact and whole and x.ndim == 4 and changes and min(changes) >= 2:
        wanted = [changes[axis][1] if axis in changes else x.shape[axis] for axis in (2, 3)]
        return functional.interpolate(x, wanted, **way)
    for axis, change in changes.items():
        if mode == "nearest":
            x = x.index_select(axis, _nearest(change, coordinate_transformation_mode, nearest_mode, x.device))
        else:
            matrix = _weights(change, coordinate_transformation_mode, mode, cubic_coeff_a, x.device)
            x = (x.movedim(axis, -1) @ matrix.to(x)).movedim(-1, axis)
    return x


def _as_torch(mode: str, transformation: str, rounding: str, cubic: float) -> dict[str, Any] | None:
    """How torch's `interpolate` does the same; None where it does not."""
    if mode == "nearest":
        return {"mode": "nearest"} if (transformation, rounding) == ("asymmetric", "floor") else None
    words = {"linear": "bilinear"} | ({"cubic": "bicubic"} if cubic == -0.75 else {})
    corners = {"half_pixel": False, "align_corners": True}
    if mode not in words or transformation not in corners:
        return None
    return {"mode": words[mode], "align_corners": corners[transformation]}


def _places(change: Change, transformation: str) -> NDArray[np.float32]:
    """(wanted,): where each pixel of the result lies, in pixels of what is resized; rounded as ONNX Runtime does it."""
    size, wanted, scale = change[0], change[1], np.float32(change[2])
    line = np.arange(wanted, dtype=np.float32)
    if transformation == "asymmetric":
        return line / scale
    if transformation == "align_corners":
        return line * np.float32(size - 1) / np.float32(wanted - 1) if wanted > 1 else line
    if transformation == "pytorch_half_pixel" and wanted == 1:
        return line
    if transformation == "half_pixel_symmetric":
        off = np.float32(size / 2) * (1 - np.float32(wanted) / (scale * np.float32(size)))
        return off + (line + np.float32(0.5)) / scale - np.float32(0.5)
    if transformation in ("half_pixel", "pytorch_half_pixel"):
        return (line + np.float32(0.5)) / scale - np.float32(0.5)
    raise BundleError(f"Resize by {transformation} is not known to the torch backend")


@cache
def _nearest(change: Change, transformation: str, rounding: str, device: torch.device) -> Tensor:
    """(wanted,) int64: which pixel each takes; kept for ever, for captured graphs go on reading it."""
    places = _places(change, transformation)
    if rounding.startswith("round"):
        whole = np.ceil(places - 0.5) if rounding == "round_prefer_floor" else np.floor(places + 0.5)
    else:
        whole = np.floor(places) if rounding == "floor" else np.ceil(places)
    return torch.from_numpy(np.clip(whole, 0, change[0] - 1).astype(np.int64)).to(device)


@cache
def _weights(change: Change, transformation: str, mode: str, cubic: float, device: torch.device) -> Tensor:
    """(size, wanted) float32: how much of each pixel goes into each of the result; kept, as `_nearest` is."""
    places = _places(change, transformation)
    first = np.floor(places)
    matrix = np.zeros(change[:2])
    for tap in (0, 1) if mode == "linear" else (-1, 0, 1, 2):
        apart = np.abs(places - first - tap)
        if mode == "linear":
            share = 1 - apart
        else:
            near = ((cubic + 2) * apart - (cubic + 3)) * apart * apart + 1
            share = np.where(apart <= 1, near, cubic * (((apart - 5) * apart + 8) * apart - 4))
        np.add.at(matrix, (np.clip(first + tap, 0, change[0] - 1).astype(int), np.arange(change[1])), share)
    return torch.from_numpy(matrix.astype(np.float32)).to(device)


def _grid_sample(
    x: Tensor, grid: Tensor, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Tensor:
    words = {"linear": "bilinear", "cubic": "bicubic"}
    return functional.grid_sample(x, grid, words.get(mode, mode), padding_mode, bool(align_corners))


def _affine_grid(theta: Tensor, size: Numbers, *, align_corners: int = 0) -> Tensor:
    return functional.affine_grid(theta, list(size), bool(align_corners))


SAMPLING: dict[str, Callable[..., Any]] = {
    "AffineGrid": _affine_grid,
    "GridSample": _grid_sample,
    "Resize": _resize,
}
