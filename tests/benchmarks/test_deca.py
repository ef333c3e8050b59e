"""The measurement of DECA: every step runs, memory is read, the table has a row a step."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from reenact.benchmarks.deca import Measured, markdown, memory_over, steps_of_graphs, turns


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
        Measured("points", "eager", 13.191, 140),
        Measured("points", "graphs", 0.25, 140),
        Measured("crop", "graphs", 1.0, 35),
    ]
    lines = markdown(rows, "a machine", (100.0, 101.5), 1000).splitlines()
    assert lines[0] == "| step | eager | graphs | goal |"
    assert lines[2] == "| points | 13.19 | 0.25 | 0.5 |"
    assert lines[3] == "| crop | - | 1.00 |  |"
    assert "medians of 35 to 140 calls that took turns" in lines[-2]
    assert "after 1000 frames 102 MB (+1.5 MB)" in lines[-1]


def test_calls_take_turns_one_by_one_and_every_step_has_its_share():
    """Or a machine that is busy for a moment makes `encode` slower than `encode + decode`."""
    steps = {
        "a": ["encode", "encode + decode", "points", "grid"],
        "b": ["encode", "encode + decode", "points"],
    }
    calls = list(turns(steps, 2))
    counts = Counter(calls)
    assert counts == {
        **{(way, step): 10 for way in "ab" for step in ("encode", "encode + decode")},
        **{(way, "points"): 40 for way in "ab"},
        ("a", "grid"): 6,
    }
    assert all(first != second for first, second in pairwise(calls) if first[1] != "points")
    of_encode = [n for n, call in enumerate(calls) if call == ("a", "encode")]
    of_both = [n for n, call in enumerate(calls) if call == ("a", "encode + decode")]
    assert max(abs(a - b) for a, b in zip(of_encode, of_both, strict=True)) <= 4
    assert max(np.diff(of_encode)) < 2.5 * len(calls) / len(of_encode)
    followers = {calls[n + 1] for n in of_encode if n + 1 < len(calls)}
    assert len(followers) > 1
