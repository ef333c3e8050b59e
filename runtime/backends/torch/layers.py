"""ONNX's operators that sum over many numbers: layers, pooling, norms and products, as torch functions.

As in `elementary`: parameters are inputs, and after `*` attributes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ....errors import BundleError

__all__ = ["LAYERS"]

Numbers = Sequence[int]
_CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED: tuple[Callable[..., Tensor], ...] = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
_MAXIMA: tuple[Callable[..., Tensor], ...] = (
    functional.max_pool1d,
    functional.max_pool2d,
    functional.max_pool3d,
)
_AVERAGES: tuple[Callable[..., Tensor], ...] = (
    functional.avg_pool1d,
    functional.avg_pool2d,
    functional.avg_pool3d,
)


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Numbers | None = None,
    group: int = 1,
    kernel_shape: Numbers | None = None,  # noqa: ARG001
    pads: Numbers | None = None,
    strides: Numbers | None = None,
) -> Tensor:
    rank = x.ndim - 2
    stride, dilation = list(strides or [1] * rank), list(dilations or [1] * rank)
    x, padding = _padded(x, weight.shape[2:], stride, dilation, pads, auto_pad, 0.0)
    return _CONVOLUTIONS[rank - 1](x, weight, bias, stride, padding, dilation, group)


def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Numbers | None = None,
    group: int = 1,
    kernel_shape: Numbers | None = None,  # noqa: ARG001
    output_padding: Numbers | None = None,
    output_shape: Numbers | None = None,
    pads: Numbers | None = None,
    strides: Numbers | None = None,
) -> Tensor:
    rank = x.ndim - 2
    if auto_pad not in ("NOTSET", "VALID") or output_shape is not None:
        raise BundleError(
            "ConvTranspose by auto_pad or output_shape is not known to the torch backend; use pads"
        )
    before, after = _sides(pads, rank)
    extra = list(output_padding or [0] * rank)
    # What is cut off at the end less than at the beginning is added at the end.
    wider = [more + start - end for more, start, end in zip(extra, before, after, strict=True)]
    narrower = [max(0, -size) for size in wider]
    found = _TRANSPOSED[rank - 1](
        x,
        weight,
        bias,
        list(strides or [1] * rank),
        before,
        [max(0, size) for size in wider],
        group,
        list(dilations or [1] * rank),
    )
    for axis, size in enumerate(narrower):
        if size:
            found = found.narrow(axis + 2, 0, found.shape[axis + 2] - size)
    return found


def _padded(
    x: Tensor,
    kernel: Numbers,
    strides: Numbers,
    dilations: Numbers,
    pads: Numbers | None,
    auto_pad: str,
    value: float,
) -> tuple[Tensor, list[int]]:
    """The picture padded as far as torch does not do it by itself, and what it does by itself."""
    rank = x.ndim - 2
    before, after = _sides(pads, rank)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        for i in range(rank):
            size, extent = x.shape[i + 2], (kernel[i] - 1) * dilations[i] + 1
            missing = max(0, (-(-size // strides[i]) - 1) * strides[i] + extent - size)
            less, more = missing // 2, missing - missing // 2
            before[i], after[i] = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    if before == after:
        return x, before
    flat = [size for pair in reversed(list(zip(before, after, strict=True))) for size in pair]
    return functional.pad(x, flat, value=value), [0] * rank


def _sides(pads: Numbers | None, rank: int) -> tuple[list[int], list[int]]:
    given = list(pads or [0] * 2 * rank)
    return given[:rank], given[rank:]


def _max_pool(
    x: Tensor,
    *,
    kernel_shape: Numbers,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Numbers | None = None,
    pads: Numbers | None = None,
    storage_order: int = 0,  # noqa: ARG001
    strides: Numbers | None = None,
) -> Tensor:
    rank = x.ndim - 2
    stride, dilation = list(strides or [1] * rank), list(dilations or [1] * rank)
    x, padding = _padded(x, kernel_shape, stride, dilation, pads, auto_pad, float("-inf"))
    return _MAXIMA[rank - 1](x, list(kernel_shape), stride, padding, dilation, bool(ceil_mode))


def _average_pool(
    x: Tensor,
    *,
    kernel_shape: Numbers,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Numbers | None = None,
    pads: Numbers | None = None,
    strides: Numbers | None = None,
) -> Tensor:
    rank = x.ndim - 2
    stride = list(strides or [1] * rank)
    before, after = _sides(pads, rank)
    if auto_pad not in ("NOTSET", "VALID") or before != after or any(size != 1 for size in dilations or ()):
        raise BundleError(
            "AveragePool with auto_pad, dilations or uneven pads is not known to the torch backend"
        )
    return _AVERAGES[rank - 1](
        x, list(kernel_shape), stride, before, bool(ceil_mode), bool(count_include_pad)
    )


def _global_average(x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def _global_max(x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


# --- norms and products ---------------------------------------------------------------------------


def _batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,  # noqa: ARG001
    training_mode: int = 0,
) -> Tensor:
    if training_mode:
        raise BundleError("BatchNormalization is in training mode; export the network in eval mode")
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


def _instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    return functional.instance_norm(x, None, None, scale, bias, True, 0.0, epsilon)


def _layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,  # noqa: ARG001
) -> Tensor:
    shape = x.shape[axis % x.ndim :]
    return functional.layer_norm(
        x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), epsilon
    )


def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    a, b = a.T if transA else a, b.T if transB else b
    if c is None:
        return alpha * (a @ b)
    return torch.addmm(c, a, b, beta=beta, alpha=alpha)


def _einsum(*given: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation.replace(" ", ""), *given)


def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


def _log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.log_softmax(x, axis)


def _reduce(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduced(
        x: Tensor,
        given: Numbers | None = None,
        *,
        axes: Numbers | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        chosen = list(given or axes or ())
        if not chosen and noop_with_empty_axes:
            return x
        return operation(x, tuple(chosen) or tuple(range(x.ndim)), keepdim=bool(keepdims))

    return reduced


def _product(x: Tensor, axes: tuple[int, ...], *, keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keepdim)
    return x


def _norm(order: int) -> Callable[..., Tensor]:
    return lambda x, axes, *, keepdim: torch.linalg.vector_norm(x, order, axes, keepdim=keepdim)


def _squares(x: Tensor, axes: tuple[int, ...], *, keepdim: bool) -> Tensor:
    return (x * x).sum(axes, keepdim=keepdim)


def _arg(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def found(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
        if select_last_index:
            raise BundleError("select_last_index is not known to the torch backend")
        return operation(x, axis, keepdim=bool(keepdims))

    return found


def _cumulated(x: Tensor, axis: Numbers, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    turned = x.flip(axis[0]) if reverse else x
    total = turned.cumsum(axis[0])
    total = total - turned if exclusive else total
    return total.flip(axis[0]) if reverse else total


LAYERS: dict[str, Callable[..., Any]] = {
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "CumSum": _cumulated,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "GlobalMaxPool": _global_max,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _log_softmax,
    "MatMul": torch.matmul,
    "MaxPool": _max_pool,
    "ReduceL1": _reduce(_norm(1)),
    "ReduceL2": _reduce(_norm(2)),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(torch.sum),
    "ReduceSumSquare": _reduce(_squares),
    "Softmax": _softmax,
}
