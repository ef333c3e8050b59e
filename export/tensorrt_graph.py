"""The copy of a graph that TensorRT's parser reads: said so that it cannot misread it. Nothing is computed otherwise.

The parser takes uint8 only where a graph begins or ends, and reads every GridSample mode that it does not know, such as
those of opset 20, as "nearest" without a word.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, inliner, numpy_helper

from ..errors import ReenactError
from ..kernels.plugins import NAMESPACE
from ..runtime.graph import DOMAIN, Graph
from .regions import WARP

__all__ = ["ParserCopy", "Sampling", "fused_maps", "no_plugins_for", "parser_copy", "with_plugins"]

_OLD_WORDS = {"linear": "bilinear", "cubic": "bicubic"}  # what every version of the parser knows
_FLOAT, _BYTES = TensorProto.FLOAT, TensorProto.UINT8
_BESIDE_BYTES = (TensorProto.FLOAT, TensorProto.FLOAT16)  # what the parser casts bytes to and from
# Operators that only move numbers, so that it does not matter whether they move bytes or floats.
_MOVES = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice"),
        *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)


@dataclass(frozen=True)
class Sampling:
    """How one GridSample samples, in the words of opset 16."""

    mode: str  # "nearest", "bilinear" or "bicubic"
    padding: str  # "zeros", "border" or "reflection"
    align_corners: bool
    rank: int  # of what is sampled: 4 pictures, 5 volumes


@dataclass(frozen=True, eq=False)
class ParserCopy:
    """The graph for the parser, and how each of its GridSample nodes, by name, must sample."""

    model: onnx.ModelProto
    sampling: dict[str, Sampling]


def fused_maps(model: onnx.ModelProto) -> set[int]:
    """How many maps the model's calls of a fused warp have; empty where nothing of it is outlined."""
    names = {function.name for function in model.functions if function.domain == DOMAIN}
    return {
        len(node.output)
        for node in model.graph.node
        if node.domain == DOMAIN and node.op_type in names and node.op_type.startswith(WARP)
    }


def no_plugins_for(graph: Graph, precision: str) -> str | None:
    """Why the plugins' kernels do not fit a graph in a precision; None where they do."""
    if any(None in spec.shape for spec in graph.inputs.values()):
        return "their shapes must be fixed"
    return "they have no bfloat16" if precision == "bf16" else None


def with_plugins(model: onnx.ModelProto, names: Mapping[int, str]) -> onnx.ModelProto:
    """A copy whose fused warps are nodes of plugins, by the plugin's name for each number of maps, and no functions.

    The other functions are inlined: where a function has a plugin's name, the parser takes the function.
    """
    kept = {function.name for function in model.functions if function.name.startswith(WARP)}
    others = [(f.domain, f.name) for f in model.functions if f.name not in kept]
    made = onnx.ModelProto()
    made.CopyFrom(inliner.inline_selected_functions(model, others) if others else model)
    del made.functions[:]
    for node in made.graph.node:
        if node.domain == DOMAIN and node.op_type in kept:
            node.op_type = names[len(node.output)]
            settings = {"plugin_namespace": NAMESPACE, "plugin_version": "1", "aot": 1}
            node.attribute.extend(helper.make_attribute(key, value) for key, value in settings.items())
    return made


def parser_copy(model: onnx.ModelProto) -> ParserCopy:
    """A copy of `model` with bytes at its borders only and sampling modes that every parser knows.

    Raises ReenactError where the graph computes on bytes, which TensorRT does not.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    inferred = onnx.shape_inference.infer_shapes(made).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
    sampling = {}
    for number, node in enumerate(node for node in made.graph.node if node.op_type == "GridSample"):
        node.name = f"reenact/sampling_{number}"
        sampling[node.name] = _sampling(node, ranks.get(node.input[0], 0))
    if _BYTES in types.values():
        nodes = list(_Borders(made.graph, types).nodes())
        kept = [tensor for tensor in made.graph.initializer if tensor.data_type != _BYTES]
        del made.graph.node[:], made.graph.initializer[:], made.graph.value_info[:]
        made.graph.node.extend(nodes)
        made.graph.initializer.extend(kept)
    return ParserCopy(made, sampling)


def _sampling(node: onnx.NodeProto, rank: int) -> Sampling:
    """How the node samples; its mode is put into the old words."""
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    mode = given.get("mode", b"linear").decode()
    mode = _OLD_WORDS.get(mode, mode)
    for attribute in [attribute for attribute in node.attribute if attribute.name == "mode"]:
        node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute("mode", mode))
    padding = given.get("padding_mode", b"zeros").decode()
    return Sampling(mode, padding, bool(given.get("align_corners", 0)), rank)


class _Borders:
    """Moves casts so that between nodes numbers that were bytes are floats, of the same values."""

    def __init__(self, graph: onnx.GraphProto, types: dict[str, int]) -> None:
        self.graph, self.types = graph, types
        self.given = {value.name for value in graph.input}
        self.wanted = {value.name for value in graph.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == _BYTES}
        for node in graph.node:
            if node.op_type == "Constant" and types.get(node.output[0]) == _BYTES:
                self.constants[node.output[0]] = helper.get_attribute_value(node.attribute[0])
        self.floats: dict[str, str] = {}  # bytes -> the floats that stand for them
        self.rounded: set[str] = set()  # bytes whose floats are whole numbers
        self.same: dict[str, str] = {}  # what needs no cast any more -> what it would be cast from

    def nodes(self) -> Iterator[onnx.NodeProto]:
        for node in self.graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = self.same.get(name, name)
            bytes_in = [name for name in node.input if self.types.get(name) == _BYTES]
            bytes_out = [name for name in node.output if self.types.get(name) == _BYTES]
            if not bytes_in and not bytes_out:
                yield node
            elif node.op_type == "Constant":
                continue  # its floats are made where they are needed
            elif node.op_type == "Cast" and bytes_out and not bytes_in:
                yield from self._into_bytes(node)
            elif node.op_type == "Cast" and not bytes_out:
                yield from self._out_of_bytes(node)
            elif node.op_type in _MOVES and bytes_in and bytes_out:
                yield from self._moved(node)
            else:
                raise ReenactError(
                    f"node {node.name or node.op_type} ({node.op_type}) computes on bytes, which TensorRT does not; "
                    "export the graph with a cast to float before it"
                )

    def _into_bytes(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        source, name = node.input[0], node.output[0]
        if self.types.get(source) not in _BESIDE_BYTES:
            yield helper.make_node("Cast", [source], [f"{name}/float"], to=_FLOAT)
            source = f"{name}/float"
        self.floats[name] = source
        if name in self.wanted:
            yield helper.make_node("Cast", [source], [name], to=_BYTES)

    def _out_of_bytes(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        source, kind = node.input[0], next(a.i for a in node.attribute if a.name == "to")
        if source in self.given and kind in _BESIDE_BYTES:
            yield node
            return
        yield from self._carried(source)
        if source not in self.rounded:
            raise ReenactError(
                f"node {node.name or 'Cast'} goes on with numbers that were rounded to bytes, which TensorRT does not; "
                "export the graph with Floor in the place of the two casts"
            )
        if kind == _FLOAT and node.output[0] not in self.wanted:
            self.same[node.output[0]] = self.floats[source]
        else:
            yield helper.make_node("Cast", [self.floats[source]], list(node.output), name=node.name, to=kind)

    def _moved(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        bytes_in = [name for name in node.input if self.types.get(name) == _BYTES]
        for name in bytes_in:
            yield from self._carried(name)
        moved = onnx.NodeProto()
        moved.CopyFrom(node)
        for place, name in enumerate(node.input):
            moved.input[place] = self.floats.get(name, name)
        for place, name in enumerate(node.output):
            moved.output[place] = self.floats[name] = f"{name}/float"
            if self.rounded.issuperset(bytes_in):
                self.rounded.add(name)
        yield moved
        for name in node.output:
            if name in self.wanted:
                yield helper.make_node("Cast", [self.floats[name]], [name], to=_BYTES)

    def _carried(self, name: str) -> Iterator[onnx.NodeProto]:
        """Let `name` have floats: of an input by a cast, of a constant by its values."""
        if name in self.floats:
            return
        self.floats[name] = f"{name}/float"
        self.rounded.add(name)
        if name in self.constants:
            values = numpy_helper.to_array(self.constants[name]).astype(np.float32)
            self.graph.initializer.append(numpy_helper.from_array(values, f"{name}/float"))
        else:
            yield helper.make_node("Cast", [name], [f"{name}/float"], to=_FLOAT)
