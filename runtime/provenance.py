"""Asks a file whether it came from here: by the mark in its pixels and by what it says of itself.

The mark (`watermark.py`) survives compression, rescaling and cropping; the statement (`media/metadata.py`) can be read
by any program, and is lost with the first upload. Neither is secret: they tell honest people what they see.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .media.frame import Image
from .media.limits import DEFAULT_LIMITS, Limits
from .media.metadata import Statement
from .media.reader import VideoReader
from .watermark import Reading, read_mark

__all__ = ["Verdict", "looks", "verify"]

_SECONDS = 10.0  # of a video that are looked at
_FRAMES = 300  # of those, at most
_LOOKS = 24


@dataclass(frozen=True)
class Verdict:
    """What was found in one file."""

    watermark: Reading
    statement: Statement | None

    @property
    def marked(self) -> bool:
        """Whether the file came from here, as far as its pixels or its metadata tell."""
        return self.watermark.found or self.statement is not None

    @property
    def confidence(self) -> float:
        """Lower bound of the probability that a picture without the mark would not have scored as high, 0 to 1."""
        return 1.0 - self.watermark.chance


def verify(path: str | Path, *, start: float = 0.0, limits: Limits = DEFAULT_LIMITS) -> Verdict:
    """Look for the mark and for the statement in a picture, a video or a folder of pictures.

    Of a video, frames of ten seconds from `start` on are taken together. Raises MediaError and LimitError as
    readers do.
    """
    with VideoReader(path, limits=limits, start=start, duration=_SECONDS) as reader:
        return Verdict(
            read_mark(looks((frame.image for frame in reader), reader.info.frames)), reader.statement()
        )


def looks(frames: Iterable[Image], count: int | None) -> Iterator[Image]:
    """Those of a video's frames, `count` where it is known, that are looked at: what moves differs most far apart."""
    step = max(1, min(count or _FRAMES, _FRAMES) // _LOOKS)
    for number, image in enumerate(frames):
        if number == _FRAMES:
            return
        if number % step == 0:
            yield image
