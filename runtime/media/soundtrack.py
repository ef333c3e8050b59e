"""Carries the audio of one file into another, copied where the container allows, else encoded anew."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeAlias, cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.filter import Graph

from ...errors import MediaError

__all__ = ["Soundtrack"]

AudioPacket: TypeAlias = "av.Packet[AudioStream]"

_COPIED = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le", "pcm_s16be", "pcm_s24be"},
    "matroska": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "vorbis", "flac", "pcm_s16le", "pcm_s24le"},
    "webm": {"opus", "vorbis"},
}
_EDIT_LISTS = {"mp4", "mov"}  # these can begin to play in the middle of a packet
_ENCODERS = {"mp4": "aac", "mov": "aac", "matroska": "aac", "webm": "libopus"}
_SAMPLE_RATES = {"aac": {32_000, 44_100, 48_000}, "libopus": {48_000}}


class Soundtrack:
    """The audio of `path` from `start` seconds of its time line on, as a stream of `output`.

    A file without audio gives a soundtrack that stays silent. Damaged audio is left out. Raises MediaError
    where the file cannot be opened.
    """

    def __init__(self, output: OutputContainer, path: Path, start: float):
        self._output = output
        self._start = start
        self._packets: Iterator[AudioPacket] = iter(())
        with ExitStack() as opened:
            try:
                file = opened.enter_context(path.open("rb"))
                options = {"protocol_whitelist": "none"}
                self._input: InputContainer = opened.enter_context(
                    av.open(file, "r", options=options, metadata_errors="replace")
                )
            except (av.FFmpegError, OSError) as error:
                raise MediaError(
                    f"{path}: its audio cannot be read ({error.strerror}); check the file"
                ) from error
            streams = [stream for stream in self._input.streams.audio if stream.codec_context is not None]
            if streams:
                self._packets = self._choose(streams[0])
            self._opened = opened.pop_all()
        self._next: AudioPacket | None = None

    def until(self, seconds: float) -> None:
        """Write what begins before that time of the output."""
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            packet = self._next
            if packet is None or float((packet.pts or 0) * packet.time_base) >= seconds:
                return
            with suppress(av.InvalidDataError):  # a damaged packet that the container does not take
                self._output.mux(packet)
            self._next = None

    def close(self) -> None:
        """Release the file that the audio comes from."""
        self._opened.close()

    def _choose(self, source: AudioStream) -> Iterator[AudioPacket]:
        kind = self._output.format.name
        if source.codec_context.name in _COPIED[kind]:
            return self._copied(source, self._output.add_stream_from_template(source))
        encoder = _ENCODERS[kind]
        rate = source.rate if source.rate in _SAMPLE_RATES[encoder] else 48_000
        layout = "mono" if source.channels == 1 else "stereo"
        target = self._output.add_stream(encoder, rate=rate, layout=layout)
        assert isinstance(target, AudioStream)
        return self._encoded(source, target)

    def _demuxed(self, source: AudioStream) -> Iterator[AudioPacket]:
        if self._start > 0 and source.time_base:
            with suppress(av.FFmpegError):  # what cannot seek is read from its beginning
                self._input.seek(int(self._start / source.time_base), stream=source)
        packets = self._input.demux(source)
        # Damage ends the audio there; PyAV gives an IndexError where a stream begins in mid-file.
        with suppress(av.FFmpegError, IndexError):
            yield from packets

    def _copied(self, source: AudioStream, target: AudioStream) -> Iterator[AudioPacket]:
        starts_between_packets = self._output.format.name in _EDIT_LISTS
        last = -math.inf
        for packet in self._demuxed(source):
            if packet.pts is None or packet.dts is None or packet.dts <= last:
                continue  # containers take neither what has no time nor what goes back in it
            last = packet.dts
            shift = round(self._start / packet.time_base)
            is_priming = packet.pts < 0  # what the encoder put before the beginning; decoders expect it
            packet.pts -= shift
            packet.dts -= shift
            if packet.pts >= 0 or (
                packet.pts + (packet.duration or 0) >= 0 and (is_priming or starts_between_packets)
            ):
                packet.stream = target
                yield packet

    def _encoded(self, source: AudioStream, target: AudioStream) -> Iterator[AudioPacket]:
        encoder = target.codec_context
        encoder.open(strict=False)
        graph = Graph()
        graph.link_nodes(
            graph.add_abuffer(template=source),
            graph.add("aresample", "async=1:first_pts=0"),  # cuts before 0, fills gaps with silence
            graph.add(
                "aformat",
                f"sample_fmts={encoder.format.name}:sample_rates={encoder.rate}:"
                f"channel_layouts={encoder.layout.name}",
            ),
            graph.add("abuffersink"),
        ).configure()
        graph.set_audio_frame_size(encoder.frame_size)
        for frame in self._decoded(source):
            graph.push(frame)
            yield from _drain(graph, target)
        graph.push(None)
        yield from _drain(graph, target)
        yield from target.encode(None)

    def _decoded(self, source: AudioStream) -> Iterator[AudioFrame]:
        for packet in self._demuxed(source):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue  # the gap is filled with silence
            for frame in frames:
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts -= round(self._start / frame.time_base)
                    yield frame


def _drain(graph: Graph, target: AudioStream) -> Iterator[AudioPacket]:
    while True:
        try:
            frame = cast(AudioFrame, graph.pull())
        except (BlockingIOError, EOFError):
            return
        yield from target.encode(frame)
