"""What the soak test calls a fault; and three minutes of it where slow tests are asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
from reenact.benchmarks import soak
from reenact.benchmarks.soak import Minute, faults
from reenact.runtime.engines import Engines

GOOD = Minute(
    pictures=1800,
    latency_p50_ms=20.0,
    latency_p95_ms=40.0,
    longest_gap_ms=90.0,
    memory_mb=400.0,
    step=0,
    others_percent=10.0,
)


def test_minutes_that_are_all_alike_are_no_fault():
    assert faults([GOOD] * 5) == []


def test_the_first_minute_may_be_slow():
    first = replace(GOOD, latency_p95_ms=300.0, longest_gap_ms=900.0)
    assert faults([first, GOOD, GOOD]) == []


@pytest.mark.parametrize(
    ("last", "fault"),
    [
        ({"memory_mb": 421.0}, "memory has grown by 21.0 MB since the first minute"),
        (
            {"latency_p95_ms": 50.0, "others_percent": 60.0},
            "p95 of latency is 1.25 times that of the second minute; other programs took 60 % of the processor's "
            "time, 10 % then",
        ),
        ({"longest_gap_ms": 260.0}, "two pictures came 260 ms apart"),
    ],
)
def test_growth_drift_and_stalls_are_faults(last, fault):
    assert faults([GOOD, GOOD, GOOD, replace(GOOD, **last)]) == [fault]


def test_memory_that_comes_back_has_grown_all_the_same():
    assert faults([GOOD, replace(GOOD, memory_mb=430.0), GOOD]) != []


def test_one_minute_tells_nothing():
    assert faults([GOOD]) == ["two whole minutes are the least that tells anything"]


def test_a_short_soak_measures_every_minute(models_home, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(soak, "CLIP_SECONDS", 1.5)
    with Engines() as engines:
        clip = tmp_path / "head.mp4"
        soak._film_moving_head(engines, clip)
        minutes = soak.run(engines, clip, 2, 128, seconds=1.2)
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "minute 1",
        "minute 2",
        "dropped",
    ]
    assert minutes[1].pictures > 3
    assert 0 < minutes[1].latency_p50_ms <= minutes[1].latency_p95_ms
    assert minutes[1].longest_gap_ms >= 1000 / 31
    assert 50 < minutes[1].memory_mb < 3000
    assert 0 <= minutes[1].others_percent <= 100


@pytest.mark.slow
def test_three_minutes_leave_a_session_as_it_is(
    request: pytest.FixtureRequest, models_home: Path, tmp_path: Path
) -> None:
    if "slow" not in request.config.getoption("markexpr"):
        pytest.skip("takes three minutes; run with -m slow")
    with Engines() as engines:
        clip = tmp_path / "head.mp4"
        soak._film_moving_head(engines, clip)
        assert faults(soak.run(engines, clip, 3, 256)) == []
