"""Turns a TensorFlow Lite network into an ONNX one: NCHW inside, the file's names and shapes outside.

Covers the operators of MediaPipe's face networks, no more. Knows nothing of where the files come from.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tflite
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..errors import ModelError
from .files import replace_file
from .tflite_file import DAMAGE, Network, Operator, read

__all__ = ["INPUT", "VERSION", "convert", "to_onnx"]

VERSION = 1
"""Raised whenever the written graph changes, so that cached conversions are made anew."""

INPUT = "image"
"""Name of the only input of every converted graph: (N, H, W, C) float32."""

_OPSET = 17
_NHWC_TO_NCHW = (0, 3, 1, 2)
_NCHW_TO_NHWC = (0, 2, 3, 1)


def convert(tflite_path: Path, onnx_path: Path) -> None:
    """Write the ONNX twin of `tflite_path` at `onnx_path`, whole or not at all.

    Raises ModelError where the file cannot be read, is damaged or uses what is not covered.
    """
    try:
        replace_file(onnx_path, to_onnx(tflite_path.read_bytes()).SerializeToString())
    except ModelError as error:
        raise ModelError(f"{tflite_path}: {error}") from error
    except OSError as error:
        raise ModelError(f"{tflite_path}: cannot be converted to {onnx_path}: {error}") from error


def to_onnx(content: bytes) -> onnx.ModelProto:
    """The ONNX twin of a .tflite file's bytes: one input `image` (N, H, W, C) float32, and its outputs.

    The batch axis is free; everything else is fixed. Raises ModelError where the bytes are damaged or use
    what is not covered.
    """
    try:
        return _Writer(read(content)).write()
    except DAMAGE as error:
        raise ModelError(f"damaged TFLite file ({type(error).__name__}: {error}); fetch it again") from error


class _Writer:
    """Emits one ONNX node per operator; rank-4 activations are NCHW, all others as in the file."""

    def __init__(self, network: Network) -> None:
        self._net = network
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._constants = {i: t.value for i, t in enumerate(network.tensors) if t.value is not None}
        self._names: dict[int, str] = {}  # activations computed so far

    def write(self) -> onnx.ModelProto:
        if len(self._net.inputs) != 1:
            raise ModelError(f"{len(self._net.inputs)} inputs; only files with one are covered")
        start = self._net.tensors[self._net.inputs[0]]
        if len(start.shape) != 4 or start.shape[0] != 1 or start.type != tflite.TensorType.FLOAT32:
            raise ModelError(f"the input is {start.shape}; expected (1, H, W, C) float32")
        self._names[self._net.inputs[0]] = self._emit("Transpose", [INPUT], "start", perm=_NHWC_TO_NCHW)
        for op in self._net.operators:
            emit = getattr(self, f"_{op.kind.lower()}", None)
            if emit is None:
                raise ModelError(f"operator {op.kind} is not covered")
            emit(op)
        graph = helper.make_graph(
            self._nodes,
            "converted",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *start.shape[1:]])],
            list(self._finish()),
            self._initializers,
        )
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", _OPSET)])
        _check(model)
        return model

    def _finish(self) -> Iterator[onnx.ValueInfoProto]:
        """Give the outputs their names and their layout back."""
        seen = {INPUT}
        for index in self._net.outputs:
            tensor = self._net.tensors[index]
            if not tensor.name or tensor.name in seen or tensor.shape[:1] != (1,):
                raise ModelError(
                    f"output {tensor.name!r} {tensor.shape}: expected a name of its own and batch 1"
                )
            seen.add(tensor.name)
            if len(tensor.shape) == 4:
                self._emit("Transpose", [self._activation(index)], tensor.name, perm=_NCHW_TO_NHWC)
            else:
                self._emit("Identity", [self._activation(index)], tensor.name)
            yield helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, ["N", *tensor.shape[1:]])

    def _emit(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _initializer(self, name: str, value: NDArray[Any]) -> str:
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _activation(self, index: int) -> str:
        if index not in self._names:
            raise ModelError(f"tensor {index} is used before it is computed")
        return self._names[index]

    def _constant(self, index: int, rank: int | None = None) -> NDArray[Any]:
        value = self._constants.get(index)
        if value is None:
            raise ModelError(f"tensor {index} was expected to be constant")
        if rank is not None and value.ndim != rank:
            raise ModelError(f"constant tensor {index} has {value.ndim} axes; expected {rank}")
        return value

    def _name(self, op: Operator) -> str:
        self._names[op.output] = f"t{op.output}"
        return self._names[op.output]

    def _shape(self, index: int, rank: int = 4) -> tuple[int, ...]:
        shape = self._net.tensors[index].shape
        if len(shape) != rank:
            raise ModelError(f"tensor {index} is {shape}; expected {rank} axes")
        return shape

    def _finish_with_activation(
        self, op: Operator, kind: str, inputs: Sequence[str], **attributes: Any
    ) -> None:
        """The node itself and the activation that the file has fused into it."""
        fused = op.options.FusedActivationFunction()
        name = self._name(op)
        if fused == tflite.ActivationFunctionType.NONE:
            self._emit(kind, inputs, name, **attributes)
        elif fused == tflite.ActivationFunctionType.RELU:
            self._emit("Relu", [self._emit(kind, inputs, f"{name}_linear", **attributes)], name)
        else:
            raise ModelError(f"{op.kind} with the fused activation number {fused} is not covered")

    def _densify(self, op: Operator) -> None:
        self._constants[op.output] = self._constant(op.inputs[0])

    def _dequantize(self, op: Operator) -> None:
        value = self._constant(op.inputs[0])
        if value.dtype != np.float16:
            raise ModelError(f"DEQUANTIZE of {value.dtype} is not covered; expected float16")
        self._constants[op.output] = value.astype(np.float32)

    def _conv_2d(self, op: Operator) -> None:
        kernel = self._constant(op.inputs[1], 4)  # (out, H, W, in)
        if self._shape(op.inputs[0])[3] != kernel.shape[3]:
            raise ModelError(f"CONV_2D kernel {kernel.shape} on {self._shape(op.inputs[0])} is not covered")
        self._convolve(op, kernel.transpose(0, 3, 1, 2), groups=1)

    def _depthwise_conv_2d(self, op: Operator) -> None:
        kernel = self._constant(op.inputs[1], 4)  # (1, H, W, channels * multiplier)
        channels = self._shape(op.inputs[0])[3]
        if kernel.shape[0] != 1 or kernel.shape[3] % channels:
            raise ModelError(f"DEPTHWISE_CONV_2D kernel {kernel.shape} does not fit {channels} channels")
        self._convolve(op, kernel.transpose(3, 0, 1, 2), groups=channels)

    def _convolve(self, op: Operator, kernel: NDArray[Any], groups: int) -> None:
        name = f"t{op.output}"
        inputs = [self._activation(op.inputs[0]), self._initializer(f"{name}_kernel", kernel)]
        if len(op.inputs) > 2 and op.inputs[2] >= 0:
            inputs.append(self._initializer(f"{name}_bias", self._constant(op.inputs[2], 1)))
        options = op.options
        strides = (options.StrideH(), options.StrideW())
        dilations = (options.DilationHFactor(), options.DilationWFactor())
        pads = self._pads(op, kernel.shape[2:], strides, dilations)
        self._finish_with_activation(
            op, "Conv", inputs, strides=strides, dilations=dilations, pads=pads, group=groups
        )

    def _max_pool_2d(self, op: Operator) -> None:
        options = op.options
        window = (options.FilterHeight(), options.FilterWidth())
        strides = (options.StrideH(), options.StrideW())
        pads = self._pads(op, window, strides, (1, 1))
        inputs = [self._activation(op.inputs[0])]
        self._finish_with_activation(op, "MaxPool", inputs, kernel_shape=window, strides=strides, pads=pads)

    def _pads(
        self, op: Operator, window: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> tuple[int, int, int, int]:
        """(top, left, bottom, right): TFLite's SAME puts the odd pixel at the end."""
        if min(*window, *strides, *dilations) < 1:
            raise ModelError(f"{op.kind} with window {window}, strides {strides}, dilations {dilations}")
        if op.options.Padding() == tflite.Padding.VALID:
            return 0, 0, 0, 0
        before, after = [], []
        sizes = self._shape(op.inputs[0])[1:3]
        for size, width, stride, dilation in zip(sizes, window, strides, dilations, strict=True):
            reach = (math.ceil(size / stride) - 1) * stride + (width - 1) * dilation + 1
            missing = max(reach - size, 0)
            before.append(missing // 2)
            after.append(missing - missing // 2)
        return before[0], before[1], after[0], after[1]

    def _add(self, op: Operator) -> None:
        inputs = [self._activation(index) for index in op.inputs]
        if len(inputs) != 2 or self._net.tensors[op.inputs[0]].shape != self._net.tensors[op.inputs[1]].shape:
            raise ModelError("ADD of anything but two activations of the same shape is not covered")
        self._finish_with_activation(op, "Add", inputs)

    def _relu(self, op: Operator) -> None:
        self._emit("Relu", [self._activation(op.inputs[0])], self._name(op))

    def _prelu(self, op: Operator) -> None:
        slope = self._constant(op.inputs[1])
        if slope.shape != (1, 1, self._shape(op.inputs[0])[3]):
            raise ModelError(f"PRELU with slopes {slope.shape} is not covered; expected one per channel")
        name = self._name(op)
        slopes = self._initializer(f"{name}_slope", slope.reshape(-1, 1, 1))
        self._emit("PRelu", [self._activation(op.inputs[0]), slopes], name)

    def _pad(self, op: Operator) -> None:
        self._shape(op.inputs[0])
        pads = self._constant(op.inputs[1], 2)
        if pads.shape != (4, 2) or pads.dtype != np.int32 or (pads < 0).any() or pads[0].any():
            raise ModelError("PAD of anything but height, width and channels by constants is not covered")
        name = self._name(op)
        amounts = pads[list(_NHWC_TO_NCHW)].T.reshape(-1).astype(np.int64)
        self._emit("Pad", [self._activation(op.inputs[0]), self._initializer(f"{name}_pads", amounts)], name)

    def _reshape(self, op: Operator) -> None:
        target = self._net.tensors[op.output].shape
        source = self._net.tensors[op.inputs[0]].shape
        if source[:1] != (1,) or target[:1] != (1,) or math.prod(source) != math.prod(target):
            raise ModelError(f"RESHAPE of {source} to {target}: expected batch 1 and as many numbers")
        name = self._name(op)
        rows = self._activation(op.inputs[0])
        if len(source) == 4:
            rows = self._emit("Transpose", [rows], f"{name}_nhwc", perm=_NCHW_TO_NHWC)
        shape = self._initializer(f"{name}_shape", np.array([0, *target[1:]], np.int64))  # 0: keep the batch
        if len(target) == 4:
            rows = self._emit("Reshape", [rows, shape], f"{name}_reshaped")
            self._emit("Transpose", [rows], name, perm=_NHWC_TO_NCHW)
        else:
            self._emit("Reshape", [rows, shape], name)

    def _concatenation(self, op: Operator) -> None:
        rank = len(self._net.tensors[op.output].shape)
        axis = op.options.Axis()
        if not -rank <= axis < rank or axis % rank == 0:
            raise ModelError(f"CONCATENATION over axis {axis} of {rank} is not covered")
        axis %= rank
        if rank == 4:
            axis = _NHWC_TO_NCHW.index(axis)
        self._finish_with_activation(op, "Concat", [self._activation(i) for i in op.inputs], axis=axis)

    def _depth_to_space(self, op: Operator) -> None:
        size = op.options.BlockSize()
        if size < 1 or self._shape(op.inputs[0])[3] % (size * size):
            raise ModelError(f"DEPTH_TO_SPACE of {self._shape(op.inputs[0])} by {size}")
        self._emit(
            "DepthToSpace", [self._activation(op.inputs[0])], self._name(op), blocksize=size, mode="DCR"
        )

    def _resize_bilinear(self, op: Operator) -> None:
        source = self._shape(op.inputs[0])[1:3]
        target = tuple(int(size) for size in self._constant(op.inputs[1], 1))
        scales = np.array([1, 1, *(new / old for new, old in zip(target, source, strict=True))], np.float32)
        if tuple(math.floor(old * scale) for old, scale in zip(source, scales[2:], strict=True)) != target:
            raise ModelError(
                f"RESIZE_BILINEAR of {source} to {target} is not covered; expected a whole multiple"
            )
        mode = "asymmetric"
        if op.options.AlignCorners():
            mode = "align_corners"
        elif op.options.HalfPixelCenters():
            mode = "half_pixel"
        name = self._name(op)
        inputs = [self._activation(op.inputs[0]), "", self._initializer(f"{name}_scales", scales)]
        self._emit("Resize", inputs, name, mode="linear", coordinate_transformation_mode=mode)


def _check(model: onnx.ModelProto) -> None:
    """Let ONNX work out all shapes by itself; the declared outputs must come out."""
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(f"the network contradicts itself ({reason}); fetch the file again") from error
