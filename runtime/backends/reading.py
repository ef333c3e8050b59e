"""What backends read out of a graph: the precision it is written in, and its form for inputs of fixed shapes."""

import onnx
from onnx import TensorProto

from ...errors import BundleError
from ..graph import Graph, read_graph

__all__ = ["Shapes", "fixed_shapes", "of_shapes", "written_in"]

Shapes = tuple[tuple[int, ...], ...]
"""Of every input, in the graph's order."""
_HALVES = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


def written_in(graph: Graph) -> str:
    """The precision of its weights and Casts: "fp16" or "bf16" where any is, else "fp32"."""
    model = onnx.load_from_string(graph.content).graph
    kinds = {tensor.data_type for tensor in model.initializer}
    kinds |= {a.i for node in model.node if node.op_type == "Cast" for a in node.attribute if a.name == "to"}
    return next((name for kind, name in _HALVES.items() if kind in kinds), "fp32")


def fixed_shapes(graph: Graph) -> Shapes | None:
    """The shapes of its inputs; None where one has a free axis."""
    shapes = tuple(tuple(s for s in spec.shape if s is not None) for spec in graph.inputs.values())
    fixed = all(None not in spec.shape for spec in graph.inputs.values())
    return shapes if fixed else None


def of_shapes(graph: Graph, shapes: Shapes) -> Graph:
    """The graph with its inputs' free axes fixed; BundleError where an output's size is not fixed by that."""
    made = graph
    if fixed_shapes(graph) != shapes:
        given = dict(zip(graph.inputs, shapes, strict=True))
        model = onnx.load_from_string(graph.outlined)
        for value in model.graph.input:
            for axis, size in zip(value.type.tensor_type.shape.dim, given.get(value.name, ()), strict=False):
                axis.dim_value = size
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]
        try:
            read = read_graph(onnx.shape_inference.infer_shapes(model, data_prop=True))
        except BundleError as error:
            raise BundleError(f"{graph.name}: cannot be prepared for inputs {shapes} ({error})") from error
        made = Graph(graph.name, read.content, read.outlined, read.inputs, read.outputs)
    for spec in made.outputs.values():
        if None in spec.shape:
            raise BundleError(
                f"{graph.name}: the size of output {spec} is not known beforehand; use --backend cpu"
            )
    return made
