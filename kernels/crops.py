"""Crops of a picture made into a network's input, and a network's output put back into the photo, on a GPU.

Each is one pass over its result: geometry, levels, colour order, blending and layout together. The kernels are in
`csrc/composite.cu`; `crop_reference` and `paste_reference` are their plain NumPy twins.

Both go by maps, (B, 2, 3) float32: crop pixel (x, y) lies at picture pixel (m00 x + m01 y + m02, m10 x + m11 y + m12),
with pixel centres at whole numbers. They lie where the pictures lie, so a captured graph can be run with other maps.
"""

import ctypes
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .arrays import View
from .launch import Kernel, Launcher, blocks_for, views

__all__ = [
    "Border",
    "Normalisation",
    "Sampling",
    "box_map",
    "crop",
    "crop_reference",
    "paste",
    "paste_reference",
]

Sampling = Literal["bilinear", "area"]
Border = Literal["replicate", "zeros"]
Doubles = NDArray[np.float64]
Image = NDArray[np.uint8]
Three = tuple[float, float, float]

_KINDS = {"float32": "f32", "float16": "f16"}
_MOST_CROPS = 65535  # the grid's y


@dataclass(frozen=True)
class Normalisation:
    """How a network writes levels of 0 to 255: level * scale + offset, for each channel in the network's order.

    reversed_channels  # the network has blue first where the picture has red first, or the other way round
    """

    scale: Three = (1 / 127.5,) * 3
    offset: Three = (-1.0,) * 3
    reversed_channels: bool = False


class _CropParams(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("picture", "maps", "out")),
        *((name, ctypes.c_int32) for name in ("height", "width", "channels", "out_height", "out_width")),
        ("reversed", ctypes.c_int32),
        ("zeros", ctypes.c_int32),
        ("scale", ctypes.c_float * 3),
        ("offset", ctypes.c_float * 3),
    )


class _PasteParams(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("photo", "out", "crops", "masks", "maps")),
        *((name, ctypes.c_int32) for name in ("height", "width", "batch", "crop_height", "crop_width")),
        *((name, ctypes.c_int32) for name in ("mask_step", "mask_bytes", "reversed", "packed")),
        ("scale", ctypes.c_float * 3),
        ("offset", ctypes.c_float * 3),
    )


def box_map(
    left: float, top: float, width: float, height: float, crop_width: int, crop_height: int
) -> NDArray[np.float32]:
    """(2, 3) map of a box of the picture, in pixels from the picture's corner, resized to a crop."""
    x, y = width / crop_width, height / crop_height
    return np.array([[x, 0, left + (x - 1) / 2], [0, y, top + (y - 1) / 2]], np.float32)


def crop(
    launcher: Launcher,
    picture: Any,
    maps: Any,
    out: Any,
    *,
    normalisation: Normalisation,
    sampling: Sampling = "bilinear",
    border: Border = "replicate",
) -> None:
    """Take B crops out of one picture.

    picture   # (H, W, 3) uint8, or (H, W, 4), whose fourth channel is not looked at
    maps      # (B, 2, 3) float32
    out       # (B, 3, h, w) float32 or float16, written whole
    sampling  # "bilinear"; "area": the mean of the box that an output pixel takes up in the picture, for shrinking.
                Its sides are as long as the map's rows, which is exact but for turns between right angles, and never
                less than a pixel, so that where nothing shrinks both are the same
    border    # what lies beyond the picture: its border pixels, or zeros (levels, before they are normalised)

    Places that are no numbers lie far beyond the upper left corner. Raises ValueError and TypeError for arrays that
    do not fit, naming them.
    """
    seen = views(launcher, {"picture": picture, "maps": maps, "out": out})
    source, written = seen["picture"], seen["out"]
    _check_picture("picture", source, (3, 4))
    _check_crops("out", written, seen["maps"])
    if not written.writeable:
        raise ValueError("out: is read-only; expected an array that can be written")
    if border not in ("replicate", "zeros"):
        raise ValueError(f"border is {border!r}; expected replicate or zeros")
    batch, _, out_height, out_width = written.shape
    params = _CropParams(
        picture=source.address,
        maps=seen["maps"].address,
        out=written.address,
        height=source.shape[0],
        width=source.shape[1],
        channels=source.shape[2],
        out_height=out_height,
        out_width=out_width,
        reversed=normalisation.reversed_channels,
        zeros=border == "zeros",
        scale=normalisation.scale,
        offset=normalisation.offset,
    )
    kernel = _kernel("crop", sampling, written)
    launcher.launch(kernel, params, (blocks_for(out_height * out_width), batch, 1))


def paste(
    launcher: Launcher,
    crops: Any,
    maps: Any,
    mask: Any,
    photo: Any,
    out: Any,
    *,
    normalisation: Normalisation,
    sampling: Sampling = "bilinear",
) -> None:
    """Put B pictures of a network back where `maps` took them from; where they overlap the later one is on top.

    crops  # (B, 3, h, w) float32 or float16
    maps   # (B, 2, 3) float32; one that has no inverse puts nothing back
    mask   # (h, w), the same for all, or (B, h, w): uint8, or float32 in [0, 1]; 0 keeps the photo
    photo  # (H, W, 3) uint8
    out    # as the photo, written whole; or the photo itself, which is then changed in place

    The crop and its mask are sampled together and mixed as `composite.blend` does, rounded once. Outside a crop's
    pixels the photo stays as it is. Sampling and errors are those of `crop`, with "area" for a crop that becomes
    smaller.
    """
    seen = views(launcher, {"crops": crops, "maps": maps, "mask": mask, "photo": photo, "out": out})
    under, written, over, part = (seen[name] for name in ("photo", "out", "crops", "mask"))
    _check_picture("photo", under, (3,))
    if (written.shape, written.dtype) != (under.shape, "uint8") or not written.writeable:
        raise ValueError(
            f"out: {written.shape} {written.dtype}; expected {under.shape} uint8 that can be written"
        )
    _check_crops("crops", over, seen["maps"])
    batch, _, height, width = over.shape
    if part.shape not in ((height, width), (batch, height, width)) or part.dtype not in ("uint8", "float32"):
        raise ValueError(
            f"mask: {part.shape} {part.dtype}; expected ({height}, {width}) or ({batch}, {height}, {width}), uint8 or "
            "float32"
        )
    params = _PasteParams(
        photo=under.address,
        out=written.address,
        crops=over.address,
        masks=part.address,
        maps=seen["maps"].address,
        height=under.shape[0],
        width=under.shape[1],
        batch=batch,
        crop_height=height,
        crop_width=width,
        mask_step=height * width if len(part.shape) == 3 else 0,
        mask_bytes=part.dtype == "uint8",
        reversed=normalisation.reversed_channels,
        packed=under.address % 16 == 0 and written.address % 16 == 0,
        scale=tuple(1 / scale for scale in normalisation.scale),
        offset=tuple(
            -offset / scale for scale, offset in zip(normalisation.scale, normalisation.offset, strict=True)
        ),
    )
    kernel = _kernel("paste", sampling, over)
    launcher.launch(kernel, params, (blocks_for(under.shape[0] * under.shape[1]), 1, 1))


def crop_reference(
    picture: Image,
    maps: NDArray[np.float32],
    height: int,
    width: int,
    *,
    normalisation: Normalisation,
    sampling: Sampling = "bilinear",
    border: Border = "replicate",
) -> Doubles:
    """Twin of `crop` in float64: (B, 3, height, width)."""
    y, x = (axis.reshape(-1) for axis in np.mgrid[:height, :width].astype(np.float64))
    crops = []
    for (xx, xy, x0), (yx, yy, y0) in maps.astype(np.float64):
        extents = (np.hypot(xx, xy), np.hypot(yx, yy)) if sampling == "area" else (1.0, 1.0)
        places = (xx * x + xy * y + x0, yx * x + yy * y + y0)
        levels = _box_means(picture[..., :3].astype(np.float64), places, extents, border)
        crops.append(levels.T.reshape(3, height, width))
    levels = np.stack(crops)
    if normalisation.reversed_channels:
        levels = levels[:, ::-1]
    return levels * _channels(normalisation.scale) + _channels(normalisation.offset)


def paste_reference(
    crops: NDArray[Any],
    maps: NDArray[np.float32],
    mask: NDArray[Any],
    photo: Image,
    *,
    normalisation: Normalisation,
    sampling: Sampling = "bilinear",
) -> Image:
    """Twin of `paste` in float64: the photo with the crops in it, a new array."""
    levels = (crops.astype(np.float64) - _channels(normalisation.offset)) / _channels(normalisation.scale)
    if normalisation.reversed_channels:
        levels = levels[:, ::-1]
    height, width = crops.shape[2:]
    parts = np.broadcast_to(mask / 255.0 if mask.dtype == np.uint8 else mask, (len(crops), height, width))
    result = photo.copy()
    for level, part, ((xx, xy, x0), (yx, yy, y0)) in zip(levels, parts, maps.astype(np.float64), strict=True):
        area = xx * yy - xy * yx
        if area == 0:
            continue
        y, x = np.mgrid[: photo.shape[0], : photo.shape[1]].astype(np.float64)
        u = (yy * (x - x0) - xy * (y - y0)) / area
        v = (xx * (y - y0) - yx * (x - x0)) / area
        inside = (u >= -0.5) & (u < width - 0.5) & (v >= -0.5) & (v < height - 0.5)
        extents = (np.hypot(yy, xy) / abs(area), np.hypot(yx, xx) / abs(area))
        if sampling == "bilinear":
            extents = (1.0, 1.0)
        layers = np.concatenate([level, part[None]]).transpose(1, 2, 0)
        sampled = _box_means(layers, (u[inside], v[inside]), extents, "replicate")
        over, share = sampled[:, :3].clip(0, 255), sampled[:, 3:].clip(0, 1)
        result[inside] = np.floor(result[inside] * (1 - share) + over * share + 0.5).astype(np.uint8)
    return result


def _kernel(what: str, sampling: Sampling, crops: View) -> Kernel:
    if sampling not in ("bilinear", "area"):
        raise ValueError(f"sampling is {sampling!r}; expected bilinear or area")
    return Kernel("composite.cu", f"{what}_{sampling}_{_KINDS[crops.dtype]}")


def _check_picture(name: str, picture: View, channels: tuple[int, ...]) -> None:
    fits = len(picture.shape) == 3 and picture.shape[2] in channels and 0 not in picture.shape
    if not fits or picture.dtype != "uint8":
        expected = " or ".join(f"(H, W, {count})" for count in channels)
        raise ValueError(f"{name}: {picture.shape} {picture.dtype}; expected {expected} uint8, not empty")


def _check_crops(name: str, crops: View, maps: View) -> None:
    fits = len(crops.shape) == 4 and crops.shape[1] == 3 and 0 not in crops.shape
    if not fits or crops.dtype not in _KINDS or crops.shape[0] > _MOST_CROPS:
        raise ValueError(
            f"{name}: {crops.shape} {crops.dtype}; expected (B, 3, h, w) float32 or float16, not empty, B at most "
            f"{_MOST_CROPS}"
        )
    if maps.shape != (crops.shape[0], 2, 3) or maps.dtype != "float32":
        raise ValueError(f"maps: {maps.shape} {maps.dtype}; expected ({crops.shape[0]}, 2, 3) float32")


def _channels(values: Three) -> Doubles:
    return np.array(values)[:, None, None]


def _box_means(
    image: Doubles, places: tuple[Doubles, Doubles], extents: tuple[float, float], border: Border
) -> Doubles:
    """(N, C) means of boxes around places (x, y), each (N,); a box of one pixel is what bilinear sampling takes."""
    height, width, channels = image.shape
    columns = _weights(places[0], extents[0], width, border)
    rows = _weights(places[1], extents[1], height, border)
    strips = (rows @ image.reshape(height, -1)).reshape(-1, width, channels)
    return np.asarray((strips * columns[..., None]).sum(axis=1))


def _weights(places: Doubles, extent: float, length: int, border: Border) -> Doubles:
    """(N, length): which part of each box lies in each pixel; pixel i reaches from i - 0.5 to i + 0.5."""
    extent = max(extent, 1.0)
    low, high = (places - extent / 2)[:, None], (places + extent / 2)[:, None]
    edges = np.arange(length + 1) - 0.5
    if border == "replicate":
        edges[0], edges[-1] = -np.inf, np.inf
    return np.asarray(np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None) / extent)
