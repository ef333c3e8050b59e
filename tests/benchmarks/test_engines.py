"""The benchmark of engines: it really runs each contender, and its figures mean what the table says."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxscript", reason="graphs are exported with onnxscript, which is not installed")

from reenact.benchmarks import engines
from reenact.benchmarks.engines import CONTENDERS, Contender, Row, markdown, measure
from reenact.benchmarks.published import SYSTEMS
from reenact.errors import ReenactError
from reenact.runtime.engine import BACKENDS

EAGER, PLAIN, OURS, BF16 = CONTENDERS[0], CONTENDERS[1], CONTENDERS[3], CONTENDERS[5]


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    contenders = (EAGER, OURS, BF16)
    made, weights, work = measure(
        "face2face_rho", None, 64, rounds=1, calls=2, threads=1, contenders=contenders
    )
    assert 90e6 < work < 150e6, "about a 64th of the 6.5 thousand million of a frame of 512"
    assert weights == "made by rule, not trained"
    assert [row.contender for row in made] == [contender.name for contender in contenders]
    return {row.contender: row for row in made}


def test_contenders_are_timed_and_compared_with_pytorch(rows: dict[str, Row]) -> None:
    eager, ours = rows[EAGER.name], rows[OURS.name]
    assert eager.p50_ms
    assert ours.p50_ms
    assert (eager.times_eager, eager.psnr_db) == (1.0, None)
    assert ours.times_eager == pytest.approx(eager.p50_ms / ours.p50_ms)
    assert len(ours.rounds_ms) == 1


def test_our_graph_makes_the_published_picture(rows: dict[str, Row]) -> None:
    assert (rows[OURS.name].psnr_db or 0) > 60


def test_figures_are_medians_over_all_calls_and_times_are_how_much_faster() -> None:
    black, grey = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 16, np.uint8)
    times = {EAGER: [[60.0, 50.0], [40.0]], PLAIN: [[20.0], [30.0, 25.0]], OURS: [[10.0, 10.0], [90.0]]}
    pictures = {EAGER: black, PLAIN: black, OURS: grey}
    eager, plain, ours, bf16 = engines._rows(
        512, (EAGER, PLAIN, OURS, BF16), times, pictures, {BF16: "not today"}
    )
    assert (eager.p50_ms, eager.times_eager, eager.times_plain, eager.fps) == (50.0, 1.0, None, 20.0)
    assert (plain.p50_ms, plain.times_eager, plain.times_plain, plain.psnr_db) == (25.0, 2.0, 1.0, 99.0)
    assert (ours.p50_ms, ours.times_eager, ours.times_plain, ours.rounds_ms) == (10.0, 5.0, 2.5, (10.0, 90.0))
    assert ours.psnr_db == pytest.approx(20 * np.log10(255 / 16))
    assert bf16 == Row(512, BF16.name, note="not today")


def test_bf16_runs_where_the_cpu_has_it_and_is_told_where_not(rows: dict[str, Row]) -> None:
    row = rows[BF16.name]
    if BACKENDS["openvino"].best_precision() == "bf16":
        assert 25 < (row.psnr_db or 0) < 70
    else:
        assert (row.p50_ms, row.note) == (None, "no bf16 on this CPU")


def test_the_table_has_a_row_a_contender_and_as_many_cells_as_columns(rows: dict[str, Row]) -> None:
    table = markdown(list(rows.values()), "a machine", "some weights")
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    assert "Machine: a machine. Weights: some weights." in table
    told = Row(512, "X", p50_ms=20.0, times_eager=3.0, times_plain=1.5, fps=50.0, psnr_db=44.04)
    assert "| 512 | X | 20.0 | 3.00 | 1.50 | 50.0 | 44.0 |" in markdown([told], "", "")
    assert "| 512 | Y | it cannot | - | - | - | - |" in markdown([Row(512, "Y", note="it cannot")], "", "")


def test_a_contender_that_fails_is_an_error_with_its_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = engines._Place("face2face_rho", None, 64, tmp_path, 1)
    broken = Contender("broken", "ours", "cpu", "fp32")
    with (
        engines._Racer(broken, place) as racer,
        pytest.raises(ReenactError, match="broken: its process ended early"),
    ):
        racer.output()
    assert "ours.onnx: cannot be read" in capfd.readouterr().err


def test_a_size_that_the_published_networks_cannot_run_is_an_error() -> None:
    with pytest.raises(ReenactError, match="--sizes 80: the published networks need a multiple of 64"):
        SYSTEMS["face2face_rho"](None, 80)
