"""The One-Euro filter: calm on noise, quick on movement."""

import numpy as np
import pytest
from reenact.runtime.tracking.smoothing import OneEuro


def _filtered(values, rate=30.0, **options):
    one_euro = OneEuro(**options)
    return np.array([one_euro(np.array([v], np.float32), i / rate)[0] for i, v in enumerate(values)])


def test_noise_on_a_still_value_is_damped():
    noise = np.random.default_rng(0).normal(0, 0.01, 300)
    assert _filtered(noise, min_cutoff=1.0, beta=0.5)[30:].std() < 0.5 * noise[30:].std()


def test_a_fast_movement_is_followed_more_closely_with_more_beta():
    ramp = np.concatenate([np.zeros(10), np.linspace(0, 1, 10), np.ones(5)])
    calm = _filtered(ramp, min_cutoff=1.0, beta=0.0)
    quick = _filtered(ramp, min_cutoff=1.0, beta=5.0)
    assert abs(quick[19] - 1) < 0.15 < abs(calm[19] - 1)


def test_the_result_does_not_depend_on_the_frame_rate_by_much():
    slow = _filtered(np.linspace(0, 1, 31), rate=30, min_cutoff=1.0, beta=1.0)
    fast = _filtered(np.linspace(0, 1, 121), rate=120, min_cutoff=1.0, beta=1.0)
    assert slow[-1] == pytest.approx(fast[-1], abs=0.02)


def test_time_that_stands_still_goes_back_or_jumps_starts_afresh():
    one_euro = OneEuro(min_cutoff=0.1, beta=0.0)
    one_euro(np.zeros(1, np.float32), 5.0)
    for time in (5.0, 1.0, 100.0):
        assert one_euro(np.ones(1, np.float32), time)[0] == 1.0
        one_euro(np.zeros(1, np.float32), time)
