"""The pattern and the spectrum's samples against their plain twins, and what the pattern does to a picture."""

import numpy as np
import pytest
from reenact.kernels.watermark import (
    PATTERN_RMS,
    Strength,
    add_pattern,
    add_pattern_reference,
    pattern_rows,
    sample_spectrum,
    sample_spectrum_reference,
)

STRENGTH = Strength(quiet=0.8, gain=0.5, busy=2.0)


def tile(side=31, seed=0):
    noise = np.random.default_rng(seed).normal(0, PATTERN_RMS, (side, side))
    return np.clip(np.rint(noise), -127, 127).astype(np.int8)


def added(image, strength=STRENGTH, add=add_pattern, pattern=None):
    out = np.empty_like(image)
    add(image, pattern_rows(tile() if pattern is None else pattern, image.shape[1]), strength, out)
    return out


@pytest.mark.parametrize(
    "size", [(1, 1), (2, 3), (16, 16), (17, 33), (64, 48), (5, 100), (100, 5), (200, 131)]
)
@pytest.mark.parametrize("contrast", [0, 2, 20, 256])
def test_the_pattern_agrees_with_its_twin(size, contrast):
    random = np.random.default_rng(size[0] + contrast)
    image = np.clip(random.integers(0, 256) + random.integers(-contrast, contrast + 1, (*size, 3)), 0, 255)
    image = image.astype(np.uint8)
    before = image.copy()
    assert np.array_equal(added(image), added(image, add=add_pattern_reference))
    assert np.array_equal(image, before)


def test_a_picture_can_take_its_own_place():
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    expected = added(image)
    add_pattern(image, pattern_rows(tile(), 70), STRENGTH, image)
    assert np.array_equal(image, expected)


def test_a_flat_picture_gets_the_quiet_strength_alike_in_all_colours_and_repeated():
    image = np.full((124, 124, 3), (60, 128, 200), np.uint8)
    change = added(image).astype(int) - image
    assert np.array_equal(change[..., 0], change[..., 1])
    assert np.array_equal(change[..., 0], change[..., 2])
    assert np.array_equal(change[:31, :31], change[93:, 62:93])
    expected = np.rint(tile() / PATTERN_RMS * 0.8)
    assert np.abs(change[:31, :31, 0] - expected).max() <= 1
    rounding = 12**-0.5
    assert change.std() == pytest.approx(np.hypot(tile().std() / PATTERN_RMS * 0.8, rounding), rel=0.02)


def test_texture_makes_the_pattern_stronger_up_to_the_busy_strength():
    random = np.random.default_rng(2)
    strengths = []
    for contrast in (0, 1, 3, 60):
        image = (128 + random.integers(-contrast, contrast + 1, (248, 248, 3))).astype(np.uint8)
        strengths.append(float((added(image).astype(int) - image).std()))
    assert sorted(strengths) == strengths
    assert strengths[1] > strengths[0] + 0.1
    assert strengths[3] == pytest.approx(2.0, rel=0.05)


def test_one_hard_edge_is_no_texture():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 24:] = 200
    noise = np.random.default_rng(3).integers(0, 201, (64, 64, 3), dtype=np.uint8)

    def strength(picture):
        block = np.s_[:, 16:32]
        change = np.abs(added(picture, Strength(0.2, 0.5, 2.0)).astype(int) - picture)[block]
        return change[(picture[block] > 8) & (picture[block] < 247)].mean()

    assert strength(image) < 0.4 * strength(noise)


def test_black_and_white_do_not_wrap_around():
    for level in (0, 255):
        image = np.full((40, 40, 3), level, np.uint8)
        assert np.abs(added(image, Strength(2, 0, 2)).astype(int) - level).max() < 20


@pytest.mark.parametrize(
    ("image", "rows", "strength"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((3, 12), np.int8), STRENGTH),
        (np.zeros((4, 4, 3), np.float32), np.zeros((3, 12), np.int8), STRENGTH),
        (np.zeros((0, 4, 3), np.uint8), np.zeros((3, 12), np.int8), STRENGTH),
        (np.zeros((4, 8, 3), np.uint8)[:, ::2], np.zeros((3, 12), np.int8), STRENGTH),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((3, 4), np.int8), STRENGTH),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((0, 12), np.int8), STRENGTH),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((3, 12), np.int16), STRENGTH),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((3, 12), np.int8), Strength(2, 1, 1)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((3, 12), np.int8), Strength(0, 1, 9)),
    ],
)
def test_what_does_not_fit_is_refused(image, rows, strength):
    for add in (add_pattern, add_pattern_reference):
        with pytest.raises(ValueError, match=r"must be|expected"):
            add(image, rows, strength, np.zeros_like(image))


@pytest.mark.parametrize("size", [(16, 16), (20, 36), (15, 22)])
def test_samples_agree_with_their_twin_and_with_the_bins(size):
    random = np.random.default_rng(4)
    picture = random.normal(size=size)
    spectrum = np.fft.rfft2(picture).astype(np.complex64)
    y = random.uniform(-0.49, 0.49, (5, 40)).astype(np.float32)
    x = (random.uniform(-1, 1, (5, 40)) * (size[1] // 2 - 1) / size[1]).astype(np.float32)
    fast = sample_spectrum(spectrum, size, y, x)
    np.testing.assert_allclose(fast, sample_spectrum_reference(spectrum, size, y, x), atol=1e-3)
    bins = np.array([[0, 1], [-3, 2], [4, -5]])
    at = (bins / size).astype(np.float32)
    whole = np.fft.fft2(picture)[bins[:, 0], bins[:, 1]]
    np.testing.assert_allclose(sample_spectrum(spectrum, size, at[:, 0], at[:, 1]), whole, atol=2e-3)


def test_frequencies_that_no_picture_has_are_refused():
    spectrum = np.fft.rfft2(np.zeros((16, 16))).astype(np.complex64)
    zero, beyond = np.zeros(1, np.float32), np.full(1, 0.5, np.float32)
    for sample in (sample_spectrum, sample_spectrum_reference):
        for y, x in ((beyond, zero), (zero, beyond), (zero, np.zeros(2, np.float32))):
            with pytest.raises(ValueError, match="y and x must"):
                sample(spectrum, (16, 16), y, x)
        with pytest.raises(ValueError, match="spectrum must"):
            sample(spectrum, (16, 18), zero, zero)
