"""Loading and running graphs: what is refused, what is bound by name, and what each backend answers."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from reenact.errors import BackendError, BundleError
from reenact.runtime import engine as engine_module
from reenact.runtime.backends import openvino as openvino_backend
from reenact.runtime.engine import choose, load, no_gpu

Graphs = Callable[..., onnx.ModelProto]

both = pytest.mark.parametrize("backend", ["openvino", "cpu"])


def _graph(
    nodes: list[Any], initializers: list[Any], shape: Any = (1, 2), out: Any = (1, 2)
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        initializers,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def _with_weight(weight: onnx.TensorProto) -> onnx.ModelProto:
    return _graph([helper.make_node("Add", ["x", "w"], ["y"])], [weight])


def _external(location: str, dims: list[int], **entries: int) -> onnx.ModelProto:
    weight = onnx.TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    return _with_weight(weight)


# --- running --------------------------------------------------------------------------------------


@both
def test_a_graph_runs_at_every_batch_size(backend: str, scaling_graph: Graphs) -> None:
    with load(scaling_graph(3.0), backend=backend, precision="fp32", threads=1) as engine:
        assert (engine.backend, engine.precision) == (backend, "fp32")
        assert engine.inputs["x"].shape == (None, 3)
        for batch in (1, 2, 5, 1, 7, 2, 9):
            x = np.random.default_rng(batch).normal(size=(batch, 3)).astype(np.float32)
            np.testing.assert_allclose(engine.run({"x": x})["y"], 3 * x, rtol=1e-6)


@both
def test_inputs_and_outputs_are_bound_by_name_not_by_position(backend: str) -> None:
    kinds = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("minuend", "subtrahend")
    ]
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("difference", "swapped")]
    nodes = [
        helper.make_node("Sub", ["subtrahend", "minuend"], ["swapped"]),
        helper.make_node("Sub", ["minuend", "subtrahend"], ["difference"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", kinds, outs), ir_version=8, opset_imports=[helper.make_opsetid("", 17)]
    )
    seven, two = np.full(2, 7, np.float32), np.full(2, 2, np.float32)
    with load(model, backend=backend) as engine:
        outputs = engine.run({"subtrahend": two, "minuend": seven})
    assert outputs["difference"].tolist() == [5, 5]
    assert outputs["swapped"].tolist() == [-5, -5]


@both
def test_results_are_not_overwritten_by_the_next_run(backend: str, scaling_graph: Graphs) -> None:
    with load(scaling_graph(), backend=backend) as engine:
        first = engine.run({"x": np.ones((1, 3), np.float32)})["y"]
        engine.run({"x": np.full((1, 3), 9, np.float32)})
    assert first.tolist() == [[2, 2, 2]]


@both
def test_held_inputs_stay_as_they_were_when_held(backend: str, scaling_graph: Graphs) -> None:
    x = np.ones((2, 3), np.float32)
    with load(scaling_graph(3.0), backend=backend) as engine:
        held = engine.hold({"x": x})
        x[:] = 7
        np.testing.assert_array_equal(engine.run(held)["y"], np.full((2, 3), 3, np.float32))
        np.testing.assert_array_equal(engine.run({"x": x})["y"], np.full((2, 3), 21, np.float32))
        np.testing.assert_array_equal(engine.run(held)["y"], np.full((2, 3), 3, np.float32))


def test_inputs_are_held_for_one_engine_and_one_name(scaling_graph: Graphs) -> None:
    x = np.ones((2, 3), np.float32)
    with load(scaling_graph(1.0), backend="cpu") as one, load(scaling_graph(2.0), backend="cpu") as other:
        with pytest.raises(BundleError, match="hold it here"):
            other.run(dict(one.hold({"x": x})))
        with pytest.raises(BundleError, match="has no input z"):
            one.hold({"z": x})
        with pytest.raises(BundleError, match="expected x"):
            one.hold({"x": x.astype(np.float64)})
    with pytest.raises(BackendError, match="closed"):
        one.hold({"x": x})


@both
def test_views_and_read_only_arrays_are_taken_as_they_look(backend: str, scaling_graph: Graphs) -> None:
    wide = np.arange(12, dtype=np.float32).reshape(2, 6)
    fixed = np.arange(6, dtype=np.float32).reshape(2, 3)
    fixed.flags.writeable = False
    with load(scaling_graph(), backend=backend) as engine:
        assert engine.run({"x": wide[:, ::2]})["y"].tolist() == [[0, 4, 8], [12, 16, 20]]
        assert engine.run({"x": fixed})["y"].tolist() == [[0, 2, 4], [6, 8, 10]]
    assert wide[1, 5] == 11


@both
def test_threads_that_share_an_engine_each_get_their_own_answer(backend: str, scaling_graph: Graphs) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        x = np.full((number, 3), number, np.float32)
        for _ in range(100):
            if not (engine.run({"x": x})["y"] == 2 * number).all():
                wrong.append(number)

    with load(scaling_graph(), backend=backend) as engine:
        threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@both
def test_a_local_function_is_inlined(backend: str, scaling_graph: Graphs) -> None:
    with load(scaling_graph(4.0, functional=True), backend=backend) as engine:
        assert engine.run({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[4, 4, 4]]


@both
def test_weights_in_a_file_beside_the_graph_are_read(backend: str, tmp_path: Path) -> None:
    np.array([0, 10, 20], np.float32).tofile(tmp_path / "weights.bin")
    (tmp_path / "graph.onnx").write_bytes(
        _external("weights.bin", [2], offset=4, length=8).SerializeToString()
    )
    with load(tmp_path / "graph.onnx", backend=backend) as engine:
        assert engine.run({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[11, 21]]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, r"given the inputs none; expected x \(any, 3\) float32"),
        ({"z": np.ones((1, 3), np.float32)}, "given the inputs z; expected x"),
        ({"x": np.ones((1, 3))}, r"x is \(1, 3\) float64; expected x \(any, 3\) float32"),
        ({"x": np.ones((1, 4), np.float32)}, r"x is \(1, 4\) float32; expected"),
        ({"x": np.ones(3, np.float32)}, r"x is \(3,\) float32; expected"),
    ],
)
def test_wrong_inputs_are_refused_with_what_was_expected(
    given: dict[str, Any], complaint: str, scaling_graph: Graphs
) -> None:
    with load(scaling_graph(), backend="cpu") as engine, pytest.raises(BundleError, match=complaint):
        engine.run(given)


def test_a_closed_engine_says_so(scaling_graph: Graphs) -> None:
    engine = load(scaling_graph(), backend="cpu")
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="closed"):
        engine.run({"x": np.ones((1, 3), np.float32)})


# --- choosing -------------------------------------------------------------------------------------


def test_auto_prefers_openvino_then_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("auto").name == "openvino"
    monkeypatch.setattr(openvino_backend, "missing", lambda: "the package openvino is not installed")
    assert choose("auto").name == "cpu"


def test_a_backend_that_is_not_installed_comes_with_its_pip_line(
    monkeypatch: pytest.MonkeyPatch, scaling_graph: Graphs
) -> None:
    monkeypatch.setattr(openvino_backend, "find_spec", lambda _: None)
    with pytest.raises(
        BackendError, match=r'openvino is not installed; install it with `pip install "openvino'
    ):
        load(scaling_graph(), backend="openvino")


def test_an_unknown_backend_lists_the_known_ones(scaling_graph: Graphs) -> None:
    with pytest.raises(BackendError, match="'onnx'; known are auto, tensorrt, cuda, torch, openvino, cpu"):
        load(scaling_graph(), backend="onnx")


def test_bf16_is_refused_where_the_cpu_has_none(
    monkeypatch: pytest.MonkeyPatch, scaling_graph: Graphs
) -> None:
    monkeypatch.setattr(openvino_backend, "best_precision", lambda: "fp32")
    with pytest.raises(BackendError, match="no bf16 instructions"):
        load(scaling_graph(), backend="openvino", precision="bf16")
    with pytest.raises(BackendError, match="fp32 only"):
        load(scaling_graph(), backend="cpu", precision="bf16")


def test_a_precision_that_a_backend_does_not_have_is_refused_with_one_that_has_it(
    scaling_graph: Graphs,
) -> None:
    with pytest.raises(
        BackendError, match=r"fp16: the openvino backend has fp32 and bf16 only; use --backend .*tensorrt"
    ):
        load(scaling_graph(), backend="openvino", precision="fp16")
    if no_gpu():
        with pytest.raises(
            BackendError, match="precision fp16: no backend that can be used here computes in it"
        ):
            load(scaling_graph(), precision="fp16")


@pytest.mark.skipif(no_gpu() is None, reason="this machine has a GPU")
def test_a_gpu_backend_without_a_gpu_says_why_and_is_not_replaced(scaling_graph: Graphs) -> None:
    with pytest.raises(BackendError, match=r"^backend tensorrt cannot be used: ") as caught:
        load(scaling_graph(), backend="tensorrt")
    assert str(no_gpu()) in str(caught.value)
    assert str(caught.value).endswith("or use --backend auto")


@pytest.mark.skipif(openvino_backend.best_precision() != "bf16", reason="this CPU has no bf16 instructions")
def test_bf16_is_chosen_and_coarser_where_the_cpu_has_it() -> None:
    weight = numpy_helper.from_array(np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32), "w")
    model = _graph([helper.make_node("MatMul", ["x", "w"], ["y"])], [weight], (8, 64), (8, 64))
    x = np.random.default_rng(2).normal(size=(8, 64)).astype(np.float32)
    exact = x @ numpy_helper.to_array(weight)
    errors = {}
    for precision in ("fp32", "auto"):
        with load(model, backend="openvino", precision=precision) as engine:
            errors[engine.precision] = np.abs(engine.run({"x": x})["y"] - exact).max()
    assert errors["fp32"] < 1e-4 < errors["bf16"] < 1


def test_no_threads_at_all_is_refused(scaling_graph: Graphs) -> None:
    with pytest.raises(BackendError, match="threads is 0"):
        load(scaling_graph(), threads=0)


def test_nothing_is_sent_over_the_network(scaling_graph: Graphs, tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(scaling_graph().SerializeToString())
    code = """
import socket, sys, time
from pathlib import Path
import numpy as np
def refuse(*arguments, **options):
    print("network", arguments, flush=True)
    raise OSError("no network in this test")
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = refuse
from reenact.runtime.engine import load
for backend in ("openvino", "cpu"):
    with load(Path(sys.argv[1]), backend=backend) as engine:
        engine.run({"x": np.ones((1, 3), np.float32)})
time.sleep(0.5)
print("done")
"""
    assert hasattr(socket.socket, "connect")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "graph.onnx")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(engine_module.__file__).parents[2])},
    )
    assert (done.stdout.strip(), done.returncode) == ("done", 0), done.stderr


def test_an_unwritable_cache_only_costs_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scaling_graph: Graphs, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("REENACT_HOME", str(tmp_path / "file"))
    with load(scaling_graph(), backend="openvino") as engine:
        assert engine.run({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[2, 2, 2]]
    assert "cannot be written" in caplog.text


# --- hostile graphs -------------------------------------------------------------------------------


def test_a_weight_that_claims_terabytes_is_refused() -> None:
    weight = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[100_000, 100_000, 1000])
    with pytest.raises(
        BundleError, match=r"'w' \[100000, 100000, 1000\] claims 10000000000000 numbers and holds 0"
    ):
        load(_with_weight(weight))
    weight.raw_data = b"1234"
    with pytest.raises(BundleError, match="claims 40000000000000 bytes and holds 4"):
        load(_with_weight(weight))


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand", "Tile"])
def test_an_operator_that_would_make_terabytes_is_refused(operator: str) -> None:
    size = numpy_helper.from_array(np.array([10**6, 10**7], np.int64), "size")
    inputs = ["size"] if operator == "ConstantOfShape" else ["x", "size"]
    nodes = [helper.make_node(operator, inputs, ["big"]), helper.make_node("Add", ["x", "big"], ["y"])]
    with pytest.raises(BundleError, match="'big' would be"):
        load(_graph(nodes, [size], (1, 1), ("a", "b")))


@pytest.mark.parametrize("location", ["../secret.bin", "{absolute}", "link.bin", "a/../../secret.bin"])
def test_weights_outside_the_folder_are_refused_unread(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(8))
    (folder / "link.bin").symlink_to(secret)
    model = _external(location.replace("{absolute}", str(secret)), [2])
    (folder / "graph.onnx").write_bytes(model.SerializeToString())
    before = secret.stat().st_atime_ns
    with pytest.raises(BundleError, match=r"graph\.onnx: tensor 'w' points outside"):
        load(folder / "graph.onnx")
    assert secret.stat().st_atime_ns == before


def test_weights_that_are_missing_or_too_short_are_named(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(_external("weights.bin", [2]).SerializeToString())
    with pytest.raises(BundleError, match=r"needs 8 bytes at 0 of weights\.bin, which has 0"):
        load(tmp_path / "graph.onnx")
    (tmp_path / "weights.bin").write_bytes(bytes(7))
    with pytest.raises(BundleError, match="which has 7"):
        load(tmp_path / "graph.onnx")


def test_bytes_cannot_point_at_files() -> None:
    with pytest.raises(BundleError, match="load the graph from its file"):
        load(_external("weights.bin", [2]).SerializeToString())


@pytest.mark.parametrize(("domain", "named"), [("", "Nope"), ("com.microsoft", "com.microsoft.Nope")])
def test_an_unknown_operator_is_named(domain: str, named: str, tmp_path: Path) -> None:
    model = _graph([helper.make_node("Nope", ["x"], ["y"], domain=domain)], [])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    (tmp_path / "graph.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=rf"graph\.onnx: unknown operator {named}"):
        load(tmp_path / "graph.onnx")


def test_functions_that_call_themselves_or_explode_are_refused() -> None:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("reenact", 1)]

    def function(name: str, calls: str, times: int) -> onnx.FunctionProto:
        names = ["a", *(f"t{i}" for i in range(times - 1)), "b"]
        nodes = [
            helper.make_node(calls, [names[i]], [names[i + 1]], domain="reenact" if calls[0] == "f" else "")
            for i in range(times)
        ]
        return helper.make_function("reenact", name, ["a"], ["b"], nodes, opsets)

    model = _graph([helper.make_node("f0", ["x"], ["y"], domain="reenact")], [])
    model.opset_import.append(opsets[1])
    model.functions.append(function("f0", "f0", 1))
    with pytest.raises(BundleError, match="f0 calls itself"):
        load(model)
    del model.functions[:]
    model.functions.extend(function(f"f{i}", f"f{i + 1}" if i < 9 else "Relu", 10) for i in range(10))
    with pytest.raises(BundleError, match="10000000000 nodes"):
        load(model)


@pytest.mark.parametrize("content", [b"", b"noise" * 999, b"<html></html>"])
def test_a_file_that_is_no_graph_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"graph\.onnx"):
        load(tmp_path / "graph.onnx")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.onnx: cannot be read"):
        load(tmp_path / "absent.onnx")


def test_a_cut_graph_is_refused_at_every_length(scaling_graph: Graphs) -> None:
    whole = scaling_graph(functional=True).SerializeToString()
    for length in range(len(whole)):
        with pytest.raises(BundleError):
            load(whole[:length], backend="cpu")


@both
def test_every_hostile_graph_ends_as_expected(backend: str, shared_data: Path) -> None:
    files = sorted((shared_data / "hostile").glob("*.onnx"))
    assert len(files) >= 8
    for file in files:
        if file.name in ("garbled.onnx", "wrong_shape.onnx"):  # whole enough to load on some backends
            continue
        with pytest.raises(BundleError, match=file.name):
            load(file, backend=backend)
    with pytest.raises(BundleError, match="NoSuchOp"):
        load(shared_data / "hostile/unknown_op.onnx", backend=backend)
