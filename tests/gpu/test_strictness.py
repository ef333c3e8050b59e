"""The imaginary TensorRT takes only what the real bindings have: any call of ours, misspelt, breaks the whole path."""

import dis
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from reenact.errors import BackendError

pytest.importorskip("torch", reason="engines are built by the export floor, which needs torch")

from reenact.export import tensorrt as building
from reenact.export.tensorrt import Options, build, shape_range
from reenact.runtime.backends import tensorrt, tensorrt_compat, tensorrt_context, tensorrt_lane
from reenact.runtime.engine import load
from reenact.runtime.graph import read_graph

OURS = (building, tensorrt, tensorrt_compat, tensorrt_context, tensorrt_lane)
API = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text())


def _every_name() -> set[str]:
    names = set(API["classes"]) | {full.rpartition(".")[2] for full in API["enums"]}
    for cls in API["classes"].values():
        names |= set(cls["methods"]) | {text.split(":")[0].split(" ")[0] for text in cls["properties"]}
    for members in API["enums"].values():
        names |= set(members)
    return names - {"__init__"}


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Every function written in a module, those of its classes too."""
    holders = [
        module,
        *(c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__),
    ]
    for holder in holders:
        for value in vars(holder).values():
            found = inspect.unwrap(value) if callable(value) else getattr(value, "fget", None)
            if isinstance(found, FunctionType) and found.__code__.co_filename == module.__file__:
                yield found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _attributes(function: FunctionType) -> set[str]:
    return {
        str(step.argval)
        for code in _codes(function.__code__)
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")
    }


def _uses() -> list[Any]:
    """Every place where our code may name something of TensorRT's: function, and the name."""
    every = _every_name() - {"name"}  # graphs have one too
    return [
        pytest.param(
            function, name, id=f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}-{name}"
        )
        for module in OURS
        for function in _functions(module)
        for name in sorted(_attributes(function) & every)
    ]


def _misspelt(code: CodeType, name: str) -> CodeType:
    wrong = tuple(f"{own}s" if own == name else own for own in code.co_names)
    inner = tuple(_misspelt(c, name) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.replace(co_names=wrong, co_consts=inner)


def _sampling() -> onnx.ModelProto:
    """Samples `picture` (any, 1, 4, 4) at `grid` (any, 2, 2, 2)."""
    free: dict[str, Any] = {"picture": ["N", 1, 4, 4], "grid": ["N", 2, 2, 2], "y": ["N", 1, 2, 2]}
    picture, grid, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in free.items()
    )
    node = helper.make_node("GridSample", ["picture", "grid"], ["y"], mode="linear")
    graph = helper.make_graph([node], "g", [picture, grid], [y])
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)])


def _whole_path(trt: Any) -> None:
    """Build, file, find, run in every way, and fail in every way in which TensorRT can say no."""
    model = _sampling()
    shapes = dict(map(shape_range, ("picture=1x1x4x4:1x1x4x4:4x1x4x4", "grid=1x2x2x2:1x2x2x2:4x2x2x2")))
    options = Options(aux_streams=1, workspace_mib=16)
    built = build(read_graph(model), "fp32", shapes=shapes, options=options, calibration=list)
    assert built.kinds == {"GridSample": 1}
    with load(model, backend="tensorrt") as engine:
        for batch in (1, 2, 1, 2, 1):
            picture = np.arange(16 * batch, dtype=np.float32).reshape(batch, 1, 4, 4)
            held = engine.hold({"picture": picture})
            found = engine.run({**held, "grid": np.zeros((batch, 2, 2, 2), np.float32)})["y"]
            np.testing.assert_array_equal(found, np.repeat(picture.mean((2, 3)), 4).reshape(batch, 1, 2, 2))
    assert trt.enqueues == ["plain", "plain", "captured", "captured"]
    trt.build_error = "no room"
    with pytest.raises(BackendError, match="no room"):
        build(read_graph(model), "fp32", shapes=shapes, rebuild=True, calibration=list)
    model.graph.node[0].op_type, model.graph.input[0].type.tensor_type.elem_type = "Relu", TensorProto.DOUBLE
    del model.graph.node[0].input[1], model.graph.node[0].attribute[:], model.graph.input[1]
    model.graph.output[0].type.CopyFrom(model.graph.input[0].type)
    with pytest.raises(
        BackendError, match=r"DOUBLE is not supported \(node node_of_y, Relu\)|\(node , Relu\)"
    ):
        build(read_graph(model), "fp32", shapes={"picture": shapes["picture"]}, calibration=list)


def test_the_whole_path_passes_when_nothing_is_misspelt(trt: Any) -> None:
    _whole_path(trt)


@pytest.mark.parametrize(("function", "name"), _uses())
def test_a_misspelt_call_breaks_the_whole_path(
    function: FunctionType,
    name: str,
    install: Any,
    small_home: Path,
    cuda: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trt = install("10.16.1.11" if function is tensorrt_compat.new_network else "11.4.0.106")
    monkeypatch.setattr(function, "__code__", _misspelt(function.__code__, name))
    with pytest.raises((AttributeError, AssertionError, TypeError, BackendError)):
        _whole_path(trt)
    tensorrt_lane._lanes.clear()
    for left in (cuda.blocks, cuda.streams, cuda.events, cuda.graphs, cuda.executables):
        left.clear()  # what broke half-way need not have tidied up


def test_ours_uses_a_good_part_of_the_bindings() -> None:
    names = {parameter.values[1] for parameter in _uses()}
    assert names >= {
        "execute_async_v3",
        "set_device_memory",
        "build_serialized_network",
        "interpolation_mode",
    }
    assert len(names) > 60


# --- the strictness itself ------------------------------------------------------------------------

MISUSES: dict[str, Callable[[Any, Any], Any]] = {
    "has no attribute 'EXPLICIT_BATCH'": lambda trt, _: trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH,
    "has no attribute 'FP16'": lambda trt, _: trt.BuilderFlag.FP16,
    "unsupported operand": lambda trt, _: 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED,
    "has no attribute 'max_workspace_size'": lambda _, b: setattr(
        b.create_builder_config(), "max_workspace_size", 1
    ),
    "has no attribute 'build_engine'": lambda _, b: b.build_engine,
    "incompatible function arguments": lambda _, b: b.create_network("0"),
    "No constructor defined": lambda trt, _: trt.IBuilderConfig(),
    "has no setter": lambda _, b: setattr(b.create_network(0), "num_layers", 3),
    "is int, given '1'": lambda trt, b: setattr(b.create_builder_config(), "max_aux_streams", "1"),
}


@pytest.mark.parametrize("said", MISUSES)
def test_what_the_real_bindings_refuse_is_refused(said: str, trt: Any) -> None:
    builder = trt.module.Builder(tensorrt_compat.logger(trt.module))
    with pytest.raises((AttributeError, TypeError), match=said):
        MISUSES[said](trt.module, builder)


def test_a_callback_without_its_base_is_refused(trt: Any) -> None:
    class Logger(trt.module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match="__init__"):
        trt.module.Builder(Logger())


def test_10_has_what_11_lost_and_lacks_what_11_brought(install: Any) -> None:
    old, new = install("10.16.1.11").module, install("11.4.0.106").module
    assert int(old.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 1
    assert hasattr(old.BuilderFlag, "FP16")
    assert not hasattr(new.BuilderFlag, "FP16")
    assert not hasattr(old.IBuilderConfig, "build_route")
    assert hasattr(new.IBuilderConfig, "build_route")
    assert not hasattr(install("10.3.0.26").module.Builder, "build_serialized_network_to_stream")


def test_the_list_is_a_part_of_the_inspected_one() -> None:
    inspected = Path(__file__).resolve().parents[2] / "../shared/specs/tensorrt_api.json"
    if not inspected.is_file():
        pytest.skip("the whole list in ../shared/specs is absent")
    whole = json.loads(inspected.read_text())
    assert API["version"] == whole["version"]
    for cls, own in API["classes"].items():
        there = whole["classes"][cls]
        assert (own["bases"], own["properties"]) == (there["bases"], there["properties"])
        for name, signatures in own["methods"].items():
            plain = [
                text.replace(f"self: trt.{cls}, ", "").replace(f"self: trt.{cls}", "")
                for text in there["methods"][name]
            ]
            assert [f"{name}{signature}" for signature in signatures] == plain
    for enum, members in API["enums"].items():
        assert members == whole["enum_values"][enum]
