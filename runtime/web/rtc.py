"""Camera frames in and pictures out by WebRTC; one peer connection a session, with one video each way.

The server contacts nobody: it asks no STUN server, listens on the address it was told to, and takes a client's
candidates to be at the address that the client's request came from.
"""

import asyncio
import contextlib
import ipaddress
import logging
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any
from weakref import WeakKeyDictionary

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import SessionDescription

from ..live import Presented
from ..media.frame import Image
from .frames import video_frame
from .live import LivePortrait
from .metrics import Metrics
from .refusals import Refusal
from .sessions import Session
from .settings import ServeSettings, is_loopback

__all__ = ["Peer", "answer", "key_frame_size", "own_offer"]

_log = logging.getLogger(__name__)

CLOCK = 90_000  # ticks a second of video's RTP time
GATHER_SECONDS = 5.0
MOST_UNDECODED = 90
"""Frames that may wait for the decoder: three seconds of a camera, more than a busy server falls behind."""
_MOST_CANDIDATES = 16


class Peer:
    """A session's peer connection."""

    def __init__(self, session: Session, metrics: Metrics, settings: ServeSettings) -> None:
        self._session, self._metrics, self._settings = session, metrics, settings
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._over = asyncio.Event()
        self._came = asyncio.Event()
        self._waiting: av.VideoFrame | None = None
        self._connection.on("connectionstatechange", self._state_changed)
        self._connection.on("track", self._track)

    async def answer(self, offer: str, client: str) -> str:
        """The SDP answer to an offer of one video both ways, made at the address `client`; Refusal where it is none."""
        try:
            with _fault_of_the_offer():
                await self._connection.setRemoteDescription(
                    RTCSessionDescription(own_offer(offer, client), "offer")
                )
                transceiver = self._connection.getTransceivers()[0]
            self._connection.addTrack(_Output(self._session.live, self._metrics))
            _check_before_decoding(transceiver.receiver, self._settings.limits.frame_pixels, self._cut_off)
            _listen_at(_own_addresses(self._settings.address), transceiver)
            with _fault_of_the_offer():
                async with asyncio.timeout(GATHER_SECONDS):
                    await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception:
            await self.close()
            raise
        self._start(self._keep_session())
        return str(self._connection.localDescription.sdp)

    async def close(self) -> None:
        """End it; a second call does nothing."""
        self._over.set()
        await self._connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cut_off(self, why: str) -> None:
        _log.info("a peer was cut off: %s", why)
        self._over.set()

    def _track(self, track: MediaStreamTrack) -> None:
        self._start(self._receive(track))
        self._start(self._convert())

    async def _receive(self, track: MediaStreamTrack) -> None:
        """Take every frame as it comes, so that none wait in aiortc's queue; only the newest is looked at."""
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            assert isinstance(frame, av.VideoFrame)
            self._metrics.count("reenact_frames_total", transport="webrtc", direction="in")
            if self._waiting is not None:
                self._metrics.count("reenact_drops_total", cause="conversion was busy")
            self._waiting = frame
            self._came.set()

    async def _convert(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            frame, self._waiting = self._waiting, None
            if frame is not None:
                self._session.live.offer(await asyncio.to_thread(_pixels, frame))

    async def _keep_session(self) -> None:
        """Count as a live connection while connected; then leave nothing behind."""
        waits = [asyncio.create_task(event.wait()) for event in (self._open, self._over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not self._over.is_set():
                with (
                    self._session.connection(),
                    self._metrics.during("reenact_connections", transport="webrtc"),
                ):
                    await self._over.wait()
            await self._connection.close()
        finally:
            for task in waits:
                task.cancel()

    def _state_changed(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self._open.set()
        elif state in ("failed", "closed"):
            self._over.set()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextlib.contextmanager
def _fault_of_the_offer() -> Iterator[None]:
    """Whatever aiortc makes of a client's text."""
    try:
        yield
    except Exception as error:
        _log.info("an offer was refused: %r", error)
        raise Refusal(
            422, "bad_offer", "This is no offer of one VP8 video that is both sent and received."
        ) from error


class _Output(VideoStreamTrack):
    """The pictures of a portrait as a video track; always the newest one, at the time of the frame behind it."""

    def __init__(self, live: LivePortrait, metrics: Metrics) -> None:
        super().__init__()
        self._live, self._metrics = live, metrics
        self._pictures = live.pictures()
        self._began: float | None = None
        self._sent: Presented | None = None

    async def recv(self) -> av.VideoFrame:
        """The next picture, once there is a newer one; called again when the last one was encoded and sent."""
        if self._sent is not None:
            self._live.sent(self._sent)
            self._metrics.count("reenact_frames_total", transport="webrtc", direction="out")
            self._sent = None
        try:
            picture = await anext(self._pictures)
        except StopAsyncIteration:
            self.stop()
            raise MediaStreamError from None
        if self._began is None:
            self._began = picture.captured
        frame = await asyncio.to_thread(video_frame, picture.image)
        frame.pts = round((picture.captured - self._began) * CLOCK)
        frame.time_base = _TIME_BASE
        self._sent = picture
        return frame


_TIME_BASE = Fraction(1, CLOCK)


@dataclass(eq=False)
class _Place:
    """What a session has of a peer; whoever changes that waits for its turn."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    peer: Peer | None = None

    async def hang_up(self) -> None:
        async with self.turn:
            await self.clear()

    async def clear(self) -> None:
        """End the peer there is; in one's turn."""
        peer, self.peer = self.peer, None
        if peer is not None:
            await peer.close()


_places: WeakKeyDictionary[Session, _Place] = WeakKeyDictionary()


async def answer(session: Session, metrics: Metrics, settings: ServeSettings, offer: str, client: str) -> str:
    """Connect a session to the peer at the address `client` that made an SDP offer; ends its last connection.

    Raises Refusal where the offer is none, the session is over, or this server speaks no WebRTC.
    """
    if not settings.webrtc:
        raise Refusal(409, "no_webrtc", "This server was started without WebRTC; use the WebSocket.")
    place = _places.get(session)
    if place is None:
        place = _places[session] = _Place()
        session.closing.append(place.hang_up)
    async with place.turn:
        await place.clear()
        if session.closed.is_set():
            raise Refusal(410, "closed", "The session is over.")
        place.peer = Peer(session, metrics, settings)
        return await place.peer.answer(offer, client)


def own_offer(offer: str, client: str) -> str:
    """The offer with VP8 alone, and with every candidate at the address `client`, whatever it said.

    Others' addresses are nobody's to name. Where a client's real address differs, behind a NAT for example, its own
    checks tell us. Raises whatever aiortc's parser makes of a text that is no offer.
    """
    description = SessionDescription.parse(offer)
    for media in description.media:
        wanted = {codec.payloadType for codec in media.rtp.codecs if codec.name == "VP8"}
        media.rtp.codecs = [
            codec
            for codec in media.rtp.codecs
            if codec.payloadType in wanted or (codec.name == "rtx" and codec.parameters.get("apt") in wanted)
        ]
        media.fmt = [codec.payloadType for codec in media.rtp.codecs]
        if media.kind != "video" or not wanted:
            raise ValueError("it must hold one VP8 video and nothing else")
        by_udp = [candidate for candidate in media.ice_candidates if candidate.protocol.lower() == "udp"]
        media.ice_candidates = [
            replace(candidate, ip=client, type="host", relatedAddress=None, relatedPort=None)
            for candidate in by_udp[:_MOST_CANDIDATES]
        ]
    if len(description.media) != 1:
        raise ValueError("it must hold one VP8 video and nothing else")
    return str(description)


def key_frame_size(content: bytes) -> tuple[int, int] | None:
    """Width and height that a whole VP8 frame gives to all from it on; None where it gives none (RFC 6386, 9.1)."""
    if len(content) < 10 or content[0] & 1 or content[3:6] != b"\x9d\x01\x2a":
        return None
    width, height = (int.from_bytes(content[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return width, height


class _Checked(queue.Queue[Any]):
    """On its way to aiortc's decoder: what would become larger than `most` pixels, or is too much, does not get there.

    A peer may send as many frames a second as it likes. To leave some out would spoil those that follow, so one that
    sends faster than is decoded is cut off.
    """

    def __init__(self, most: int, cut_off: Callable[[str], None]) -> None:
        super().__init__()
        self._most, self._cut_off = most, cut_off

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """A codec and a whole frame, or None at the end."""
        size = None if item is None else key_frame_size(item[1].data)
        if size is not None and size[0] * size[1] > self._most:
            self._cut_off(f"frames of {size[0]}x{size[1]} pixels")
        elif item is not None and self.qsize() >= MOST_UNDECODED:
            self._cut_off("frames faster than they are decoded")
        else:
            super().put(item, block, timeout)


def _check_before_decoding(receiver: Any, most: int, cut_off: Callable[[str], None]) -> None:
    """VP8 allows 16383x16383 pixels, and a few kilobytes are enough for them."""
    if not isinstance(getattr(receiver, _DECODER_QUEUE, None), queue.Queue):
        raise RuntimeError("this aiortc hands frames to its decoder in another way than those known here")
    setattr(receiver, _DECODER_QUEUE, _Checked(most, cut_off))


_DECODER_QUEUE = "_RTCRtpReceiver__decoder_queue"


def _listen_at(addresses: list[str] | None, transceiver: Any) -> None:
    """aiortc listens on every address but loopback ones; we listen on the one that the server was given."""
    if addresses is None:
        return
    connection = transceiver.receiver.transport.transport.iceGatherer._connection
    original = connection.get_component_candidates

    def gather(component: int, **_found: Any) -> Any:
        return original(component=component, addresses=addresses)

    connection.get_component_candidates = gather


def _own_addresses(address: str) -> list[str] | None:
    """Where to listen for media; None: on every address of this machine."""
    if is_loopback(address):
        return ["::1"] if ":" in address else ["127.0.0.1"]
    own = ipaddress.ip_address(address)
    return None if own.is_unspecified else [str(own)]


def _pixels(frame: av.VideoFrame) -> Image:
    return np.ascontiguousarray(frame.to_ndarray(format="rgb24"), np.uint8)
