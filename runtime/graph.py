"""Reads an ONNX graph that nobody vouches for, and says what it takes and gives; runs nothing.

What is claimed is checked before it is believed: sizes against the bytes there are, external files against
their folder, operators against the standard.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, inliner

from ..errors import BundleError

__all__ = ["DOMAIN", "Graph", "TensorSpec", "read_graph"]

DOMAIN = "reenact"
"""Of local functions that stay functions in `Graph.outlined`: a backend may have a kernel in the place of one."""

_STANDARD = ("", "ai.onnx")
_MAX_BYTES = (1 << 31) - 1  # protobuf's own limit for one message
_MAX_VALUE_BYTES = 1 << 33  # no tensor of a face network is near this
_MAX_NODES = 1_000_000
_MAX_DEPTH = 50  # functions within functions


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph; None in `shape` is an axis of any length."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        axes = ", ".join("any" if size is None else str(size) for size in self.shape)
        return f"{self.name} ({axes}) {self.dtype}"


@dataclass(frozen=True, eq=False)
class Graph:
    """A checked graph: its bytes hold everything, weights included, and only standard operators."""

    name: str  # for messages: the file, or what stands for it
    content: bytes
    outlined: bytes  # the same with its local functions, for backends that have kernels for them
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


def read_graph(source: Path | bytes | onnx.ModelProto) -> Graph:
    """Check a graph from a file, from bytes or from memory; only a file may keep weights in files beside it.

    Raises BundleError that names the file and what is wrong with it.
    """
    if isinstance(source, onnx.ModelProto):
        return _checked("graph in memory", source, None, None)
    if isinstance(source, bytes):
        return _checked("graph in memory", _parse("graph in memory", source), source, None)
    try:
        if source.stat().st_size > _MAX_BYTES:
            raise BundleError(f"{source}: larger than 2 GiB; keep its weights in files beside it")
        content = source.read_bytes()
    except OSError as error:
        raise BundleError(f"{source}: cannot be read ({error}); expected an ONNX file") from error
    return _checked(str(source), _parse(str(source), content), content, source.resolve().parent)


def _parse(name: str, content: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise BundleError(
            f"{name}: not an ONNX file, or a damaged one; export it or fetch it again"
        ) from error
    return model


def _checked(name: str, model: onnx.ModelProto, content: bytes | None, folder: Path | None) -> Graph:
    if not model.graph.node or not model.opset_import:
        raise BundleError(f"{name}: an ONNX file without nodes or opset; export it or fetch it again")
    external = False
    for tensor in _tensors(model):
        external |= _check_tensor(name, tensor, folder)
    _check_functions(name, model)
    if external:
        loaded = onnx.ModelProto()
        loaded.CopyFrom(model)
        onnx.load_external_data_for_model(loaded, str(folder))
        model, content = loaded, None
    outlined = model
    if model.functions:
        model, content = inliner.inline_local_functions(model), None
    _check_operators(name, model)
    if model.ByteSize() > _MAX_BYTES:
        raise BundleError(f"{name}: larger than 2 GiB with its weights, which no backend here can take")
    _check_structure(name, model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inlined = model.SerializeToString() if content is None else content
    return Graph(
        name=name,
        content=inlined,
        outlined=outlined.SerializeToString() if outlined.functions else inlined,
        inputs={v.name: _spec(name, v) for v in model.graph.input if v.name not in weights},
        outputs={v.name: _spec(name, v) for v in model.graph.output},
    )


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for inner in _bodies(node):
            yield from _graphs(inner)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from _inner_nodes(function)


def _inner_nodes(function: onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    for node in function.node:
        yield node
        for body in _bodies(node):
            for graph in _graphs(body):
                yield from graph.node


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    bodies = [body for function in model.functions for node in function.node for body in _bodies(node)]
    for graph in [*_graphs(model.graph), *(inner for body in bodies for inner in _graphs(body))]:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_tensor(name: str, tensor: onnx.TensorProto, folder: Path | None) -> bool:
    """Whether the tensor lies in another file; BundleError where its claim does not fit the bytes."""
    try:
        itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{name}: tensor {tensor.name!r} is of an unknown type ({tensor.data_type})"
        ) from error
    if any(size < 0 for size in tensor.dims):
        raise BundleError(f"{name}: tensor {tensor.name!r} claims the shape {list(tensor.dims)}")
    count = math.prod(tensor.dims)
    if tensor.data_location == TensorProto.EXTERNAL:
        _check_external(name, tensor, count * itemsize, folder)
        return True
    if tensor.HasField("raw_data"):
        four_bit = tensor.data_type in (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)
        expected, found, unit = (
            (count + 1) // 2 if four_bit else count * itemsize,
            len(tensor.raw_data),
            "bytes",
        )
    else:
        field = helper.tensor_dtype_to_field(tensor.data_type)
        expected, found, unit = count, len(getattr(tensor, field)), "numbers"
        if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
            expected *= 2
    if expected != found:
        raise BundleError(
            f"{name}: tensor {tensor.name!r} {list(tensor.dims)} claims {expected} {unit} and holds {found}; "
            "export it or fetch it again"
        )
    return False


def _check_external(name: str, tensor: onnx.TensorProto, size: int, folder: Path | None) -> None:
    """The file beside the graph that holds a tensor: inside the folder, a plain file, long enough."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise BundleError(
            f"{name}: tensor {tensor.name!r} lies in the file {location!r}; load the graph from its file"
        )
    path = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(folder):
        raise BundleError(
            f"{name}: tensor {tensor.name!r} points outside the graph's folder ({location!r}): refused"
        )
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError as error:
        raise BundleError(
            f"{name}: tensor {tensor.name!r} has an offset or length that is no number"
        ) from error
    there = path.stat().st_size if path.is_file() else 0
    if offset < 0 or length != size or offset + length > there:
        raise BundleError(
            f"{name}: tensor {tensor.name!r} needs {size} bytes at {offset} of {path.name}, "
            f"which has {there}; bring the whole file beside the graph"
        )


def _check_functions(name: str, model: onnx.ModelProto) -> None:
    """No function calls itself, and inlining all of them stays small."""
    functions = {(function.domain, function.name): function for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def expanded(nodes: Iterator[onnx.NodeProto], above: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in above or len(above) > _MAX_DEPTH:
                raise BundleError(f"{name}: the function {node.op_type} calls itself or lies too deep")
            if key in functions and key not in sizes:
                sizes[key] = expanded(_inner_nodes(functions[key]), (*above, key))
            total += sizes.get(key, 1)
        return total

    whole = expanded((node for graph in _graphs(model.graph) for node in graph.node), ())
    if whole > _MAX_NODES:
        raise BundleError(
            f"{name}: {whole} nodes once its functions are inlined; at most {_MAX_NODES} are taken"
        )


def _check_operators(name: str, model: onnx.ModelProto) -> None:
    opset = max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=0)
    for node in _nodes(model):
        full = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        if node.domain not in _STANDARD:
            raise BundleError(f"{name}: unknown operator {full}; export it with standard ONNX operators only")
        if not onnx.defs.has(node.op_type, max(1, min(opset, onnx.defs.onnx_opset_version())), ""):
            raise BundleError(
                f"{name}: unknown operator {full} (opset {opset}); export it with standard operators"
            )


def _check_structure(name: str, model: onnx.ModelProto) -> None:
    """Let ONNX check order, names and attributes, and work out shapes: none may be absurd."""
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
        ValueError,
    ) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BundleError(f"{name}: not a valid graph ({reason}); export it or fetch it again") from error
    for value in [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]:
        if not value.type.HasField("tensor_type"):
            continue
        sizes = [axis.dim_value for axis in value.type.tensor_type.shape.dim if axis.dim_value > 0]
        if math.prod(sizes) * 4 > _MAX_VALUE_BYTES:
            raise BundleError(f"{name}: {value.name!r} would be {sizes}, beyond any network of ours: refused")


def _spec(name: str, value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise BundleError(
            f"{name}: {value.name!r} is not a tensor of known rank; export it with declared shapes"
        )
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{name}: {value.name!r} is of an unknown type ({kind.elem_type})") from error
    axes = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim)
    if any(size is not None and size < 0 for size in axes):
        raise BundleError(f"{name}: {value.name!r} claims the shape {axes}; export it again")
    return TensorSpec(value.name, dtype, axes)
