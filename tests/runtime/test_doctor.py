"""What the doctor finds: honest about every backend, and without touching anything."""

import platform
from pathlib import Path

import numpy
import pytest
from reenact.runtime import doctor
from reenact.runtime.backends import openvino as openvino_backend
from reenact.runtime.engine import BACKENDS, load


def test_every_backend_is_reported_with_what_keeps_it(small_home: Path) -> None:
    report = doctor.report()
    found = {backend.name: backend for backend in report.backends}
    assert list(found) == list(BACKENDS)
    for name in ("tensorrt", "cuda", "torch"):
        assert (found[name].available, found[name].reason) == (False, "not available in this version")
        assert found[name].install is None
    for name in ("openvino", "cpu"):
        assert (found[name].available, found[name].reason) == (True, None)
        assert (found[name].install or "").startswith("pip install ")


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
