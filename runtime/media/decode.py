"""Decodes one video file with FFmpeg: seeks, cuts, skips what is damaged, keeps the time stamps."""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ...errors import MediaError
from ..closing import Closing
from .frame import Frame
from .limits import Limits
from .metadata import Statement, find_statement
from .picture import FrameConverter

__all__ = ["StreamDecoder", "VideoInfo"]

_TEXT_ART = {"tty", "bin", "xbin", "adf", "idf"}  # FFmpeg takes any .txt file for one
_FAILURES_IN_A_ROW = 100
_THREADS = 8
_PIXELS_FOR_FRAME_THREADS = 500_000
_MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are read."""

    width: int  # pixels as shown: upright, square pixels
    height: int
    fps: Fraction  # average; the frames' own times are what counts
    frames: int | None  # estimate of how many will be shown
    duration: float | None  # seconds that will be shown, as the file says
    has_audio: bool


class StreamDecoder(Closing):
    """The frames of a video file between `start` and `start + duration` seconds, in order, each once.

    Opening decodes the first frame, so that a file that cannot be read is known at once. Raises MediaError
    naming the file where it has no video or nothing in it can be decoded, LimitError where it is beyond
    `limits`.
    """

    info: VideoInfo
    first: Frame
    origin: float
    """Where the first shown frame lies on the file's own time line, in seconds; its audio is on the same."""
    damaged: int
    """Packets that could not be read or decoded so far; their frames are left out."""

    def __init__(self, path: Path, *, limits: Limits, start: float = 0.0, duration: float | None = None):
        self.damaged = 0
        self._path = path
        self._limits = limits
        self._start = start
        self._duration = duration
        with ExitStack() as opened:
            self._opened = opened
            self._open()
            self._time_base = self._stream.time_base or Fraction(1, 90_000)
            self._fps = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
            self._beginning = self._first_tick()
            self._check_length()
            self._converter = FrameConverter(path, limits, self._stream.sample_aspect_ratio or Fraction(1))
            self._shown = self._cut()
            first = next(self._shown, None)
            if first is None:
                raise MediaError(f"{path}: {self._why_nothing_is_shown()}")
            self.first = first
            self.info = self._describe(first)
            self._opened = opened.pop_all()

    def __iter__(self) -> Iterator[Frame]:
        yield self.first
        yield from self._shown

    def statement(self) -> Statement | None:
        """What the file's tags say of how it was made, where we have made it."""
        tags = {**self._container.metadata, **self._stream.metadata}
        return find_statement("\n".join(tags.values()))

    def close(self) -> None:
        """Release the file; no frame can be read afterwards."""
        self._shown.close()
        self._opened.close()

    def _open(self) -> None:
        self._container = _open(self._path, self._limits, self._opened)
        self._stream = self._video_stream()

    def _video_stream(self) -> VideoStream:
        cover = Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if not streams:
            raise MediaError(f"{self._path}: no video stream in it; name a file with a picture")
        stream = streams[0]
        if stream.codec_context is None:
            raise MediaError(
                f"{self._path}: no decoder for its video; convert it to H.264, for example with ffmpeg"
            )
        self._limits.check_pixels(self._path, stream.width, stream.height)
        # Frame threads are faster, but where the very end of a file is damaged they lose good frames with it.
        large = stream.width * stream.height > _PIXELS_FOR_FRAME_THREADS
        stream.thread_type = "AUTO" if large else "SLICE"
        stream.codec_context.thread_count = min(_THREADS, os.cpu_count() or 1)
        stream.codec_context.options = {"max_pixels": str(_decoder_pixels(self._limits))}
        return stream

    def _first_tick(self) -> int:
        """Time stamp of the first frame of the whole file, in ticks of the time base."""
        if self._stream.start_time is not None:
            return self._stream.start_time
        return self._ticks((self._container.start_time or 0) / _MICROSECONDS)

    def _ticks(self, seconds: float) -> int:
        return round(seconds / self._time_base)

    def _total_seconds(self) -> float | None:
        if self._stream.duration:
            return float(self._stream.duration * self._time_base)
        return self._container.duration / _MICROSECONDS if self._container.duration else None

    def _shown_seconds(self) -> float | None:
        total = self._total_seconds()
        rest = None if total is None else max(0.0, total - self._start)
        return min((seconds for seconds in (rest, self._duration) if seconds is not None), default=None)

    def _check_length(self) -> None:
        total = self._total_seconds()
        if total is not None and self._start >= total:
            raise MediaError(f"{self._path}: lasts only {total:.2f} s; choose a --start before that")
        self._limits.check_seconds(self._path, self._shown_seconds() or 0.0)

    def _why_nothing_is_shown(self) -> str:
        if self.damaged:
            return f"no frame of it can be decoded ({self.damaged} damaged packets); get the file again"
        if self._start or self._duration is not None:
            return "no frame lies between --start and --start plus --duration; choose another cut"
        return "it holds no frame; get the file again"

    def _describe(self, first: Frame) -> VideoInfo:
        height, width = first.image.shape[:2]
        seconds = self._shown_seconds()
        frames = None if seconds is None else max(1, round(seconds * self._fps))
        if self._stream.frames and not self._start and self._duration is None:
            frames = self._stream.frames
        return VideoInfo(width, height, self._fps, frames, seconds, bool(self._container.streams.audio))

    def _cut(self) -> Generator[Frame]:
        """The frames to be shown, timed from the first of them."""
        start = self._beginning + self._ticks(self._start)
        end = None if self._duration is None else start + self._ticks(self._duration)
        zero: int | None = None
        for decoded, tick in self._from(start):
            if tick < start:
                continue
            if end is not None and tick >= end:
                return
            if zero is None:
                zero = tick
                self.origin = float(zero * self._time_base)
            self._limits.check_seconds(self._path, float((tick - zero) * self._time_base))
            yield Frame(self._converter.convert(decoded), tick - zero, self._time_base)

    def _from(self, start: int) -> Iterator[tuple[av.VideoFrame, int]]:
        """Decoded frames from the last key frame before `start` or earlier."""
        if start > self._beginning:
            with suppress(av.FFmpegError):  # what cannot seek is decoded from its beginning
                self._container.seek(start, stream=self._stream)
            frames = self._timed()
            head = next(frames, None)
            if head is not None and head[1] <= start:
                yield head
                yield from frames
                return
            self._open()  # some containers lead past the frame that is looked for
        yield from self._timed()

    def _timed(self) -> Iterator[tuple[av.VideoFrame, int]]:
        """Decoded frames with strictly increasing time stamps, in ticks."""
        step = max(1, round(1 / self._fps / self._time_base))
        last = self._beginning - step
        shift = 0
        for number, decoded in enumerate(self._decoded()):
            stamp = decoded.pts if decoded.pts is not None else decoded.dts
            tick = last + step if stamp is None else stamp + shift
            if number and tick <= last:
                clock_restarted = last - tick > 2 * step  # such as where two recordings were joined
                shift += last + step - tick if clock_restarted else 0
                tick = last + step if clock_restarted else last + 1
            last = tick
            yield decoded, tick

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Every frame that can be decoded; what cannot is counted in `damaged`."""
        for packet in self._packets():
            try:
                decoded = packet.decode()
            except EOFError:
                continue
            except av.FFmpegError:
                self.damaged += 1
                continue
            yield from decoded

    def _packets(self) -> Iterator["av.Packet[VideoStream]"]:
        failures = 0
        packets = self._container.demux(self._stream)
        while failures < _FAILURES_IN_A_ROW:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, IndexError):  # the latter: PyAV met a stream that begins in mid-file
                self.damaged += 1
                failures += 1
                packets = self._container.demux(self._stream)  # an error ends the generator, not the file
                continue
            failures = 0
            yield packet


def _open(path: Path, limits: Limits, opened: ExitStack) -> InputContainer:
    try:
        file = opened.enter_context(path.open("rb"))
        # Read through a Python file, so that no name is taken for an address or a pattern; with no protocol
        # allowed, a play list cannot lead to other files or to the network.
        options = {"protocol_whitelist": "none", "max_pixels": str(_decoder_pixels(limits))}
        container = opened.enter_context(av.open(file, "r", options=options, metadata_errors="replace"))
    except (av.FFmpegError, OSError) as error:
        raise MediaError(
            f"{path}: cannot be read as a picture or video ({error.strerror}); check the file"
        ) from error
    if container.format.name in _TEXT_ART:
        raise MediaError(f"{path}: this is text, not a picture or video")
    return container


def _decoder_pixels(limits: Limits) -> int:
    """What a decoder may allocate: its pictures are padded, so more than is shown."""
    return 2 * limits.max_pixels + 2**20
