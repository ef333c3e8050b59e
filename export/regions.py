"""Marks the regions of a graph that a fused kernel can compute, as model-local functions of standard operators.

A backend that has no kernel for a region inlines the function; `runtime/graph.py` does that for all that know none.
"""

from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from ..kernels.warp import MOST_MAPS
from ..runtime.graph import DOMAIN

__all__ = ["WARP", "outline_warps"]

WARP = "WarpPyramid"
"""Functions of this name and a number of maps, such as WarpPyramid4: (field, features...) -> warped features.

field     # (B, 2, h, w), x before y, -1 and 1 at a picture's borders
features  # (B, C, H, W) each; the field is brought to (H, W) by nearest neighbour

Sampled bilinearly, zeros outside, pixel edges at -1 and 1; the parameters of `kernels.warp.warp_pyramid`.
"""


def outline_warps(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the maps that one field warps are warped by one call of a function, MOST_MAPS at most.

    Only sampling as `WARP` says it is outlined; other GridSample nodes stay as they are.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = list(made.graph.node)
    place = {output: i for i, node in enumerate(nodes) for output in node.output}
    calls: dict[int, onnx.NodeProto] = {}  # in the place of a node
    replaced: set[int] = set()
    for group in _groups(nodes, place):
        name = _unused(f"{WARP}{len(group)}", {function.name for function in made.functions})
        made.functions.append(_function(made, name, group))
        first = min(sampling.number for sampling in group)
        calls[first] = helper.make_node(
            name,
            [group[0].field, *(nodes[sampling.number].input[0] for sampling in group)],
            [nodes[sampling.number].output[0] for sampling in group],
            name=f"node_{name}_{first}",
            domain=DOMAIN,
        )
        replaced |= {sampling.number for sampling in group}
    if not calls:
        return made
    kept = [calls.get(i, node) for i, node in enumerate(nodes) if i in calls or i not in replaced]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    _drop_unused(made.graph)
    if DOMAIN not in {entry.domain for entry in made.opset_import}:
        made.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return made


@dataclass(frozen=True)
class _Sampling:
    """One GridSample, by its number among the nodes, and the way from the planar field to its grid."""

    number: int
    way: tuple[onnx.NodeProto, ...]
    field: str


def _groups(nodes: list[onnx.NodeProto], place: dict[str, int]) -> list[list[_Sampling]]:
    """Samplings of one field that can be computed together, where the first of each group stands."""
    groups: list[list[_Sampling]] = []
    for number, node in enumerate(nodes):
        sampling = _sampling(number, node, nodes, place)
        if sampling is None:
            continue
        for group in groups:
            known = place.get(node.input[0], -1) < group[0].number
            if group[0].field == sampling.field and known and len(group) < MOST_MAPS:
                group.append(sampling)
                break
        else:
            groups.append([sampling])
    return groups


def _sampling(
    number: int, node: onnx.NodeProto, nodes: list[onnx.NodeProto], place: dict[str, int]
) -> _Sampling | None:
    if node.op_type != "GridSample" or node.domain:
        return None
    given = _attributes(node)
    as_warp = (
        given.get("mode", b"linear") in (b"linear", b"bilinear")
        and given.get("padding_mode", b"zeros") == b"zeros"
        and not given.get("align_corners", 0)
    )
    way: list[onnx.NodeProto] = []
    field = node.input[1]
    while field in place and (_turns(nodes[place[field]]) or _is_nearest(nodes[place[field]])):
        way.insert(0, nodes[place[field]])
        field = nodes[place[field]].input[0]
    planar = (
        sum(step.op_type == "Transpose" for step in way) % 2 == 1
    )  # its axes x and y become the last ones
    return _Sampling(number, tuple(way), field) if as_warp and planar else None


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _turns(node: onnx.NodeProto) -> bool:
    return node.op_type == "Transpose" and _attributes(node).get("perm") in ([0, 2, 3, 1], [0, 3, 1, 2])


def _is_nearest(node: onnx.NodeProto) -> bool:
    """A Resize as torch's nearest neighbour is exported."""
    given = _attributes(node)
    return (
        node.op_type == "Resize"
        and given.get("mode") == b"nearest"
        and given.get("nearest_mode") == b"floor"
        and given.get("coordinate_transformation_mode") == b"asymmetric"
    )


def _function(model: onnx.ModelProto, name: str, group: list[_Sampling]) -> onnx.FunctionProto:
    """The nodes of a group as a function; what they take from the model's constants goes into it."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    features = [f"features_{i}" for i in range(len(group))]
    warped = [f"warped_{i}" for i in range(len(group))]
    body: list[onnx.NodeProto] = []
    made: set[str] = set()

    def add(node: onnx.NodeProto, inputs: list[str], outputs: list[str]) -> None:
        for constant in set(inputs) & constants.keys() - made:
            body.append(helper.make_node("Constant", [], [constant], value=constants[constant]))
            made.add(constant)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:], copy.output[:]
        copy.input.extend(inputs)
        copy.output.extend(outputs)
        body.append(copy)
        made.update(outputs)

    for i, sampling in enumerate(group):
        for step in sampling.way:
            if step.output[0] not in made:
                inputs = ["field" if given == sampling.field else given for given in step.input]
                add(step, inputs, list(step.output))
        node = model.graph.node[sampling.number]
        add(node, [features[i], node.input[1]], [warped[i]])
    opsets = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return helper.make_function(DOMAIN, name, ["field", *features], warped, body, opsets)


def _unused(name: str, taken: set[str]) -> str:
    number = 2
    candidate = name
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Take away nodes and constants that nothing needs any more."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)
