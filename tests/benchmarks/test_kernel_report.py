"""The table of what kernels ask of a GPU: how it is read, and that the one in the repository is of these kernels."""

import json
import re
from pathlib import Path

import pytest
from reenact.benchmarks import kernel_report
from reenact.benchmarks.kernel_report import CSRC, Resources, measure, parsed, table
from reenact.errors import ReenactError

LOG = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'warp' for 'sm_75'
ptxas info    : Function properties for warp
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 51 registers, used 0 barriers, 808 bytes cmem[0]
ptxas info    : Compiling entry function 'paint' for 'sm_120'
ptxas info    : Function properties for paint
    48 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""


def test_registers_and_spills_are_read_from_the_compilers_log() -> None:
    rows = parsed("x.cu", LOG)
    assert rows == [Resources("x.cu", "warp", 75, 51, 0), Resources("x.cu", "paint", 120, 255, 20)]
    text = table(rows, "nvcc 13.0")
    assert "| x.cu | paint | - | - | - | - | - | - | 255 | 20 |" in text
    assert "| x.cu | warp | 51 | - | - | - | - | - | - | 0 |" in text


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReenactError, match="nvcc cannot be started"):
        measure(tmp_path / "x.cu")


def test_the_table_in_the_repository_is_of_these_kernels() -> None:
    stored = Path(kernel_report.__file__).parent / "results/kernel_report.json"
    rows = [Resources(**row) for row in json.loads(stored.read_text())]
    found = {
        (file.name, kernel)
        for file in CSRC.glob("*.cu")
        for kernel in re.findall(r"^KERNEL\((\w+),", file.read_text(), re.MULTILINE)
    }
    assert {(row.file, row.kernel) for row in rows} == found
    assert {row.spilled for row in rows} == {0}
