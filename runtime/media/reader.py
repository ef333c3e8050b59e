"""Reads a video, an animation, a folder of pictures or a single picture as a sequence of timed frames."""

import re
import stat
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2

from ...errors import MediaError
from ..closing import Closing
from .decode import StreamDecoder, VideoInfo
from .frame import Frame, Image
from .images import file_status, read_image, read_image_file
from .limits import DEFAULT_LIMITS, Limits
from .metadata import Statement, find_statement

__all__ = ["VideoInfo", "VideoReader"]

_PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}


class VideoReader(Closing):
    """The frames of anything that moves: `with VideoReader("clip.mp4") as reader: for frame in reader: ...`.

    Reads what FFmpeg reads, animated GIF and PNG, a folder of pictures (in natural order, shown at `fps`
    frames a second) and a single picture (one frame). Only what lies between `start` and `start + duration`
    seconds is shown. Frames are upright, in square pixels, all of the size of the first one; the first has
    time 0 and the others keep their distance in time exactly. Each frame is given once.

    Raises MediaError naming the file where it is missing, has no video or cannot be decoded at all, and
    LimitError where it is beyond `limits`. Damaged parts of a video are left out and counted in `damaged`.
    """

    info: VideoInfo
    origin: float
    """Where the first shown frame lies on the file's own time line, in seconds: where its audio starts."""

    def __init__(
        self,
        path: str | Path,
        *,
        limits: Limits = DEFAULT_LIMITS,
        start: float = 0.0,
        duration: float | None = None,
        fps: Fraction = Fraction(25),
    ):
        self.path = Path(path)
        if start < 0:
            raise MediaError(f"--start {start:g}: must be 0 or more seconds")
        if duration is not None and duration <= 0:
            raise MediaError(f"--duration {duration:g}: must be more than 0 seconds")
        self._decoder: StreamDecoder | None = None
        self._limits = limits
        if stat.S_ISDIR(file_status(self.path).st_mode):
            self._show_pictures(_pictures_in(self.path), limits, start, duration, fps)
            return
        file = read_image_file(self.path, limits)
        if file is None or file[0].animated:
            if file is not None and file[0].kind == "webp":
                raise MediaError(
                    f"{self.path}: animated WebP cannot be read as a video; convert it to GIF or MP4"
                )
            self._decoder = StreamDecoder(self.path, limits=limits, start=start, duration=duration)
            self.info = self._decoder.info
            self.origin = self._decoder.origin
            self._frames: Iterator[Frame] = iter(self._decoder)
        else:
            self._show_pictures([self.path], limits, start, duration, fps)

    @property
    def damaged(self) -> int:
        """Packets so far that could not be read or decoded; a warning is due where it is not 0 at the end."""
        return self._decoder.damaged if self._decoder else 0

    def statement(self) -> Statement | None:
        """What the file, or the first picture of a folder, says of how it was made, where we have made it."""
        if self._decoder:
            return self._decoder.statement()
        file = read_image_file(self._first_picture, self._limits)
        return None if file is None else find_statement(file[1])

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def close(self) -> None:
        """Release the file; no frame can be read afterwards."""
        self._frames = iter(())
        if self._decoder:
            self._decoder.close()

    def _show_pictures(
        self, paths: list[Path], limits: Limits, start: float, duration: float | None, fps: Fraction
    ) -> None:
        first = round(start * fps)
        count = len(paths) - first if duration is None else min(len(paths) - first, round(duration * fps))
        if count < 1:
            raise MediaError(
                f"{self.path}: none of its {len(paths)} pictures, {fps} a second, lies in that cut; "
                "mend --start or --duration"
            )
        paths = paths[first : first + count]
        limits.check_seconds(self.path, float(count / fps))
        self._first_picture = paths[0]
        image = read_image(paths[0], limits=limits)
        height, width = image.shape[:2]
        self.info = VideoInfo(width, height, fps, count, float(count / fps), has_audio=False)
        self.origin = float(first / fps)
        self._frames = _timed_pictures(image, paths, limits, fps)


def _timed_pictures(first: Image, paths: list[Path], limits: Limits, fps: Fraction) -> Iterator[Frame]:
    height, width = first.shape[:2]
    for number, path in enumerate(paths):
        image = read_image(path, limits=limits) if number else first
        if image.shape != first.shape:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        yield Frame(image, number, 1 / fps)


def _pictures_in(folder: Path) -> list[Path]:
    pictures = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not pictures:
        raise MediaError(f"{folder}: no picture in this folder; it needs files such as 0001.png")
    return sorted(pictures, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorting key by which frame9 comes before frame10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name.lower())
    ]
