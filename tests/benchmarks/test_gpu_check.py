"""The script for a GPU's machine: what it does without one, and with packages missing."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from reenact.benchmarks import gpu_check
from reenact.benchmarks.gpu_graphs import Frame, table


def test_stand_ins_are_enough_for_the_device_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    environment = gpu_check.environment_in(tmp_path)
    assert environment["PYTHONPATH"].split(":")[0] == str(tmp_path / "plain")
    code = (
        "import sys\n"
        "for name in ('pydantic', 'av', 'typer', 'rich', 'tflite', 'openvino', 'onnxscript', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "import numba, platformdirs\n"
        "assert numba.njit(cache=True)(max) is max\n"
        "import reenact.benchmarks.gpu_kernels, reenact.benchmarks.gpu_graphs, reenact.kernels.pycuda\n"
        "print(numba.__file__, platformdirs.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(tmp_path)) == 2


def test_running_out_of_time_is_a_failure_that_keeps_what_was_said() -> None:
    code = "import time; print('began', flush=True); time.sleep(60)"
    done = gpu_check.run([sys.executable, "-c", code], {}, 1.0)
    assert done.returncode == 124
    assert "began" in done.stdout
    assert "out of time after 1 s" in done.stdout


def test_a_failed_measurement_is_reported_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    found = gpu_check.measured("kernels", ["reenact.no_such_module"], {}, tmp_path, 30)
    assert "No module named" in json.dumps(found["rows"])
    assert "failed" in found["table"]


def test_the_page_says_where_and_whether_tests_passed() -> None:
    report = {
        "date": "2020-01-01",
        "gpu": "G1",
        "versions": {"torch": "2", "cupy": None},
        "tests": {"summary": ["a: 3 passed"]},
    }
    assert gpu_check.page(report, ["t"]).splitlines() == [
        "2020-01-01, G1, driver -, torch 2.",
        "",
        "Tests: a: 3 passed.",
        "",
        "t",
    ]


def test_a_frame_that_failed_has_no_numbers() -> None:
    rows = [Frame(512, "a", 2.0, 2.5, 44.0), Frame(512, "b", 0.0, None, note="no room")]
    assert table(rows).splitlines()[2:] == [
        "| 512 | a | 2.000 | 500 | 2.500 | 0.500 | 44.0 | - |",
        "| 512 | b | - | - | - | - | - | no room |",
    ]
