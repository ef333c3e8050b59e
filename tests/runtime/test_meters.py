"""Figures of the last seconds: right, and of bounded size."""

import threading

import pytest
from reenact.runtime.meters import MOST_VALUES, Drops, Rate, Recent


def test_a_rate_counts_the_last_seconds_only():
    rate = Rate(2.0)
    for index in range(100):
        rate.add(index * 0.02)  # 50 a second
    for index in range(40):
        rate.add(2.0 + index * 0.1)  # then 10 a second
    assert rate.of(5.9) == pytest.approx(10.0, rel=0.01)
    assert rate.of(60.0) == 0.0


def test_percentiles_are_those_of_the_last_seconds_in_milliseconds():
    recent = Recent(10.0)
    recent.add(0.0, 5.0)  # long ago
    for index in range(101):
        recent.add(20.0 + index * 0.01, index / 1000)
    found = recent.percentiles(21.0)
    assert found is not None
    assert (found.p50, found.p95, found.p99) == (50.0, 95.0, 99.0)
    assert recent.mean(21.0) == pytest.approx(0.05)
    assert recent.percentiles(100.0) is None
    assert recent.mean(100.0) is None


def test_nothing_grows_without_end():
    recent, rate = Recent(1e9), Rate(1e9)
    for index in range(3 * MOST_VALUES):
        recent.add(index, 1.0)
        rate.add(index)
    assert len(recent.values(1.0)) == MOST_VALUES
    assert rate.of(3 * MOST_VALUES) == pytest.approx(1.0)


def test_drops_of_several_threads_are_all_counted():
    drops = Drops()

    def add():
        for _ in range(2000):
            drops.add("busy")

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drops.add("late", 3)
    assert drops.counts() == {"busy": 8000, "late": 3}
