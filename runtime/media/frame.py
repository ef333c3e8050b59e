"""The picture that travels through the whole runtime."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

__all__ = ["Frame", "Image"]

Image = NDArray[np.uint8]
"""(H, W, 3) uint8, RGB, C-contiguous, upright, square pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a video with its own time; times need not be evenly spaced.

    `image` is (H, W, 3) uint8 RGB, upright, square pixels; `pts` counts in `time_base` seconds from the first
    frame that is shown (so the first frame has pts 0).
    """

    image: Image
    pts: int
    time_base: Fraction

    @property
    def time(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)
