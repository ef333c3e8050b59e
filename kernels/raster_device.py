"""The rasteriser of `raster.py` as CUDA kernels, `csrc/raster.cu`; each function starts them on the caller's arrays.

Rules and names are those of `raster.py`; its twins in `raster_reference.py` are the oracles here too. Weights are
computed in float32: they differ in the sixth digit from those on the CPU, and are of no use for corners farther out
than 1e18. A triangle that names a vertex which is not there is left out, since nobody can look at numbers on a GPU
before the launch.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .arrays import View
from .launch import MOST_ELEMENTS, Kernel, Launcher, blocks_for, views
from .raster import MAX_SIDE

__all__ = ["MOST_SETS", "Attributes", "Layout", "antialias", "cull", "interpolate", "outlines", "rasterize"]

Layout = Literal["NCHW", "NHWC"]

MOST_SETS = 4  # of attributes in one launch
_LEAST_LANES = 8  # threads a triangle, each with its own rows
_LEAST_THREADS = 1 << 17  # that draw: few large triangles are shared out finer
_CHANNELS_A_THREAD = 8  # 32 bytes, the least that memory gives at once


@dataclass(frozen=True)
class Attributes:
    """Attributes of the corners and where their picture goes: channels `offset` and on of `out`.

    corners  # (V, A) float32
    out      # (C, H, W) or (H, W, C), with or without a leading batch of 1, float32 or float16; C at least offset + A
    """

    corners: Any
    out: Any
    offset: int = 0


class _Mesh(ctypes.Structure):
    _fields_ = (
        ("vertices", ctypes.c_uint64),
        ("triangles", ctypes.c_uint64),
        ("vertex_count", ctypes.c_int32),
        ("triangle_count", ctypes.c_int32),
    )


class _Clear(ctypes.Structure):
    _fields_ = (("keys", ctypes.c_uint64), ("pixels", ctypes.c_int32))


class _Draw(ctypes.Structure):
    _fields_ = (
        ("mesh", _Mesh),
        ("keys", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in ("height", "width", "lanes")),
    )


class _Resolve(ctypes.Structure):
    _fields_ = (
        ("mesh", _Mesh),
        *((name, ctypes.c_uint64) for name in ("keys", "ids", "uvz")),
        *((name, ctypes.c_int32) for name in ("height", "width")),
    )


class _Cull(ctypes.Structure):
    _fields_ = (
        ("mesh", _Mesh),
        ("ids", ctypes.c_uint64),
        ("uvz", ctypes.c_uint64),
        ("pixels", ctypes.c_int32),
    )


class _Set(ctypes.Structure):
    _fields_ = (
        ("attributes", ctypes.c_uint64),
        ("out", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in ("channels", "offset", "pixel_step", "channel_step")),
        ("first_block", ctypes.c_int32),
    )


class _Interpolate(ctypes.Structure):
    _fields_ = (
        ("sets", _Set * MOST_SETS),
        *((name, ctypes.c_uint64) for name in ("triangles", "ids", "uvz")),
        *((name, ctypes.c_int32) for name in ("number", "vertex_count", "triangle_count", "pixels")),
        ("channels_a_thread", ctypes.c_int32),
    )


class _Outlines(ctypes.Structure):
    _fields_ = (("mesh", _Mesh), ("neighbours", ctypes.c_uint64), ("outlines", ctypes.c_uint64))


class _Antialias(ctypes.Structure):
    _fields_ = (
        ("mesh", _Mesh),
        *((name, ctypes.c_uint64) for name in ("ids", "uvz", "outlines", "image", "out")),
        *((name, ctypes.c_int32) for name in ("height", "width", "channels", "channels_a_thread")),
        *((name, ctypes.c_int32) for name in ("in_pixel_step", "in_channel_step")),
        *((name, ctypes.c_int32) for name in ("offset", "out_pixel_step", "out_channel_step")),
    )


def rasterize(launcher: Launcher, vertices: Any, triangles: Any, keys: Any, ids: Any, uvz: Any) -> None:
    """Find the nearest triangle of each pixel: fills `ids` and `uvz`, in three launches.

    vertices   # (V, 4) float32, clip space
    triangles  # (T, 3) int32
    keys       # (H, W) int64 or uint64, room to work in
    ids        # (H, W) int32
    uvz        # (H, W, 3) float32

    Raises ValueError and TypeError for arrays that do not fit each other, naming them.
    """
    arrays = {"vertices": vertices, "triangles": triangles, "keys": keys, "ids": ids, "uvz": uvz}
    seen = views(launcher, arrays)
    mesh = _mesh(seen)
    height, width = _size(seen["keys"], "keys", "int64", "uint64")
    _require(seen, "ids", (height, width), "int32", written=True)
    _require(seen, "uvz", (height, width, 3), "float32", written=True)
    count, pixels = mesh.triangle_count, height * width
    lanes = min(height, max(_LEAST_LANES, _LEAST_THREADS // max(count, 1)))
    if count * lanes > MOST_ELEMENTS:
        raise ValueError(f"triangles: {count} are more than the kernel can count, {MOST_ELEMENTS // lanes}")
    room, *results = (seen[name].address for name in ("keys", "ids", "uvz"))
    _launch(launcher, "raster_clear", _Clear(room, pixels), pixels)
    _launch(launcher, "raster_draw", _Draw(mesh, room, height, width, lanes), count * lanes)
    _launch(launcher, "raster_resolve", _Resolve(mesh, room, *results, height, width), pixels)


def cull(launcher: Launcher, ids: Any, uvz: Any, vertices: Any, triangles: Any) -> None:
    """Empty, in place, each pixel that shows a triangle's back; arrays as for `rasterize`."""
    seen = views(launcher, {"ids": ids, "uvz": uvz, "vertices": vertices, "triangles": triangles})
    height, width = _raster(seen)
    _require(seen, "ids", (height, width), "int32", written=True)
    _require(seen, "uvz", (height, width, 3), "float32", written=True)
    params = _Cull(_mesh(seen), seen["ids"].address, seen["uvz"].address, height * width)
    _launch(launcher, "raster_cull", params, height * width)


def interpolate(
    launcher: Launcher, sets: Sequence[Attributes], ids: Any, uvz: Any, triangles: Any, *, layout: Layout
) -> None:
    """Draw up to MOST_SETS sets of attributes in one launch; all outs are float32 or all are float16.

    Pixels that show no triangle become 0, other channels of each `out` stay as they are. Raises ValueError and
    TypeError for arrays that do not fit each other, naming them.
    """
    if not 1 <= len(sets) <= MOST_SETS:
        raise ValueError(f"{len(sets)} sets of attributes; one launch takes 1 to {MOST_SETS}")
    arrays = {"ids": ids, "uvz": uvz, "triangles": triangles}
    for i, entry in enumerate(sets):
        arrays |= {f"attributes {i}": entry.corners, f"out {i}": entry.out}
    seen = views(launcher, arrays)
    height, width = _raster(seen)
    _require(seen, "triangles", (None, 3), "int32")
    params = _Interpolate(number=len(sets), pixels=height * width, channels_a_thread=_CHANNELS_A_THREAD)
    params.triangle_count, params.vertex_count = seen["triangles"].shape[0], seen["attributes 0"].shape[0]
    params.triangles, params.ids, params.uvz = (seen[name].address for name in ("triangles", "ids", "uvz"))
    blocks = 0
    for i, entry in enumerate(sets):
        _require(seen, f"attributes {i}", (params.vertex_count, None), "float32")
        corners, out = seen[f"attributes {i}"], seen[f"out {i}"]
        channels = corners.shape[1]
        steps = _steps(out, f"out {i}", height, width, entry.offset, channels, layout)
        if out.dtype != seen["out 0"].dtype or not out.writeable:
            raise ValueError(f"out {i}: {out.dtype}; expected {seen['out 0'].dtype} that may be written")
        first = entry.offset * steps[1]
        params.sets[i] = _Set(corners.address, out.address, channels, first, *steps, blocks)
        blocks += blocks_for(height * width * -(-channels // _CHANNELS_A_THREAD))
    if blocks:
        launcher.launch(_kernel("raster_interpolate", seen["out 0"]), params, (blocks, 1, 1))


def outlines(launcher: Launcher, vertices: Any, triangles: Any, neighbours: Any, out: Any) -> None:
    """Find the edges that `antialias` may blend: `out`, (T,) uint8, has bit k for the edge opposite corner k.

    `neighbours`, (T, 3) int32, are those of `raster.edge_neighbours`; other arrays as for `rasterize`.
    """
    seen = views(
        launcher, {"vertices": vertices, "triangles": triangles, "neighbours": neighbours, "out": out}
    )
    mesh = _mesh(seen)
    _require(seen, "neighbours", (mesh.triangle_count, 3), "int32")
    _require(seen, "out", (mesh.triangle_count,), "uint8", written=True)
    params = _Outlines(mesh, seen["neighbours"].address, seen["out"].address)
    _launch(launcher, "raster_outlines", params, mesh.triangle_count)


def antialias(
    launcher: Launcher,
    image: Any,
    out: Any,
    ids: Any,
    uvz: Any,
    vertices: Any,
    triangles: Any,
    outlines: Any,
    *,
    layout: Layout,
    offset: int = 0,
) -> None:
    """Blend outlines: channels `offset` and on of `out` become the picture `image`, smoothed.

    image     # (A, H, W) or (H, W, A), with or without a leading batch of 1, float32 or float16
    out       # the same layout and dtype, at least offset + A channels, in other memory
    outlines  # (T,) uint8, what `outlines` gave for these vertices

    Other arrays as for `rasterize`. Raises ValueError and TypeError for arrays that do not fit each other.
    """
    arrays = {"image": image, "out": out, "ids": ids, "uvz": uvz, "outlines": outlines}
    seen = views(launcher, arrays | {"vertices": vertices, "triangles": triangles})
    height, width = _raster(seen)
    mesh = _mesh(seen)
    _require(seen, "outlines", (mesh.triangle_count,), "uint8")
    picture, target = seen["image"], seen["out"]
    channels = _channels(picture, "image", height, width, layout)
    in_steps = _steps(picture, "image", height, width, 0, channels, layout)
    out_steps = _steps(target, "out", height, width, offset, channels, layout)
    if target.dtype != picture.dtype or not target.writeable:
        raise ValueError(f"out: {target.dtype}; expected {picture.dtype} that may be written")
    if target.address < picture.address + picture.nbytes and picture.address < target.address + target.nbytes:
        raise ValueError("out: shares memory with image; pixels need their neighbours as they were")
    addresses = (seen[name].address for name in ("ids", "uvz", "outlines", "image", "out"))
    params = _Antialias(
        mesh,
        *addresses,
        height,
        width,
        channels,
        _CHANNELS_A_THREAD,
        *in_steps,
        offset * out_steps[1],
        *out_steps,
    )
    work = height * width * -(-channels // _CHANNELS_A_THREAD)
    if work:
        launcher.launch(_kernel("raster_antialias", picture), params, (blocks_for(work), 1, 1))


def _launch(launcher: Launcher, name: str, params: ctypes.Structure, work: int) -> None:
    if work:
        launcher.launch(Kernel("raster.cu", name), params, (blocks_for(work), 1, 1))


def _kernel(name: str, picture: View) -> Kernel:
    return Kernel("raster.cu", f"{name}_{'f32' if picture.dtype == 'float32' else 'f16'}")


def _mesh(seen: dict[str, View]) -> _Mesh:
    _require(seen, "vertices", (None, 4), "float32")
    _require(seen, "triangles", (None, 3), "int32")
    vertices, triangles = seen["vertices"], seen["triangles"]
    return _Mesh(vertices.address, triangles.address, vertices.shape[0], triangles.shape[0])


def _raster(seen: dict[str, View]) -> tuple[int, int]:
    """Height and width of ids and uvz."""
    height, width = _size(seen["ids"], "ids", "int32")
    _require(seen, "uvz", (height, width, 3), "float32")
    return height, width


def _size(array: View, name: str, *dtypes: str) -> tuple[int, int]:
    sides = array.shape
    if len(sides) != 2 or array.dtype not in dtypes or not all(1 <= side <= MAX_SIDE for side in sides):
        raise ValueError(
            f"{name}: {sides} {array.dtype}; expected (H, W) {' or '.join(dtypes)}, sides 1..{MAX_SIDE}"
        )
    return sides[0], sides[1]


def _require(
    seen: dict[str, View], name: str, shape: tuple[int | None, ...], dtype: str, *, written: bool = False
) -> None:
    array = seen[name]
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, given) for wanted, given in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != dtype or (written and not array.writeable):
        expected = ", ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(
            f"{name}: {array.shape} {array.dtype}; expected ({expected}) {dtype}{' that may be written' * written}"
        )


def _channels(picture: View, name: str, height: int, width: int, layout: Layout) -> int:
    if layout not in ("NCHW", "NHWC"):
        raise ValueError(f"layout is {layout!r}; expected NCHW or NHWC")
    sides = picture.shape[1:] if len(picture.shape) == 4 and picture.shape[0] == 1 else picture.shape
    planar = layout == "NCHW"
    if len(sides) != 3 or (sides[1:] if planar else sides[:2]) != (height, width):
        expected = f"(C, {height}, {width})" if planar else f"({height}, {width}, C)"
        raise ValueError(f"{name}: {picture.shape}; expected {expected}")
    if picture.dtype not in ("float32", "float16"):
        raise ValueError(f"{name}: {picture.dtype}; expected float32 or float16")
    return sides[0] if planar else sides[2]


def _steps(
    picture: View, name: str, height: int, width: int, offset: int, channels: int, layout: Layout
) -> tuple[int, int]:
    """Elements from pixel to pixel and from channel to channel of a picture with room for `channels`."""
    there = _channels(picture, name, height, width, layout)
    if offset < 0 or offset + channels > there:
        raise ValueError(f"{name}: {there} channels; expected room for {channels} from {offset} on")
    return (1, height * width) if layout == "NCHW" else (there, 1)
