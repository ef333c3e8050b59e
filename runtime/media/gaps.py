"""Frames that a camera left out, counted by the holes in its time stamps; knows nothing of cameras."""

from collections import deque
from statistics import median

__all__ = ["Gaps"]

REMEMBERED = 31  # times between two frames
FEWEST = 10  # of them, before any is called too long
TOO_LONG = 1.5  # usual times
MOST_IN_A_ROW = 3  # holes; more are a camera that has become slower, as they do in the dark


class Gaps:
    """What is told is certain only in the sum: a camera that leaves out every second frame is one of half the rate."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._between: deque[float] = deque(maxlen=REMEMBERED)
        self._holes = self._missing = 0  # in a row, and the frames that they would be

    def before(self, stamp: float) -> int:
        """How many frames are known with this one, taken at `stamp` seconds, to have been left out before it."""
        last, self._last = self._last, stamp
        if last is None:
            return 0
        gap = stamp - last
        usual = median(self._between) if len(self._between) >= FEWEST else None
        self._between.append(gap)
        if usual is not None and gap > TOO_LONG * usual:
            self._holes += 1
            self._missing += round(gap / usual) - 1
            return 0
        missing = self._missing if self._holes <= MOST_IN_A_ROW else 0
        self._holes = self._missing = 0
        return missing
