"""An ONNX graph of fixed shapes as a torch module: its nodes in order, each a torch function, constants folded once."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, inliner, numpy_helper
from torch import Tensor, nn

from ....errors import BundleError
from ...graph import DOMAIN
from ..islands import islands, leading_to, lossy, sampled_at
from .elementary import DTYPES, ELEMENTARY
from .fused import Fused, kernel_for
from .layers import LAYERS
from .sampling import SAMPLING

__all__ = ["OPERATORS", "STATIC", "Network"]

OPERATORS = ELEMENTARY | LAYERS | SAMPLING
"""What the graphs of this backend may be made of, by ONNX's name."""

STATIC: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Expand", "Reshape", "Split", "Squeeze", "Tile", "TopK", "Unsqueeze", "CumSum"), (1,)),
    **dict.fromkeys((name for name in LAYERS if name.startswith("Reduce")), (1,)),
    "AffineGrid": (1,),
    "ConstantOfShape": (0,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
}
"""Inputs, by operator, that are shapes, axes and the like: known when the network is built, and lists of numbers."""

_LEAST_OPSET = 13  # before it axes were attributes and Softmax flattened
_FLOAT = TensorProto.FLOAT
_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}
_Made = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class _Step:
    """One node: what it computes, and the slots in which it finds and leaves tensors."""

    compute: Callable[..., _Made]
    given: tuple[int, ...]
    made: tuple[int, ...]
    over: tuple[int, ...]  # slots that nobody reads after it


class Network(nn.Module):
    """The graph: tensors in the order of its inputs to a tuple in the order of its outputs."""

    def __init__(
        self,
        name: str,
        content: bytes,
        half: torch.dtype | None = None,
        kernels: Mapping[str, Fused] | None = None,
    ) -> None:
        """`name` is for messages. With `half` a float32 graph computes in it but for its islands.

        `kernels` stand for functions of the graph, see `fused`.
        Raises BundleError that names an operator, attribute or type that is not known here.
        """
        super().__init__()
        build = _Build(name, content, half, kernels or {})
        for i, tensor in enumerate(build.buffers.values()):
            self.register_buffer(f"constant_{i}", tensor)
        self._constants = tuple((slot, f"constant_{i}") for i, slot in enumerate(build.buffers))
        self._inputs, self._outputs = build.inputs, build.outputs
        self._steps, self._slots = build.steps(), build.slots

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All outputs; they may share memory with inputs and constants."""
        slots: list[Tensor | None] = [None] * self._slots
        for slot, name in self._constants:
            slots[slot] = getattr(self, name)
        for slot, given in zip(self._inputs, inputs, strict=True):
            slots[slot] = given
        for step in self._steps:
            made = step.compute(*[slots[slot] for slot in step.given])
            for slot, result in zip(step.made, made if isinstance(made, tuple) else (made,), strict=False):
                slots[slot] = result
            for slot in step.over:
                slots[slot] = None
        return tuple(tensor for slot in self._outputs if (tensor := slots[slot]) is not None)


class _Build:
    """Turns the nodes of a graph into steps, one after the other."""

    def __init__(
        self, name: str, content: bytes, half: torch.dtype | None, kernels: Mapping[str, Fused]
    ) -> None:
        self.name, self.half = name, half
        model = onnx.load_from_string(content)
        self.kernels = {
            function.name: kernel
            for function in model.functions
            if function.domain == DOMAIN and (kernel := kernel_for(function.name, kernels))
        }
        kept = [(DOMAIN, function) for function in self.kernels]
        if model.functions:
            model = inliner.inline_selected_functions(model, kept, exclude=True)
        self.functions = {function.name: function for function in model.functions}
        opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        if opset < _LEAST_OPSET:
            raise BundleError(f"{name}: of opset {opset}; the torch backend takes {_LEAST_OPSET} and newer")
        graph = onnx.shape_inference.infer_shapes(model).graph
        self.values = {v.name: v.type.tensor_type for v in (*graph.value_info, *graph.input, *graph.output)}
        self.constants = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
        self.buffers: dict[int, Tensor] = {}
        self.slots = 0
        self._steps: list[_Step] = []
        self._slot_of: dict[tuple[str, torch.dtype], int] = {}
        self._dtypes: dict[str, torch.dtype] = {}  # in which a tensor is made
        self._float32 = self._islands(list(graph.node), [value.name for value in graph.output])
        given = [value.name for value in graph.input if value.name not in self.constants]
        self.inputs = tuple(self._new(value, self._declared(value)) for value in given)
        for i, node in enumerate(graph.node):
            self._add(node, i in self._float32)
        self.outputs = tuple(self._taken(value.name, self._declared(value.name)) for value in graph.output)

    def steps(self) -> tuple[_Step, ...]:
        """All of them, each with the slots that nobody reads after it."""
        last = {slot: i for i, step in enumerate(self._steps) for slot in (*step.made, *step.given)}
        kept = {*self.outputs, *self.buffers}
        return tuple(
            replace(step, over=tuple(s for s in {*step.given, *step.made} if last[s] == i and s not in kept))
            for i, step in enumerate(self._steps)
        )

    def _islands(self, nodes: list[onnx.NodeProto], outputs: Iterable[str]) -> set[int]:
        """The nodes that stay in float32 in half precision; without measuring, all that leads to positions."""
        if self.half is None:
            return set()
        half = self.half
        values = {n: tensor.numpy() for n, tensor in self.constants.items() if tensor.dtype == torch.float32}
        shapes = {name: tensor.shape for name, tensor in self.constants.items()}
        lost = lossy(nodes, values, lambda v: torch.from_numpy(v).to(half).float().numpy(), str(half))
        return {*islands(nodes, shapes, outputs, self._grids), *leading_to(nodes, self._grids), *lost}

    def _grids(self, node: onnx.NodeProto) -> Iterable[str]:
        if node.domain != DOMAIN:
            return sampled_at(node)
        function = self.functions[node.op_type]
        inner = leading_to(function.node)
        names = {name for i in inner for name in function.node[i].input}
        names |= {name for one in function.node for name in sampled_at(one)}
        return [given for formal, given in zip(function.input, node.input, strict=False) if formal in names]

    def _add(self, node: onnx.NodeProto, float32: bool) -> None:
        attributes = {a.name: self._value(node, helper.get_attribute_value(a)) for a in node.attribute}
        if node.op_type == "Constant":
            self.constants[node.output[0]] = _constant(attributes)
            return
        if node.op_type == "Shape" and not node.domain:
            self.constants[node.output[0]] = self._shape(node, attributes)
            return
        function = self._function(node, attributes)
        if node.op_type == "Cast" and attributes["to"] == _FLOAT and self.half and not float32:
            attributes["to"] = _NUMBERS[self.half]
        template: list[Any] = [None] * len(node.input)
        places = []
        for i, name in enumerate(node.input):
            if name and i in STATIC.get(node.op_type, ()) and not node.domain:
                template[i] = self._numbers(node, name)
            elif name:
                places.append(i)
        compute = _Bound(function, tuple(template), tuple(places), attributes)
        if all(node.input[i] in self.constants for i in places) and not node.domain:
            made = compute(*(self.constants[node.input[i]] for i in places))
            results = made if isinstance(made, tuple) else (made,)
            self.constants |= {name: value for name, value in zip(node.output, results, strict=False) if name}
            return
        grids = set(self._grids(node))
        given = tuple(
            self._taken(name, self._wanted(name, float32 or name in grids))
            for name in _at(node.input, places)
        )
        made_slots = tuple(self._new(name, self._wanted(name, float32)) for name in node.output)
        self._steps.append(_Step(compute, given, made_slots, ()))

    def _function(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> Callable[..., _Made]:
        if node.domain == DOMAIN:
            return self.kernels[node.op_type]
        function = OPERATORS.get(node.op_type)
        if function is None:
            raise BundleError(
                f"{self.name}: the torch backend does not know the operator {node.op_type} (node {node.name}); use "
                "another backend"
            )
        unknown = attributes.keys() - _attributes(function)
        if unknown:
            raise BundleError(
                f"{self.name}: the torch backend does not know the attribute {', '.join(sorted(unknown))} of "
                f"{node.op_type} (node {node.name}); use another backend"
            )
        return function

    def _wanted(self, name: str, float32: bool) -> torch.dtype:
        """The type of a tensor for a node, or out of it."""
        declared = self._declared(name)
        return declared if declared != torch.float32 or float32 or self.half is None else self.half

    def _declared(self, name: str) -> torch.dtype:
        if name in self.constants:
            return self.constants[name].dtype
        kind = self.values[name].elem_type if name in self.values else 0
        if kind not in DTYPES:
            raise BundleError(
                f"{self.name}: the torch backend does not know the type {TensorProto.DataType.Name(kind)} of {name}"
            )
        return DTYPES[kind]

    def _taken(self, name: str, dtype: torch.dtype) -> int:
        """The slot with a tensor in a type; a constant or a Cast is added where there is none yet."""
        slot = self._slot_of.get((name, dtype))
        if slot is not None:
            return slot
        if name in self.constants:
            slot = self._slot(name, dtype)
            self.buffers[slot] = _laid_out(self.constants[name].to(dtype))
            return slot
        found = self._slot_of[name, self._dtypes[name]]
        slot = self._slot(name, dtype)
        self._steps.append(_Step(partial(Tensor.to, dtype=dtype), (found,), (slot,), ()))
        return slot

    def _new(self, name: str, dtype: torch.dtype) -> int:
        self._dtypes[name] = dtype
        return self._slot(name, dtype)

    def _slot(self, name: str, dtype: torch.dtype) -> int:
        self._slot_of[name, dtype] = self.slots
        self.slots += 1
        return self.slots - 1

    def _numbers(self, node: onnx.NodeProto, name: str) -> list[Any]:
        if name not in self.constants:
            raise BundleError(
                f"{self.name}: {node.op_type} {node.name} takes {name}, a size or the like, from what is computed; the "
                "torch backend needs it fixed"
            )
        return list(self.constants[name].reshape(-1).tolist())

    def _shape(self, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> Tensor:
        axes = self.values[node.input[0]].shape.dim if node.input[0] in self.values else ()
        sizes = [axis.dim_value for axis in axes if axis.HasField("dim_value")]
        if node.input[0] in self.constants:
            sizes = list(self.constants[node.input[0]].shape)
        elif len(sizes) != len(axes):
            raise BundleError(f"{self.name}: the shape of {node.input[0]} is not known beforehand")
        return torch.tensor(sizes[attributes.get("start", 0) : attributes.get("end")], dtype=torch.int64)

    def _value(self, node: onnx.NodeProto, value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, TensorProto):
            return _tensor(value)
        if isinstance(value, onnx.GraphProto):
            raise BundleError(
                f"{self.name}: the torch backend does not know control flow ({node.op_type} {node.name}); use another "
                "backend"
            )
        return value


class _Bound:
    """An operator with its attributes and static inputs; called with the tensors in the places between."""

    def __init__(
        self,
        function: Callable[..., _Made],
        template: tuple[Any, ...],
        places: tuple[int, ...],
        attributes: dict[str, Any],
    ) -> None:
        self.function, self.template, self.places, self.attributes = function, template, places, attributes

    def __call__(self, *tensors: Tensor) -> _Made:
        given = list(self.template)
        for place, tensor in zip(self.places, tensors, strict=True):
            given[place] = tensor
        return self.function(*given, **self.attributes)


def _at(names: Sequence[str], places: Iterable[int]) -> list[str]:
    return [names[i] for i in places]


def _attributes(function: Callable[..., Any]) -> set[str]:
    """The attributes that an operator's function takes; torch's own functions take none."""
    if not inspect.isfunction(function):
        return set()
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def _tensor(proto: TensorProto) -> Tensor:
    array = numpy_helper.to_array(proto)
    if proto.data_type == TensorProto.BFLOAT16:  # which NumPy does not have, nor torch under its name there
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def _constant(attributes: Mapping[str, Any]) -> Tensor:
    ((name, value),) = attributes.items()
    if name == "value":
        assert isinstance(value, Tensor)
        return value
    return torch.tensor(value, dtype=torch.int64 if name.startswith("value_int") else torch.float32)


def _laid_out(tensor: Tensor) -> Tensor:
    """Weights of layers in half lie channels last, which is how tensor cores read them; maps then follow."""
    if tensor.ndim == 4 and tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor.contiguous()
