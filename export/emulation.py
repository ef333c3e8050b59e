"""What a graph in half precision gives on a GPU, computed in float32 on the CPU: every half tensor is rounded to half.

GPUs sum in float32 and round what they store. ONNX Runtime's CPU provider computes whole chains of half nodes in
float32 and rounds nothing in between, so that running a half graph on it says nothing about its error.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper, shape_inference

from .plain import Half, kind_of

__all__ = ["emulated"]

_FLOAT = int(TensorProto.FLOAT)


def emulated(model: onnx.ModelProto, half: Half) -> onnx.ModelProto:
    """The float32 graph that rounds what `model` keeps in half; inputs and outputs that were half are float32."""
    made = inliner.inline_local_functions(model)
    kind = kind_of(half)
    inferred = shape_inference.infer_shapes(made).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    halves = {value.name for value in values if value.type.tensor_type.elem_type == kind}
    given = {value.name: f"{value.name}/half" for value in made.graph.input if value.name in halves}
    nodes = [node for name, inner in given.items() for node in _rounding(name, inner, kind)]
    for node in made.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = given.get(name, name)
        late = [(place, name) for place, name in enumerate(node.output) if name in halves]
        for place, name in late:
            node.output[place] = f"{name}/exact"
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == kind:
                attribute.i = _FLOAT
        nodes.append(node)
        nodes.extend(cast for _, name in late for cast in _rounding(f"{name}/exact", name, kind))
    for value in (*made.graph.input, *made.graph.output):
        if value.name in halves:
            value.type.tensor_type.elem_type = _FLOAT
    weights = [_widened(tensor) if tensor.data_type == kind else tensor for tensor in made.graph.initializer]
    del made.graph.node[:], made.graph.value_info[:], made.graph.initializer[:]
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(weights)
    return made


def _rounding(name: str, rounded: str, kind: int) -> list[onnx.NodeProto]:
    between = f"{name}/stored"
    return [
        helper.make_node("Cast", [name], [between], to=kind),
        helper.make_node("Cast", [between], [rounded], to=_FLOAT),
    ]


def _widened(tensor: TensorProto) -> TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
