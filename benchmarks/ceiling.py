"""What a graph cannot be faster than here: its multiply-adds over the rate of one large, well-shaped convolution.

That convolution runs on the same backend with the same threads, so the ceiling is the processor's own and no
statement of its maker; a graph of many small layers stays below it.
"""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..runtime.engine import BACKENDS, Precision, load

__all__ = ["Ceiling", "macs", "measure_ceilings", "rate", "under"]

_CHANNELS, _SIDE, _KERNEL = 256, 128, 3
_CALLS = 12


_TITLE = """What the cores allow: our graph's multiply-adds at the rate of one large convolution on OpenVINO.

| size | in | thousand million multiply-adds | the same a second | ms at least |
| --- | --- | --- | --- | --- |"""


@dataclass(frozen=True)
class Ceiling:
    """The shortest time that a frame's multiply-adds can take here."""

    size: int
    precision: str
    macs: int
    rate: float  # multiply-adds a second

    @property
    def ms(self) -> float:
        """Milliseconds."""
        return 1000 * self.macs / self.rate


def measure_ceilings(work: Mapping[int, int], threads: int) -> list[Ceiling]:
    """For OpenVINO in float32 and, where this CPU has it, bfloat16."""
    backend = BACKENDS["openvino"]
    if backend.why_not():
        return []
    able: list[Precision] = ["fp32", "bf16"] if backend.best_precision() == "bf16" else ["fp32"]
    rates = {precision: rate("openvino", precision, threads) for precision in able}
    return [Ceiling(size, *one) for size in work for one in ((p, work[size], rates[p]) for p in able)]


def under(ceilings: Sequence[Ceiling]) -> str:
    """The ceilings as a markdown table."""
    rows = [
        f"| {c.size} | {c.precision} | {c.macs / 1e9:.2f} | {c.rate / 1e9:.0f} | {c.ms:.1f} |"
        for c in ceilings
    ]
    return "\n".join([_TITLE, *rows, ""])


def macs(model: onnx.ModelProto) -> int:
    """Multiply-adds of the convolutions and matrix products of a graph whose shapes are fixed, one run."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: _shape(value) for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
    shapes |= {constant.name: tuple(constant.dims) for constant in inferred.initializer}
    return sum(_macs_of(node, shapes) for node in inferred.node)


def rate(backend: str, precision: Precision, threads: int) -> float:
    """Multiply-adds a second in a 3x3 convolution of 256 channels at 128x128, the best of some calls.

    Raises BackendError as `load` where the backend or the precision cannot be had.
    """
    picture = np.random.default_rng(0).normal(size=(1, _CHANNELS, _SIDE, _SIDE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "convolution.onnx"
        model = _convolution()
        onnx.save(model, path)
        with load(path, backend=backend, precision=precision, threads=threads) as engine:
            best = math.inf
            for _ in range(_CALLS):
                began = time.perf_counter()
                engine.run({"x": picture})
                best = min(best, time.perf_counter() - began)
    return macs(model) / best


def _convolution() -> onnx.ModelProto:
    """One 3x3 convolution; its result is reduced, so that no time goes into copying it out."""
    weight = np.random.default_rng(1).normal(size=(_CHANNELS, _CHANNELS, _KERNEL, _KERNEL)) / 48
    shape = [1, _CHANNELS, _SIDE, _SIDE]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "weight"], ["full"], pads=[1, 1, 1, 1]),
            helper.make_node("MaxPool", ["full"], ["y"], kernel_shape=[_SIDE, _SIDE]),
        ],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, _CHANNELS, 1, 1])],
        [onnx.numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _macs_of(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    if node.op_type == "Gemm":
        turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if turned else -1]
    return 0


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
