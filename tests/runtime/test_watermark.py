"""The mark is found after what happens to pictures, nowhere else, and does not show."""

import hashlib
import time

import cv2
import numpy as np
import pytest
from reenact.benchmarks.damage import cropped, h264, jpeg, psnr, random_picture, resized, synthetic
from reenact.kernels.watermark import add_pattern_reference, sample_spectrum
from reenact.runtime import assets, watermark
from reenact.runtime.media.images import read_image
from reenact.runtime.watermark import MOST_CHANCE, marked, read_mark


@pytest.fixture(scope="module")
def portraits():
    pictures = [read_image(assets.portrait(name)) for name in ("eileen_collins", "grace_hopper")]
    return [np.asarray(cv2.resize(picture, (512, 512), interpolation=cv2.INTER_AREA)) for picture in pictures]


@pytest.fixture(scope="module")
def clip(portraits):
    """Twelve frames of a picture that drifts to one side, as before a camera that turns."""
    large = cv2.resize(portraits[0], (540, 540), interpolation=cv2.INTER_CUBIC)
    return [np.ascontiguousarray(large[2 * n : 2 * n + 512, n : n + 512]) for n in range(12)]


def test_the_mark_does_not_show(portraits):
    for picture in [*portraits, np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)]:
        result = marked(picture)
        assert psnr(picture, result) > 42.3
        assert np.abs(result.astype(int) - picture).max() <= 5


def test_marking_takes_a_fraction_of_what_blurring_the_same_frame_takes(portraits):
    """The goal is 1 ms for 512x512, about what this blur takes; half of it is asked for here.

    By turns, in time of this thread alone and the quickest of many rounds: so others may use the machine.
    """
    frame = np.ascontiguousarray(portraits[0])
    out, rows = np.empty_like(frame), watermark._rows(512)
    works = {
        "mark": lambda: marked(frame),
        "blur": lambda: cv2.GaussianBlur(frame, (0, 0), 2),
        "slow": lambda: add_pattern_reference(frame, rows, watermark.STRENGTH, out),
    }
    before, quickest = cv2.getNumThreads(), dict.fromkeys(works, float("inf"))
    cv2.setNumThreads(1)
    try:
        for number in range(40):
            for name, work in works.items():
                if name == "slow" and number > 0:
                    continue
                began = time.thread_time()
                work()
                quickest[name] = min(quickest[name], time.thread_time() - began)
    finally:
        cv2.setNumThreads(before)
    assert quickest["mark"] < quickest["blur"] / 2
    assert quickest["slow"] > quickest["blur"] / 2  # a kernel that is not compiled would fail


def test_the_picture_that_is_marked_stays_as_it_is(portraits):
    before = portraits[0].copy()
    result = marked(portraits[0])
    assert np.array_equal(portraits[0], before)
    assert not np.shares_memory(result, portraits[0])
    assert not np.array_equal(result, before)


@pytest.mark.parametrize(
    ("damage", "scale"),
    [
        (lambda p: p, 1.0),
        (lambda p: jpeg(p, 60), 1.0),
        (lambda p: resized(p, 0.5), 0.5),
        (lambda p: cropped(p, left=0.1), 1.0),
        (lambda p: cropped(p, top=0.1), 1.0),
        (lambda p: cropped(p, right=0.1, bottom=0.1), 1.0),
        (lambda p: resized(p, 0.37), 0.37),
        (lambda p: resized(p, 1.9), 1.9),
        (lambda p: jpeg(resized(cropped(p, 0.1, 0.1), 0.5), 60), 0.5),
        (lambda p: np.clip(p * 0.7 + 30, 0, 255).astype(np.uint8), 1.0),
        (lambda p: cv2.cvtColor(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), 1.0),
    ],
)
def test_the_mark_survives(portraits, damage, scale):
    for picture in portraits:
        reading = read_mark([damage(marked(picture))])
        assert reading.found
        assert reading.score > reading.needed
        assert reading.scale == pytest.approx(scale, rel=0.01)


@pytest.mark.parametrize(
    "damage",
    [
        lambda frames: h264(frames, 28),
        lambda frames: h264([resized(f, 0.5) for f in frames], 28),
        lambda frames: [resized(cropped(f, 0.1, 0.1), 0.5) for f in h264(frames, 28)],
    ],
)
def test_the_mark_survives_in_a_movie(clip, damage):
    reading = read_mark(damage([marked(frame) for frame in clip]))
    assert reading.found
    assert reading.frames == len(clip)


def test_more_frames_give_a_clearer_answer(clip):
    seen = [jpeg(resized(marked(frame), 0.5), 30) for frame in clip]
    assert read_mark(seen).score > 1.15 * read_mark(seen[:1]).score


def test_frames_in_which_the_mark_moved_do_not_hide_it_where_it_is_clear(clip):
    first = marked(clip[0])
    taken_along = [first] + [np.roll(first, (7 * n, 5 * n), axis=(0, 1)) for n in range(1, 12)]
    reading = read_mark(taken_along)
    assert reading.score > 0.95 * read_mark([first]).score


@pytest.mark.parametrize("size", [(512, 200), (200, 512), (300, 301), (1200, 1500)])
def test_every_shape_of_picture_can_carry_the_mark(portraits, size):
    picture = np.asarray(cv2.resize(portraits[1], size, interpolation=cv2.INTER_CUBIC))
    assert read_mark([marked(picture)]).found
    assert not read_mark([picture]).found


def test_pictures_without_the_mark_are_not_taken_for_marked_ones(portraits):
    random = np.random.default_rng(5)
    pictures = [random_picture(portraits, random) for _ in range(30)] + [synthetic(random) for _ in range(30)]
    readings = [read_mark([picture]) for picture in pictures]
    assert not any(reading.found for reading in readings)
    assert max(reading.score for reading in readings) < 6.8
    assert np.median([reading.score for reading in readings]) > 3


def test_another_pattern_of_the_same_kind_is_not_the_mark(portraits, monkeypatch):
    result = {}
    for key in (b"one", b"two"):
        monkeypatch.setattr(watermark, "_KEY", key)
        for cached in (watermark._tile, watermark._waves, watermark._rows):
            cached.cache_clear()
        result[key] = marked(portraits[0])
    assert read_mark([result[b"two"]]).found
    assert not read_mark([result[b"one"]]).found
    monkeypatch.undo()
    for cached in (watermark._tile, watermark._waves, watermark._rows):
        cached.cache_clear()
    assert not read_mark([result[b"two"]]).found


@pytest.mark.parametrize(
    "picture",
    [np.full((200, 200, 3), 90, np.uint8), np.zeros((1, 1, 3), np.uint8), np.zeros((20, 600, 3), np.uint8)],
)
def test_nothing_to_look_at_is_not_found(picture):
    reading = read_mark([picture])
    assert (reading.found, reading.score, reading.chance) == (False, 0.0, 1.0)
    assert marked(picture).shape == picture.shape
    assert not read_mark([]).found


def test_the_needed_score_is_where_the_bound_of_chance_is_reached():
    for tests in (1, 10**6, 10**8):
        needed = watermark._needed(tests)
        assert watermark._chance(needed + 1e-6, tests) < MOST_CHANCE < watermark._chance(needed - 1e-6, tests)
    assert watermark._chance(8.0, 10**6) == pytest.approx(1e6 * np.exp(-32.0), rel=1e-9)
    assert watermark._chance(-20.0, 1) == 1.0


def test_every_scale_and_offset_that_is_tried_makes_a_mark_harder_to_believe(portraits):
    small, large = (read_mark([resized(portraits[0], factor)]) for factor in (0.25, 2.0))
    assert small.needed == pytest.approx(7.2, abs=0.1)
    assert large.needed > small.needed + 0.2
    assert read_mark([portraits[0]] * 9).needed > read_mark([portraits[0]]).needed


def test_scores_of_chance_have_the_spread_that_the_bound_counts_on(portraits):
    """One offset instead of all: over many pictures a score must have mean 0 and variance 1."""
    random = np.random.default_rng(6)
    scores = []
    for _ in range(100):
        spectrum, size = watermark._spectrum(watermark._without_content(random_picture(portraits, random)))
        waves = watermark._waves()
        y, x = ((periods / 127).astype(np.float32) for periods in (waves.y, waves.x))
        values = sample_spectrum(spectrum, size, y, x)
        weights = np.abs(waves.factor) * np.sqrt(np.abs(values))
        agreement = np.real(values * waves.factor / np.sqrt(np.abs(values))).sum()
        scores.append(agreement / np.sqrt((weights**2).sum() / 2))
    assert abs(np.mean(scores)) < 0.3
    assert np.std(scores) == pytest.approx(1.0, abs=0.2)


def test_the_pattern_is_the_one_that_is_out_in_the_world():
    tile = watermark._tile()
    assert tile.shape == (127, 127)
    assert hashlib.shake_256(watermark._KEY).digest(4).hex() == "60218ef7"
    # to one step, in case another FFT rounds otherwise
    np.testing.assert_allclose(tile[0, :8], [81, 26, -38, -70, -52, -4, 35, 41], atol=1)
    np.testing.assert_allclose(tile[100, 60:68], [52, 4, -48, -77, -69, -39, -13, -16], atol=1)
