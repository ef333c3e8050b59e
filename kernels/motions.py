"""First-order motion around keypoints on a GPU, as SAFA's dense-motion network needs it (its sheet, section 2.3).

`sparse_motions` makes the network's input in one pass, without K + 1 copies of the source; `combine_motions` turns its
mask logits into one field. The kernels are in `csrc/motions.cu`; each has a NumPy twin.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import View
from .launch import Kernel, Launcher, blocks_for, views
from .warp import Field, warp_reference

__all__ = [
    "Keypoints",
    "combine_motions",
    "combine_motions_reference",
    "sparse_motions",
    "sparse_motions_reference",
]

Doubles = NDArray[np.float64]
_KINDS = {"float32": "f32", "float16": "f16"}


@dataclass(frozen=True)
class Keypoints:
    """Where K keypoints are in both pictures and how the picture turns around them; float32, -1 to 1, x before y.

    source     # (B, K, 2)
    driving    # (B, K, 2)
    jacobians  # (B, K, 2, 2): the source's times the inverse of the driving's; None: only places move
    """

    source: Any
    driving: Any
    jacobians: Any = None

    def named(self) -> dict[str, Any]:
        """The arrays that are there, by name."""
        named = {"keypoints.source": self.source, "keypoints.driving": self.driving}
        return named if self.jacobians is None else {**named, "keypoints.jacobians": self.jacobians}


class _SparseParams(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("source", "out")),
        *((name, ctypes.c_uint64) for name in ("keypoints_source", "keypoints_driving", "jacobians")),
        *((name, ctypes.c_int32) for name in ("batch", "keypoints", "channels", "height", "width")),
        *((name, ctypes.c_int32) for name in ("out_channels", "out_offset")),
        ("inverse_spread", ctypes.c_float),
    )


class _CombineParams(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("logits", "others", "out")),
        *((name, ctypes.c_uint64) for name in ("keypoints_source", "keypoints_driving", "jacobians")),
        *((name, ctypes.c_int32) for name in ("batch", "keypoints", "masks", "height", "width")),
    )


def sparse_motions(
    launcher: Launcher,
    source: Any,
    keypoints: Keypoints,
    out: Any,
    *,
    variance: float = 0.01,
    offset: int = 0,
) -> None:
    """The heat and the deformed source of every motion: none, then one around each keypoint.

    source  # (B, C, h, w) float32 or float16
    out     # (B, N, h, w) of the same dtype; from channel `offset` on, (K + 1) groups of 1 + C are written: the
              difference of the keypoint's Gaussians (driving minus source), and the source sampled where the motion
              takes it from, bilinear, zeros outside

    Raises ValueError and TypeError for arrays that do not fit each other, naming them.
    """
    seen = views(launcher, {"source": source, "out": out, **keypoints.named()})
    pictures, written = seen["source"], seen["out"]
    count = _check_keypoints(seen, pictures.shape[0] if pictures.shape else 0)
    given = (
        f"source: {pictures.shape} {pictures.dtype}, out: {written.shape} {written.dtype}, offset {offset}"
    )
    if len(pictures.shape) != 4 or pictures.dtype not in _KINDS or 0 in pictures.shape:
        raise ValueError(f"{given}; expected source as (B, C, h, w) float32 or float16")
    batch, channels, height, width = pictures.shape
    room = offset + (count + 1) * (1 + channels)
    if (
        written.dtype != pictures.dtype
        or len(written.shape) != 4
        or (written.shape[0], *written.shape[2:]) != (batch, height, width)
        or offset < 0
        or written.shape[1] < room
        or not written.writeable
    ):
        raise ValueError(
            f"{given}; expected out as ({batch}, at least {room}, {height}, {width}), same dtype"
        )
    if not variance > 0:
        raise ValueError(f"variance is {variance}; expected more than 0")
    params = _SparseParams(
        source=pictures.address,
        out=written.address,
        **_addresses(seen),
        batch=batch,
        keypoints=count,
        channels=channels,
        height=height,
        width=width,
        out_channels=written.shape[1],
        out_offset=offset,
        inverse_spread=0.5 / variance,
    )
    kernel = Kernel("motions.cu", f"sparse_motions_{_KINDS[pictures.dtype]}")
    launcher.launch(kernel, params, (blocks_for((count + 1) * height * width), batch, 1))


def combine_motions(
    launcher: Launcher, logits: Any, keypoints: Keypoints, out: Any, *, others: Any = None
) -> None:
    """One field of places from all motions, weighed by the softmax of their masks.

    logits  # (B, M, h, w) float32 or float16: none, K keypoints, then M - K - 1 others
    others  # (B, M - K - 1, h, w, 2) float32 places, -1 to 1; None where M is K + 1
    out     # (B, h, w, 2) float32

    Raises ValueError and TypeError for arrays that do not fit each other, naming them.
    """
    arrays = {"logits": logits, "out": out, **keypoints.named()}
    seen = views(launcher, arrays if others is None else {**arrays, "others": others})
    masks, written = seen["logits"], seen["out"]
    count = _check_keypoints(seen, masks.shape[0] if masks.shape else 0)
    if len(masks.shape) != 4 or masks.dtype not in _KINDS or 0 in masks.shape:
        raise ValueError(f"logits: {masks.shape} {masks.dtype}; expected (B, M, h, w) float32 or float16")
    batch, number, height, width = masks.shape
    if written.shape != (batch, height, width, 2) or written.dtype != "float32" or not written.writeable:
        raise ValueError(
            f"out: {written.shape} {written.dtype}; expected {(batch, height, width, 2)} float32"
        )
    beyond = number - count - 1
    shape = seen["others"].shape if others is not None else (batch, 0, height, width, 2)
    if shape != (batch, beyond, height, width, 2) or (
        others is not None and seen["others"].dtype != "float32"
    ):
        raise ValueError(
            f"others: {shape}; {number} masks and {count} keypoints leave {(batch, beyond, height, width, 2)} float32"
        )
    params = _CombineParams(
        logits=masks.address,
        others=seen["others"].address if others is not None else 0,
        out=written.address,
        **_addresses(seen),
        batch=batch,
        keypoints=count,
        masks=number,
        height=height,
        width=width,
    )
    kernel = Kernel("motions.cu", f"combine_motions_{_KINDS[masks.dtype]}")
    launcher.launch(kernel, params, (blocks_for(height * width), batch, 1))


def sparse_motions_reference(
    source: NDArray[Any], keypoints: Keypoints, *, variance: float = 0.01
) -> Doubles:
    """Twin of `sparse_motions` in float64: (B, (K + 1) (1 + C), h, w)."""
    batch, _, height, width = source.shape
    grid = _grid(height, width)
    groups = []
    for k in range(np.shape(keypoints.source)[1] + 1):
        heat = np.zeros((batch, 1, height, width))
        if k:
            bells = []
            for places in (keypoints.driving, keypoints.source):
                away = grid - np.asarray(places, np.float64)[:, k - 1, None, None]
                bells.append(np.exp(-0.5 * (away**2).sum(-1) / variance))
            heat[:, 0] = bells[0] - bells[1]
        field = Field(_moved(keypoints, k, grid, batch))
        groups += [heat, warp_reference(source.astype(np.float64), field, height, width)]
    return np.concatenate(groups, 1)


def combine_motions_reference(
    logits: NDArray[Any], keypoints: Keypoints, others: NDArray[Any] | None = None
) -> Doubles:
    """Twin of `combine_motions` in float64: (B, h, w, 2)."""
    batch, _, height, width = logits.shape
    grid = _grid(height, width)
    motions = np.stack(
        [_moved(keypoints, k, grid, batch) for k in range(np.shape(keypoints.source)[1] + 1)], 1
    )
    if others is not None:
        motions = np.concatenate([motions, others], 1)
    weights = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(np.einsum("bmhw,bmhwc->bhwc", weights / weights.sum(1, keepdims=True), motions))


def _check_keypoints(seen: dict[str, View], batch: int) -> int:
    """How many there are; ValueError where their arrays do not fit each other."""
    source = seen["keypoints.source"].shape
    count = source[1] if len(source) == 3 else 0
    expected: dict[str, tuple[int, ...]] = {
        "keypoints.source": (batch, count, 2),
        "keypoints.driving": (batch, count, 2),
    }
    if "keypoints.jacobians" in seen:
        expected["keypoints.jacobians"] = (batch, count, 2, 2)
    for name, shape in expected.items():
        found = seen[name]
        if found.shape != shape or found.dtype != "float32" or not count:
            raise ValueError(
                f"{name}: {found.shape} {found.dtype}; expected {shape} float32 with at least one keypoint"
            )
    return count


def _addresses(seen: dict[str, View]) -> dict[str, int]:
    jacobians = seen.get("keypoints.jacobians")
    return {
        "keypoints_source": seen["keypoints.source"].address,
        "keypoints_driving": seen["keypoints.driving"].address,
        "jacobians": jacobians.address if jacobians else 0,
    }


def _grid(height: int, width: int) -> Doubles:
    """(h, w, 2) places of the pixel centres from -1 to 1, x before y."""
    rows, columns = (np.linspace(-1, 1, n) if n > 1 else np.array([-1.0]) for n in (height, width))
    return np.stack(np.meshgrid(columns, rows), -1)


def _moved(keypoints: Keypoints, k: int, grid: Doubles, batch: int) -> Doubles:
    """(B, h, w, 2): where motion k takes the grid from."""
    if k == 0:
        return np.broadcast_to(grid, (batch, *grid.shape))
    source, driving = (
        np.asarray(places, np.float64)[:, k - 1] for places in (keypoints.source, keypoints.driving)
    )
    away = grid - driving[:, None, None]
    if keypoints.jacobians is not None:
        away = np.einsum("bij,bhwj->bhwi", np.asarray(keypoints.jacobians, np.float64)[:, k - 1], away)
    return np.asarray(away + source[:, None, None])
