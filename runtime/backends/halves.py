"""Cuts a graph in parts for half precision: what computes sampling positions and what ends in numbers stay float32.

A position near 1 has steps of 0.4 % in bfloat16, several pixels of a large picture, and a coefficient that is a result
would be rounded as coarsely at the very end.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import onnx
from numpy.typing import NDArray
from onnx.utils import Extractor

from ..graph import Graph, read_graph
from .islands import numbers

__all__ = ["Chain", "cut_before_numbers", "cut_before_sampling", "in_bfloat16"]


class _Session(Protocol):
    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...

    def close(self) -> None: ...


def in_bfloat16(graph: Graph) -> list[tuple[Graph, str]]:
    """The parts of a graph that is asked for in bfloat16, in order, each with its precision: "fp32" or "bf16"."""
    sampling = cut_before_sampling(graph)
    before, rest = ([(sampling[0], "fp32")], sampling[1]) if sampling else ([], graph)
    features, ending = cut_before_numbers(rest)
    kept = [(part, name) for part, name in ((features, "bf16"), (ending, "fp32")) if part is not None]
    return [*before, *kept]


def cut_before_sampling(graph: Graph) -> tuple[Graph, Graph] | None:
    """The graph that computes every GridSample's grid, and the one that takes these grids as further inputs.

    None where nothing is sampled, or a grid is an input of the graph or a constant. What both need of the inputs is
    computed in both.
    """
    model = _inferred(graph)
    made = {name for node in model.graph.node for name in node.output}
    sampling = [node for node in model.graph.node if node.op_type == "GridSample"]
    grids = list(dict.fromkeys(node.input[1] for node in sampling if node.input[1] in made))
    if not grids:
        return None
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    return _extracted(model, inputs, grids), _extracted(model, [*inputs, *grids], outputs)


def cut_before_numbers(graph: Graph) -> tuple[Graph | None, Graph | None]:
    """The graph up to the features that its numbers are made of, and the one that makes these: see `numbers`.

    The first also gives what else is an output. It is None where all makes numbers, the second where nothing does.
    """
    model = _inferred(graph)
    nodes = model.graph.node
    ending = numbers(nodes, graph.outputs)
    if not ending:
        return graph, None
    makers = {name: i for i, node in enumerate(nodes) for name in node.output}
    between = [name for i in sorted(ending) for name in nodes[i].input if makers.get(name, i) not in ending]
    features = list(dict.fromkeys(between))
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    last = [name for name in outputs if makers[name] in ending]
    first = list(dict.fromkeys([*features, *(name for name in outputs if name not in last)]))
    second = _extracted(model, [*inputs, *features], last)
    return (_extracted(model, inputs, first) if first else None), second


class Chain:
    """Parts of a graph as one session."""

    precision = "bf16"

    def __init__(self, parts: Sequence[tuple[Graph, _Session]], outputs: Sequence[str]) -> None:
        """Each part with what runs it; `outputs` are those of the whole."""
        self._parts = [(tuple(graph.inputs), session) for graph, session in parts]
        self._outputs = tuple(outputs)

    def hold(self, array: NDArray[Any]) -> NDArray[Any]:
        """A copy, which serves all parts: the caller may go on writing into its own."""
        return array.copy()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs of the whole, by name."""
        known = dict(inputs)
        for names, session in self._parts:
            known |= session.run({name: known[name] for name in names})
        return {name: known[name] for name in self._outputs}

    def close(self) -> None:
        """Free them all."""
        for _, session in self._parts:
            session.close()


def _inferred(graph: Graph) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.load_from_string(graph.content))


def _extracted(model: onnx.ModelProto, inputs: list[str], outputs: list[str]) -> Graph:
    """The part between, without the inputs that nothing in it uses."""
    made = Extractor(model).extract_model(inputs, outputs)
    used = {name for node in made.graph.node for name in node.input}
    for value in [value for value in made.graph.input if value.name not in used]:
        made.graph.input.remove(value)
    return read_graph(made)
