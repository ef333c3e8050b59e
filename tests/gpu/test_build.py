"""What is built from a graph: sampling that cannot be misread, bytes only at the borders, precision, errors, Ctrl-C."""

import _thread
import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from reenact.errors import BackendError, ReenactError
from reenact.kernels import plugins
from reenact.runtime.backends.device import device
from reenact.runtime.backends.engine_cache import find, target
from reenact.runtime.engine import load
from reenact.runtime.graph import read_graph

pytest.importorskip("torch", reason="engines are built by the export floor, which needs torch")

from reenact.export import tensorrt as building
from reenact.export import tensorrt_graph
from reenact.export.regions import outline_warps
from reenact.export.tensorrt import Options, build, shape_range
from reenact.export.tensorrt_graph import Sampling, parser_copy

Graphs = Callable[..., onnx.ModelProto]
OPSET = {18: helper.make_opsetid("", 18), 20: helper.make_opsetid("", 20)}


def _model(
    nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], weights: Any = (), opset: int = 20
) -> onnx.ModelProto:
    def values(kinds: dict[str, Any]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in kinds.items()]

    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), list(weights))
    return helper.make_model(graph, ir_version=9, opset_imports=[OPSET[opset]])


def _sampling_model(
    mode: str = "linear", opset: int = 20, dims: int = 2, **attributes: Any
) -> onnx.ModelProto:
    picture, grid = [1, 2, *[5] * dims], [1, *[4] * dims, dims]
    return _model(
        [helper.make_node("GridSample", ["picture", "grid"], ["y"], name="here", mode=mode, **attributes)],
        {"picture": (TensorProto.FLOAT, picture), "grid": (TensorProto.FLOAT, grid)},
        {"y": (TensorProto.FLOAT, [1, 2, *[4] * dims])},
        opset=opset,
    )


def _sampling_inputs(dims: int = 2) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "picture": generator.normal(size=(1, 2, *[5] * dims)).astype(np.float32),
        "grid": generator.uniform(-1.2, 1.2, size=(1, *[4] * dims, dims)).astype(np.float32),
    }


def _run(model: onnx.ModelProto, inputs: Any, backend: str) -> Any:
    with load(model, backend=backend, precision="fp32") as engine:
        return engine.run(inputs)


def _built(model: onnx.ModelProto, precision: Any = "fp32", calibration: Any = (), **more: Any) -> Any:
    return build(read_graph(model), precision, calibration=lambda: list(calibration), **more)


# --- fused kernels --------------------------------------------------------------------------------


@pytest.fixture
def warping(trt: Any, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """A graph with two maps under one field; our plugins can be compiled on this machine."""

    def register(number: int, capability: int) -> str:
        assert capability == 89
        trt.plugins.add(f"reenact::WarpPyramid{number}V1")
        return f"WarpPyramid{number}V1"

    monkeypatch.setattr(plugins, "missing", lambda: None)
    monkeypatch.setattr(plugins, "register_warp", register)
    floats = TensorProto.FLOAT
    nearest = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return outline_warps(
        _model(
            [
                helper.make_node("Mul", ["places", "two"], ["field"]),
                helper.make_node("Transpose", ["field"], ["wide"], perm=[0, 2, 3, 1]),
                helper.make_node("GridSample", ["large", "wide"], ["one"], mode="linear"),
                helper.make_node("Resize", ["field", "", "", "sizes"], ["few"], **nearest),
                helper.make_node("Transpose", ["few"], ["narrow"], perm=[0, 2, 3, 1]),
                helper.make_node("GridSample", ["small", "narrow"], ["other"], mode="linear"),
            ],
            {
                "places": (floats, [1, 2, 8, 8]),
                "large": (floats, [1, 3, 8, 8]),
                "small": (floats, [1, 4, 4, 4]),
            },
            {"one": (floats, [1, 3, 8, 8]), "other": (floats, [1, 4, 4, 4])},
            [
                numpy_helper.from_array(np.array(2, np.float32), "two"),
                numpy_helper.from_array(np.array([1, 2, 4, 4]), "sizes"),
            ],
        )
    )


def _warping_inputs() -> dict[str, Any]:
    generator = np.random.default_rng(1)
    shapes = {"places": (1, 2, 8, 8), "large": (1, 3, 8, 8), "small": (1, 4, 4, 4)}
    return {name: generator.uniform(-0.6, 0.6, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(("precision", "near"), [("fp32", 1e-5), ("fp16", 2e-3)])
def test_a_region_with_a_kernel_becomes_its_plugin(
    trt: Any, warping: onnx.ModelProto, precision: Any, near: float
) -> None:
    _built(warping, precision, [_warping_inputs()])
    assert trt.plugins == {"reenact::WarpPyramid2V1"}
    (network,) = trt.networks
    assert [node.op_type for node in network._fake.model.graph.node if node.domain] == ["WarpPyramid2V1"]
    assert not network._fake.model.functions
    with load(warping, backend="tensorrt", precision=precision) as engine:
        found = engine.run(_warping_inputs())
    for name, expected in _run(warping, _warping_inputs(), "cpu").items():
        np.testing.assert_allclose(found[name], expected, atol=near)


def test_without_the_kernels_compiler_tensorrts_own_layers_sample(
    trt: Any, warping: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plugins, "missing", lambda: "no compiler")
    with caplog.at_level(logging.INFO):
        _built(warping)
    assert "TensorRT's own layers sample, not our kernels: no compiler" in caplog.text
    assert trt.plugins == set()
    for name, expected in _run(warping, _warping_inputs(), "cpu").items():
        found = _run(warping, _warping_inputs(), "tensorrt")[name]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_plugins_can_be_turned_off_and_are_another_engine(trt: Any, warping: onnx.ModelProto) -> None:
    assert not _built(warping).cached
    assert not _built(warping, options=Options(plugins=False)).cached
    assert _built(warping).cached
    assert trt.builds == 2


def test_an_unregistered_plugin_is_an_error_of_the_parser(
    trt: Any, warping: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "register_warp", lambda number, capability: "Nobody")
    with pytest.raises(BackendError, match="Plugin not found: reenact::Nobody"):
        _built(warping)


# --- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "opset"), [("linear", 20), ("cubic", 20), ("nearest", 20), ("bilinear", 18), ("bicubic", 18)]
)
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
def test_a_sampling_is_what_the_graph_says(
    trt: Any, mode: str, opset: int, padding: str, corners: int
) -> None:
    model = _sampling_model(mode, opset, padding_mode=padding, align_corners=corners)
    _built(model)
    found = _run(model, _sampling_inputs(), "tensorrt")["y"]
    np.testing.assert_allclose(found, _run(model, _sampling_inputs(), "cpu")["y"], atol=1e-6)


def _without_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_it_was(model: onnx.ModelProto) -> tensorrt_graph.ParserCopy:
        copy = parser_copy(model)
        return tensorrt_graph.ParserCopy(model, dict(zip(["here"], copy.sampling.values(), strict=True)))

    monkeypatch.setattr(building, "parser_copy", as_it_was)


def _without_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_set_sampling", lambda *_: None)


@pytest.mark.parametrize("take_away", [_without_the_copy, _without_the_check])
def test_each_defence_against_silent_nearest_is_enough_alone(
    trt: Any, monkeypatch: pytest.MonkeyPatch, take_away: Any
) -> None:
    take_away(monkeypatch)
    _built(_sampling_model())
    found = _run(_sampling_model(), _sampling_inputs(), "tensorrt")["y"]
    np.testing.assert_allclose(found, _run(_sampling_model(), _sampling_inputs(), "cpu")["y"], atol=1e-6)


def test_without_both_defences_linear_becomes_nearest(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_the_copy(monkeypatch)
    _without_the_check(monkeypatch)
    _built(_sampling_model())
    found = _run(_sampling_model(), _sampling_inputs(), "tensorrt")["y"]
    nearest = _run(_sampling_model("nearest"), _sampling_inputs(), "cpu")["y"]
    np.testing.assert_array_equal(found, nearest)
    assert np.abs(found - _run(_sampling_model(), _sampling_inputs(), "cpu")["y"]).max() > 0.1


def test_a_parser_that_took_another_mode_is_told_of(
    trt: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _without_the_copy(monkeypatch)
    with caplog.at_level(logging.WARNING):
        _built(_sampling_model())
    assert "here: the parser took NEAREST where the graph says bilinear" in caplog.text


def test_volumes_are_sampled_from_11_2_on(install: Any, small_home: Any) -> None:
    model = _sampling_model(dims=3)
    for version in ("10.16.1.11", "11.1.0.106"):
        install(version)
        with pytest.raises(
            BackendError, match=f"samples volumes, which TensorRT {version} cannot; install 11.2"
        ):
            _built(model)
    install("11.2.1.2")
    _built(model)
    found = _run(model, _sampling_inputs(3), "tensorrt")["y"]
    np.testing.assert_allclose(found, _run(model, _sampling_inputs(3), "cpu")["y"], atol=1e-6)


def test_layers_that_fit_no_node_are_refused_only_where_it_matters(
    trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(*modes: str) -> onnx.ModelProto:
        model = _sampling_model(modes[0])
        second = helper.make_node("GridSample", ["picture", "grid"], ["z"], mode=modes[1])
        model.graph.node.append(second)
        model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 2, 4, 4]))
        return model

    read = trt._layer

    def renamed(node: onnx.NodeProto) -> Any:
        layer = read(node)
        layer._fake.values["name"] = f"of its own, {node.name}"
        return layer

    monkeypatch.setattr(trt, "_layer", renamed)
    _built(two("linear", "linear"))
    with pytest.raises(BackendError, match="how they sample cannot be checked"):
        _built(two("linear", "nearest"))


def test_a_copy_for_the_parser_leaves_the_graph_as_it_was() -> None:
    model = _sampling_model(align_corners=1)
    before = model.SerializeToString()
    copy = parser_copy(model)
    assert model.SerializeToString() == before
    assert copy.sampling == {"reenact/sampling_0": Sampling("bilinear", "zeros", True, 4)}


# --- bytes ----------------------------------------------------------------------------------------


def _of_bytes(nodes: list[Any], out: list[int], weights: Any = (), shape: Any = (4, 6, 3)) -> onnx.ModelProto:
    kinds = {"picture": (TensorProto.UINT8, list(shape))}
    return _model(nodes, kinds, {"y": (TensorProto.UINT8, out)}, weights)


def _numbers(name: str, *values: int, dtype: Any = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


MOVED_INSIDE = _of_bytes(
    [  # a picture that is moved before it becomes floats, and levels that are moved after they become bytes
        helper.make_node("Transpose", ["picture"], ["planes"], perm=[2, 0, 1]),
        helper.make_node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "half"], ["levels"]),
        helper.make_node("Cast", ["levels"], ["rounded"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["rounded", "six"], ["spread"]),
        helper.make_node("Transpose", ["spread"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["turned", "flat"], ["y"]),
    ],
    [24, 3],
    [_numbers("half", 0.7, dtype=np.float32), _numbers("six", 3, 4, 6), _numbers("flat", 24, 3)],  # type: ignore[arg-type]
)
JOINED = _of_bytes(
    [  # a constant and an input, joined as bytes
        helper.make_node("Concat", ["picture", "frame"], ["y"], axis=0),
    ],
    [5, 6, 3],
    [numpy_helper.from_array(np.arange(18, dtype=np.uint8).reshape(1, 6, 3), "frame")],
)
TO_WHOLE_NUMBERS = _of_bytes(
    [
        helper.make_node("Cast", ["picture"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Add", ["whole", "whole"], ["twice"]),
        helper.make_node("Cast", ["twice"], ["y"], to=TensorProto.UINT8),
    ],
    [4, 6, 3],
)
TWICE_USED = _of_bytes(
    [
        helper.make_node("Cast", ["picture"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["floats"], ["y"], to=TensorProto.UINT8),
        helper.make_node("Transpose", ["y"], ["z"], perm=[2, 0, 1]),
    ],
    [4, 6, 3],
)
TWICE_USED.graph.output.append(helper.make_tensor_value_info("z", TensorProto.UINT8, [3, 4, 6]))


@pytest.mark.parametrize("model", [MOVED_INSIDE, JOINED, TO_WHOLE_NUMBERS, TWICE_USED])
def test_bytes_are_moved_as_floats_and_come_out_the_same(trt: Any, model: onnx.ModelProto) -> None:
    _built(model)
    picture = np.random.default_rng(0).integers(0, 128, (4, 6, 3), np.uint8)
    expected = _run(model, {"picture": picture}, "cpu")
    found = _run(model, {"picture": picture}, "tensorrt")
    for name, values in expected.items():
        assert found[name].dtype == np.uint8
        np.testing.assert_array_equal(found[name], values)


def test_a_parser_refuses_bytes_between_nodes(trt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "parser_copy", lambda model: tensorrt_graph.ParserCopy(model, {}))
    with pytest.raises(BackendError, match="UINT8 is allowed as an input or output beside a Cast only"):
        _built(MOVED_INSIDE)


@pytest.mark.parametrize(
    ("nodes", "complaint"),
    [
        (
            [helper.make_node("Max", ["picture", "picture"], ["y"], name="most")],
            r"most \(Max\) computes on bytes",
        ),
        (
            [
                helper.make_node("Cast", ["picture"], ["a"], to=TensorProto.FLOAT),
                helper.make_node("Cast", ["a"], ["b"], to=TensorProto.UINT8),
                helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT, name="on"),
                helper.make_node("Cast", ["c"], ["y"], to=TensorProto.UINT8),
            ],
            "node on goes on with numbers that were rounded to bytes",
        ),
    ],
)
def test_arithmetic_on_bytes_is_named(trt: Any, nodes: list[Any], complaint: str) -> None:
    with pytest.raises(ReenactError, match=complaint):
        _built(_of_bytes(nodes, [4, 6, 3]))


# --- precision ------------------------------------------------------------------------------------


def _layer_model() -> onnx.ModelProto:
    weights = np.random.default_rng(0).normal(size=(4, 2, 3, 3)).astype(np.float32)
    return _model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], name="layer"),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Conv", ["r", "v"], ["y"], name="last"),
        ],
        {"x": (TensorProto.FLOAT, [1, 2, 8, 8])},
        {"y": (TensorProto.FLOAT, [1, 2, 4, 4])},
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(weights.reshape(2, 4, 3, 3), "v"),
        ],
    )


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "FLOAT16"), ("bf16", "BFLOAT16")])
def test_precision_is_in_the_graph_and_borders_stay_float32(trt: Any, precision: str, kind: str) -> None:
    x = np.random.default_rng(1).normal(size=(1, 2, 8, 8)).astype(np.float32)
    built = _built(_layer_model(), precision, [{"x": x}])
    assert built.report is not None
    assert (built.report.precision, built.report.nodes) == (precision, 3)
    assert 0 < built.report.errors[0].largest < 0.2
    types = {tensor.data_type for tensor in trt.networks[0]._fake.model.graph.initializer}
    assert types == {TensorProto.DataType.Value(kind)}
    here = target(read_graph(_layer_model()).content, precision, "11.4.0.106", device())  # type: ignore[arg-type]
    assert find(here) == built.filed
    if precision == "fp16":  # ONNX Runtime's CPU has no convolution in bfloat16
        with load(_layer_model(), backend="tensorrt") as engine:
            exact = _run(_layer_model(), {"x": x}, "cpu")["y"]
            assert engine.inputs["x"].dtype == np.float32
            apart = np.abs(engine.run({"x": x})["y"] - exact).max()
        assert 0 < apart < 0.2


def test_calibration_is_asked_for_only_when_it_is_needed(trt: Any) -> None:
    def refuse() -> Any:
        raise AssertionError("nothing is measured for float32")

    build(read_graph(_layer_model()), "fp32", calibration=refuse)
    with pytest.raises(ReenactError, match="expected at least one set"):
        build(read_graph(_layer_model()), "fp16", calibration=list)


def test_a_half_graph_is_built_as_it_is_written_or_not_at_all(trt: Any) -> None:
    cast = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Relu", ["half"], ["made"]),
        helper.make_node("Cast", ["made"], ["y"], to=TensorProto.FLOAT),
    ]
    floats = (TensorProto.FLOAT, [2])
    half = _model(cast, {"x": floats}, {"y": floats})
    assert _built(half, "fp16").report is None
    for precision in ("fp32", "bf16"):
        with pytest.raises(ReenactError, match=f"written in fp16, cannot be built in {precision}; use fp16"):
            _built(half, precision)


# --- shapes ---------------------------------------------------------------------------------------


def test_free_axes_must_be_said(trt: Any, scaling_graph: Graphs) -> None:
    with pytest.raises(
        ReenactError, match=r"input x \(any, 3\) float32 has axes of any length; say .* --shape x="
    ):
        _built(scaling_graph())
    for text, complaint in (
        ("z=1x3", "has no input z"),
        ("x=1x4", r"says \(1, 4\) to \(1, 4\), the graph x"),
    ):
        with pytest.raises(ReenactError, match=complaint):
            _built(scaling_graph(), shapes=dict([shape_range(text)]))


@pytest.mark.parametrize(
    "text", ["", "x", "x=", "=1x3", "x=1xa", "x=1x3:2x3", "x=2x3:1x3:4x3", "x=1x3:2:4x3"]
)
def test_a_shape_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ReenactError, match="is not NAME=1x3x256x256"):
        shape_range(text)


def test_shapes_are_read_as_they_are_written() -> None:
    name, fixed = shape_range("x=1x3")
    assert (name, fixed.least, fixed.best, fixed.most) == ("x", (1, 3), (1, 3), (1, 3))
    assert shape_range("a/b=1:2:8")[1].model_dump() == {"least": (1,), "best": (2,), "most": (8,)}


# --- what goes wrong ------------------------------------------------------------------------------


def test_what_the_parser_does_not_know_is_named_with_its_node(trt: Any, cuda: Any) -> None:
    kinds = (TensorProto.DOUBLE, [2])
    model = _model([helper.make_node("Relu", ["x"], ["y"], name="act")], {"x": kinds}, {"y": kinds})
    with pytest.raises(
        BackendError, match=r"11\.4\.0\.106 cannot read it: DOUBLE is not supported \(node act, Relu\)"
    ):
        _built(model)
    assert trt.builds == 0


def test_a_build_that_fails_says_why_and_files_nothing(
    trt: Any, small_home: Any, scaling_graph: Graphs
) -> None:
    trt.build_error = "Error Code 2: OutOfMemory (Requested size was 123456 bytes.)"
    with pytest.raises(BackendError, match=r"builds no engine: Error Code 2: OutOfMemory"):
        _built(scaling_graph(2.0, (2, 3)))
    assert not (small_home / "tensorrt").exists()
    trt.build_error = None
    assert not _built(scaling_graph(2.0, (2, 3))).cached


def test_progress_is_told_phase_by_phase(trt: Any, scaling_graph: Graphs) -> None:
    told: list[tuple[str, int, int]] = []
    _built(scaling_graph(2.0, (2, 3)), progress=lambda *step: told.append(step))
    assert [step for step in told if step[0] == "Building Engine"] == [
        ("Building Engine", done, 3) for done in (0, 1, 2, 3, 3)
    ]
    assert ("Tactic Selection", 1, 2) in told
    assert trt.callback_errors == []


def test_ctrl_c_cancels_the_build_and_files_nothing(trt: Any, small_home: Any, scaling_graph: Graphs) -> None:
    trt.steps = 1000
    reached: list[int] = []
    pressed = threading.Event()

    def on_step(step: int) -> None:
        reached.append(step)
        if step == 1:
            _thread.interrupt_main()
            pressed.set()
        elif step > 1:
            threading.Event().wait(0.02)

    trt.on_step = on_step
    with pytest.raises(KeyboardInterrupt):
        _built(scaling_graph(2.0, (2, 3)))
    assert pressed.is_set()
    assert len(reached) < 100  # it did not go on to the end
    assert trt.builds == 0
    assert not (small_home / "tensorrt").exists()
    trt.on_step = lambda _: None
    trt.steps = 2
    assert not _built(scaling_graph(2.0, (2, 3))).cached


@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
def test_what_the_engine_is_made_of_is_told_in_both_forms_of_the_inspector(
    version: str, install: Any, small_home: Any
) -> None:
    install(version)
    assert _built(MOVED_INSIDE).kinds == {"Reformat": 2, "Transpose": 2, "Mul": 1, "Reshape": 2}
