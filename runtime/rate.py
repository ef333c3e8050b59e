"""Makes the times of frames even."""

from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain

from .media.frame import Frame

__all__ = ["at_rate", "rate_of"]

DROPPED = "frame rate"
_NTSC = (24, 30, 48, 60, 120)  # of which a thousandth less is a rate as well


def rate_of(fps: float) -> Fraction:
    """The exact rate, in Hz: 30000/1001 for 29.97 and 29.970, as for all that video's old rates are rounded to."""
    for nominal in _NTSC:
        exact = Fraction(nominal * 1000, 1001)
        if fps in (round(float(exact), 2), round(float(exact), 3)):
            return exact
    return Fraction(fps).limit_denominator(1001)


def at_rate(frames: Iterable[Frame], fps: Fraction, drops: Counter[str]) -> Iterator[Frame]:
    """Show `frames` at an even rate: each picture of the result is the newest one at its time.

    Pictures are repeated where the input is slower; where it is faster the surplus is counted in
    `drops["frame rate"]`. Times of the result are whole multiples of 1 / `fps`; the last picture stays for as
    long as the one before it did.
    """
    time_base = 1 / fps
    period = float(time_base)
    count = 0
    held: Frame | None = None
    gap = period
    for frame in chain(frames, (None,)):
        if held is not None:
            gap = frame.time - held.time if frame is not None else gap
            shown = count
            while count * period < held.time + gap - 1e-6:
                yield Frame(held.image, count, time_base)
                count += 1
            if count == shown:
                drops[DROPPED] += 1
        held = frame
