"""Encodes frames as an animated GIF with one palette that is made for the whole clip."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .metadata import Statement, with_statement
from .timeline import Shown

__all__ = ["GifEncoder"]

_TICK = Fraction(1, 100)
_SHORTEST = 2  # ticks: viewers slow down what is faster
TOO_FAST = "more than a GIF can show"


class GifEncoder:
    """Writes one GIF, at an absolute path, that repeats for ever; frames beyond 50 a second are left out.

    What comes too soon after the last one is shown when it is time, if it still lasts then: of 60 a second 50 stay.
    The palette needs all frames, so they wait losslessly compressed in a file beside `path` until `finish`.
    Raises av.FFmpegError or OSError where the disk refuses.
    """

    def __init__(self, path: Path, statement: Statement | None, *, width: int, height: int):
        self._path = path
        self._statement = statement
        self._frames_path = path.with_name(path.name + "-frames")
        path.touch()  # FFmpeg would find out at the first frame only
        self._frames = av.open(str(self._frames_path), "w", format="nut")
        stream = self._frames.add_stream("huffyuv", rate=1 / _TICK)
        assert isinstance(stream, VideoStream)
        self._stream = stream
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        stream.codec_context.time_base = _TICK
        self.drops: Counter[str] = Counter()
        self._last = -_SHORTEST
        self._end = 0

    def put(self, shown: Shown) -> None:
        """Keep one frame, or count it in `drops`."""
        frame = shown.frame
        end = (frame.pts + shown.duration) * frame.time_base / _TICK
        self._end = round(end)
        due = self._last + _SHORTEST
        tick = max(due, round(frame.pts * frame.time_base / _TICK))
        if tick == due and end <= due:
            self.drops[TOO_FAST] += 1
            return
        self._last = tick
        picture = VideoFrame.from_numpy_buffer(frame.image, format="rgb24")
        picture.pts, picture.time_base = tick, _TICK
        self._frames.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Make the palette and the GIF."""
        self._frames.mux(self._stream.encode(None))
        self._frames.close()
        last_duration = max(_SHORTEST, self._end - self._last)
        _write_gif(self._frames_path, self._path, _palette(self._frames_path), last_duration)
        self._frames_path.unlink()
        if self._statement is not None:
            self._path.write_bytes(with_statement(self._path.read_bytes(), ".gif", self._statement))

    def discard(self) -> None:
        """Release everything; the file is of no use."""
        try:
            self._frames.close()
        finally:
            self._frames_path.unlink(missing_ok=True)


def _palette(frames_path: Path) -> VideoFrame:
    with av.open(str(frames_path)) as frames:
        graph = Graph()
        source = graph.add_buffer(template=frames.streams.video[0])
        graph.link_nodes(source, graph.add("palettegen"), graph.add("buffersink")).configure()
        for frame in frames.decode(video=0):
            graph.vpush(frame)
        graph.vpush(None)
        return graph.vpull()


def _write_gif(frames_path: Path, path: Path, palette: VideoFrame, last_duration: int) -> None:
    options = {"final_delay": str(last_duration)}
    with (
        av.open(str(frames_path)) as frames,
        av.open(str(path), "w", format="gif", container_options=options) as output,
    ):
        source = frames.streams.video[0]
        target = output.add_stream("gif", rate=1 / _TICK)
        target.width, target.height, target.pix_fmt = source.width, source.height, "pal8"
        target.codec_context.time_base = _TICK
        graph = Graph()
        pictures = graph.add_buffer(template=source)
        colours = graph.add_buffer(width=16, height=16, format=palette.format, time_base=_TICK)
        mapping = graph.add("paletteuse", "dither=bayer:bayer_scale=4:diff_mode=rectangle")
        pictures.link_to(mapping, 0, 0)
        colours.link_to(mapping, 0, 1)
        mapping.link_to(graph.add("buffersink"))
        graph.configure()
        graph.vpush(palette, at=1)
        graph.vpush(None, at=1)
        for frame in frames.decode(source):
            graph.vpush(frame, at=0)
            _drain(graph, target, output)
        graph.vpush(None, at=0)
        _drain(graph, target, output)
        output.mux(target.encode(None))


def _drain(graph: Graph, target: VideoStream, output: OutputContainer) -> None:
    while True:
        try:
            frame = graph.vpull()
        except (BlockingIOError, EOFError):
            return
        output.mux(target.encode(frame))
