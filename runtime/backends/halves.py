"""Cuts a graph in two for half precision: what computes sampling positions, and all that follows.

A position near 1 has steps of 0.4 % in bfloat16, several pixels of a large picture; it is computed in float32.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import onnx
from numpy.typing import NDArray
from onnx.utils import Extractor

from ..graph import Graph, read_graph

__all__ = ["Chain", "cut_before_sampling"]


class _Session(Protocol):
    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...

    def close(self) -> None: ...


def cut_before_sampling(graph: Graph) -> tuple[Graph, Graph] | None:
    """The graph that computes every GridSample's grid, and the one that takes these grids as further inputs.

    None where nothing is sampled, or a grid is an input of the graph or a constant. What both need of the inputs is
    computed in both.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph.content))
    made = {name for node in model.graph.node for name in node.output}
    sampling = [node for node in model.graph.node if node.op_type == "GridSample"]
    grids = list(dict.fromkeys(node.input[1] for node in sampling if node.input[1] in made))
    if not grids:
        return None
    extractor = Extractor(model)
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    first, second = (
        extractor.extract_model(inputs, grids),
        extractor.extract_model([*inputs, *grids], outputs),
    )
    return read_graph(_trimmed(first)), read_graph(_trimmed(second))


class Chain:
    """Two halves as one session."""

    precision = "bf16"

    def __init__(self, halves: tuple[Graph, Graph], first: _Session, second: _Session) -> None:
        """`first` runs the first half, `second` the second."""
        self._inputs = tuple(tuple(half.inputs) for half in halves)
        self._first, self._second = first, second

    def hold(self, array: NDArray[Any]) -> NDArray[Any]:
        """A copy, which serves both halves: the caller may go on writing into its own."""
        return array.copy()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs of the whole, by name."""
        grids = self._first.run({name: inputs[name] for name in self._inputs[0]})
        given = {**inputs, **grids}
        return self._second.run({name: given[name] for name in self._inputs[1]})

    def close(self) -> None:
        """Free both."""
        self._first.close()
        self._second.close()


def _trimmed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the inputs that nothing uses."""
    used = {name for node in model.graph.node for name in node.input}
    for value in [value for value in model.graph.input if value.name not in used]:
        model.graph.input.remove(value)
    return model
