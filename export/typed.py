"""Writes a graph in half precision: every tensor half or float32 as planned, and Casts where one becomes the other.

ONNX's own types say it all, so that a strongly typed backend computes just this. Sampling is portable: GridSample
takes float32 features and positions, for ONNX Runtime's CUDA provider has no other and TensorRT wants one type.
"""

from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..errors import ReenactError
from ..runtime.graph import DOMAIN
from .plain import Body, Plain, kind_of, rounded, takes_half

__all__ = ["typed"]

_FLOAT = int(TensorProto.FLOAT)


@dataclass(frozen=True)
class _Signature:
    """Types of a function's floats once its body is written: half, float32, or None for what is no float."""

    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]


@dataclass
class _Writer:
    """Writes nodes one after the other."""

    plain: Plain
    body: Body
    signatures: Mapping[str, _Signature]
    types: dict[str, int]  # as they have become
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)  # those in use
    copies: dict[tuple[str, int], str] = field(default_factory=dict)

    def write(self, node: onnx.NodeProto, float32: bool) -> None:
        """Append a node that computes in float32 or in half."""
        made = onnx.NodeProto()
        made.CopyFrom(node)
        signature = self.signatures.get(node.op_type) if node.domain == DOMAIN and not float32 else None
        half = kind_of(self.plain.half)
        for place, name in enumerate(node.input):
            if name and self.body.types[name] == _FLOAT:
                if signature:
                    wanted = signature.inputs[place] or _FLOAT
                elif float32 or node.domain == DOMAIN:
                    wanted = _FLOAT
                else:
                    wanted = half if takes_half(node, place, self.plain.half, self.plain.opset) else _FLOAT
                made.input[place] = self.taken(name, wanted)
        for place, name in enumerate(node.output):
            if name and self.body.types[name] == _FLOAT:
                signed = signature.outputs[place] if signature else half
                self.types[name] = _FLOAT if float32 or signed is None else signed
                if node.op_type == "Cast":
                    next(a for a in made.attribute if a.name == "to").i = self.types[name]
        self.nodes.append(made)

    def taken(self, name: str, kind: int) -> str:
        """What holds the tensor `name` in the type `kind`, after a Cast where there is none yet."""
        if name in self.body.constants:
            values = self.body.constants[name]
            copy = name if kind == _FLOAT else self._free(name, kind)
            self.constants[copy] = _tensor(copy, values, kind)
            return copy
        if self.types[name] == kind:
            return name
        copy = self._free(name, kind)
        if (name, kind) not in self.copies:
            self.copies[name, kind] = copy
            self.nodes.append(helper.make_node("Cast", [name], [copy], name=f"{copy}_cast", to=kind))
        return copy

    def deliver(self, name: str, kind: int) -> None:
        """Make the finished tensor `name` of the type `kind`, under its name."""
        if self.types[name] == kind:
            return
        other = self._free(name, self.types[name])
        for node in self.nodes:
            for names in (node.input, node.output):
                for place, found in enumerate(names):
                    if found == name:
                        names[place] = other
        self.nodes.append(helper.make_node("Cast", [other], [name], name=f"{name}_cast", to=kind))

    def _free(self, name: str, kind: int) -> str:
        suffix = "fp32" if kind == _FLOAT else self.plain.half
        copy = f"{name}_{suffix}"
        while copy in self.body.types:
            copy += "_"
        return copy


def typed(plain: Plain, float32: Container[str], half_io: Collection[str] = ()) -> onnx.ModelProto:
    """The graph in half precision, but for its islands and the nodes and functions named in `float32`.

    `half_io` names inputs and outputs that become half themselves; all others keep their types.
    """
    half, main = kind_of(plain.half), plain.main
    model = onnx.ModelProto()
    model.CopyFrom(plain.model)
    signatures = {}
    for function in model.functions:
        body = plain.functions.get(function.name)
        if body is not None and function.name not in float32:
            signatures[function.name] = _write_function(plain, function, body)
    writer = _Writer(plain, main, signatures, dict(main.types))
    for value in model.graph.input:
        if value.name in half_io:
            writer.types[value.name] = value.type.tensor_type.elem_type = half
    for node in main.nodes:
        whole = node.domain == DOMAIN and node.op_type not in signatures
        writer.write(node, whole or node.name in main.islands or node.name in float32)
    for value in model.graph.output:
        if main.types[value.name] == _FLOAT:
            kind = half if value.name in half_io else _FLOAT
            value.type.tensor_type.elem_type = kind
            writer.deliver(value.name, kind)
    used = {name for node in writer.nodes for name in node.input}
    others = [t for t in model.graph.initializer if t.data_type != _FLOAT and t.name in used]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(writer.nodes)
    model.graph.initializer.extend((*others, *writer.constants.values()))
    return _checked(model)


def _write_function(plain: Plain, function: onnx.FunctionProto, body: Body) -> _Signature:
    """Rewrite a function in place: positions stay float32, all other floats that go in or come out are half."""
    half = kind_of(plain.half)
    writer = _Writer(plain, body, {}, dict(body.types))
    inputs = []
    for name in function.input:
        kind = _FLOAT if name in body.positions else half
        inputs.append(kind if body.types.get(name) == _FLOAT else None)
        if inputs[-1]:
            writer.types[name] = kind
    for node in body.nodes:
        writer.write(node, node.name in body.islands)
    outputs = []
    for name in function.output:
        kind = _FLOAT if name in body.positions else half
        outputs.append(kind if body.types[name] == _FLOAT else None)
        if outputs[-1]:
            writer.deliver(name, kind)
    constants = [
        helper.make_node("Constant", [], [name], name=f"{name}_value", value=tensor)
        for name, tensor in writer.constants.items()
    ]
    del function.node[:]
    function.node.extend((*constants, *writer.nodes))
    del function.value_info[:]
    return _Signature(tuple(inputs), tuple(outputs))


def _tensor(name: str, values: NDArray[np.float32], kind: int) -> TensorProto:
    if kind == TensorProto.FLOAT16:
        with np.errstate(over="ignore"):
            return numpy_helper.from_array(values.astype(np.float16), name)
    if kind == TensorProto.BFLOAT16:
        bits = (rounded(values, "bf16").view(np.uint32) >> 16).astype(np.uint16)
        return helper.make_tensor(name, kind, values.shape, bits.tobytes(), raw=True)
    return numpy_helper.from_array(values, name)


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph, which ONNX finds well typed; a fault here is ours."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ReenactError(
            f"the graph in half precision is not well typed ({error}); this is a fault of the export"
        ) from error
    return model
