"""A float32 graph made ready to be rewritten in half precision, and which of its nodes stay in float32, and why."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, defs, helper, inliner, numpy_helper, shape_inference

from ..errors import ReenactError
from ..runtime.backends.islands import islands, leading_to, lossy, sampled_at
from ..runtime.graph import DOMAIN

__all__ = ["Body", "Half", "Plain", "kind_of", "prepared", "rounded", "takes_half"]

Half = Literal["fp16", "bf16"]
Floats = NDArray[np.float32]

_STANDARD = ("", "ai.onnx")
_OPSET = {"fp16": 13, "bf16": 22}  # where most operators, Conv among them, take the type
_ONLY_TYPES_SINCE = 20  # from here to 22 operators only gained types, but for GroupNormalization
_REGIONS = frozenset({("Resize", 1), ("Resize", 2)})  # operator and input: a region and factors, no features
_QUANTISING = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
# ONNX Runtime's CUDA provider computes these in fp16 but not in bf16.
_NOT_IN_BFLOAT16 = frozenset({"ConvTranspose", "Resize", "Pad", "Einsum", "DepthToSpace"})


@dataclass(frozen=True, eq=False)
class Body:
    """Nodes in order, each with a name of its own, and what is known of the tensors between them."""

    nodes: Sequence[onnx.NodeProto]
    types: Mapping[str, int]  # of every tensor; ONNX's numbers
    constants: Mapping[str, Floats]  # the float32 ones
    islands: Mapping[str, str]  # node -> why it stays in float32
    leading: frozenset[str]  # nodes on which sampling positions depend
    positions: frozenset[str]  # tensors that are sampling positions or lead to some

    def floats(self, node: onnx.NodeProto) -> bool:
        """Whether float32 goes into a node or comes out of it."""
        return _touches_floats(node, self.types)


@dataclass(frozen=True, eq=False)
class Plain:
    """A graph whose constants are initialisers, with the bodies of those functions that it keeps."""

    model: onnx.ModelProto
    half: Half
    opset: int
    main: Body
    functions: Mapping[str, Body]  # of the domain reenact, by name


def kind_of(half: Half) -> int:
    """ONNX's number of the type."""
    return int(TensorProto.FLOAT16 if half == "fp16" else TensorProto.BFLOAT16)


def rounded(values: Floats, half: Half) -> Floats:
    """What half precision makes of the values, in float32: to nearest, ties to even; too large becomes infinite."""
    if half == "fp16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    made = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, made.view(np.float32)).astype(np.float32)


def takes_half(node: onnx.NodeProto, place: int, half: Half, opset: int) -> bool:
    """Whether ONNX lets this input of a standard operator be half."""
    if (node.op_type, place) in _REGIONS:
        return False
    inputs = defs.get_schema(node.op_type, opset, "").inputs
    return _type_name(half) in inputs[min(place, len(inputs) - 1)].types


def prepared(model: onnx.ModelProto, half: Half) -> Plain:
    """A copy of `model` made ready; functions outside the domain reenact are inlined.

    Raises ReenactError for control flow, functions in functions, an opset that has too few operators in `half`, and a
    graph that is in half precision already.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    others = [(function.domain, function.name) for function in made.functions if function.domain != DOMAIN]
    if others:
        made = inliner.inline_selected_functions(made, others)
    _require_straight(made, half)
    if {tensor.data_type for tensor in made.graph.initializer} & {TensorProto.FLOAT16, TensorProto.BFLOAT16}:
        raise ReenactError("the graph is in half precision already; expected one in float32")
    opset = _raise_opset(made, half)
    _gather_constants(made.graph)
    del made.graph.value_info[:]
    types = _types(made)
    bodies = {}
    for function in made.functions:
        call = next((node for node in made.graph.node if node.op_type == function.name), None)
        if call is not None:
            bodies[function.name] = _function_body(made, function, call, types, half, opset)

    def grids(node: onnx.NodeProto) -> Iterable[str]:
        if node.domain != DOMAIN:
            return sampled_at(node)
        positions, function = bodies[node.op_type].positions, _function(made, node.op_type)
        pairs = zip(function.input, node.input, strict=False)
        return [given for formal, given in pairs if formal in positions]

    constants = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer if _is_float(t)}
    outputs = [value.name for value in made.graph.output]
    main = _body(made.graph.node, outputs, types, constants, grids, half, opset)
    return Plain(made, half, opset, main, bodies)


def _body(
    nodes: Collection[onnx.NodeProto],
    outputs: Collection[str],
    types: Mapping[str, int],
    constants: Mapping[str, Floats],
    grids: Callable[[onnx.NodeProto], Iterable[str]],
    half: Half,
    opset: int,
) -> Body:
    ordered = list(nodes)
    _name(ordered)
    kept = {i: reason for i, node in enumerate(ordered) if (reason := _unable(node, types, half, opset))}
    kept |= lossy(ordered, constants, lambda values: rounded(values, half), half)
    kept |= islands(ordered, {name: value.shape for name, value in constants.items()}, outputs, grids)
    leading = leading_to(ordered, grids)
    positions = {name for node in ordered for name in grids(node)}
    positions |= {name for i in leading for name in ordered[i].input}
    names = [node.name for node in ordered]
    return Body(
        nodes=ordered,
        types=types,
        constants=constants,
        islands={names[i]: kept[i] for i in sorted(kept) if _touches_floats(ordered[i], types)},
        leading=frozenset(names[i] for i in leading),
        positions=frozenset(positions),
    )


def _unable(node: onnx.NodeProto, types: Mapping[str, int], half: Half, opset: int) -> str | None:
    """Why a node cannot compute in `half`."""
    taken = [i for i, name in enumerate(node.input) if types.get(name) == TensorProto.FLOAT]
    made = [i for i, name in enumerate(node.output) if types.get(name) == TensorProto.FLOAT]
    if node.domain == DOMAIN or not (taken or made):
        return None
    if node.op_type == "Cast":
        given = types[node.input[0]]
        exact = given in (TensorProto.UINT8, TensorProto.INT8, TensorProto.BOOL) and half == "fp16"
        return None if taken or exact else "whole numbers"
    if not taken or node.op_type in _QUANTISING:
        return f"{node.op_type} makes float32"
    schema = defs.get_schema(node.op_type, opset, "")
    outputs = [schema.outputs[min(i, len(schema.outputs) - 1)].types for i in made]
    able = takes_half(node, taken[0], half, opset) and all(_type_name(half) in kinds for kinds in outputs)
    if not able or (half == "bf16" and node.op_type in _NOT_IN_BFLOAT16):
        return f"{node.op_type} in {half} is not to be had"
    return None


def _function_body(
    model: onnx.ModelProto,
    function: onnx.FunctionProto,
    call: onnx.NodeProto,
    types: Mapping[str, int],
    half: Half,
    opset: int,
) -> Body:
    """What is inside a function, as its first call uses it."""
    given = {attribute.name: attribute for attribute in (*function.attribute_proto, *call.attribute)}
    nodes = []
    for node in function.node:
        if node.domain not in _STANDARD:
            raise ReenactError(
                f"function {function.name} calls {node.op_type}; export it with standard operators"
            )
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        for attribute in plain.attribute:
            if attribute.ref_attr_name in given:
                name = attribute.name
                attribute.CopyFrom(given[attribute.ref_attr_name])
                attribute.name = name
        nodes.append(plain)
    inputs = [
        helper.make_tensor_value_info(formal, types[actual], None)
        for formal, actual in zip(function.input, call.input, strict=False)
        if actual
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in function.output]
    alone = helper.make_model(
        helper.make_graph(nodes, function.name, inputs, outputs),
        opset_imports=function.opset_import,
        ir_version=model.ir_version,
    )
    _name(function.node)
    constants = {
        node.output[0]: numpy_helper.to_array(tensor)
        for node in nodes
        if (tensor := constant_of(node)) is not None and _is_float(tensor)
    }
    kinds = dict.fromkeys(constants, TensorProto.FLOAT) | _types(alone)
    straight = [node for node in function.node if node.output[0] not in constants]
    return _body(straight, (), kinds, constants, sampled_at, half, opset)


def constant_of(node: onnx.NodeProto) -> TensorProto | None:
    """The value of a Constant node; None for other nodes, and for words."""
    if node.op_type != "Constant":
        return None
    name, value = node.attribute[0].name, helper.get_attribute_value(node.attribute[0])
    if name == "value":
        made = TensorProto()
        made.CopyFrom(value)
        made.name = node.output[0]
        return made
    kinds = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    return numpy_helper.from_array(np.array(value, kinds[name]), node.output[0]) if name in kinds else None


def _require_straight(model: onnx.ModelProto, half: Half) -> None:
    for node in (node for body in (model.graph, *model.functions) for node in body.node):
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ReenactError(
                f"node {node.name or node.op_type} is control flow, which cannot be brought to {half}; export the "
                "graph without it"
            )


def _raise_opset(model: onnx.ModelProto, half: Half) -> int:
    """The opset, raised to where operators take `half`; ReenactError where that would change what they do."""
    needed = _OPSET[half]
    entries = [
        entry
        for body in (model, *model.functions)
        for entry in body.opset_import
        if entry.domain in _STANDARD
    ]
    low = min(entry.version for entry in entries)
    changing = any(node.op_type == "GroupNormalization" for node in model.graph.node)
    if low < needed and (half == "fp16" or low < _ONLY_TYPES_SINCE or changing):
        raise ReenactError(
            f"the graph is of opset {low}, in which too few operators take {half}; export it with {needed}"
        )
    for entry in entries:
        entry.version = max(entry.version, needed)
    model.ir_version = max(model.ir_version, 10 if half == "bf16" else 0)
    return int(max(low, needed))


def _gather_constants(graph: onnx.GraphProto) -> None:
    """Constant nodes become initialisers."""
    kept = []
    for node in graph.node:
        tensor = constant_of(node)
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(kept)
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)


def _name(nodes: Iterable[onnx.NodeProto]) -> None:
    """Names of their own for nodes that have none, or another's."""
    taken: set[str] = set()
    for node in nodes:
        base = node.name or f"{node.op_type}_{node.output[0]}"
        name, number = base, 1
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        node.name = name


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        for name in node.output:
            if name and not types.get(name):
                raise ReenactError(f"the type of {name}, made by {node.op_type} {node.name}, cannot be known")
    return types


def _function(model: onnx.ModelProto, name: str) -> onnx.FunctionProto:
    found: onnx.FunctionProto = next(function for function in model.functions if function.name == name)
    return found


def _touches_floats(node: onnx.NodeProto, types: Mapping[str, int]) -> bool:
    return any(types.get(name) == TensorProto.FLOAT for name in (*node.input, *node.output))


def _is_float(tensor: TensorProto) -> bool:
    return bool(tensor.data_type == TensorProto.FLOAT)


def _type_name(half: Half) -> str:
    return "tensor(float16)" if half == "fp16" else "tensor(bfloat16)"
