"""Turns a module into an ONNX graph with named tensors and fixed shapes, and says how far the two are apart."""

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from ..errors import ReenactError
from ..runtime.engine import load
from .regions import outline_warps

__all__ = ["OPSET", "Checked", "Difference", "compare", "export_graph"]

OPSET = 20


@dataclass(frozen=True)
class Difference:
    """How far one output of a graph is from the module's."""

    output: str
    largest: float  # absolute; of a picture before it is rounded, in units of its -1..1


@dataclass(frozen=True)
class Checked:
    """How far a graph is from the reference on one set of inputs."""

    graph: str
    inputs: str  # "random" or "portrait"
    differences: list[Difference]


def export_graph(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    """The ONNX graph of `module(*inputs.values())`, with these names and the samples' shapes, opset 20.

    Warps that a fused kernel can compute are calls of functions, see `regions`.

    Raises ReenactError where the graph would have other inputs or outputs than asked for.
    """
    module.eval()
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    made_inputs = [value.name for value in model.graph.input]
    made_outputs = [value.name for value in model.graph.output]
    if made_inputs != list(inputs) or made_outputs != list(outputs):
        raise ReenactError(
            f"the graph has inputs {made_inputs} and outputs {made_outputs}; expected {list(inputs)} and "
            f"{list(outputs)}: every input must be used and every output be one tensor"
        )
    return outline_warps(_without_traces(model))


def compare(
    graph: onnx.ModelProto, inputs: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> list[Difference]:
    """Run a graph (ONNX Runtime, float32) and say how far its outputs are from those expected.

    Of an output that the graph rounds to uint8, `expected` holds the levels before that, as floats in 0..255.
    """
    levels = [name for name, tensor in expected.items() if tensor.is_floating_point()]
    with load(_unrounded(graph, levels), backend="cpu", precision="fp32") as engine:
        found = engine.run({name: tensor.numpy() for name, tensor in inputs.items()})
        rounded = {output.name for output in graph.graph.output if _is_bytes(output)}
    differences = []
    for name, tensor in expected.items():
        scale = 2 / 255 if name in rounded else 1.0  # of levels, back to the -1..1 of the network
        apart = np.abs(found[name].astype(np.float64) - tensor.numpy().astype(np.float64)) * scale
        differences.append(Difference(name, float(apart.max())))
    return differences


def _unrounded(graph: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The graph whose uint8 outputs of these names are floats: what goes into the last cast."""
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    for output in made.graph.output:
        if output.name in names and _is_bytes(output):
            cast = _cast_before(made, output.name)
            cast.attribute[0].i = onnx.TensorProto.FLOAT
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del made.graph.value_info[:]
    return made


def _cast_before(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The cast to uint8 that a tensor comes from, through nothing but changes of shape."""
    makers: dict[str, onnx.NodeProto] = {output: node for node in model.graph.node for output in node.output}
    node = makers[name]
    while node.op_type in ("Reshape", "Transpose"):
        node = makers[node.input[0]]
    if node.op_type != "Cast":
        raise ReenactError(
            f"the graph's output {name} is not rounded by a cast but comes from {node.op_type}"
        )
    return node


def _is_bytes(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.UINT8)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without the exporter's notes: they hold file names of this machine."""
    del model.metadata_props[:]
    for entry in (model.graph, *model.graph.node, *model.functions):
        del entry.metadata_props[:]
        entry.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    return model


@contextlib.contextmanager
def _quiet():  # type: ignore[no-untyped-def]
    """Without the exporter's advice about packages that are not used here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
