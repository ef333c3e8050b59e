"""Reads a TensorFlow Lite file into plain Python: tensors, operators, inputs and outputs.

It is not trusted: what is out of range in it is a ModelError, and nothing big is allocated on its word.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from ..errors import ModelError

__all__ = ["DAMAGE", "Network", "Operator", "Tensor", "read"]

_MAX_ELEMENTS = 1 << 24
_DTYPES: dict[int, type[np.generic]] = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.FLOAT16: np.float16,
    tflite.TensorType.INT32: np.int32,
}
_OPERATORS = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}

DAMAGE = (struct.error, IndexError, KeyError, ValueError, TypeError, OverflowError, AttributeError)
"""What reading a flatbuffer raises where its offsets lead nowhere."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """One array of the network, constant or not."""

    name: str
    shape: tuple[int, ...]
    type: int
    value: NDArray[Any] | None  # constants only


@dataclass(frozen=True, eq=False)
class Operator:
    """One step; `inputs` and `output` count in the network's tensors."""

    kind: str
    inputs: tuple[int, ...]  # -1: left out
    output: int
    options: Any  # the flatbuffer's table of options for this kind, None where it has none


@dataclass(frozen=True, eq=False)
class Network:
    """Everything, in the order of computation."""

    tensors: list[Tensor]
    operators: list[Operator]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read(content: bytes) -> Network:
    """The network in a .tflite file's bytes; options of operators are read from them later, when asked for.

    Raises ModelError or one of `DAMAGE` where they are damaged, ModelError where they use something else.
    """
    if len(content) < 32 or content[4:8] != b"TFL3":
        raise ModelError("not a TFLite file (its signature TFL3 is missing); fetch it again")
    model = tflite.Model.GetRootAs(content, 0)
    if model.SubgraphsLength() != 1:
        raise ModelError(f"{model.SubgraphsLength()} subgraphs; only files with one are covered")
    graph = model.Subgraphs(0)
    most = len(content) // 4  # a vector of offsets cannot hold more

    def each(count: int) -> range:
        if not 0 <= count <= most:
            raise ModelError(f"damaged TFLite file: a list claims {count} items; fetch it again")
        return range(count)

    tensors = [_read_tensor(model, graph.Tensors(i)) for i in each(graph.TensorsLength())]

    def indices(count: int, get: Any, lowest: int = 0) -> tuple[int, ...]:
        found = tuple(int(get(i)) for i in each(count))
        for index in found:
            if not lowest <= index < len(tensors):
                raise ModelError(f"damaged TFLite file: tensor {index} of {len(tensors)}; fetch it again")
        return found

    operators = []
    for i in each(graph.OperatorsLength()):
        op = graph.Operators(i)
        outputs = indices(op.OutputsLength(), op.Outputs)
        kind = _kind(model, op.OpcodeIndex())
        if len(outputs) != 1:
            raise ModelError(f"operator {i} ({kind}) has {len(outputs)} outputs; one was expected")
        inputs = indices(op.InputsLength(), op.Inputs, lowest=-1)
        operators.append(Operator(kind, inputs, outputs[0], _options(kind, op)))
    return Network(
        tensors,
        operators,
        indices(graph.InputsLength(), graph.Inputs),
        indices(graph.OutputsLength(), graph.Outputs),
    )


def _kind(model: Any, index: int) -> str:
    if not 0 <= index < model.OperatorCodesLength():
        raise ModelError(f"damaged TFLite file: operator code {index}; fetch it again")
    code = model.OperatorCodes(index)
    number = max(int(code.BuiltinCode()), int(code.DeprecatedBuiltinCode()))
    return str(_OPERATORS.get(number, f"number {number}"))


_OPTIONS = {
    "ADD": "AddOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
}


def _options(kind: str, op: Any) -> Any:
    name = _OPTIONS.get(kind)
    if name is None:
        return None
    table = op.BuiltinOptions()
    if table is None or op.BuiltinOptionsType() != getattr(tflite.BuiltinOptions, name):
        raise ModelError(f"damaged TFLite file: {kind} without its options; fetch it again")
    options = getattr(tflite, name)()
    options.Init(table.Bytes, table.Pos)
    return options


def _read_tensor(model: Any, table: Any) -> Tensor:
    name = (table.Name() or b"").decode("utf-8")
    shape = tuple(int(size) for size in table.ShapeAsNumpy()) if table.ShapeLength() else ()
    if len(shape) > 8 or any(size < 1 for size in shape) or math.prod(shape) > _MAX_ELEMENTS:
        raise ModelError(f"tensor {name!r} claims the shape {shape}; the sizes must be positive and sensible")
    if not 0 <= table.Buffer() < model.BuffersLength():
        raise ModelError(
            f"damaged TFLite file: tensor {name!r} names buffer {table.Buffer()}; fetch it again"
        )
    buffer = model.Buffers(table.Buffer())
    if not buffer.DataLength():
        return Tensor(name, shape, table.Type(), None)
    if table.Type() not in _DTYPES:
        raise ModelError(f"tensor {name!r} is of a type that is not covered (number {table.Type()})")
    values = np.frombuffer(buffer.DataAsNumpy().tobytes(), _DTYPES[table.Type()])
    if table.Sparsity() is not None:
        values = _densify(name, shape, values, table.Sparsity())
    if values.size != math.prod(shape):
        raise ModelError(
            f"tensor {name!r} holds {values.size} numbers where {shape} asks for {math.prod(shape)}"
        )
    return Tensor(name, shape, table.Type(), values.reshape(shape))


def _densify(name: str, shape: tuple[int, ...], values: NDArray[Any], sparsity: Any) -> NDArray[Any]:
    """All numbers of a tensor that is stored as the non-zero ones, level by level as TACO does."""
    dims = sparsity.DimMetadataLength()
    order = tuple(sparsity.TraversalOrderAsNumpy()) if sparsity.TraversalOrderLength() else ()
    if dims != len(shape) or order != tuple(range(dims)) or sparsity.BlockMapLength():
        raise ModelError(f"sparse tensor {name!r} is stored in an order or in blocks that are not covered")
    places = np.zeros(1, np.int64)
    for axis, size in enumerate(shape):
        level = sparsity.DimMetadata(axis)
        if level.Format() == tflite.DimensionType.DENSE:
            if level.DenseSize() != size:
                raise ModelError(
                    f"sparse tensor {name!r}: axis {axis} is {level.DenseSize()}, expected {size}"
                )
            places = (places[:, None] * size + np.arange(size)).ravel()
            continue
        segments = _sparse_indices(level.ArraySegments(), level.ArraySegmentsType())
        indices = _sparse_indices(level.ArrayIndices(), level.ArrayIndicesType())
        counts = np.diff(segments)
        if (
            len(counts) != len(places)
            or segments[0] != 0
            or segments[-1] != len(indices)
            or (counts < 0).any()
        ):
            raise ModelError(f"sparse tensor {name!r}: the segments of axis {axis} do not fit its indices")
        if len(indices) and (indices.min() < 0 or indices.max() >= size):
            raise ModelError(f"sparse tensor {name!r}: an index of axis {axis} is outside 0..{size - 1}")
        places = np.repeat(places, counts) * size + indices
    if len(places) != len(values):
        raise ModelError(f"sparse tensor {name!r} holds {len(values)} numbers for {len(places)} places")
    dense = np.zeros(math.prod(shape), values.dtype)
    dense[places] = values
    return dense


def _sparse_indices(table: Any, kind: int) -> NDArray[np.int64]:
    vectors = {
        tflite.SparseIndexVector.Int32Vector: tflite.Int32Vector,
        tflite.SparseIndexVector.Uint16Vector: tflite.Uint16Vector,
        tflite.SparseIndexVector.Uint8Vector: tflite.Uint8Vector,
    }
    vector = vectors[kind]()
    vector.Init(table.Bytes, table.Pos)
    return np.asarray(vector.ValuesAsNumpy(), np.int64).reshape(-1)
