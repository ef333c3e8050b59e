"""One person's face through a video: how DECA's networks see it in each frame. Knows nothing of heads and files."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..errors import FaceNotFoundError
from .media.frame import Frame, Image
from .tracking.flame_fit import FitSmoother, FlameFit, View

__all__ = ["Seen", "VideoFitter"]


@dataclass(frozen=True, eq=False)
class Seen:
    """A moment of the video, without its picture: many of them may wait."""

    pts: int
    time_base: Fraction
    face: tuple[View, FlameFit] | None  # None where none is seen

    @property
    def time(self) -> float:
        """Seconds."""
        return float(self.pts * self.time_base)


class VideoFitter:
    """Fits every frame; where the face is lost the filter starts anew."""

    def __init__(
        self,
        driving: Path,
        look: Callable[[Image, float], View | None],
        fit: Callable[[Sequence[View]], list[FlameFit]],
        *,
        smooth: bool,
    ) -> None:
        """`look` finds the face in a picture at a time in seconds, `fit` says what the networks see in it.

        `driving` is named in errors.
        """
        self._driving, self._look, self._fit = driving, look, fit
        self._smoother = FitSmoother() if smooth else None
        self.without_face = 0  # frames so far

    def start(self, frames: Iterator[Frame]) -> list[Seen]:
        """Up to and with the first frame that shows a face; FaceNotFoundError where none does."""
        seen = []
        for frame in frames:
            seen.append(self.follow(frame))
            if seen[-1].face is not None:
                return seen
        raise FaceNotFoundError(f"{self._driving}: no face is seen in it; use a video that shows one")

    def follow(self, frame: Frame) -> Seen:
        """The next frame."""
        view = self._look(frame.image, frame.time)
        if view is None:
            self.without_face += 1
            if self._smoother is not None:
                self._smoother.reset()
            return Seen(frame.pts, frame.time_base, None)
        (fit,) = self._fit([view])
        if self._smoother is not None:
            fit = self._smoother(fit, frame.time)
        return Seen(frame.pts, frame.time_base, (view, fit))
