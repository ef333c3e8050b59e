"""A photo moved by a triangle mesh on a GPU: what `mesh.mesh_flow` and `mesh.resample` compute, fused.

The kernels are in `csrc/mesh.cu`; their twins are `mesh.mesh_flow_reference` and `mesh.resample_reference`. Which
triangle a pixel has is decided in float64, as on the CPU. Places are float32, so the last bits may differ.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

from .arrays import View
from .launch import Kernel, Launcher, blocks_for, views

__all__ = ["ORIGIN_VALUES", "Mesh", "mesh_flow", "mesh_warp"]

ORIGIN_VALUES = 12  # float32 that the kernels keep for a triangle
_FILE = "mesh.cu"
_LANES = 32  # threads a triangle, LANES in mesh.cu
_ARRAYS = ("targets", "sources", "triangles", "owners", "origins")


@dataclass(frozen=True)
class Mesh:
    """A mesh where it is drawn and where it comes from, with the memory that its kernels need.

    targets    # (N, 2) float32, x and y in the output picture, pixels
    sources    # (N, 2) float32, x and y in the source picture
    triangles  # (M, 3) int32, later ones cover earlier ones
    owners     # (H, W) int32 of the output picture's size: zeros before the first launch, and zeros after each
    origins    # (M, ORIGIN_VALUES) float32, at a multiple of 16 bytes; what it holds means nothing

    Triangles of no area, that are not finite or that name vertices that do not exist are left out.
    """

    targets: Any
    sources: Any
    triangles: Any
    owners: Any
    origins: Any


class _PaintParams(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in _ARRAYS),
        *((name, ctypes.c_int32) for name in ("vertex_count", "triangle_count", "height", "width")),
    )


class _Painted(ctypes.Structure):
    _fields_ = (
        ("owners", ctypes.c_uint64),
        ("origins", ctypes.c_uint64),
        *((name, ctypes.c_int32) for name in ("triangle_count", "height", "width")),
    )


class _FlowParams(ctypes.Structure):
    _fields_ = (("painted", _Painted), ("flow", ctypes.c_uint64))


class _WarpParams(ctypes.Structure):
    _fields_ = (
        ("painted", _Painted),
        ("photo", ctypes.c_uint64),
        ("out", ctypes.c_uint64),
        ("photo_height", ctypes.c_int32),
        ("photo_width", ctypes.c_int32),
    )


def mesh_flow(launcher: Launcher, mesh: Mesh, flow: Any) -> None:
    """Draw the mesh into a flow: (H, W, 2) float32, written where a triangle covers a pixel centre.

    Raises ValueError and TypeError for arrays that do not fit each other, naming them; nothing is launched then.
    """
    seen = views(launcher, {**_named(mesh), "flow": flow})
    written = seen["flow"]
    expected = (*_size(seen), 2)
    if (written.shape, written.dtype) != (expected, "float32") or not written.writeable:
        raise ValueError(
            f"flow: {written.shape} {written.dtype}; expected {expected} float32 that can be written"
        )
    params = _FlowParams(painted=_paint(launcher, seen), flow=written.address)
    launcher.launch(Kernel(_FILE, "mesh_flow"), params, (_blocks(seen), 1, 1))


def mesh_warp(launcher: Launcher, mesh: Mesh, photo: Any, out: Any) -> None:
    """The photo taken through the mesh's flow; a pixel that no triangle covers is taken from its own place.

    photo  # (h, w, 3) uint8, mirrored beyond its borders
    out    # (H, W, 3) uint8, written whole; not the photo's own memory

    Bilinear, rounded to the nearest. Errors are those of `mesh_flow`.
    """
    seen = views(launcher, {**_named(mesh), "photo": photo, "out": out})
    source, written = seen["photo"], seen["out"]
    expected = (*_size(seen), 3)
    if len(source.shape) != 3 or source.shape[2] != 3 or source.dtype != "uint8" or 0 in source.shape:
        raise ValueError(f"photo: {source.shape} {source.dtype}; expected (h, w, 3) uint8, not empty")
    if (written.shape, written.dtype) != (expected, "uint8") or not written.writeable:
        raise ValueError(
            f"out: {written.shape} {written.dtype}; expected {expected} uint8 that can be written"
        )
    if written.address < source.address + source.nbytes and source.address < written.address + written.nbytes:
        raise ValueError("out: shares memory with photo; expected an array of its own")
    params = _WarpParams(
        painted=_paint(launcher, seen),
        photo=source.address,
        out=written.address,
        photo_height=source.shape[0],
        photo_width=source.shape[1],
    )
    launcher.launch(Kernel(_FILE, "mesh_warp"), params, (_blocks(seen), 1, 1))


def _named(mesh: Mesh) -> dict[str, Any]:
    return {name: getattr(mesh, name) for name in _ARRAYS}


def _size(seen: dict[str, View]) -> tuple[int, ...]:
    """Height and width of the output; ValueError where the mesh's arrays do not fit each other."""
    targets, sources, triangles, owners, origins = (seen[name] for name in _ARRAYS)
    pairs = len(targets.shape) == 2 and targets.shape[1] == 2 and targets.shape == sources.shape
    if not pairs or (targets.dtype, sources.dtype) != ("float32", "float32"):
        raise ValueError(
            f"targets: {targets.shape} {targets.dtype}, sources: {sources.shape} {sources.dtype}; expected both "
            "(N, 2) float32"
        )
    if len(triangles.shape) != 2 or triangles.shape[1] != 3 or triangles.dtype != "int32":
        raise ValueError(f"triangles: {triangles.shape} {triangles.dtype}; expected (M, 3) int32")
    if len(owners.shape) != 2 or owners.dtype != "int32" or 0 in owners.shape or not owners.writeable:
        raise ValueError(
            f"owners: {owners.shape} {owners.dtype}; expected (H, W) int32, not empty, that can be written"
        )
    expected = (triangles.shape[0], ORIGIN_VALUES)
    if (
        (origins.shape, origins.dtype) != (expected, "float32")
        or not origins.writeable
        or origins.address % 16
    ):
        raise ValueError(
            f"origins: {origins.shape} {origins.dtype} at {origins.address:#x}; expected {expected} float32 at a "
            "multiple of 16 bytes that can be written"
        )
    return owners.shape


def _blocks(seen: dict[str, View]) -> int:
    height, width = seen["owners"].shape
    return blocks_for(height * width)


def _paint(launcher: Launcher, seen: dict[str, View]) -> _Painted:
    """Give every pixel its triangle."""
    height, width = seen["owners"].shape
    count = seen["triangles"].shape[0]
    addresses = {name: seen[name].address for name in _ARRAYS}
    params = _PaintParams(
        **addresses,
        vertex_count=seen["targets"].shape[0],
        triangle_count=count,
        height=height,
        width=width,
    )
    if count:
        launcher.launch(Kernel(_FILE, "mesh_paint"), params, (blocks_for(count * _LANES), 1, 1))
        views(launcher, seen)  # launchers are told of each launch's arrays
    return _Painted(
        owners=params.owners, origins=params.origins, triangle_count=count, height=height, width=width
    )
