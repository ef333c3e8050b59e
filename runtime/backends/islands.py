"""Which nodes of a graph compute in float32 whatever the precision of the rest, and why; knows nothing of backends.

Half a float's bits suffice for features, but not for sampling positions (one step near 1 is part of a pixel in fp16 and
several pixels in bf16), for sums over many numbers, for the levels of a picture, or for numbers that are the result.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

__all__ = ["SAMPLING", "before", "islands", "leading_to", "lossy", "numbers", "sampled_at"]

SAMPLING = "GridSample"

_SUMMING = frozenset({"CumSum", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Softmax"})
_SUMMING_NAMES = ("Reduce", "BatchNorm", "InstanceNorm", "LayerNorm", "GroupNorm", "RMSNorm")
# Element by element, or only moving elements: what lies between a network's last layer and its picture.
_PLAIN = frozenset(
    {"Add", "Sub", "Mul", "Div", "Clip", "Min", "Max", "Round", "Floor", "Ceil", "Tanh", "Sigmoid"}
) | {*("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Concat", "DepthToSpace", "Identity")}
_LAYERS = frozenset({"Conv", "ConvTranspose"})
_PRODUCTS = frozenset({"MatMul", "Gemm"})
_STANDARD = ("", "ai.onnx")
_DENSE = "Gemm"  # of two axes: what it makes are numbers, no maps
# What brings maps together to the numbers that a dense layer takes.
_POOLING = frozenset({"GlobalAveragePool", "Flatten", "Reshape", "Squeeze", "ReduceMean", "ReduceSum"})
_NARROW = (
    8  # a product with a matrix of at most so many rows or columns turns coordinates; else it is a layer
)

# Which input is divided by, or turned into its logarithm; and how a number that keeps it from 0 comes there.
_DIVISORS = {"Div": 1, "Reciprocal": 0, "Log": 0}
_GUARDS = frozenset({"Add", "Max", "Clip", "Sqrt", "Pow", "Expand", "Mul", "Abs", "Identity"})

Floats = NDArray[np.float32]
Grids = Callable[[onnx.NodeProto], Iterable[str]]
"""The inputs of a node that are sampling positions."""


def sampled_at(node: onnx.NodeProto) -> tuple[str, ...]:
    """The grid of a GridSample, as `Grids`."""
    return (node.input[1],) if node.op_type == SAMPLING else ()


def islands(
    nodes: Sequence[onnx.NodeProto],
    shapes: Mapping[str, Sequence[int]],
    outputs: Iterable[str],
    grids: Grids = sampled_at,
) -> dict[int, str]:
    """The nodes, by index, that stay in float32, each with the reason; `shapes` are those of the constants.

    `outputs` are the graph's; a function, whose results others go on with, has none. Of what leads to positions this is
    the arithmetic up to and with the last layer before it; `leading_to` is all.
    """
    kept = {i: "sampling" for i, node in enumerate(nodes) if node.op_type == SAMPLING}
    kept |= {
        i: f"{node.op_type} sums over many numbers"
        for i, node in enumerate(nodes)
        if node.op_type in _SUMMING or node.op_type.startswith(_SUMMING_NAMES)
    }
    levels = [node.input[0] for node in nodes if _makes_levels(node)]
    kept |= dict.fromkeys(before(nodes, levels, lambda node: node.op_type in _PLAIN, False), "levels")
    kept |= dict.fromkeys(numbers(nodes, outputs), "numbers of the result")
    positions = [name for node in nodes for name in grids(node)]
    kept |= dict.fromkeys(
        before(nodes, positions, lambda node: not _is_layer(node, shapes), True), "positions"
    )
    return kept | dict.fromkeys(_between(nodes, kept), "between others")


def numbers(nodes: Sequence[onnx.NodeProto], outputs: Iterable[str]) -> set[int]:
    """The nodes, by index, that end a network whose outputs are numbers: its last dense layers, and the pooling before.

    Half a float's bits would round a coefficient to a part in 256 at the very end, and these layers cost next to
    nothing. Nothing of what lies before the last convolution is among them.
    """
    ends = _LAYERS | {SAMPLING}
    near = before(nodes, outputs, lambda node: node.op_type not in ends and node.domain in _STANDARD, False)
    found: set[int] = set()
    made: set[str] = set()
    for i in sorted(near):
        if nodes[i].op_type == _DENSE or made.intersection(nodes[i].input):
            found.add(i)
            made.update(nodes[i].output)
    taken = [name for i in found if nodes[i].op_type == _DENSE for name in nodes[i].input]
    return found | before(nodes, taken, lambda node: node.op_type in _POOLING, False)


def leading_to(nodes: Sequence[onnx.NodeProto], grids: Grids = sampled_at) -> set[int]:
    """Every node, by index, on which a sampling position depends."""
    return before(nodes, [name for node in nodes for name in grids(node)], lambda _: True, True)


def lossy(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Floats],
    rounded: Callable[[Floats], Floats],
    half: str,
) -> dict[int, str]:
    """Nodes with constants beyond a precision: infinite in it, or what keeps a divisor from 0 and is 0 in it.

    `rounded` gives what is left of float32 values in that precision, and `half` is its name.
    """
    infinite, vanishing = set(), set()
    for name, values in constants.items():
        made = rounded(values)
        gone = ~np.isclose(made, values, rtol=0.1, atol=0)
        if not np.isfinite(made[np.isfinite(values)]).all():
            infinite.add(name)
        elif gone.any() and gone[values != 0].all():
            vanishing.add(name)
    kept = {}
    for i, node in enumerate(nodes):
        for name in infinite.intersection(node.input):
            kept[i] = f"{name} overflows {half}"
    for i, node in enumerate(nodes):
        if node.op_type not in _DIVISORS:
            continue
        divisor = node.input[_DIVISORS[node.op_type]]
        chain = before(nodes, [divisor], lambda earlier: earlier.op_type in _GUARDS, False)
        for name in sorted(vanishing & {name for j in chain for name in nodes[j].input}):
            kept |= dict.fromkeys((*chain, i), f"{name} vanishes in {half}")
    return kept


def before(
    nodes: Sequence[onnx.NodeProto],
    names: Iterable[str],
    goes_on: Callable[[onnx.NodeProto], bool],
    last_included: bool,
) -> set[int]:
    """The nodes, by index, that `names` are made by, on and on while `goes_on`; the node where it ends too, or not."""
    makers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    found: set[int] = set()
    open_names = list(names)
    while open_names:
        maker = makers.get(open_names.pop())
        if maker is None or maker in found:
            continue
        further = goes_on(nodes[maker])
        if further or last_included:
            found.add(maker)
        if further:
            open_names.extend(name for name in nodes[maker].input if name)
    return found


def _between(nodes: Sequence[onnx.NodeProto], kept: Container[int]) -> set[int]:
    """Plain nodes that only islands feed and only islands read: a product between a softmax and its sum."""
    makers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    users: dict[str, set[int]] = {}
    for i, node in enumerate(nodes):
        for name in node.input:
            users.setdefault(name, set()).add(i)
    fed: set[int] = set()
    for i, node in enumerate(nodes):
        sources = {makers[name] for name in node.input if name in makers}
        if (
            i not in kept
            and node.op_type in _PLAIN
            and sources
            and all(s in kept or s in fed for s in sources)
        ):
            fed.add(i)
    found: set[int] = set()
    for i in sorted(fed, reverse=True):
        readers = {user for name in nodes[i].output for user in users.get(name, ())}
        if readers and all(reader in kept or reader in found for reader in readers):
            found.add(i)
    return found


def _is_layer(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> bool:
    if node.op_type in _LAYERS:
        return True
    weights = [shapes[name] for name in node.input[:2] if name in shapes] if node.op_type in _PRODUCTS else []
    return any(len(shape) >= 2 and min(shape[-2:]) > _NARROW for shape in weights)


def _makes_levels(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(
        attribute.name == "to" and attribute.i == TensorProto.UINT8 for attribute in node.attribute
    )
