"""Graphs as TensorRT engines, from build to run, on an imaginary GPU that enforces the rules of the real one."""

import gc
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from reenact.errors import BackendError, BundleError
from reenact.runtime.backends import engine_cache
from reenact.runtime.backends.device import Event
from reenact.runtime.engine import choose, load
from reenact.runtime.graph import read_graph

pytest.importorskip("torch", reason="engines are built by the export floor, which needs torch")

from reenact.export.tensorrt import Options, build, shape_range

Graphs = Callable[..., onnx.ModelProto]
Floats = NDArray[np.float32]


def _built(model: onnx.ModelProto | Path, *shapes: str, precision: Any = "fp32", **more: Any) -> Any:
    ranges = dict(shape_range(text) for text in shapes)
    return build(read_graph(model), precision, shapes=ranges, calibration=list, **more)


def _ones(*shape: int, times: float = 1) -> Floats:
    return np.full(shape, times, np.float32)


def _two_inputs() -> onnx.ModelProto:
    """`features` (1, 4, 8) and `pose` (3,): their means, and the features times the pose's first number."""
    nodes = [
        helper.make_node("ReduceMean", ["features"], ["mean"], keepdims=0),
        helper.make_node("ReduceMean", ["pose"], ["turn"], keepdims=0),
        helper.make_node("Mul", ["features", "turn"], ["moved"]),
    ]
    kinds = {"features": [1, 4, 8], "pose": [3], "mean": [], "moved": [1, 4, 8]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in kinds.items()}
    graph = helper.make_graph(
        nodes, "g", [values["features"], values["pose"]], [values["mean"], values["moved"]]
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def test_an_engine_is_built_filed_and_computes_what_the_graph_says(trt: Any, scaling_graph: Graphs) -> None:
    model = scaling_graph(3.0)
    built = _built(model, "x=1x3:2x3:8x3")
    assert (built.cached, trt.builds) == (False, 1)
    assert built.kinds == {"Mul": 1}
    with load(model, backend="tensorrt") as engine:
        assert (engine.backend, engine.precision) == ("tensorrt", "fp32")
        for batch in (1, 2, 8, 1):
            x = np.random.default_rng(batch).normal(size=(batch, 3)).astype(np.float32)
            np.testing.assert_array_equal(engine.run({"x": x})["y"], 3 * x)


@pytest.mark.parametrize("version", ["10.3.0.26", "10.16.1.11", "11.0.0.114", "11.4.0.106"])
def test_every_known_version_builds_strongly_typed_and_runs(
    version: str, install: Any, small_home: Path, scaling_graph: Graphs
) -> None:
    trt = install(version)
    model = scaling_graph(3.0, (2, 3))
    _built(model)
    with load(model, backend="tensorrt") as engine:
        assert engine.run({"x": _ones(2, 3)})["y"].tolist() == [[3, 3, 3]] * 2
    strong = 1 if version.startswith("10") else 0
    assert trt.networks[0]._fake.flags == strong << 1


def test_the_builder_is_told_what_was_asked_for(trt: Any, scaling_graph: Graphs) -> None:
    _built(scaling_graph(2.0, (2, 3)), options=Options(level=5, aux_streams=2, workspace_mib=64))
    config = trt.configs[0]
    assert config._fake.values["builder_optimization_level"] == 5
    assert config._fake.values["max_aux_streams"] == 2
    assert config._fake.pools == {"WORKSPACE": 64 << 20}
    assert "TF32" not in config._fake.flags


def test_the_second_build_is_a_cache_hit_until_something_changes(
    trt: Any, install: Any, cuda: Any, scaling_graph: Graphs
) -> None:
    model = scaling_graph(2.0, (2, 3))
    _built(model)
    assert _built(model).cached
    assert trt.builds == 1
    assert not _built(model, rebuild=True).cached
    assert not _built(model, options=Options(level=4)).cached
    assert not _built(scaling_graph(2.5, (2, 3))).cached
    assert trt.builds == 4
    cuda.driver = 13010
    assert not _built(model).cached
    cuda.name = b"NVIDIA Imaginary 5090"
    assert not _built(model).cached
    newer = install("11.3.0.99")
    assert not _built(model).cached
    assert newer.builds == 1


def test_what_a_build_measures_is_given_to_the_next(trt: Any, scaling_graph: Graphs) -> None:
    _built(scaling_graph(2.0, (2, 3)))
    _built(scaling_graph(3.0, (2, 3)))
    assert trt.timing_given == [b"", b"11.4.0.106 after 1"]


def test_timings_of_another_version_are_left_out(
    trt: Any, cuda: Any, scaling_graph: Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    from reenact.runtime.backends.device import device

    engine_cache.keep_timings("11.4.0.106", device(), b"8.6.1 of old")
    with caplog.at_level(logging.INFO):
        _built(scaling_graph(2.0, (2, 3)))
    assert trt.timing_given == [b""]
    assert "everything is measured anew" in caplog.text


# --- finding --------------------------------------------------------------------------------------


def test_without_an_engine_the_error_names_the_command(
    trt: Any, tmp_path: Path, scaling_graph: Graphs
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    for name in ("frame", "source"):
        (tmp_path / f"{name}.onnx").write_bytes(scaling_graph(2.0, (2, 3)).SerializeToString())
    command = f"run `reenact build {tmp_path} --backend tensorrt --precision"
    for name, precision, said in (
        ("frame", "auto", "fp16`"),
        ("frame", "bf16", "bf16`"),
        ("source", "fp32", "fp32`"),
        ("source", "fp16", "fp16 --graph source`"),
    ):
        with pytest.raises(BackendError, match="no TensorRT engine in") as caught:
            load(tmp_path / f"{name}.onnx", backend="tensorrt", precision=precision)  # type: ignore[arg-type]
        assert str(caught.value).endswith(f"{command} {said}")
    assert trt.loggers == []


def test_an_engine_for_another_gpu_is_named_but_not_used(trt: Any, cuda: Any, scaling_graph: Graphs) -> None:
    model = scaling_graph(2.0, (2, 3))
    _built(model)
    cuda.name = b"NVIDIA Imaginary 5090"
    with pytest.raises(
        BackendError, match=r"for NVIDIA Imaginary 5090.*there is fp32 for NVIDIA Imaginary 4090"
    ):
        load(model, backend="tensorrt", precision="fp32")


def test_auto_passes_over_tensorrt_without_an_engine_and_says_so(
    trt: Any, scaling_graph: Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    model = scaling_graph(2.0, (2, 3))
    with caplog.at_level(logging.INFO), load(model) as engine:
        assert engine.backend != "tensorrt"
    assert "backend tensorrt is passed over: no TensorRT engine" in caplog.text
    assert "no GPU is used" not in caplog.text
    assert choose("auto").name == engine.backend
    with pytest.raises(
        BackendError, match=r"precision fp16: no backend .* tensorrt: no TensorRT engine in fp16"
    ):
        load(model, precision="fp16")
    _built(model)
    with load(model) as engine:
        assert engine.backend == "tensorrt"


def test_auto_takes_the_fastest_precision_that_is_built(trt: Any, scaling_graph: Graphs) -> None:
    model = scaling_graph(2.0, (2, 3))
    _built(model)
    with load(model, backend="tensorrt") as engine:
        assert engine.precision == "fp32"
    inputs = [{"x": _ones(2, 3)}]
    build(read_graph(model), "fp16", calibration=lambda: inputs)
    with load(model, backend="tensorrt") as engine:
        assert engine.precision == "fp16"
        assert engine.inputs["x"].dtype == np.float32
        assert engine.run(inputs[0])["y"].tolist() == [[2, 2, 2]] * 2


def test_a_damaged_engine_never_reaches_tensorrt(trt: Any, scaling_graph: Graphs) -> None:
    model = scaling_graph(2.0, (2, 3))
    built = _built(model)
    plan = next(built.filed.path.parent.glob("*.plan"))
    plan.write_bytes(plan.read_bytes()[:-1] + b"!")
    trt.bindings.behaviour.pop("Runtime.deserialize_cuda_engine")  # calling it would now be an AssertionError
    with pytest.raises(BackendError, match="is not the one that was built"):
        load(model, backend="tensorrt")


def test_an_engine_that_tensorrt_refuses_comes_with_its_reason(
    trt: Any, cuda: Any, scaling_graph: Graphs
) -> None:
    model = scaling_graph(2.0, (2, 3))
    built = _built(model)
    engine_cache.file_engine(built.filed.manifest.target, built.filed.manifest.shapes, {}, b"no plan at all")
    with pytest.raises(BackendError, match="does not take the engine: Magic tag does not match"):
        load(model, backend="tensorrt")


# --- running --------------------------------------------------------------------------------------


def test_the_first_run_is_plain_the_second_captures_and_later_ones_launch(
    trt: Any, cuda: Any, scaling_graph: Graphs
) -> None:
    model = scaling_graph(2.0, (2, 3))
    _built(model)
    with load(model, backend="tensorrt") as engine:
        for times in (1, 2, 3, 4):
            assert engine.run({"x": _ones(2, 3, times=times)})["y"].tolist() == [[2 * times] * 3] * 2
        assert trt.enqueues == ["plain", "captured"]
        assert cuda.calls.count("cudaGraphLaunch") == 3
        assert cuda.calls.count("cudaGraphInstantiate") == 1
        began = len(cuda.calls)
        engine.run({"x": _ones(2, 3)})
    frame = cuda.calls[began : began + 5]
    assert frame == [
        "cudaMemcpyAsync",
        "cudaGraphLaunch",
        "cudaMemcpyAsync",
        "cudaEventRecord",
        "cudaEventSynchronize",
    ]


def test_small_inputs_go_up_in_one_copy_and_outputs_come_down_in_one(trt: Any, cuda: Any) -> None:
    _built(_two_inputs())
    with load(_two_inputs(), backend="tensorrt") as engine:
        result = engine.run({"features": _ones(1, 4, 8, times=3), "pose": _ones(3, times=2)})
    assert float(result["mean"]) == 3
    assert result["moved"].tolist() == _ones(1, 4, 8, times=6).tolist()
    assert [kind for kind, _ in cuda.copies] == ["HostToDevice", "DeviceToHost"]


def test_a_held_input_is_brought_to_its_place_only_when_it_is_another(trt: Any, cuda: Any) -> None:
    _built(_two_inputs())
    with load(_two_inputs(), backend="tensorrt") as engine:
        one = engine.hold({"features": _ones(1, 4, 8, times=3)})
        other = engine.hold({"features": _ones(1, 4, 8, times=5)})
        cuda.copies.clear()
        for held, expected in ((one, 3), (one, 3), (other, 5), (other, 5), (one, 3)):
            assert float(engine.run({**held, "pose": _ones(3)})["mean"]) == expected
        across = [size for kind, size in cuda.copies if kind == "DeviceToDevice"]
        assert across == [128] * 3
        assert [size for kind, size in cuda.copies if kind == "HostToDevice"] == [12] * 5
        assert trt.enqueues == ["plain", "captured"]


def test_an_input_may_be_held_in_one_run_and_given_in_the_next(trt: Any, cuda: Any) -> None:
    _built(_two_inputs())
    with load(_two_inputs(), backend="tensorrt") as engine:
        held = engine.hold({"features": _ones(1, 4, 8, times=3)})
        given = {"features": _ones(1, 4, 8, times=7)}
        for features, expected in ((held, 3), (given, 7), (held, 3), (given, 7)):
            assert float(engine.run({**features, "pose": _ones(3)})["mean"]) == expected
        pose = engine.hold({"pose": _ones(3, times=2)})
        assert engine.run({**given, **pose})["moved"].tolist() == _ones(1, 4, 8, times=14).tolist()


def test_held_memory_is_freed_with_its_last_reference_or_the_engine(trt: Any, cuda: Any) -> None:
    _built(_two_inputs())
    with load(_two_inputs(), backend="tensorrt") as engine:
        held = engine.hold({"features": _ones(1, 4, 8)})
        engine.run({**held, "pose": _ones(3)})
        before = cuda.alive()["device"]
        del held
        gc.collect()
        assert cuda.alive()["device"] == before  # not while anything might be captured
        kept = engine.hold({"features": _ones(1, 4, 8, times=4)})
        assert cuda.alive()["device"] == before
        assert float(engine.run({**kept, "pose": _ones(3)})["mean"]) == 4
    assert cuda.alive() == {}


def test_each_shape_has_its_context_and_graph_and_only_a_few_are_kept(
    trt: Any, cuda: Any, scaling_graph: Graphs
) -> None:
    model = scaling_graph(2.0)
    _built(model, "x=1x3:1x3:9x3")
    with load(model, backend="tensorrt") as engine:
        for batch in (1, 2, 1, 2, 1, 2):
            assert engine.run({"x": _ones(batch, 3)})["y"].shape == (batch, 3)
        assert trt.enqueues == ["plain", "plain", "captured", "captured"]
        for batch in (3, 4, 5, 6, 7):
            engine.run({"x": _ones(batch, 3)})
        assert len(trt.contexts) == 7
        assert cuda.alive()["events"] == 4


def test_a_shape_outside_the_built_range_says_what_helps(trt: Any, scaling_graph: Graphs) -> None:
    model = scaling_graph(2.0)
    _built(model, "x=1x3:2x3:4x3")
    with load(model, backend="tensorrt") as engine:
        with pytest.raises(
            BundleError, match=r"input x \(5, 3\) is not what the engine was built for.*--shape"
        ):
            engine.run({"x": _ones(5, 3)})
        assert engine.run({"x": _ones(4, 3)})["y"].shape == (4, 3)


def test_engines_of_a_bundle_share_one_stream_and_the_larger_block(
    trt: Any, cuda: Any, tmp_path: Path, scaling_graph: Graphs
) -> None:
    one, other = tmp_path / "source.onnx", tmp_path / "frame.onnx"
    for path, factor in ((one, 2.0), (other, 3.0)):
        path.write_bytes(scaling_graph(factor, (2, 3)).SerializeToString())
        _built(path)
    x = {"x": _ones(2, 3)}
    with load(one, backend="tensorrt") as first:
        for _ in range(3):
            first.run(x)
        trt.scratch *= 2
        with load(other, backend="tensorrt") as second:
            assert len(cuda.streams) == 1
            sizes = [size for kind, _, size in cuda.blocks.values() if kind == "device"]
            assert sizes.count(trt.scratch) == 1
            assert sizes.count(trt.scratch // 2) == 0
            for _ in range(3):
                assert second.run(x)["y"].tolist() == [[3, 3, 3]] * 2
                # Its graph was captured with the block that is gone, and is captured anew.
                assert first.run(x)["y"].tolist() == [[2, 2, 2]] * 2
        assert trt.enqueues == ["plain", "captured", "plain", "plain", "captured", "captured"]
    assert cuda.alive() == {}


def test_threads_that_use_engines_of_one_bundle_stay_out_of_each_others_captures(
    trt: Any, tmp_path: Path, scaling_graph: Graphs
) -> None:
    wrong: list[Any] = []
    engines = []
    for factor in (2.0, 3.0):
        path = tmp_path / f"graph{factor:.0f}.onnx"
        path.write_bytes(scaling_graph(factor).SerializeToString())
        _built(path, "x=1x3:1x3:9x3")
        engines.append((load(path, backend="tensorrt"), factor))

    def work(engine: Any, factor: float) -> None:
        try:
            for number in range(60):
                found = engine.run({"x": _ones(1 + number % 4, 3, times=number)})["y"]
                if not (found == factor * number).all():
                    wrong.append((factor, number, found))
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            wrong.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine, _ in engines:
        engine.close()
    assert wrong == []


def test_auxiliary_streams_are_given_when_the_engine_has_them(
    trt: Any, cuda: Any, scaling_graph: Graphs
) -> None:
    model = scaling_graph(2.0, (2, 3))
    _built(model, options=Options(aux_streams=2))
    with load(model, backend="tensorrt") as engine:
        assert engine.run({"x": _ones(2, 3)})["y"].tolist() == [[2, 2, 2]] * 2
        assert len(cuda.streams) == 3


def test_an_engine_that_cannot_be_captured_runs_without_a_graph(
    trt: Any, cuda: Any, scaling_graph: Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    model = scaling_graph(2.0, (2, 3))
    _built(model)
    trt.captures = False
    with load(model, backend="tensorrt") as engine, caplog.at_level(logging.WARNING):
        for times in (1, 2, 3):
            assert engine.run({"x": _ones(2, 3, times=times)})["y"].tolist() == [[2 * times] * 3] * 2
    assert "cudaGraphLaunch" not in cuda.calls
    assert caplog.text.count("runs without a CUDA graph") == 1
    assert "operation not permitted" in caplog.text


def test_results_are_the_callers_own_and_results_of_views_too(trt: Any, scaling_graph: Graphs) -> None:
    model = scaling_graph(2.0, (2, 3))
    _built(model)
    wide = np.arange(12, dtype=np.float32).reshape(2, 6)
    with load(model, backend="tensorrt") as engine:
        first = engine.run({"x": wide[:, ::2]})["y"]
        engine.run({"x": _ones(2, 3)})
    assert first.tolist() == [[0, 4, 8], [12, 16, 20]]


def test_a_gpu_without_room_says_so_and_leaves_nothing_allocated(
    trt: Any, cuda: Any, scaling_graph: Graphs
) -> None:
    model = scaling_graph(2.0, (2, 3))
    _built(model)
    cuda.room = trt.scratch + 10
    with load(model, backend="tensorrt") as engine:
        with pytest.raises(
            BackendError, match=r"graph in memory: cudaMalloc of .* out of memory.* close other"
        ):
            engine.run({"x": _ones(2, 3)})
        with pytest.raises(BackendError, match="graph in memory: cudaMalloc"):
            engine.hold({"x": _ones(2, 3)})
        cuda.room *= 2
        assert engine.run({"x": _ones(2, 3)})["y"].tolist() == [[2, 2, 2]] * 2
    cuda.room = 100
    with pytest.raises(BackendError, match="out of memory"):
        load(model, backend="tensorrt")


@pytest.mark.parametrize("function", ["cudaEventSynchronize", "cudaEventRecord", "cudaGraphLaunch"])
def test_a_failure_of_the_gpu_names_the_graph_and_the_next_run_is_right(
    function: str, trt: Any, cuda: Any, tmp_path: Path, scaling_graph: Graphs
) -> None:
    path = tmp_path / "frame.onnx"
    path.write_bytes(scaling_graph(2.0, (2, 3)).SerializeToString())
    _built(path)
    with load(path, backend="tensorrt") as engine:
        for _ in range(3):
            engine.run({"x": _ones(2, 3)})
        cuda.fail(function, "cudaErrorIllegalAddress")
        with pytest.raises(
            BackendError, match=rf"frame\.onnx: {function} failed on the GPU: an illegal memory"
        ):
            engine.run({"x": _ones(2, 3)})
        assert engine.run({"x": _ones(2, 3, times=4)})["y"].tolist() == [[8, 8, 8]] * 2


def test_ctrl_c_in_a_run_leaves_nothing_running_and_the_next_run_is_right(
    trt: Any, cuda: Any, monkeypatch: pytest.MonkeyPatch, scaling_graph: Graphs
) -> None:
    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    model = scaling_graph(2.0, (2, 3))
    _built(model)
    with load(model, backend="tensorrt") as engine:
        with monkeypatch.context() as patched:
            patched.setattr(Event, "wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                engine.run({"x": _ones(2, 3)})
        assert not any(stream.waiting for stream in cuda.streams.values())
        assert engine.run({"x": _ones(2, 3, times=4)})["y"].tolist() == [[8, 8, 8]] * 2


# --- who is asked first ---------------------------------------------------------------------------


def test_without_a_driver_tensorrt_is_not_even_imported(
    trt: Any,
    cuda: Any,
    monkeypatch: pytest.MonkeyPatch,
    scaling_graph: Graphs,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from reenact.runtime.backends import tensorrt_compat

    def refuse() -> Any:
        raise AssertionError("imported without a driver")

    monkeypatch.setattr(tensorrt_compat, "_imported", refuse)
    cuda.driver = 0
    with pytest.raises(
        BackendError, match=r"^backend tensorrt cannot be used: no NVIDIA driver is installed, or use"
    ):
        load(scaling_graph(2.0, (2, 3)), backend="tensorrt")
    with caplog.at_level(logging.INFO), load(scaling_graph(2.0, (2, 3))) as engine:
        assert engine.backend in ("openvino", "cpu")
    assert "no GPU is used: no NVIDIA driver is installed" in caplog.text


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.2.0.19", "12.0.0", "unknown"])
def test_an_unknown_version_is_refused(version: str, trt: Any, scaling_graph: Graphs) -> None:
    trt.module.__version__ = version
    with pytest.raises(BackendError, match=f"tensorrt {version} is installed; expected 10.3 or newer, or 11"):
        load(scaling_graph(), backend="tensorrt")


def test_a_missing_package_comes_with_its_pip_line(
    cuda: Any, monkeypatch: pytest.MonkeyPatch, scaling_graph: Graphs
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(
        BackendError, match=r"package tensorrt cannot be imported .*install it with `pip install"
    ):
        load(scaling_graph(), backend="tensorrt")
