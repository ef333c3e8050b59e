"""Bilinear sampling of feature maps on a GPU: one map, or a pyramid of maps under one field in one launch.

The kernels are in `csrc/warp.cu`; `warp_reference` is their plain NumPy twin. Results are written where the caller
says, so a warped map can go straight into its part of a concatenation. Features are float32 or float16, fields always
float32: a place near 1 has steps of an eighth of a pixel in float16 when a map is 512 wide.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .arrays import View
from .launch import Kernel, Launcher, blocks_for, views

__all__ = [
    "CHANNELS_A_THREAD",
    "MOST_MAPS",
    "Field",
    "Layout",
    "Padding",
    "Target",
    "warp",
    "warp_pyramid",
    "warp_reference",
]

Layout = Literal["NCHW", "NHWC"]
Padding = Literal["zeros", "border", "reflection"]
Resize = Literal["nearest", "bilinear"]

MOST_MAPS = 8  # in one launch
_PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}
CHANNELS_A_THREAD = 32  # of planes: enough to pay for the place's arithmetic, few enough to fill a GPU


@dataclass(frozen=True)
class Field:
    """Where to sample, for every pixel of a result.

    places     # (B, h, w, 2), or (B, 2, h, w) if planar, float32, x before y; -1 and 1 are a picture's borders
    resize     # how places are found for results of another size: as torch's `interpolate` does, half-pixel centres
    relative   # places are added to the grid that runs from -1 to 1 over the result's pixel centres (GDPW, sheet 2.2)
    scale      # factors of x and y, applied before that
    """

    places: Any
    planar: bool = False
    resize: Resize = "nearest"
    relative: bool = False
    scale: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Target:
    """A map and where its samples go: channels `offset` and on of `out`.

    features  # (B, C, H, W) or (B, H, W, C), float32 or float16
    out       # the same layout and dtype, of any height and width, at least offset + C channels
    """

    features: Any
    out: Any
    offset: int = 0


class _Map(ctypes.Structure):
    _fields_ = (
        ("features", ctypes.c_uint64),
        ("out", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in ("channels", "in_height", "in_width")),
        *((name, ctypes.c_int32) for name in ("out_height", "out_width", "out_channels", "out_offset")),
        ("first_block", ctypes.c_int32),
    )


class _Params(ctypes.Structure):
    _fields_ = (
        ("maps", _Map * MOST_MAPS),
        ("field", ctypes.c_uint64),
        ("occlusion", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in ("number", "batch", "channels_a_thread")),
        *(
            (name, ctypes.c_int32)
            for name in ("field_height", "field_width", "field_planar", "field_bilinear")
        ),
        *((name, ctypes.c_int32) for name in ("occlusion_height", "occlusion_width", "relative")),
        ("scale_x", ctypes.c_float),
        ("scale_y", ctypes.c_float),
        ("padding", ctypes.c_int32),
        ("align_corners", ctypes.c_int32),
    )


def warp(
    launcher: Launcher,
    features: Any,
    field: Field,
    out: Any,
    *,
    layout: Layout = "NCHW",
    padding: Padding = "zeros",
    align_corners: bool = False,
    occlusion: Any = None,
    offset: int = 0,
) -> None:
    """`warp_pyramid` of one map."""
    warp_pyramid(
        launcher,
        [Target(features, out, offset)],
        field,
        layout=layout,
        padding=padding,
        align_corners=align_corners,
        occlusion=occlusion,
    )


def warp_pyramid(
    launcher: Launcher,
    targets: Sequence[Target],
    field: Field,
    *,
    layout: Layout = "NCHW",
    padding: Padding = "zeros",
    align_corners: bool = False,
    occlusion: Any = None,
) -> None:
    """Sample up to MOST_MAPS maps by one field in one launch, on the launcher's stream.

    `padding` and `align_corners` are those of torch's `grid_sample`. `occlusion`, (B, 1, h', w') or (B, h', w')
    float32, is enlarged bilinearly and multiplied with what is sampled. Other channels of each `out` stay as they are.
    Raises ValueError and TypeError for arrays that do not fit each other, naming them.
    """
    if not 1 <= len(targets) <= MOST_MAPS:
        raise ValueError(f"{len(targets)} maps; one launch takes 1 to {MOST_MAPS}")
    if padding not in _PADDINGS:
        raise ValueError(f"padding is {padding!r}; expected {', '.join(_PADDINGS)}")
    arrays = {"field": field.places}
    for i, target in enumerate(targets):
        arrays |= {f"features {i}": target.features, f"out {i}": target.out}
    if occlusion is not None:
        arrays["occlusion"] = occlusion
    seen = views(launcher, arrays)
    batch = seen["features 0"].shape[0] if seen["features 0"].shape else 0
    params = _Params(
        padding=_PADDINGS[padding], align_corners=align_corners, number=len(targets), batch=batch
    )
    pairs = [(seen[f"features {i}"], seen[f"out {i}"]) for i in range(len(targets))]
    for i, ((features, out), target) in enumerate(zip(pairs, targets, strict=True)):
        _set_map(params, i, features, out, target.offset, layout)
    _set_field(params, field, seen["field"])
    if occlusion is not None:
        _set_occlusion(params, seen["occlusion"])
    blocks, name = _divide(params, pairs, layout)
    if blocks:
        launcher.launch(Kernel("warp.cu", name), params, (blocks, batch, 1))


def warp_reference(
    features: NDArray[Any],
    field: Field,
    height: int,
    width: int,
    *,
    layout: Layout = "NCHW",
    padding: Padding = "zeros",
    align_corners: bool = False,
    occlusion: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """Twin of `warp` in float64: the samples, (B, C, height, width) or (B, height, width, C)."""
    planes = features if layout == "NCHW" else features.transpose(0, 3, 1, 2)
    places = np.asarray(field.places, np.float64)
    places = places if field.planar else places.transpose(0, 3, 1, 2)
    places = _resized(places, height, width, field.resize) * np.reshape(field.scale, (1, 2, 1, 1))
    if field.relative:
        places[:, 0] += _from_minus_one_to_one(width)
        places[:, 1] += _from_minus_one_to_one(height)[:, None]
    columns = _taps(places[:, 0], planes.shape[3], padding, align_corners)
    rows = _taps(places[:, 1], planes.shape[2], padding, align_corners)
    result = np.zeros((*planes.shape[:2], height, width))
    items = np.arange(len(planes))[:, None, None]
    for row, row_weight in rows:
        for column, column_weight in columns:
            corner = planes[items, :, row, column].astype(np.float64).transpose(0, 3, 1, 2)
            result += corner * (row_weight * column_weight)[:, None]
    if occlusion is not None:
        factors = np.asarray(occlusion, np.float64).reshape(len(planes), 1, *occlusion.shape[-2:])
        result *= _resized(factors, height, width, "bilinear")
    return result if layout == "NCHW" else result.transpose(0, 2, 3, 1)


def _set_field(params: _Params, field: Field, places: View) -> None:
    expected = "(B, 2, h, w)" if field.planar else "(B, h, w, 2)"
    fits = len(places.shape) == 4 and places.shape[1 if field.planar else 3] == 2 and 0 not in places.shape
    if not fits or places.dtype != "float32" or places.shape[0] != params.batch:
        raise ValueError(
            f"field: {places.shape} {places.dtype}; expected {expected} float32 with B = {params.batch}"
        )
    if field.resize not in ("nearest", "bilinear"):
        raise ValueError(f"field: resize is {field.resize!r}; expected nearest or bilinear")
    params.field = places.address
    params.field_height, params.field_width = places.shape[2:] if field.planar else places.shape[1:3]
    params.field_planar, params.field_bilinear = field.planar, field.resize == "bilinear"
    params.relative = field.relative
    params.scale_x, params.scale_y = field.scale


def _set_occlusion(params: _Params, occlusion: View) -> None:
    batch, *rest = occlusion.shape
    planes = rest[1:] if len(rest) == 3 and rest[0] == 1 else rest
    if len(planes) != 2 or batch != params.batch or occlusion.dtype != "float32" or 0 in planes:
        raise ValueError(
            f"occlusion: {occlusion.shape} {occlusion.dtype}; expected (B, 1, h, w) float32 with B = {params.batch}"
        )
    params.occlusion = occlusion.address
    params.occlusion_height, params.occlusion_width = planes


def _set_map(params: _Params, i: int, features: View, out: View, offset: int, layout: Layout) -> None:
    given = (
        f"features {i}: {features.shape} {features.dtype}, out {i}: {out.shape} {out.dtype}, offset {offset}"
    )
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"layout is {layout!r}; expected NCHW or NHWC")
    axes = (1, 2, 3) if layout == "NCHW" else (3, 1, 2)
    if (
        len(features.shape) != 4
        or len(out.shape) != 4
        or features.shape[0] != params.batch
        or out.shape[0] != params.batch
    ):
        raise ValueError(f"{given}; expected four axes, {layout}, and B = {params.batch}")
    if features.dtype != out.dtype or features.dtype not in ("float32", "float16"):
        raise ValueError(f"{given}; expected both float32 or both float16")
    channels, height, width = (features.shape[axis] for axis in axes)
    if 0 in (height, width) or offset < 0 or offset + channels > out.shape[axes[0]] or not out.writeable:
        raise ValueError(
            f"{given}; expected a map that is not empty and an out that has room for its channels"
        )
    slot = params.maps[i]
    slot.features, slot.out, slot.out_offset = features.address, out.address, offset
    slot.channels, slot.in_height, slot.in_width = channels, height, width
    slot.out_channels, slot.out_height, slot.out_width = (out.shape[axis] for axis in axes)


def _divide(params: _Params, pairs: list[tuple[View, View]], layout: Layout) -> tuple[int, str]:
    """Give every map its blocks; how many there are in all, and the kernel's name."""
    maps = params.maps[: len(pairs)]
    kinds = {features.dtype for features, _ in pairs}
    if len(kinds) > 1:
        raise ValueError("maps are of float32 and of float16; one launch takes one of them")
    short = "f32" if kinds == {"float32"} else "f16"
    size = 1
    if layout == "NHWC":
        size = 4 if short == "f32" else 8
        counts = [n for m in maps for n in (m.channels, m.out_channels, m.out_offset)]
        if any(n % size for n in counts) or any(m.features % 16 or m.out % 16 for m in maps):
            size = 1
    params.channels_a_thread = CHANNELS_A_THREAD
    blocks = 0
    for slot in maps:
        slot.first_block = blocks
        a_thread = size if layout == "NHWC" else CHANNELS_A_THREAD
        blocks += blocks_for(slot.out_height * slot.out_width * -(-slot.channels // a_thread))
    name = "warp_planar_" if layout == "NCHW" else "warp_interleaved_"
    return blocks, name + short + (f"x{size}" if size > 1 else "")


def _from_minus_one_to_one(length: int) -> NDArray[np.float64]:
    return np.linspace(-1, 1, length) if length > 1 else np.array([-1.0])


def _resized(planes: NDArray[np.float64], height: int, width: int, resize: Resize) -> NDArray[np.float64]:
    """(B, C, h, w) to (B, C, height, width)."""
    for axis, length in ((2, height), (3, width)):
        n = planes.shape[axis]
        if resize == "nearest":
            # torch computes this quotient in float32, which shows for sizes that do not divide each other.
            index = np.floor(np.arange(length, dtype=np.float32) * np.float32(n / length)).astype(int)
            planes = planes.take(np.minimum(index, n - 1), axis)
        else:
            place = np.clip((np.arange(length) + 0.5) * (n / length) - 0.5, 0, n - 1)
            low = np.floor(place).astype(int)
            part = (place - low).reshape([-1 if i == axis else 1 for i in range(4)])
            upper = planes.take(np.minimum(low + 1, n - 1), axis)
            planes = planes.take(low, axis) * (1 - part) + upper * part
    return planes.copy()


def _taps(
    places: NDArray[np.float64], length: int, padding: Padding, align_corners: bool
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Two neighbours along one axis: their numbers, inside the map, and weights."""
    pixel = (places + 1) / 2 * (length - 1) if align_corners else ((places + 1) * length - 1) / 2
    if padding == "reflection":
        low, span = (0, length - 1) if align_corners else (-0.5, length)
        away = np.abs(pixel - low)
        rest = np.mod(away, 2 * span) if span else np.zeros_like(away)
        pixel = np.where(rest > span, 2 * span - rest, rest) + low
    if padding != "zeros":
        pixel = np.where(np.isnan(pixel), 0, np.clip(pixel, 0, length - 1))
    pixel = np.where(np.isnan(pixel), -2, np.clip(pixel, -2, length + 1))
    low_index = np.floor(pixel).astype(np.int64)
    part = pixel - low_index
    taps = []
    for index, weight in ((low_index, 1 - part), (low_index + 1, part)):
        inside = (index >= 0) & (index < length)
        taps.append((np.where(inside, index, 0), np.where(inside, weight, 0.0)))
    return taps
