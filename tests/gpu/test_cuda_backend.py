"""ONNX Runtime's CUDA provider: what it is asked for, what is refused, and where tensors lie when.

The GPU is imaginary; ONNX Runtime is the real one for the CPU and computes on the imaginary GPU's memory, behind the
work that its stream has.
"""

import gc
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser
from reenact.errors import BackendError, BundleError
from reenact.runtime.backends import cuda as backend
from reenact.runtime.backends.cuda import CudaSession
from reenact.runtime.engine import BACKENDS
from reenact.runtime.graph import Graph, read_graph

TWO = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[2,3] x, float[3] features, uint8[2,3] more) => (float[2,3] y, uint8[2,3] z) {
    sum = Add(x, features)
    floats = Cast<to: int = 1>(more)
    y = Mul(sum, floats)
    z = Identity(more)
}
"""
FREE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[N,3] x) => (float[N,3] y) { y = Add(x, x) }
"""
# What the CUDA and TensorRT providers of onnxruntime-gpu 1.31 know, of all that is asked of them.
KNOWN = {
    "CUDAExecutionProvider": {"device_id", "user_compute_stream", "enable_cuda_graph", "use_tf32"},
    "TensorrtExecutionProvider": {
        *("device_id", "user_compute_stream", "trt_engine_cache_enable", "trt_engine_cache_path"),
        *(
            "trt_timing_cache_enable",
            "trt_timing_cache_path",
            "trt_cuda_graph_enable",
            "trt_auxiliary_streams",
        ),
    },
}


class Machine:
    """What ONNX Runtime was asked for, and how it is to behave."""

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        self.asked: list[list[tuple[str, dict[str, str]]]] = []
        self.runs: list[str] = []  # "captured" or "one by one"
        self.lacks: set[str] = set()  # providers whose libraries are not there
        self.no_kernel: set[str] = set()  # operators that stay on the CPU
        self.fails_captured = False


@pytest.fixture
def machine(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(cuda)
    real = onnxruntime.InferenceSession

    class Session(real):  # type: ignore[misc, valid-type]
        """Computes on the CPU what it is asked to compute on the GPU, in the order of the stream."""

        def __init__(self, content: Any, options: Any, *, providers: Any, enable_fallback: int) -> None:
            assert enable_fallback == 0
            made.asked.append(providers)
            for name, chosen in providers:
                if not chosen.keys() <= KNOWN[name]:
                    raise RuntimeError(f"Unknown provider option: {chosen.keys() - KNOWN[name]}")
            assert all(isinstance(value, str) for _, chosen in providers for value in chosen.values())
            self.named = [name for name, _ in providers if name not in made.lacks]
            self.stream = int(providers[-1][1]["user_compute_stream"])
            self.captured = providers[-1][1]["enable_cuda_graph"] == "1"
            super().__init__(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)

        def get_providers(self) -> list[str]:
            return [*self.named, "CPUExecutionProvider"]

        def get_provider_graph_assignment_info(self) -> list[Any]:
            parts = super().get_provider_graph_assignment_info()
            return [
                SimpleNamespace(
                    ep_name="CPUExecutionProvider" if kinds & made.no_kernel else self.named[0],
                    get_nodes=part.get_nodes,
                )
                for part in parts
                if (kinds := {node.op_type for node in part.get_nodes()})
            ]

        def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
            assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
            if self.captured and made.fails_captured:
                raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")
            made.runs.append("captured" if self.captured else "one by one")
            made.cuda.enqueue(self.stream, lambda: super(Session, self).run_with_iobinding(binding, options))

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return made


def graph(text: str) -> Graph:
    return read_graph(parser.parse_model(text))


@pytest.fixture
def session(machine: Machine) -> Any:
    made = CudaSession(graph(TWO), "cpu", tensorrt=False, allow_cpu=False)
    machine.cuda.copies.clear()
    yield made
    made.close()


def inputs(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(2, 3)).astype(np.float32),
        "features": rng.normal(size=3).astype(np.float32),
        "more": rng.integers(0, 255, (2, 3), dtype=np.uint8),
    }


def check(found: dict[str, Any], given: dict[str, Any]) -> None:
    np.testing.assert_array_equal(
        found["y"], (given["x"] + given["features"]) * given["more"].astype(np.float32)
    )
    np.testing.assert_array_equal(found["z"], given["more"])


# --- running --------------------------------------------------------------------------------------


def test_results_are_right_and_stay_when_the_next_run_comes(session: Any) -> None:
    first = session.run(inputs(0))
    second = session.run(inputs(1))
    check(first, inputs(0))
    check(second, inputs(1))


def test_a_run_is_uploads_one_launch_and_downloads(session: Any, machine: Machine) -> None:
    session.run(inputs())
    kinds = [kind for kind, _ in machine.cuda.copies]
    assert kinds == ["HostToDevice"] * 3 + ["DeviceToHost"] * 2
    assert machine.cuda.copies[3:] == [("DeviceToHost", 24), ("DeviceToHost", 6)]
    assert machine.runs == ["captured"] * 2  # the first one, on zeros, before anybody waits for it


def test_held_inputs_are_copied_on_the_gpu_and_only_when_another_one_is_given(
    session: Any, machine: Machine
) -> None:
    given = [inputs(seed) for seed in range(4)]
    held = [session.hold(one["features"]) for one in given[:2]]
    given[0]["features"][:] = 99  # what was held is a copy
    given[0] = inputs(0)
    machine.cuda.copies.clear()
    # Held 0, 0, 1, then an array, then held 0 again: on the GPU it is copied three times.
    for seed, features in ((0, held[0]), (0, held[0]), (1, held[1]), (2, given[2]["features"]), (0, held[0])):
        check(session.run(given[seed] | {"features": features}), given[seed])
    assert [size for kind, size in machine.cuda.copies if kind == "DeviceToDevice"] == [12] * 3


def test_what_nobody_holds_any_more_is_freed_between_runs(session: Any, machine: Machine) -> None:
    before = machine.cuda.alive()["device"]
    held = session.hold(inputs()["features"])
    assert machine.cuda.alive()["device"] == before + 1
    del held
    gc.collect()
    session.run(inputs())
    assert machine.cuda.alive()["device"] == before


def test_a_held_input_is_given_back_with_the_session(machine: Machine) -> None:
    made = CudaSession(graph(TWO), "cpu", tensorrt=False, allow_cpu=False)
    held = made.hold(inputs()["features"])
    made.close()
    assert machine.cuda.alive() == {}
    del held


def test_a_graph_with_free_axes_is_made_ready_once_for_each_shape(machine: Machine) -> None:
    made = CudaSession(graph(FREE), "cpu", tensorrt=False, allow_cpu=False)
    assert machine.asked == []
    for rows in (1, 2, 1, 5, 2, 7, 9, 5):
        x = np.full((rows, 3), rows, np.float32)
        np.testing.assert_array_equal(made.run({"x": x})["y"], 2 * x)
    assert len(machine.asked) == 5
    made.run({"x": np.zeros((1, 3), np.float32)})  # pushed out by the fifth shape
    assert len(machine.asked) == 6
    held = made.hold(np.ones((5, 3), np.float32))
    np.testing.assert_array_equal(made.run({"x": held})["y"], np.full((5, 3), 2, np.float32))
    made.close()


def test_a_size_that_hangs_on_content_is_refused(machine: Machine) -> None:
    text = FREE.replace("y = Add(x, x)", "n = NonZero(x) y = Cast<to: int = 1>(n)").replace(
        "float[N,3] y", "float[A,B] y"
    )
    made = CudaSession(graph(text), "cpu", tensorrt=False, allow_cpu=False)
    with pytest.raises(BundleError, match=r"output y \(2, any\) float32 is not known beforehand"):
        made.run({"x": np.zeros((1, 3), np.float32)})
    made.close()


# --- what ONNX Runtime is asked for ---------------------------------------------------------------


def test_everything_goes_into_the_sessions_own_stream_as_one_captured_graph(
    session: Any, machine: Machine
) -> None:
    ((name, options),) = machine.asked[0]
    assert name == "CUDAExecutionProvider"
    assert int(options.pop("user_compute_stream")) in machine.cuda.streams
    assert options == {"device_id": "0", "enable_cuda_graph": "1", "use_tf32": "0"}


def test_what_cannot_be_captured_is_launched_node_by_node_and_said(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.fails_captured = True
    made = CudaSession(graph(TWO), "cpu", tensorrt=False, allow_cpu=False)
    assert "cannot be captured" in caplog.text
    assert "stream is capturing" in caplog.text
    check(made.run(inputs()), inputs())
    assert machine.runs == ["one by one"] * 2
    made.close()


def test_nodes_that_would_run_on_the_cpu_are_an_error_that_names_them(machine: Machine) -> None:
    machine.no_kernel = {"Mul", "Cast"}
    with pytest.raises(BackendError, match=r"Cast .*, Mul .* would run on the CPU.*REENACT_CUDA_ALLOW_CPU=1"):
        CudaSession(graph(TWO), "cpu", tensorrt=False, allow_cpu=False)
    assert machine.cuda.alive() == {}
    allowed = CudaSession(graph(TWO), "cpu", tensorrt=False, allow_cpu=True)
    check(allowed.run(inputs()), inputs())
    assert set(machine.runs) == {"one by one"}
    allowed.close()


def test_a_provider_that_was_left_out_is_an_error_with_the_line_that_brings_it(machine: Machine) -> None:
    machine.lacks = {"CUDAExecutionProvider"}
    with pytest.raises(
        BackendError, match=r"left out CUDAExecutionProvider.*onnxruntime-gpu\[cuda,cudnn\]"
    ) as caught:
        CudaSession(graph(TWO), "cpu", tensorrt=False, allow_cpu=False)
    assert backend.INSTALL in str(caught.value)
    assert machine.cuda.alive() == {}


def test_an_option_that_onnxruntime_does_not_know_is_an_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KNOWN, "CUDAExecutionProvider", {"device_id"})
    with pytest.raises(BackendError, match="Unknown provider option"):
        CudaSession(graph(TWO), "cpu", tensorrt=False, allow_cpu=False)


def test_a_failing_run_leaves_nothing_behind_that_the_next_one_would_take(
    session: Any, machine: Machine
) -> None:
    held = session.hold(inputs()["features"])
    session.run(inputs() | {"features": held})
    machine.fails_captured = True
    with pytest.raises(BackendError, match="onnxruntime failed while running"):
        session.run(inputs(1))
    machine.fails_captured = False
    machine.cuda.copies.clear()
    check(session.run(inputs() | {"features": held}), inputs())
    assert ("DeviceToDevice", 12) in machine.cuda.copies


def test_a_gpu_that_is_full_says_so_and_all_is_given_back(machine: Machine) -> None:
    machine.cuda.room = 40
    with pytest.raises(BackendError, match="close other programs that use the GPU"):
        CudaSession(graph(TWO), "cpu", tensorrt=False, allow_cpu=False)
    assert machine.cuda.alive() == {}


# --- precision ------------------------------------------------------------------------------------


def in_half(kind: int) -> Graph:
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 20]>
        g (float[3] x) => (float[3] y) {{ h = Cast<to: int = {kind}>(x) y = Cast<to: int = 1>(h) }}"""
    )
    return read_graph(model)


def test_the_precision_is_the_one_that_the_graph_is_written_in(machine: Machine) -> None:
    for made, written in ((graph(TWO), "fp32"), (in_half(10), "fp16"), (in_half(16), "bf16")):
        found = CudaSession(made, "cpu", tensorrt=False, allow_cpu=False)
        assert found.precision == written
        found.close()
    with pytest.raises(BackendError, match=r"precision fp16: .*which is fp32.*export with --precision fp16"):
        backend.start(graph(TWO), precision="fp16", threads=None)


# --- the TensorRT provider ------------------------------------------------------------------------


def test_the_tensorrt_provider_is_taken_only_with_tensorrt_10(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, small_home: Any
) -> None:
    with pytest.raises(BackendError, match="needs TensorRT 10, which cannot be loaded"):
        CudaSession(graph(TWO), "cpu", tensorrt=True, allow_cpu=False)
    loaded: list[str] = []
    monkeypatch.setattr("ctypes.CDLL", loaded.append)
    made = CudaSession(graph(TWO), "cpu", tensorrt=True, allow_cpu=False)
    assert loaded == ["libnvinfer.so.10", "libnvonnxparser.so.10"]
    assert [name for name, _ in machine.asked[-1]] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    folder = machine.asked[-1][0][1]["trt_engine_cache_path"]
    assert folder.startswith(str(small_home))
    check(made.run(inputs()), inputs())
    made.close()
    # It would not keep to the types of a graph in half precision.
    with pytest.raises(BackendError, match="may compute the float32 parts of a graph in fp16 too"):
        CudaSession(in_half(10), "cpu", tensorrt=True, allow_cpu=False)


# --- whether it can be used -----------------------------------------------------------------------


@pytest.fixture
def gpu_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package onnxruntime-gpu in the place of the one for the CPU."""
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0")


def test_the_driver_is_asked_before_onnxruntime_is_loaded(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    cuda.driver = 0
    assert backend.missing() == "no NVIDIA driver is installed"
    cuda.driver = 13000
    assert "onnxruntime" in str(backend.missing())


def test_the_package_for_the_cpu_is_told_from_the_one_for_the_gpu(cuda: Any) -> None:
    assert "the one for the CPU; remove it with `pip uninstall onnxruntime`" in str(backend.missing())


def test_the_table_of_backends_has_the_same_line_to_install(cuda: Any) -> None:
    assert BACKENDS["cuda"].install == backend.INSTALL


@pytest.mark.skipif(sys.platform != "linux", reason="libraries are looked for by their names on Linux")
def test_a_missing_library_is_named(cuda: Any, gpu_package: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(absent: str) -> Callable[[str], None]:
        def cdll(name: str) -> None:
            if name == absent:
                raise OSError(f"{name}: cannot open shared object file")

        return cdll

    monkeypatch.setattr("ctypes.CDLL", load("libcublasLt.so.13"))
    assert "the package onnxruntime-gpu needs libcublasLt.so.13, which cannot be loaded" in str(
        backend.missing()
    )
    monkeypatch.setattr("ctypes.CDLL", load("nothing"))
    assert backend.missing() is None
