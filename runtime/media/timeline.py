"""When and for how long each frame of an output is shown; knows nothing of encoders."""

from dataclasses import dataclass
from fractions import Fraction

from .frame import Frame

__all__ = ["Shown", "Timeline"]


@dataclass(frozen=True, eq=False)
class Shown:
    """A frame with how long it is shown, in ticks of its own time base."""

    frame: Frame
    duration: int


class Timeline:
    """Shows every frame at its own time until the next one begins, the last one for `last_seconds`.

    How long a frame lasts is known with the next one only, so each comes out one push later.
    """

    def __init__(self, last_seconds: Fraction):
        self._last_seconds = last_seconds
        self._held: Frame | None = None

    def push(self, frame: Frame) -> list[Shown]:
        """What has become known. Raises ValueError where time does not move forward."""
        held = self._held
        if held is None:
            self._held = frame
            return []
        pts = (
            frame.pts
            if frame.time_base == held.time_base
            else round(frame.pts * frame.time_base / held.time_base)
        )
        if pts <= held.pts:
            raise ValueError(
                f"a frame at {frame.time:.4f} s was to be written after one at {held.time:.4f} s; "
                "write the frames in order"
            )
        self._held = Frame(frame.image, pts, held.time_base)
        return [Shown(held, pts - held.pts)]

    def flush(self) -> list[Shown]:
        """The last frame."""
        held, self._held = self._held, None
        return [] if held is None else [Shown(held, max(1, round(self._last_seconds / held.time_base)))]
