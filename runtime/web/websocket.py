"""The WebSocket of a session: its lifeline and status, and camera frames and pictures where WebRTC cannot pass.

Text messages are status, from the server. Binary messages, little-endian: FRAME (1 byte 1, 3 unused, uint32 number,
float64 time of the sender, JPEG) in both directions, the server's with the time of the frame that moved the picture;
ACK (1 byte 2, 3 unused, uint32 number) for each frame that was taken. Nobody has more than WINDOW frames on the way
that were not acknowledged, so nothing piles up however slow a line is: what comes meanwhile is dropped. A picture that
was not acknowledged within ACK_SECONDS counts as lost, so that a client that forgets one is not left without any.
"""

import asyncio
import contextlib
import struct
import time
from collections import OrderedDict
from collections.abc import Sequence

from starlette.websockets import WebSocket, WebSocketDisconnect

from .frames import decode_frame, encode_frame
from .metrics import Metrics
from .refusals import Refusal
from .security import PROTOCOL
from .sessions import Session
from .settings import WebLimits

__all__ = ["ACK", "ACK_SECONDS", "FRAME", "WINDOW", "Line", "pack_ack", "pack_frame"]

FRAME, ACK = 1, 2
WINDOW = 2
ACK_SECONDS = 2.0
STATUS_SECONDS = 0.5
FASTEST_S = 1 / 70  # between two frames that are decoded
_HEAD = struct.Struct("<B3xId")
_ACK_HEAD = struct.Struct("<B3xI")
_KEPT_TIMES = 128
_USUAL_ENDS = (
    Refusal,
    WebSocketDisconnect,
    RuntimeError,
)  # RuntimeError: sent to a socket that was just closed


def pack_frame(number: int, sender_time: float, jpeg: bytes) -> bytes:
    """A FRAME message."""
    return _HEAD.pack(FRAME, number & 0xFFFFFFFF, sender_time) + jpeg


def pack_ack(number: int) -> bytes:
    """An ACK message."""
    return _ACK_HEAD.pack(ACK, number & 0xFFFFFFFF)


class Line:
    """One open WebSocket of a session."""

    def __init__(self, websocket: WebSocket, session: Session, metrics: Metrics, limits: WebLimits) -> None:
        self._websocket, self._session, self._metrics, self._limits = websocket, session, metrics, limits
        self._times: OrderedDict[float, float] = OrderedDict()  # our time of a frame -> its sender's
        self._unacknowledged: dict[int, float] = {}  # number of a picture -> when it was sent, oldest first
        self._room = asyncio.Event()
        self._frames_wanted = asyncio.Event()
        self._sending = asyncio.Lock()
        self._last_frame = 0.0
        self._number = 0

    async def run(self) -> None:
        """Serve until either side ends it, or the session has another one."""
        offered = self._websocket.headers.get("sec-websocket-protocol", "")
        await self._websocket.accept(PROTOCOL if PROTOCOL in offered else None)
        self._session.line += 1
        self._number = self._session.line
        works = (self._receive, self._send_status, self._send_pictures, self._session.closed.wait)
        with self._session.connection(), self._metrics.during("reenact_connections", transport="websocket"):
            jobs = [asyncio.create_task(work()) for work in works]
            try:
                await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in jobs:
                    task.cancel()
                ends = await asyncio.gather(*jobs, return_exceptions=True)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # it may be closed already
            await self._say_goodbye(ends)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, _USUAL_ENDS):
                raise end

    async def _say_goodbye(self, ends: Sequence[object]) -> None:
        refusal = next((end for end in ends if isinstance(end, Refusal)), None)
        if refusal is not None:
            await self._websocket.send_json({"type": "problem", **refusal.problem.model_dump()})
        elif self._session.closed.is_set():
            await self._websocket.send_json({"type": "ended", "unused": self._session.unused})
        await self._websocket.close(1008 if refusal else 1001)

    async def _receive(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            content = message.get("bytes")
            if content is None:
                raise Refusal(422, "bad_message", "This line takes binary messages only.")
            await self._take(content)

    async def _take(self, content: bytes) -> None:
        if len(content) == _ACK_HEAD.size and content[0] == ACK:
            self._unacknowledged.pop(_ACK_HEAD.unpack(content)[1], None)
            self._room.set()
            return
        if len(content) < _HEAD.size or content[0] != FRAME:
            raise Refusal(422, "bad_message", "This message is neither a frame nor an acknowledgement.")
        if len(content) > self._limits.frame_bytes + _HEAD.size:
            raise Refusal(413, "too_large", f"A frame has more than {self._limits.frame_bytes} bytes.")
        arrived = time.perf_counter()
        _, number, sender_time = _HEAD.unpack_from(content)
        if arrived - self._last_frame >= FASTEST_S:
            self._last_frame = arrived
            image = await asyncio.to_thread(decode_frame, content[_HEAD.size :], self._limits.frame_pixels)
            captured = self._session.live.offer(image)
            self._times[captured] = sender_time
            while len(self._times) > _KEPT_TIMES:
                self._times.popitem(last=False)
            self._metrics.count("reenact_frames_total", transport="websocket", direction="in")
            self._frames_wanted.set()
        else:
            self._metrics.count("reenact_drops_total", cause="faster than is looked at")
        await self._send(pack_ack(number))

    async def _send_pictures(self) -> None:
        """Pictures go out here once frames came in here; with WebRTC they go there."""
        await self._frames_wanted.wait()
        number = 0
        async for picture in self._session.live.pictures():
            sender_time = self._times.get(picture.captured)
            if sender_time is None:  # of a frame that came by another way
                continue
            if len(self._unacknowledged) >= WINDOW:
                await self._wait_for_room()
                continue  # there is a newer one by now
            jpeg = await asyncio.to_thread(encode_frame, picture.image)
            number += 1
            self._unacknowledged[number] = time.perf_counter()
            await self._send(pack_frame(number, sender_time, jpeg))
            self._session.live.sent(picture)
            self._metrics.count("reenact_frames_total", transport="websocket", direction="out")

    async def _wait_for_room(self) -> None:
        """Until a picture was acknowledged, or the oldest that was not counts as lost."""
        oldest, sent = next(iter(self._unacknowledged.items()))
        self._room.clear()
        try:
            async with asyncio.timeout(sent + ACK_SECONDS - time.perf_counter()):
                await self._room.wait()
        except TimeoutError:
            self._unacknowledged.pop(oldest, None)
            self._metrics.count("reenact_drops_total", cause="never acknowledged")

    async def _send_status(self) -> None:
        while self._number == self._session.line:
            status = self._session.live.status.model_dump()
            async with self._sending:
                await self._websocket.send_json({"type": "status", **status})
            await asyncio.sleep(STATUS_SECONDS)

    async def _send(self, content: bytes) -> None:
        async with self._sending:
            await self._websocket.send_bytes(content)
