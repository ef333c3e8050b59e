"""The thin layer over CUDA: what it asks, in which order, and what it says when something fails."""

import inspect
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reenact.errors import BackendError
from reenact.runtime.backends import device as gpu
from reenact.runtime.backends.device import Event, Memory, Pinned, Stream


def test_the_signatures_are_those_of_the_real_bindings() -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    api = json.loads(Path(__file__).with_name("cuda_runtime_api.json").read_text())
    found = {name: list(inspect.signature(getattr(real, name)).parameters) for name in api["functions"]}
    assert found == api["functions"]
    for enum, members in api["enums"].items():
        assert {name: int(getattr(getattr(real, enum), name)) for name in members} == members
    assert {name: int(getattr(real, name)) for name in api["constants"]} == api["constants"]


def test_the_real_bindings_say_no_without_a_driver() -> None:
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    if real.cudaGetDeviceCount()[1]:
        pytest.skip("this machine has a GPU")
    assert gpu.missing() in ("no NVIDIA driver is installed", "CUDA finds no GPU")
    with pytest.raises(BackendError, match="no GPU can be used"):
        gpu.device()


def test_the_device_is_described_as_engines_are_filed(cuda: Any) -> None:
    cuda.name = b"NVIDIA GeForce RTX 4090\0\0\0"
    assert gpu.missing() is None
    assert gpu.device() == gpu.Device("NVIDIA GeForce RTX 4090", (8, 9), "13.0", "13.0")
    cuda.driver = 12080
    assert gpu.device().driver == "12.8"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"driver": 0}, "no NVIDIA driver is installed"),
        ({"devices": 0}, r"CUDA finds no GPU \(no CUDA-capable device is detected, error 100\)"),
    ],
)
def test_why_there_is_no_gpu_is_told_in_one_line(cuda: Any, changes: dict[str, int], said: str) -> None:
    vars(cuda).update(changes)
    with pytest.raises(BackendError, match=f"no GPU can be used: {said}"):
        gpu.device()
    assert cuda.calls[0] == "cudaGetDeviceCount"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert "package cuda-python cannot be imported" in str(gpu.missing())


def test_bytes_go_up_across_and_down_in_the_streams_order(cuda: Any) -> None:
    with Stream() as stream, Event() as done, Pinned(8) as host, Memory(8) as one, Memory(8) as other:
        host.array()[:] = np.arange(8)
        stream.upload(one.pointer, host.pointer, 8)
        stream.copy(other.pointer + 4, one.pointer, 4)
        stream.download(host.pointer, other.pointer + 4, 4)
        done.record(stream)
        assert cuda.copies == []
        done.wait()
        assert host.array().tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
        assert cuda.copies == [("HostToDevice", 8), ("DeviceToDevice", 4), ("DeviceToHost", 4)]


def test_a_captured_graph_runs_at_each_launch_and_not_before(cuda: Any) -> None:
    with Stream() as stream, Pinned(4) as host, Memory(4) as block:
        graph = stream.capture(lambda: stream.upload(block.pointer, host.pointer, 4))
        stream.synchronize()
        assert cuda.copies == []
        with graph:
            graph.launch(stream)
            graph.launch(stream)
            stream.synchronize()
        assert cuda.copies == [("HostToDevice", 4)] * 2
        assert cuda.graphs == {}


def test_work_that_fails_while_captured_leaves_a_usable_stream(cuda: Any) -> None:
    def work() -> None:
        raise ValueError("not this")

    with Stream() as stream, Pinned(4) as host, Memory(4) as block:
        with pytest.raises(ValueError, match="not this"):
            stream.capture(work)
        with pytest.raises(BackendError, match=r"cudaMalloc .* failed on the GPU: .*, error 900"):
            stream.capture(lambda: Memory(4).close())
        with pytest.raises(BackendError, match=r"cudaStreamEndCapture failed on the GPU: .*, error 901"):
            stream.capture(lambda: setattr(cuda.streams[stream.handle], "broken", True))
        stream.upload(block.pointer, host.pointer, 4)
        stream.synchronize()
    assert cuda.copies == [("HostToDevice", 4)]


def test_full_memory_says_how_much_was_asked_for_and_what_helps(cuda: Any) -> None:
    cuda.room = 1 << 20
    with pytest.raises(
        BackendError, match=r"of 2\.0 MiB failed.*out of memory, error 2; close other programs"
    ):
        Memory(2 << 20)


def test_cudas_own_text_comes_with_an_error(cuda: Any) -> None:
    with Stream() as stream:
        cuda.fail("cudaStreamSynchronize", "cudaErrorIllegalAddress")
        with pytest.raises(BackendError, match="an illegal memory access was encountered, error 700"):
            stream.synchronize()


def test_closing_twice_does_nothing_and_a_closed_thing_says_so(cuda: Any) -> None:
    block = Memory(4)
    block.close()
    block.close()
    assert cuda.calls.count("cudaFree") == 1
    with pytest.raises(BackendError, match="Memory of the GPU has been closed"):
        _ = block.pointer


def test_an_error_while_closing_is_logged_and_hides_no_other(
    cuda: Any, caplog: pytest.LogCaptureFixture
) -> None:
    event = Event()
    cuda.fail("cudaEventDestroy", "cudaErrorUnknown")
    with caplog.at_level(logging.WARNING):
        event.close()
    assert "cudaEventDestroy failed" in caplog.text
    cuda.events.clear()
