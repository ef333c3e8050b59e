"""Lids and lips of one photo: openings that close fully and never cross."""

import numpy as np
from numpy.typing import NDArray

from .canonical import load

__all__ = ["LidPairs", "close_lips"]

Floats = NDArray[np.float32]

# Inner lips from the person's right corner to the left one, upper and lower point by point.
_UPPER_LIP = [191, 80, 81, 82, 13, 312, 311, 310, 415]
_LOWER_LIP = [95, 88, 178, 87, 14, 317, 402, 318, 324]

_UPPER_SHARE = 0.85  # of a lid's closing that the upper lid does
# Skin above the right upper lid, row by row upwards, point by point above the lid's own points.
_LID = [246, 161, 160, 159, 158, 157, 173]
_ABOVE = (([247, 30, 29, 27, 28, 56, 190], 0.72), ([113, 225, 224, 223, 222, 221, 189], 0.3))


class LidPairs:
    """One eye's upper and lower lid points that face each other, with the gaps they have in the photo."""

    def __init__(self, contour: tuple[int, ...], head: Floats) -> None:
        """`contour`: 16 mesh points, outer corner, lower lid to the inner corner (index 8), upper lid back."""
        self._lower, self._upper = list(contour[1:8]), list(contour[15:8:-1])
        self._gaps = np.maximum(head[self._lower, 1] - head[self._upper, 1], 0)
        mirror = load().mirror
        is_right = self._upper == _LID
        self._above = [(row if is_right else mirror[row].tolist(), share) for row, share in _ABOVE]

    def apply(self, head: Floats, ratio: float) -> None:
        """Set the gaps to `ratio` times those of the photo, in place, on (468, 3) head points in cm.

        The skin above goes along: a lid that comes down unrolls out of its fold, it does not stretch its lashes.
        """
        change = min(ratio, 1.6) * self._gaps - (head[self._lower, 1] - head[self._upper, 1])
        head[self._upper, 1] -= _UPPER_SHARE * change
        head[self._lower, 1] += (1 - _UPPER_SHARE) * change
        down = np.maximum(self._gaps * (1 - ratio), 0) * _UPPER_SHARE
        for row, share in self._above:
            head[row, 1] += share * down


def close_lips(head: Floats, neutral: Floats) -> None:
    """Where inner lips would cross they meet half way, in place, on (468, 3) head points in cm.

    Lips that touch or cross in the photo itself (`neutral`) may stay so: that is the network's own noise.
    """
    allowed = np.minimum(neutral[_LOWER_LIP, 1] - neutral[_UPPER_LIP, 1], 0)
    crossed = np.minimum(head[_LOWER_LIP, 1] - head[_UPPER_LIP, 1] - allowed, 0) / 2
    head[_UPPER_LIP, 1] += crossed
    head[_LOWER_LIP, 1] -= crossed
