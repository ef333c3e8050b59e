"""The measurement of DECA: every step runs, memory is read, the table has a row a step."""

import pytest
from reenact.benchmarks.deca import Measured, markdown, memory_over, steps_of_graphs


def test_every_step_of_the_runtime_can_be_timed(deca_export):
    steps = steps_of_graphs(deca_export.folder, "cpu", "fp32")
    assert set(steps) > {"encode", "decode", "encode + decode", "points", "detail", "grid"}
    for step in steps.values():
        step()


@pytest.mark.skipif(
    "not __import__('pathlib').Path('/proc/self/statm').exists()", reason="memory is read from /proc"
)
def test_memory_is_that_of_the_first_frames_and_of_the_end(deca_export):
    settled, at_end = memory_over(deca_export.folder, "cpu", 400)
    assert 50 < settled < 20_000
    assert abs(at_end - settled) < 0.1 * 300  # megabytes a frame


def test_the_table_has_a_row_a_step_and_a_column_a_way():
    rows = [
        Measured("points", "eager", 13.191),
        Measured("points", "graphs", 0.25),
        Measured("crop", "graphs", 1.0),
    ]
    lines = markdown(rows, "a machine", (100.0, 101.5), 1000).splitlines()
    assert lines[0] == "| step | eager | graphs | goal |"
    assert lines[2] == "| points | 13.19 | 0.25 | 0.5 |"
    assert lines[3] == "| crop | - | 1.00 |  |"
    assert "after 1000 frames 102 MB (+1.5 MB)" in lines[-1]
