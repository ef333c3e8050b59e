"""Encodes frames and a soundtrack into MP4, MOV, MKV or WebM."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import av
import cv2
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from .frame import Image
from .growing import GrowingFile
from .metadata import Statement, movie_tags
from .soundtrack import Soundtrack
from .timeline import Shown

__all__ = ["CODECS", "CONTAINERS", "MovieEncoder", "MovieSettings"]

_GROWING = {"movflags": "+hybrid_fragmented+frag_keyframe", "frag_duration": "1000000"}

_BT709 = 1  # the same number for matrix, primaries and brightness curve


@dataclass(frozen=True)
class _Codec:
    encoder: str  # FFmpeg's name
    options: dict[str, str]
    crf: int  # by default
    highest_crf: int


# Without B-frames the order of decoding is that of showing: then MP4 states the right length of uneven times.
CODECS = {
    "h264": _Codec("libx264", {"preset": "superfast", "bf": "0"}, 20, 51),
    "hevc": _Codec("libx265", {"preset": "veryfast", "x265-params": "log-level=none:bframes=0"}, 20, 51),
    "vp9": _Codec("libvpx-vp9", {"deadline": "realtime", "cpu-used": "6", "row-mt": "1", "b": "0"}, 24, 63),
}
"""What can be asked for as codec."""


@dataclass(frozen=True)
class _Container:
    format: str  # FFmpeg's name
    codecs: tuple[str, ...]  # the first is the default


CONTAINERS = {
    ".mp4": _Container("mp4", ("h264", "hevc", "vp9")),
    ".m4v": _Container("mp4", ("h264", "hevc")),
    ".mov": _Container("mov", ("h264", "hevc")),
    ".mkv": _Container("matroska", ("h264", "hevc", "vp9")),
    ".webm": _Container("webm", ("vp9",)),
}
"""Suffixes of movie files."""


@dataclass(frozen=True)
class MovieSettings:
    """How a movie is encoded."""

    container: str  # FFmpeg's name
    codec: str  # one of CODECS
    crf: int  # quality: 0 best
    fps: Fraction  # expected; the frames' own times are what counts
    audio_from: Path | None
    audio_start: float  # seconds on the time line of that file
    audio_duration: float | None  # seconds
    growing: bool = False  # can be read up to its last second at any moment, whatever happens


class MovieEncoder:
    """Writes one movie file at an absolute path.

    Raises av.FFmpegError or OSError where the encoder or the disk refuses.
    """

    drops: Mapping[str, int] = MappingProxyType({})

    def __init__(
        self, path: Path, statement: Statement | None, *, width: int, height: int, settings: MovieSettings
    ):
        self._soundtrack: Soundtrack | None = None
        codec = CODECS[settings.codec]
        options: dict[str, str] = {}
        if settings.container in ("mp4", "mov"):
            # In pieces of a second while it grows; an ordinary file, its index at the end, once it is finished.
            options = _GROWING if settings.growing else {"movflags": "+faststart"}
        elif settings.growing:
            options = {"cluster_time_limit": "1000"}  # milliseconds
        path.touch()  # FFmpeg would find out at the first frame only
        self._file = GrowingFile(path) if settings.growing else None
        self._output = av.open(
            self._file or str(path), "w", format=settings.container, container_options=options
        )
        try:
            if statement is not None:
                self._output.metadata.update(movie_tags(statement))
            stream = self._output.add_stream(
                codec.encoder, rate=settings.fps, options={**codec.options, "crf": str(settings.crf)}
            )
            assert isinstance(stream, VideoStream)
            self._stream = stream
            self._describe_stream(width, height, settings)
            if settings.audio_from is not None:
                self._soundtrack = Soundtrack(self._output, settings.audio_from, settings.audio_start)
        except BaseException:
            self.discard()
            raise
        self._reformatter = VideoReformatter()
        self._end = Fraction(0)
        self._audio_end = math.inf if settings.audio_duration is None else settings.audio_duration
        self._started = False

    def put(self, shown: Shown) -> None:
        """Encode one frame and the audio up to its end."""
        frame = shown.frame
        if not self._started:
            self._stream.codec_context.time_base = frame.time_base
            self._started = True
        picture = self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(_even(frame.image), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        picture.pts = frame.pts
        picture.duration = shown.duration
        picture.time_base = frame.time_base
        self._output.mux(self._stream.encode(picture))
        self._end = (frame.pts + shown.duration) * frame.time_base
        if self._soundtrack is not None:
            self._soundtrack.until(min(float(self._end), self._audio_end))

    def finish(self) -> None:
        """Write what is left and complete the file."""
        self._output.mux(self._stream.encode(None))
        if self._soundtrack is not None:
            self._soundtrack.until(min(float(self._end), self._audio_end))
            self._soundtrack.close()
        self._close()

    def discard(self) -> None:
        """Release everything; the file is of no use."""
        if self._soundtrack is not None:
            self._soundtrack.close()
        self._close()

    def _close(self) -> None:
        try:
            self._output.close()
        finally:
            if self._file is not None:
                self._file.close()

    def _describe_stream(self, width: int, height: int, settings: MovieSettings) -> None:
        stream = self._stream
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        if settings.codec == "hevc" and settings.container in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # what Apple's players ask for


def _even(image: Image) -> Image:
    """The picture with its last row and column repeated where its size is odd: players want 4:2:0."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return image
