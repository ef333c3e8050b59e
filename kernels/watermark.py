"""A faint pattern added to pictures, and samples of a spectrum in which it is looked for, each with a NumPy twin.

The pattern is added alike to red, green and blue, so it changes the brightness only; where a picture has texture, which
hides it, it is stronger. What the pattern is and how it is found is not decided here.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "PATTERN_RMS",
    "Strength",
    "add_pattern",
    "add_pattern_reference",
    "pattern_rows",
    "sample_spectrum",
    "sample_spectrum_reference",
]

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Spectrum = NDArray[np.complex64]

PATTERN_RMS = 48
"""Root mean square of a tile's values, which are int8."""

_BLOCK = 16  # pixels: one strength for each such square
_STEP = 2  # rows from one look at a block's texture to the next
_CAP = 12  # levels: an edge counts no more than texture does
_BITS = 12  # of the fraction in a block's factor
_UNIT = (1 << _BITS) / PATTERN_RMS
_MOST = ((1 << 15) - (1 << _BITS)) / (127 * _UNIT)  # what 16 bits hold


@dataclass(frozen=True)
class Strength:
    """Root mean square of what is added, in levels of 0..255: `quiet` where there is no texture, growing by `gain` for
    each level that neighbouring pixels differ in the mean, up to `busy`.
    """

    quiet: float
    gain: float
    busy: float


def pattern_rows(tile: NDArray[np.int8], width: int) -> NDArray[np.int8]:
    """The rows of a picture of `width` pixels filled with a tile (P, P): (P, 3 * width), a value for each byte."""
    columns = np.arange(width) % tile.shape[1]
    return np.ascontiguousarray(np.repeat(tile[:, columns], 3, axis=1))


def add_pattern(image: Image, rows: NDArray[np.int8], strength: Strength, out: Image) -> None:
    """Add the pattern to a picture, cut off at 0 and 255.

    image  # (H, W, 3) uint8, C-contiguous
    rows   # (P, 3 * W) int8 by `pattern_rows`; row y of the picture gets row y % P
    out    # (H, W, 3) uint8, C-contiguous; may be the picture itself

    Raises ValueError for other shapes and dtypes, and for strengths below 0 or beyond 2.6.
    """
    _check(image, rows, strength, out)
    height, width = image.shape[:2]
    flat, result = image.reshape(height, width * 3), out.reshape(height, width * 3)
    _add(flat, rows, float(strength.quiet), float(strength.gain), float(strength.busy), result)


def add_pattern_reference(image: Image, rows: NDArray[np.int8], strength: Strength, out: Image) -> None:
    """Twin of `add_pattern`, block by block."""
    _check(image, rows, strength, out)
    height, width = image.shape[:2]
    levels = image.astype(np.int64)
    across = np.zeros_like(levels)
    across[:, :-1] = np.minimum(np.abs(np.diff(levels, axis=1)), _CAP)
    down = np.zeros_like(levels)
    down[:-1] = np.minimum(np.abs(np.diff(levels, axis=0)), _CAP)
    # At the right border and at the bottom there is no neighbour: nothing is counted, in either direction on the right.
    down[:, -1] = 0
    pattern = np.resize(rows, (height, width * 3)).reshape(image.shape).astype(np.int64)
    for top in range(0, height, _BLOCK):
        for left in range(0, width, _BLOCK):
            block = np.s_[top : top + _BLOCK, left : left + _BLOCK]
            looked_at = (across + down)[block][::_STEP]
            texture = looked_at.sum() / (2 * looked_at.size)
            added = min(strength.quiet + strength.gain * texture, strength.busy)
            factor = int(added * _UNIT + 0.5)
            change = (pattern[block] * factor + (1 << (_BITS - 1))) >> _BITS
            out[block] = np.clip(levels[block] + change, 0, 255)


def sample_spectrum(spectrum: Spectrum, size: tuple[int, int], y: Floats, x: Floats) -> Spectrum:
    """Values of a real picture's spectrum between its bins, bilinear.

    spectrum  # (M, N // 2 + 1) complex64, by `rfft2` of an (M, N) picture; `size` is (M, N)
    y, x      # (K,) or (S, K) float32, in cycles a pixel, magnitudes below 0.5

    Returns complex64 of the shape of y. Raises ValueError for other shapes and for frequencies beyond.
    """
    _check_frequencies(spectrum, size, y, x)
    out = np.empty(y.shape, np.complex64)
    _sample(spectrum, size[0], size[1], y.ravel(), x.ravel(), out.reshape(-1))
    return out


def sample_spectrum_reference(spectrum: Spectrum, size: tuple[int, int], y: Floats, x: Floats) -> Spectrum:
    """Twin of `sample_spectrum` on the whole spectrum of N columns."""
    _check_frequencies(spectrum, size, y, x)
    rows, columns = size
    whole = np.fft.fft2(np.fft.irfft2(spectrum.astype(np.complex128), s=size))
    v, u = y.astype(np.float64) * rows, x.astype(np.float64) * columns
    result = np.zeros(y.shape, np.complex128)
    for row, row_weight in ((np.floor(v), 1 - v % 1), (np.floor(v) + 1, v % 1)):
        for column, column_weight in ((np.floor(u), 1 - u % 1), (np.floor(u) + 1, u % 1)):
            corner = whole[row.astype(int) % rows, column.astype(int) % columns]
            result += corner * (row_weight * column_weight)
    return result.astype(np.complex64)


def _check(image: Image, rows: NDArray[np.int8], strength: Strength, out: Image) -> None:
    for name, array in (("image", image), ("out", out)):
        right = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8 and array.size > 0
        if not right or not array.flags.c_contiguous or array.shape != image.shape:
            raise ValueError(
                f"{name} must be (H, W, 3) uint8, contiguous and not empty, both alike, not {array.shape} {array.dtype}"
            )
    if rows.ndim != 2 or rows.dtype != np.int8 or rows.shape[1] != 3 * image.shape[1] or not len(rows):
        raise ValueError(f"rows must be (P, {3 * image.shape[1]}) int8, not {rows.shape} {rows.dtype}")
    if not (0 <= strength.quiet <= strength.busy <= _MOST and strength.gain >= 0):
        raise ValueError(f"{strength}: expected 0 <= quiet <= busy <= {_MOST:.1f} and a gain of 0 or more")


def _check_frequencies(spectrum: Spectrum, size: tuple[int, int], y: Floats, x: Floats) -> None:
    if spectrum.shape != (size[0], size[1] // 2 + 1) or spectrum.dtype != np.complex64:
        expected = (size[0], size[1] // 2 + 1)
        raise ValueError(f"spectrum must be {expected} complex64, not {spectrum.shape} {spectrum.dtype}")
    if y.shape != x.shape or y.dtype != np.float32 or x.dtype != np.float32:
        raise ValueError(
            f"y and x must be float32 of one shape, not {y.shape} {y.dtype}, {x.shape} {x.dtype}"
        )
    if y.size and not (np.abs(y).max() < 0.5 and np.abs(x).max() * size[1] <= size[1] // 2 - 1):
        raise ValueError("y and x must stay a bin below half a cycle a pixel")


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add(image: Image, rows: NDArray[np.int8], quiet: float, gain: float, busy: float, out: Image) -> None:
    height, length = image.shape
    texture = np.zeros(length, np.uint16)
    factors = np.zeros(length, np.int16)
    for top in range(0, height, _BLOCK):
        bottom = min(top + _BLOCK, height)
        texture[:] = 0
        looked_at = 0
        for y in range(top, bottom, _STEP):
            _add_texture(image[y], image[min(y + 1, height - 1)], texture)
            looked_at += 1
        for left in range(0, length, 3 * _BLOCK):
            right = min(left + 3 * _BLOCK, length)
            total = 0
            for i in range(left, right):
                total += texture[i]
            added = min(quiet + gain * (total / (2 * looked_at * (right - left))), busy)
            factor = np.int16(added * _UNIT + 0.5)
            for i in range(left, right):
                factors[i] = factor
        for y in range(top, bottom):
            _add_row(image[y], rows[y % rows.shape[0]], factors, out[y])


# In these two loops the compiler works on 16 or 32 bytes at once, as long as every value is kept in its narrow type.
@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_texture(row: Image, below: Image, texture: NDArray[np.uint16]) -> None:
    cap = np.uint8(_CAP)
    for i in range(row.shape[0] - 3):
        here, beside, under = row[i], row[i + 3], below[i]
        across = np.uint8(max(here, beside) - min(here, beside))
        down = np.uint8(max(here, under) - min(here, under))
        texture[i] = np.uint16(texture[i] + np.uint16(np.uint8(min(across, cap) + min(down, cap))))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_row(row: Image, pattern: NDArray[np.int8], factors: NDArray[np.int16], out: Image) -> None:
    half, bits = np.int16(1 << (_BITS - 1)), np.int16(_BITS)
    for i in range(row.shape[0]):
        change = np.int16(np.int16(np.int16(pattern[i]) * factors[i]) + half) >> bits
        value = np.int16(np.int16(row[i]) + np.int16(change))
        out[i] = np.uint8(max(np.int16(0), min(np.int16(255), value)))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sample(spectrum: Spectrum, rows: int, columns: int, y: Floats, x: Floats, out: Spectrum) -> None:
    for i in range(y.shape[0]):
        # The half that is not stored is the conjugate of the other, turned about the origin.
        turned = x[i] < 0
        v = np.float64(-y[i] if turned else y[i]) * rows
        u = np.float64(-x[i] if turned else x[i]) * columns
        row, column = int(np.floor(v)), int(np.floor(u))
        down, across = np.float32(v - row), np.float32(u - column)
        one = np.float32(1)
        first, second = row % rows, (row + 1) % rows
        upper = spectrum[first, column] * (one - across) + spectrum[first, column + 1] * across
        lower = spectrum[second, column] * (one - across) + spectrum[second, column + 1] * across
        value = upper * (one - down) + lower * down
        out[i] = value.conjugate() if turned else value
