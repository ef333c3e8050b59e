"""What the doctor finds: honest about every backend, and without touching anything."""

import platform
import sys
from pathlib import Path

import numpy
import pytest
from reenact.kernels import cuda
from reenact.runtime import doctor
from reenact.runtime.backends import openvino as openvino_backend
from reenact.runtime.engine import BACKENDS, load, no_gpu


def test_every_backend_is_reported_with_what_keeps_it(small_home: Path) -> None:
    report = doctor.report()
    found = {backend.name: backend for backend in report.backends}
    assert list(found) == list(BACKENDS)
    for backend in report.backends:
        assert backend.available == (backend.reason is None)
        assert (backend.install or "").startswith("pip install ")
    assert (found["openvino"].available, found["cpu"].available) == (True, True)
    if no_gpu():
        assert found["tensorrt"].reason == no_gpu()


def test_the_reported_choice_is_what_loading_takes(small_home: Path, scaling_graph) -> None:
    report = doctor.report()
    with load(scaling_graph()) as engine:
        assert (report.backend, report.precision) == (engine.backend, engine.precision)


def test_a_missing_backend_is_reported_and_the_next_is_chosen(
    small_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_backend, "find_spec", lambda _: None)
    report = doctor.report()
    found = next(backend for backend in report.backends if backend.name == "openvino")
    assert (found.available, found.reason) == (False, "the package openvino is not installed")
    assert (report.backend, report.precision) == ("cpu", "fp32")


def test_facts_are_those_of_this_machine_and_nothing_is_fetched(small_home: Path) -> None:
    report = doctor.report()
    assert platform.python_version() in report.python
    assert report.packages["numpy"] == numpy.__version__
    assert report.packages["av"] is not None
    assert report.cores >= 1
    assert int(report.libav["libavcodec"].split(".")[0]) >= 59
    assert report.home == small_home
    assert [(model.present, model.verified) for model in report.models] == [(False, False)] * 5
    assert not (small_home / "models").exists()


def test_the_gpu_and_what_compiles_for_it_are_reported(small_home: Path) -> None:
    gpu = doctor.report().gpu
    assert (gpu.device is None) == (gpu.reason is not None)
    assert gpu.nvrtc == cuda.nvrtc_version()
    assert gpu.kernels == cuda.missing()
    assert "CPUExecutionProvider" in gpu.providers


def test_what_is_missing_for_kernels_comes_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    gpu = doctor.report().gpu
    assert gpu.nvrtc is None
    assert 'pip install ".[gpu]"' in (gpu.kernels or "")
