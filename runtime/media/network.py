"""Streams from the network as inputs: RTSP, MJPEG and films over HTTP, from hosts that were allowed and no others."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from ...errors import MediaError
from .inputs import DAMAGED, LATE_S, MOST_DAMAGED, Captured
from .limits import DEFAULT_LIMITS, Limits
from .picture import FrameConverter

__all__ = ["UrlInput", "check_url"]

OPENING_S = 5.0  # without an answer
PICTURE_S = 2.5  # without a picture; shorter than a feed that is closed waits for
RTSP_PORT = 554
MOST_ANSWER = 65536  # bytes of a camera's first answer

_PROTOCOLS = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "http": "http,tcp",
    "https": "https,http,tls,tcp",
}


class UrlInput:
    """A stream from the network: RTSP, or HTTP with a movie or a camera's MJPEG."""

    asked = ""

    def __init__(
        self,
        url: str,
        *,
        limits: Limits = DEFAULT_LIMITS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`url` as `check_url` has passed it. Raises MediaError where it cannot be opened.

        Pictures beyond `limits` are refused when they are read; those of a stream's length do not count.
        """
        self.name = _without_password(url)
        self.lost: Counter[str] = Counter()
        self._stopped = threading.Event()
        self._clock = clock
        with ExitStack() as opened:
            container = opened.enter_context(_connected(url, self.name, limits))
            stream = _video_stream(container, self.name)
            self._converter = FrameConverter(
                Path(self.name), limits, stream.sample_aspect_ratio or Fraction(1)
            )
            self._is_film = bool(container.duration and container.duration > 0)
            self._frames = _decoded(container, stream)
            self._opened = opened.pop_all()
        self._began: float | None = None

    def read(self) -> Captured | None:
        """The next frame that can be read; None at the end of a film. Raises MediaError where the stream breaks off."""
        frame = self._next()
        if frame is None:
            if self._is_film:
                return None
            raise MediaError(f"{self.name}: the stream has ended")
        image = self._converter.convert(frame)
        now = self._clock()
        if not self._is_film or frame.time is None:
            return Captured(image, now)
        if self._began is None or now - self._began - frame.time > LATE_S:
            self._began = now - frame.time
        due = self._began + frame.time
        if due > now:
            self._stopped.wait(due - now)
        return Captured(image, due)

    def _next(self) -> av.VideoFrame | None:
        for _ in range(MOST_DAMAGED):
            began = time.monotonic()
            try:
                frame = next(self._frames, None)
            except (av.FFmpegError, OSError) as error:
                raise MediaError(
                    f"{self.name}: the stream broke off ({_reason(error, began, PICTURE_S)})"
                ) from error
            if not isinstance(frame, _Damaged):
                return frame
            self.lost[DAMAGED] += 1
        raise MediaError(f"{self.name}: {MOST_DAMAGED} pictures in a row cannot be decoded")

    def stop(self) -> None:
        """Wait for no frame's time any more; for the network it is waited up to PICTURE_S."""
        self._stopped.set()

    def close(self) -> None:
        """Close the connection."""
        self._opened.close()


def _connected(url: str, name: str, limits: Limits) -> InputContainer:
    """The stream at an address; MediaError where it cannot be opened."""
    parts = urlsplit(url)
    options = {
        # No redirect and no playlist leads to another place than the one that was allowed; RTSP's redirects have no
        # option and are asked about before.
        "protocol_whitelist": _PROTOCOLS[parts.scheme.lower()],
        "format_whitelist": "rtsp,mpjpeg,jpeg_pipe,mjpeg,mpegts,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,flv",
        "max_redirects": "0",
        "rtsp_transport": "tcp",
        "max_pixels": str(limits.max_pixels),
    }
    began = time.monotonic()
    try:
        if parts.scheme.lower() == "rtsp":
            _refuse_redirect(parts, name)
            began = time.monotonic()
        return av.open(url, "r", options=options, timeout=(OPENING_S, PICTURE_S))
    except (av.FFmpegError, OSError) as error:
        raise MediaError(
            f"{name}: cannot be opened ({_reason(error, began, OPENING_S)}); check the address, and "
            "that it is the stream itself and not a page or a playlist"
        ) from error


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    if not container.streams.video:
        raise MediaError(f"{name}: no video in it; name a stream with a picture")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise MediaError(f"{name}: no decoder for its video; let it send H.264 or MJPEG")
    return stream


class _Damaged:
    """In place of a picture that cannot be decoded."""


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame | _Damaged]:
    """What comes; only what the connection itself fails with is raised."""
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError:
            yield _Damaged()
        else:
            yield from (frame for frame in frames if isinstance(frame, av.VideoFrame))


def _reason(error: Exception, began: float, limit: float) -> str:
    """What went wrong; FFmpeg has many names for a time limit."""
    if isinstance(error, TimeoutError) or time.monotonic() - began >= limit:
        return f"no answer for {limit:g} s"
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _refuse_redirect(parts: SplitResult, name: str) -> None:
    """MediaError where an RTSP camera sends those who ask for its stream to another address: FFmpeg would follow.

    Asked without the password. Raises OSError where there is no answer.
    """
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    until = time.monotonic() + OPENING_S
    answer = b""
    with socket.create_connection((parts.hostname or "", parts.port or RTSP_PORT), OPENING_S) as connection:
        connection.sendall(
            f"DESCRIBE {address} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in answer and len(answer) < MOST_ANSWER:
            connection.settimeout(max(0.001, until - time.monotonic()))
            received = connection.recv(4096)
            if not received:
                break
            answer += received
    lines = answer.decode("latin-1").split("\r\n")
    if lines[0].split()[1:2] and lines[0].split()[1].startswith("3"):
        to = next((line[9:].strip() for line in lines if line.lower().startswith("location:")), "")
        raise MediaError(
            f"{name}: it sends on to another address, which is not followed; name that one: {_without_password(to)}"
        )


def check_url(url: str, allowed: list[str]) -> str:
    """`url` itself where its kind is known and its host one of `allowed`; MediaError else."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError as error:
        raise MediaError(f"{_without_password(url)!r} is not an address ({error})") from error
    if not _has_port(parts):
        raise MediaError(
            f"{_without_password(url)!r} is not an address (its port is no number from 0 to 65535; write a / in a "
            "password as %2F)"
        )
    if any(sign.isspace() or not sign.isprintable() for sign in url):
        raise MediaError(
            f"{_without_password(url)!r} is not an address (it has blanks in it; write them as %20)"
        )
    if parts.scheme.lower() not in _PROTOCOLS:
        raise MediaError(
            f"{_without_password(url)}: streams come by {', '.join(_PROTOCOLS)}, not by {parts.scheme[:20]!r}"
        )
    if host not in {name.lower() for name in allowed}:
        if _may_be_password(parts):
            raise MediaError(
                f"{_without_password(url)}: where its host begins is not clear; write a /, ? or # in a password as "
                "%2F, %3F or %23"
            )
        raise MediaError(
            f"{_without_password(url)}: nothing is read from the network unasked; allow it with --allow-url {host}"
        )
    return url


def _has_port(parts: SplitResult) -> bool:
    """Whether the port can be used, if one is named; what is said of one that cannot may be part of a password."""
    try:
        return parts.port is None or parts.port >= 0
    except ValueError:
        return False


def _may_be_password(parts: SplitResult) -> bool:
    """Whether what reads as a host, a port and more may be a name and a password with one of / ? # in it."""
    return (
        parts.port is not None
        and "@" not in parts.netloc
        and any("@" in part for part in (parts.path, parts.query, parts.fragment))
    )


def _without_password(url: str) -> str:
    behind = url.rpartition("@")[2].partition("?")[0][:200]
    try:
        parts = urlsplit(url)
        if _may_be_password(parts):
            return behind
        host = parts.hostname or ""
        place = host if parts.port is None else f"{host}:{parts.port}"
    except ValueError:
        return behind
    return parts._replace(netloc=place, query="").geturl()[:200]
