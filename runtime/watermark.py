"""The invisible mark in a picture's brightness: put in, and found again after compression, rescaling and cropping.

The mark is one tile of 127x127 pixels, repeated over the picture: waves of all directions, of lengths that compression
and rescaling leave alone, each with a phase that is fixed for ever. It says "made by reenact" and nothing else. The
tile is public, so everyone can find the mark, and remove or forge it: it is a label, not a lock.

It is found by the phases of the waves in a picture's spectrum, at every scale and offset. In a picture without the
mark these phases have nothing to do with the tile's, so what chance can do is known beforehand (`Reading.chance`).
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ..kernels.watermark import PATTERN_RMS, Strength, add_pattern, pattern_rows, sample_spectrum
from .media.frame import Image

__all__ = ["MOST_CHANCE", "Reading", "marked", "read_mark"]

MOST_CHANCE = 1e-5
"""A mark is taken for found where the chance that a picture without it looks like this is at most so much."""

STRENGTH = Strength(quiet=0.65, gain=0.55, busy=1.7)  # 1.7 alone keeps a picture above 43 dB

_KEY = b"reenact: this picture is AI-generated"
_PERIOD = 127  # pixels; a prime, so that no wave has the length of a codec's blocks
_LOWEST, _HIGHEST = 0.03, 0.2  # cycles a pixel: longer waves show, shorter ones do not survive
_WEIGHT = -0.25  # power of the frequency by which a wave counts: how well it survives
_SMALLEST_SCALE, _LARGEST_SCALE = 0.3, 2.1  # of the picture that is read over the one that was marked
_GROWTH = 2.4  # pixels of the marked picture's side from one scale that is tried to the next
_SIDE = 1024  # pixels of a picture's middle that are looked at, in each direction
_NARROWEST = 32  # pixels: less than that shows no wave twice
_NYQUIST = 0.47  # cycles a pixel: above, a resized picture holds no wave
_COARSE, _FINE = 64, 128  # offsets tried in each direction: first, and for the scales that did best
_BEST = 6  # of those there are so many
_AT_ONCE = 64  # scales
_ALONE_EACH, _MOST_ALONE = 8, 4  # frames of a video: every eighth, the first four of them


@dataclass(frozen=True)
class Reading:
    """What was found in a picture, or in frames of one video."""

    score: float
    """How well the phases agree with the tile's at the best scale and offset, in standard deviations of chance."""
    needed: float
    """The score from which on the mark is found."""
    chance: float
    """Upper bound of the probability that a picture without a mark reaches this score at any scale and offset."""
    scale: float
    """The picture's size over that of the one that was marked; only of meaning where the mark is found."""
    frames: int
    """Pictures that were read."""

    @property
    def found(self) -> bool:
        """Whether the mark is there."""
        return self.chance <= MOST_CHANCE


def marked(image: Image) -> Image:
    """A copy of the picture (H, W, 3) uint8 RGB with the mark in it; the picture itself stays as it is."""
    image = np.ascontiguousarray(image)
    result = np.empty_like(image)
    add_pattern(image, _rows(image.shape[1]), STRENGTH, result)
    return result


def read_mark(images: Iterable[Image]) -> Reading:
    """Look for the mark in a picture, or in frames of one video: (H, W, 3) uint8 RGB, all of one size.

    Frames are looked at together, where the mark adds up and what moves does not, and some of them alone: a codec that
    follows a moving picture takes the mark along with it, away from where it is in other frames.
    """
    alone: list[NDArray[np.float32]] = []
    total, count = np.zeros((0, 0), np.float32), 0
    for image in images:
        waves = _without_content(_middle(image))
        if count % _ALONE_EACH == 0 and len(alone) < _MOST_ALONE:
            alone.append(waves)
        total = total + waves if count else waves
        count += 1
    if min(total.shape) < _NARROWEST or float(np.abs(total).max()) < 1e-3 * count:
        return Reading(0.0, _needed(1), 1.0, 1.0, count)
    looks = [np.asarray(total / count, np.float32), *alone] if count > 1 else alone
    scales = _scales(max(total.shape))
    score, scale = max(_best_agreement(waves, scales) for waves in looks)
    tests = len(looks) * len(scales) * _FINE * _FINE
    return Reading(score, _needed(tests), _chance(score, tests), scale, count)


def _middle(image: Image) -> Image:
    top, left = (max(0, (side - _SIDE) // 2) for side in image.shape[:2])
    return image[top : top + _SIDE, left : left + _SIDE]


def _without_content(image: Image) -> NDArray[np.float32]:
    """Brightness (H, W) without what is larger than the waves, with less contrast where the picture has much."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    detail = grey - cv2.GaussianBlur(grey, (0, 0), 2.5)
    contrast = cv2.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 2))
    return np.asarray(detail / (contrast + 0.5) ** 1.25, np.float32)


def _best_agreement(waves: NDArray[np.float32], scales: NDArray[np.float64]) -> tuple[float, float]:
    """The best score and its scale."""
    spectrum, size = _spectrum(waves)
    scores = np.concatenate(
        [
            _agreement(spectrum, size, scales[first : first + _AT_ONCE], _COARSE)
            for first in range(0, len(scales), _AT_ONCE)
        ]
    )
    best = scales[np.argsort(scores)[-_BEST:]]
    scores = _agreement(spectrum, size, best, _FINE)
    winner = int(np.argmax(scores))
    return float(scores[winner]), float(best[winner])


def _spectrum(waves: NDArray[np.float32]) -> tuple[NDArray[np.complex64], tuple[int, int]]:
    """Spectrum about the picture's middle, on bins half as wide as the picture needs: smooth enough to interpolate."""
    height, width = waves.shape
    size = cv2.getOptimalDFTSize(2 * height), 2 * cv2.getOptimalDFTSize(width)
    padded = np.zeros(size, np.float32)
    padded[:height, :width] = waves
    centred = np.roll(padded, (-(height // 2), -(width // 2)), axis=(0, 1))
    return np.fft.rfft2(centred).astype(np.complex64), size


def _scales(side: int) -> NDArray[np.float64]:
    """Scales that are tried: so close that no wave gets out of step over a picture of `side` pixels."""
    scales = [_SMALLEST_SCALE]
    while scales[-1] < _LARGEST_SCALE:
        pixels = max(side / scales[-1], _PERIOD)  # of the picture that was marked
        scales.append(scales[-1] * (1 + _GROWTH / pixels))
    return np.array(scales)


def _agreement(
    spectrum: NDArray[np.complex64], size: tuple[int, int], scales: NDArray[np.float64], offsets: int
) -> NDArray[np.float64]:
    """The score at each scale, best of offsets x offsets places of the tile."""
    waves = _waves()
    y = (waves.y[None] / (_PERIOD * scales[:, None])).astype(np.float32)
    x = (waves.x[None] / (_PERIOD * scales[:, None])).astype(np.float32)
    usable = np.maximum(np.abs(y), np.abs(x)) < _NYQUIST
    values = sample_spectrum(spectrum, size, np.where(usable, y, 0), np.where(usable, x, 0))
    # By the square root: strong waves are the picture's rather than the mark's, but weak ones are noise.
    magnitudes = np.maximum(np.abs(values), np.float32(1e-20))
    terms = values * (waves.factor * (usable / np.sqrt(magnitudes)))
    spread = np.sqrt(np.sum(usable * np.abs(waves.factor) ** 2 * magnitudes, axis=1) / 2)
    grid = np.zeros((len(scales), offsets, offsets // 2 + 1), np.complex64)
    grid[:, waves.y % offsets, waves.x] = terms
    upright = waves.x == 0
    grid[:, -waves.y[upright] % offsets, 0] = np.conj(terms[:, upright])
    sums = np.fft.irfft2(grid, s=(offsets, offsets)).max(axis=(1, 2)) * (offsets * offsets / 2)
    return np.asarray(sums / np.maximum(spread, 1e-20), np.float64)


def _chance(score: float, tests: int) -> float:
    """Chernoff's bound for a sum of weighted cosines of independent phases, times the tests that were made."""
    return min(1.0, tests * math.exp(-(max(score, 0.0) ** 2) / 2))


def _needed(tests: int) -> float:
    return math.sqrt(2 * math.log(tests / MOST_CHANCE))


@dataclass(frozen=True, eq=False)
class _Waves:
    """The waves of the tile, one of each pair that a real picture has: (K,) each."""

    y: NDArray[np.int64]  # periods in the tile
    x: NDArray[np.int64]  # the same, 0 or more
    factor: NDArray[np.complex64]  # turns the phase back to 0; its length is how much the wave counts


@lru_cache(maxsize=1)
def _waves() -> _Waves:
    spectrum = np.fft.fft2(_tile())
    y, x, frequency = _frequencies()
    chosen = (_amplitudes() > 0) & ((x > 0) | ((x == 0) & (y > 0)))
    values = spectrum[chosen]
    return _Waves(
        y[chosen],
        x[chosen],
        (np.conj(values) / np.abs(values) * frequency[chosen] ** _WEIGHT).astype(np.complex64),
    )


def _frequencies() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Periods down and across the tile and cycles a pixel, in the order of `fft2`."""
    periods = np.rint(np.fft.fftfreq(_PERIOD) * _PERIOD).astype(np.int64)
    y, x = np.meshgrid(periods, periods, indexing="ij")
    return y, x, np.hypot(y, x) / _PERIOD


def _amplitudes() -> NDArray[np.float64]:
    """Longer waves are stronger: they survive best."""
    _, _, frequency = _frequencies()
    inside = (frequency >= _LOWEST) & (frequency <= _HIGHEST)
    return np.where(inside, 1 / np.maximum(frequency, _LOWEST), 0.0)


@lru_cache(maxsize=1)
def _tile() -> NDArray[np.int8]:
    """The mark: (127, 127), root mean square PATTERN_RMS. To change it would lose all marks that are out."""
    count = _PERIOD * _PERIOD
    numbers = np.frombuffer(hashlib.shake_256(_KEY).digest(4 * count), "<u4").reshape(_PERIOD, _PERIOD)
    amplitudes = _amplitudes()
    noise = np.fft.fft2(numbers / 2.0**32 - 0.5)
    tile = np.fft.ifft2(amplitudes * noise / np.abs(noise)).real
    for _ in range(20):  # take the peaks off: at the same strength they are what would be seen
        values = np.fft.fft2(np.clip(tile / tile.std(), -2, 2))
        tile = np.fft.ifft2(amplitudes * values / np.maximum(np.abs(values), 1e-9)).real
    return np.asarray(np.rint(tile / tile.std() * PATTERN_RMS), np.int8)


@lru_cache(maxsize=4)
def _rows(width: int) -> NDArray[np.int8]:
    return pattern_rows(_tile(), width)
