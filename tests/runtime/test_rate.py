"""Even frame rates: what is shown when, and what is dropped."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from reenact.runtime.media.frame import Frame
from reenact.runtime.rate import at_rate, rate_of


def shown(times_ms, fps):
    frames = [Frame(np.full((2, 2, 3), i, np.uint8), ms, Fraction(1, 1000)) for i, ms in enumerate(times_ms)]
    drops: Counter[str] = Counter()
    out = list(at_rate(frames, Fraction(fps), drops))
    assert [f.pts for f in out] == list(range(len(out)))
    assert {f.time_base for f in out} <= {1 / Fraction(fps)}
    return [int(f.image[0, 0, 0]) for f in out], drops["frame rate"]


def test_a_slower_rate_drops_frames_and_counts_them():
    assert shown(range(0, 1000, 100), 5) == ([0, 2, 4, 6, 8], 5)


def test_a_faster_rate_repeats_frames():
    assert shown([0, 100, 200], 20) == ([0, 0, 1, 1, 2, 2], 0)


def test_an_uneven_clip_becomes_even_at_the_right_times():
    assert shown([0, 10, 300, 400], 10) == ([0, 1, 1, 2, 3], 0)


def test_one_frame_stays_one_frame_and_none_stays_none():
    assert shown([0], 25) == ([0], 0)
    assert shown([], 25) == ([], 0)


@pytest.mark.parametrize(
    ("fps", "exact"),
    [
        (25.0, Fraction(25)),
        (24.0, Fraction(24)),
        (12.5, Fraction(25, 2)),
        (30000 / 1001, Fraction(30000, 1001)),
        (29.97003, Fraction(30000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (47.952, Fraction(48000, 1001)),
    ],
)
def test_rates_are_exact(fps, exact):
    assert rate_of(fps) == exact
