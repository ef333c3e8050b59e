"""Lids and lips of one photo: openings that close fully and never cross."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["LidPairs", "close_lips"]

Floats = NDArray[np.float32]

# Inner lips from the person's right corner to the left one, upper and lower point by point.
_UPPER_LIP = [191, 80, 81, 82, 13, 312, 311, 310, 415]
_LOWER_LIP = [95, 88, 178, 87, 14, 317, 402, 318, 324]

_UPPER_SHARE = 0.8  # of a lid's closing that the upper lid does
_SHUT_BELOW = 0.2  # openness ratio that a tracked shut eye still reads


class LidPairs:
    """One eye's upper and lower lid points that face each other, with the gaps they have in the photo."""

    def __init__(self, contour: tuple[int, ...], head: Floats) -> None:
        """`contour`: 16 mesh points, outer corner, lower lid to the inner corner (index 8), upper lid behind it."""
        lower, upper = list(contour[1:8]), list(contour[9:16])
        if head[upper, 0].argsort()[0] != head[lower, 0].argsort()[0]:
            upper.reverse()
        self._upper, self._lower = upper, lower
        self._gaps = np.maximum(head[lower, 1] - head[upper, 1], 0)

    def apply(self, head: Floats, ratio: float) -> None:
        """Set the gaps to `ratio` times those of the photo, in place, on (468, 3) head points in cm."""
        ratio = max(0.0, (ratio - _SHUT_BELOW) / (1 - _SHUT_BELOW)) if ratio < 1 else min(ratio, 1.6)
        change = ratio * self._gaps - (head[self._lower, 1] - head[self._upper, 1])
        head[self._upper, 1] -= _UPPER_SHARE * change
        head[self._lower, 1] += (1 - _UPPER_SHARE) * change


def close_lips(head: Floats, neutral: Floats) -> None:
    """Where inner lips would cross they meet half way, in place, on (468, 3) head points in cm.

    Lips that touch or cross in the photo itself (`neutral`) may stay so: that is the network's own noise.
    """
    allowed = np.minimum(neutral[_LOWER_LIP, 1] - neutral[_UPPER_LIP, 1], 0)
    crossed = np.minimum(head[_LOWER_LIP, 1] - head[_UPPER_LIP, 1] - allowed, 0) / 2
    head[_UPPER_LIP, 1] += crossed
    head[_LOWER_LIP, 1] -= crossed
