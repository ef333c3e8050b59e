"""ONNX's operators on single numbers, and those that only move, choose or gather numbers, as torch functions.

Parameters are the operator's inputs, and after `*` its attributes by their names. What `network.STATIC` lists comes
as a list of numbers.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional

__all__ = ["DTYPES", "ELEMENTARY"]

DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}
Numbers = Sequence[int]


def _cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:  # noqa: ARG001
    return x.to(DTYPES[to])


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Tensor:
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


def _pow(base: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(base, exponent).to(base.dtype)


def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if low is not None:
        x = torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return functional.leaky_relu(x, alpha)


def _elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.elu(x, alpha)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


def _gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return functional.gelu(x, approximate=approximate)


def _hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


def _each(operation: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda *given: reduce(operation, given)


def _mean(*given: Tensor) -> Tensor:
    return reduce(torch.add, given) / len(given)


def _first(x: Tensor, *_: Any) -> Tensor:
    return x


def _dropout(x: Tensor, *_: Any, seed: int = 0) -> Tensor:  # noqa: ARG001
    return x


# --- moving ---------------------------------------------------------------------------------------


def _reshape(x: Tensor, shape: Numbers, *, allowzero: int = 0) -> Tensor:
    sizes = [x.shape[i] if size == 0 and not allowzero else size for i, size in enumerate(shape)]
    return x.reshape(sizes)


def _flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _transpose(x: Tensor, *, perm: Numbers | None = None) -> Tensor:
    return x.permute(list(range(x.ndim))[::-1] if perm is None else list(perm))


def _squeeze(x: Tensor, axes: Numbers | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(x: Tensor, axes: Numbers) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _concat(*given: Tensor, axis: int) -> Tensor:
    return torch.cat(given, axis)


def _split(
    x: Tensor, sizes: Numbers | None = None, *, axis: int = 0, num_outputs: int | None = None
) -> tuple[Tensor, ...]:
    if sizes is None:
        assert num_outputs is not None
        sizes = [-(-x.shape[axis] // num_outputs)] * (num_outputs - 1)
        sizes = [*sizes, x.shape[axis] - sum(sizes)]
    return torch.split(x, list(sizes), axis)


def _slice(
    x: Tensor, starts: Numbers, ends: Numbers, axes: Numbers | None = None, steps: Numbers | None = None
) -> Tensor:
    for i, axis in enumerate(range(len(starts)) if axes is None else axes):
        step = steps[i] if steps is not None else 1
        if step < 0:
            places = range(
                *slice(starts[i], ends[i] if ends[i] >= -x.shape[axis] else None, step).indices(x.shape[axis])
            )
            x = x.flip(axis)
            first = x.shape[axis] - 1 - places.start if len(places) else 0
            part = slice(first, first - step * len(places), -step)
        else:
            part = slice(starts[i], ends[i], step)
        x = x[(slice(None),) * (axis % x.ndim) + (part,)]
    return x


def _pad(
    x: Tensor,
    pads: Numbers,
    value: Sequence[float] | None = None,
    axes: Numbers | None = None,
    *,
    mode: str = "constant",
) -> Tensor:
    chosen = range(len(pads) // 2) if axes is None else [axis % x.ndim for axis in axes]
    around = {axis: (pads[i], pads[i + len(pads) // 2]) for i, axis in enumerate(chosen)}
    if mode == "constant":
        flat = [size for axis in reversed(range(x.ndim)) for size in around.get(axis, (0, 0))]
        return functional.pad(x, flat, value=float(value[0]) if value else 0.0)
    for axis, (before, after) in around.items():
        x = _extended(x, axis, before, after, mode)
    return x


def _extended(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """One axis made longer by its border (edge), its mirror image (reflect) or itself again (wrap)."""
    if mode == "edge":
        head, tail = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        sizes = [list(x.shape), list(x.shape)]
        sizes[0][axis], sizes[1][axis] = before, after
        parts = [head.expand(sizes[0]), x, tail.expand(sizes[1])]
    elif mode == "reflect":
        head = x.narrow(axis, 1, before).flip(axis)
        parts = [head, x, x.narrow(axis, x.shape[axis] - 1 - after, after).flip(axis)]
    else:
        parts = [x.narrow(axis, x.shape[axis] - before, before), x, x.narrow(axis, 0, after)]
    return torch.cat(parts, axis)


def _expand(x: Tensor, shape: Numbers) -> Tensor:
    return torch.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape)))


def _tile(x: Tensor, repeats: Numbers) -> Tensor:
    return x.repeat(*repeats)


def _blocks_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    batch, channels, height, width = x.shape
    rest = channels // blocksize**2
    if mode == "DCR":
        x = x.reshape(batch, blocksize, blocksize, rest, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        x = x.reshape(batch, rest, blocksize, blocksize, height, width).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, rest, height * blocksize, width * blocksize)


def _space_to_blocks(x: Tensor, *, blocksize: int) -> Tensor:
    batch, channels, height, width = x.shape
    rows, columns = height // blocksize, width // blocksize
    x = x.reshape(batch, channels, rows, blocksize, columns, blocksize).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(batch, channels * blocksize**2, rows, columns)


# --- choosing -------------------------------------------------------------------------------------


def _gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    axis %= x.ndim
    flat = torch.where(indices < 0, indices + x.shape[axis], indices).reshape(-1)
    found = x.index_select(axis, flat)
    return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    return torch.gather(x, axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def _gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    if batch_dims:
        pairs = zip(x.flatten(0, batch_dims - 1), indices.flatten(0, batch_dims - 1), strict=True)
        found = torch.stack([_gather_nd(one, chosen) for one, chosen in pairs])
        return found.reshape(*x.shape[:batch_dims], *found.shape[1:])
    return x[tuple(indices.movedim(-1, 0))]


def _top_k(
    x: Tensor, k: Numbers, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, Tensor]:
    values, indices = torch.topk(x, k[0], axis, bool(largest), bool(sorted))
    return values, indices


def _constant_of_shape(shape: Numbers, *, value: Tensor | None = None) -> Tensor:
    return torch.zeros(*shape) if value is None else value.reshape(()).expand(tuple(shape)).clone()


def _range(start: Sequence[Any], limit: Sequence[Any], delta: Sequence[Any]) -> Tensor:
    return torch.arange(start[0], limit[0], delta[0])


ELEMENTARY: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Add": torch.add,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Atan": torch.atan,
    "Cast": _cast,
    "Ceil": torch.ceil,
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Cos": torch.cos,
    "DepthToSpace": _blocks_to_space,
    "Div": _div,
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": torch.floor,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gelu": _gelu,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": functional.hardswish,
    "Identity": _first,
    "LeakyRelu": _leaky_relu,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Max": _each(torch.maximum),
    "Mean": _mean,
    "Min": _each(torch.minimum),
    "Mod": _mod,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _pow,
    "Range": _range,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Reshape": _reshape,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Slice": _slice,
    "Softplus": functional.softplus,
    "SpaceToDepth": _space_to_blocks,
    "Split": _split,
    "Sqrt": torch.sqrt,
    "Squeeze": _squeeze,
    "Sub": torch.sub,
    "Sum": _each(torch.add),
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": torch.where,
}
