"""Writes frames to a movie, a GIF or a folder of pictures; the output appears whole or not at all."""

import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

import av
import cv2

from ...errors import MediaError
from ..files import move_to_free_name
from ..watermark import marked
from .frame import Frame
from .gif import GifEncoder
from .metadata import UNNAMED, Statement, new_statement, with_statement
from .movie import CODECS, CONTAINERS, MovieEncoder, MovieSettings
from .timeline import Shown, Timeline

__all__ = ["VideoSink", "open_writer"]


def open_writer(
    path: str | Path,
    *,
    width: int,
    height: int,
    fps: Fraction = Fraction(25),
    codec: str | None = None,
    crf: int | None = None,
    audio_from: Path | None = None,
    audio_start: float = 0.0,
    audio_duration: float | None = None,
    system: str = UNNAMED,
    mark: bool = True,
    growing: bool = False,
) -> "VideoSink":
    """Open an output for frames of width x height pixels.

    By its suffix `path` is a movie (.mp4, .m4v, .mov, .mkv, .webm) or an animation (.gif); without a suffix,
    or as text that ends in a slash, it is a folder of PNG files 000000.png and on. An existing file is replaced
    when the new one is whole. A movie of odd size is made even by repeating its last row or column.

    Frames keep their own times, however uneven; `fps` is what they are on average and says how long the last
    one is shown. `codec` is one of h264, hevc, vp9, as far as the container takes it, `crf` its quality
    (0 is best). Movies carry the audio of `audio_from`, if it has any, from `audio_start` seconds of its time
    line on (VideoReader.origin) for `audio_duration` seconds, and never beyond the last frame.

    Every frame is marked as AI-generated, and the file says so in words, with the name of the `system` that made
    it; with `mark` off neither is done, which the log says.

    What cannot be made again is written `growing`: MP4, MOV, MKV and WebM can then be read up to their last second
    at any moment, under their temporary name, and where writing fails what there is stays and gets its name. It
    replaces nothing: where there is a file of that name at the end it gets the next free one (out-2.mp4).

    Raises MediaError, with nothing left behind, where the output cannot be written as asked.
    """
    is_folder = str(path).endswith(("/", "\\")) or not Path(path).suffix
    path = Path(path)
    if fps <= 0:
        raise MediaError(f"--fps {fps}: must be more than 0 frames a second")
    size = (width, height)
    suffix = path.suffix.lower()
    with _telling(path):
        _check_place(path, is_folder)
    if is_folder:
        return VideoSink(path, size, fps, _PngFolder, system=system, mark=mark, growing=growing)
    if suffix == ".gif":
        encode_gif = partial(GifEncoder, width=width, height=height)
        return VideoSink(path, size, fps, encode_gif, system=system, mark=mark, growing=growing)
    if suffix not in CONTAINERS:
        known = ", ".join([*CONTAINERS, ".gif"])
        raise MediaError(
            f"{path}: unknown kind of output; end the name in one of {known}, or leave the suffix away "
            "for a folder of PNG files"
        )
    container = CONTAINERS[suffix]
    codec = codec or container.codecs[0]
    if codec not in container.codecs:
        known = ", ".join(container.codecs)
        raise MediaError(f"{path}: --codec {codec} does not go into {suffix}; choose one of {known}")
    settings = MovieSettings(
        container.format,
        codec,
        _checked_crf(codec, crf),
        fps,
        audio_from,
        audio_start,
        audio_duration,
        growing,
    )
    encoder = partial(MovieEncoder, width=width, height=height, settings=settings)
    return VideoSink(path, size, fps, encoder, system=system, mark=mark, growing=growing)


class _Encoder(Protocol):
    @property
    def drops(self) -> Mapping[str, int]: ...  # cause -> frames that the format cannot show
    def put(self, shown: Shown) -> None: ...
    def finish(self) -> None: ...
    def discard(self) -> None: ...


class VideoSink:
    """An output that is being written, under a temporary name until `close` gives it its own.

    As a context manager it closes at the end and aborts on an exception; close it inside to keep it.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: Fraction,
        open_encoder: Callable[[Path, Statement | None], _Encoder],
        *,
        system: str,
        mark: bool,
        growing: bool = False,
    ):
        """`size` is (width, height) in pixels.

        `open_encoder` begins to write at the path it is given and adds the statement; None: the output is not marked.
        With `growing` what was written stays when writing fails, and it replaces nothing.
        """
        self.path = path  # once it is `kept` where it is, which of a growing one may be another name
        self.kept = False  # whether it has its name
        self._size = size
        self._timeline = Timeline(1 / fps)
        # Absolute, as FFmpeg takes what is before the colon in 12:30.mp4 for a protocol.
        self._part = path.absolute().with_name(f".{path.name[:60]}.part-{secrets.token_hex(4)}")
        self._is_open = True
        self._has_frames = False
        self._growing = growing
        self._failed = False  # a growing one: there is nothing to add to what it holds
        self._statement = new_statement(path, system, mark)
        try:
            with _telling(path):
                self._encoder = open_encoder(self._part, self._statement)
        except BaseException:
            _remove(self._part)
            raise

    @property
    def drops(self) -> Mapping[str, int]:
        """Frames that were written and are not in the output, by their cause: what the format cannot show."""
        return self._encoder.drops

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abort()
        elif self._is_open:
            self.close()

    def write(self, frame: Frame) -> None:
        """Add a frame, later than the last one. Raises MediaError where that fails; nothing is left then.

        Of a growing output what was written before stays, and `close` is due.
        """
        height, width = frame.image.shape[:2]
        if not self._is_open:
            raise ValueError(f"{self.path}: written to after it was closed")
        if (width, height) != self._size:
            raise ValueError(
                f"frame of {width}x{height} pixels for an output of {self._size[0]}x{self._size[1]}"
            )
        try:
            if self._statement is not None:
                frame = Frame(marked(frame.image), frame.pts, frame.time_base)
            with _telling(self.path):
                for shown in self._timeline.push(frame):
                    self._encoder.put(shown)
        except Exception:  # not an interrupt: after that, what there is can still be closed
            if self._growing:
                self._failed = True
            else:
                self.abort()
            raise
        self._has_frames = True

    def close(self) -> None:
        """Complete the output and give it its name; does nothing when done before.

        Raises MediaError where that fails or no frame was written; nothing is left then, but of a growing output,
        which gets its name with what it holds. `path` says which that is.
        """
        if not self._is_open:
            return
        if self._failed and self._has_frames:
            self._leave()
            return
        try:
            if not self._has_frames:
                raise MediaError(f"{self.path}: no frame was written, so there is nothing to keep")
            with _telling(self.path):
                for shown in self._timeline.flush():
                    self._encoder.put(shown)
                self._encoder.finish()
                self._give_name()
        except BaseException:
            if self._growing and self._has_frames:
                self._leave()
            else:
                self.abort()
            raise
        self._is_open = False

    def _give_name(self) -> None:
        if self._growing:
            self.path = move_to_free_name(self._part, self.path)
        else:
            if self.path.is_dir():
                self.path.rmdir()  # an empty folder, to be replaced by ours
            self._part.replace(self.path)
        self.kept = True

    def _leave(self) -> None:
        """Keep what there is as it is."""
        self._is_open = False
        with suppress(av.FFmpegError, OSError):
            self._encoder.discard()
        with _telling(self.path):
            self._give_name()

    def abort(self) -> None:
        """Throw the output away; a file that was there before stays. Does nothing after `close`."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            with suppress(av.FFmpegError, OSError):  # it is thrown away, so how it ends is of no interest
                self._encoder.discard()
        finally:
            _remove(self._part)


class _PngFolder:
    """Writes each frame as a numbered PNG file into one folder."""

    drops: Mapping[str, int] = MappingProxyType({})

    def __init__(self, folder: Path, statement: Statement | None):
        folder.mkdir()
        self._statement = statement
        self._folder = folder
        self._count = 0

    def put(self, shown: Shown) -> None:
        image = cv2.cvtColor(shown.frame.image, cv2.COLOR_RGB2BGR)
        _, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        content = encoded.tobytes()
        if self._statement is not None:
            content = with_statement(content, ".png", self._statement)
        (self._folder / f"{self._count:06d}.png").write_bytes(content)
        self._count += 1

    def finish(self) -> None:
        """Nothing is left to do: each file is complete."""

    def discard(self) -> None:
        """Nothing is open; the sink removes the folder."""


def _check_place(path: Path, is_folder: bool) -> None:
    if not path.parent.is_dir():
        raise MediaError(
            f"{path}: the folder {path.parent} does not exist; create it or choose another place"
        )
    if is_folder and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise MediaError(f"{path}: already holds something; choose a new or empty folder for the pictures")
    if not is_folder and path.is_dir():
        raise MediaError(
            f"{path}: this is a folder; name a file, or for a folder of pictures one without a suffix"
        )


def _checked_crf(codec: str, crf: int | None) -> int:
    known = CODECS[codec]
    if known.encoder not in av.codecs_available:
        raise MediaError(f"--codec {codec}: this build of PyAV has no {known.encoder}; choose another codec")
    if crf is not None and not 0 <= crf <= known.highest_crf:
        raise MediaError(f"--crf {crf}: {codec} takes 0 (best) to {known.highest_crf}")
    return known.crf if crf is None else crf


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Turn what encoder and disk say into a MediaError that names the output."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise MediaError(
            f"{path}: cannot be written ({error.strerror}); choose another place or make room on the disk"
        ) from error


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    else:
        part.unlink(missing_ok=True)
