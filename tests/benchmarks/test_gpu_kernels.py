"""The scripts for a GPU, tried on the CPU: every kernel is called as it will be there."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from reenact.benchmarks.gpu_kernels import Bench
from reenact.benchmarks.gpu_timing import Row, median_ms, row, table
from reenact.kernels import host


def test_every_kernel_is_called_and_compared() -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed; it compiles the device code for the CPU")
    rows = list(Bench("cpu", host.Launcher(), shrink=64).rows())
    names = " ".join(entry.name for entry in rows)
    for kernel in (
        "warp,",
        "warp_pyramid",
        "sparse_motions",
        "combine_motions",
        "crop",
        "paste",
        "mesh_warp",
        "draw",
        "rasterize",
    ):
        assert kernel in names
    assert all(entry.ms > 0 for entry in rows)
    assert all((entry.times is None) == (not entry.baseline) for entry in rows)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a GPU that is not there was given, in order."""
    given: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            given.append("mark")

        def synchronize(self) -> None:
            given.append("wait")

        def elapsed_time(self, end: "Event") -> float:
            return 2.0

    made = SimpleNamespace(
        is_available=lambda: True,
        synchronize=lambda: None,
        Event=Event,
        _sleep=lambda cycles: given.append("busy" if cycles > 1_000_000 else "hardly busy"),
    )
    monkeypatch.setattr(torch, "cuda", made)
    return given


def test_kernels_are_timed_behind_a_busy_gpu_so_that_python_does_not_count(queue: list[str]) -> None:
    entry = row(
        "a",
        lambda: queue.append("a"),
        moved=8_000_000,
        copied=8.0,
        runs=1,
        baseline="b",
        instead=lambda: queue.append("b"),
    )
    timed = [
        *(["a"] * 5),
        "busy",
        "mark",
        "a",
        "mark",
        "wait",
        *(["b"] * 5),
        "busy",
        "mark",
        "b",
        "mark",
        "wait",
    ]
    assert queue == timed
    assert (entry.ms, entry.gigabytes_a_second, entry.of_copy, entry.times) == (2.0, 4.0, 0.5, 1.0)
    queue.clear()
    median_ms(lambda: queue.append("a"), warm=0, runs=1)
    assert queue == ["mark", "a", "mark", "wait"]


def test_the_table_says_what_is_not_known() -> None:
    rows = [Row("a", 0.5, 1234.0, 0.7, "b", 1.5), Row("c", 2.0, None, None, "", None)]
    assert table(rows).splitlines()[2:] == [
        "| a | 0.5000 | 1234 | 70% | b | 1.50 |",
        "| c | 2.0000 | - | - | - | - |",
    ]
