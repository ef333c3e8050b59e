"""Has uploads decoded by processes of their own, one for each, so that a hostile file can only end its own."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..media.frame import Image
from .refusals import Refusal
from .settings import WebLimits

__all__ = ["MAX_SIDE", "Guard", "VideoFacts", "end_process"]

MAX_SIDE = 2048
"""Pixels of the longer side of a photo, as it is kept."""
_MODULE = f"{__package__}.decoder"
_AT_ONCE = 2
END_SECONDS = 2.0


@dataclass(frozen=True)
class VideoFacts:
    """What is known of an uploaded video."""

    width: int
    height: int
    fps: float
    frames: int | None
    seconds: float | None


class Guard:
    """Decodes uploads; keeps one process started ahead, because starting takes longer than decoding."""

    def __init__(self, limits: WebLimits) -> None:
        self._limits = limits
        self._spare: asyncio.Task[Process] | None = None
        self._running: set[Process] = set()
        self._turn = asyncio.Semaphore(_AT_ONCE)

    def warm_up(self) -> None:
        """Start the spare process."""
        if self._spare is None:
            self._spare = asyncio.create_task(_start())

    async def photo(self, path: Path) -> Image:
        """The pixels, (H, W, 3) uint8 RGB, of the photo at `path`, its longer side at most MAX_SIDE.

        Raises Refusal where it is no photo, too large, damaged, or takes too long.
        """
        request = {"what": "photo", "max_pixels": self._limits.photo_pixels, "max_side": MAX_SIDE}
        image: Image = await self._decode(path, request, _read_photo)
        return image

    async def video(self, path: Path) -> VideoFacts:
        """What the video at `path` is, after its first frame was decoded; raises as `photo` does."""
        limits = {"max_pixels": self._limits.video_pixels, "max_seconds": self._limits.video_seconds}
        facts: VideoFacts = await self._decode(path, {"what": "video", **limits}, _read_video)
        return facts

    async def close(self) -> None:
        """End every process."""
        if self._spare is not None:
            self._running.add(await self._spare)
            self._spare = None
        for process in list(self._running):
            await self._end(process)

    async def _decode(self, path: Path, request: dict[str, Any], read: "_Read") -> Any:
        async with self._turn:
            self.warm_up()
            assert self._spare is not None
            started, self._spare = self._spare, None
            process = await started
            self._running.add(process)
            self.warm_up()
            seconds = self._limits.decode_seconds
            try:
                line = json.dumps({**request, "path": str(path), "seconds": seconds}).encode() + b"\n"
                return await asyncio.wait_for(_exchange(process, line, read), seconds)
            except TimeoutError:
                raise Refusal(
                    422, "unreadable", "It takes too long to decode; save it anew and try again."
                ) from None
            except _BROKEN:
                raise Refusal(
                    422, "unreadable", "It could not be decoded safely; save it anew as PNG, JPEG or MP4."
                ) from None
            finally:
                await self._end(process)

    async def _end(self, process: Process) -> None:
        await end_process(process)
        self._running.discard(process)


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", _MODULE, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
    )


async def end_process(process: Process) -> None:
    """Kill a process that was started in a session of its own, with all that it has started, and forget its output."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    with suppress(TimeoutError):
        # Its output has to be read to the end before asyncio takes note that it is gone.
        await asyncio.wait_for(process.communicate(), END_SECONDS)


_Read = Callable[[dict[str, Any], asyncio.StreamReader], Coroutine[Any, Any, Any]]

# What a decoder can do instead of answering; its answer is not trusted more than the upload.
_BROKEN = (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, KeyError, TypeError, OSError)


async def _exchange(process: Process, line: bytes, read: _Read) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line)
    await process.stdin.drain()
    facts = dict(json.loads(await process.stdout.readuntil(b"\n")))
    if "refused" in facts:
        status, code, message = facts["refused"]
        raise Refusal(int(status), str(code), str(message)[:400])
    return await read(facts, process.stdout)


async def _read_photo(facts: dict[str, Any], output: asyncio.StreamReader) -> Image:
    height, width = int(facts["height"]), int(facts["width"])
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise ValueError("the decoder answers with an impossible size")
    pixels = await output.readexactly(height * width * 3)
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


async def _read_video(facts: dict[str, Any], _output: asyncio.StreamReader) -> VideoFacts:
    frames, seconds = facts["frames"], facts["seconds"]
    return VideoFacts(
        int(facts["width"]),
        int(facts["height"]),
        float(facts["fps"]),
        None if frames is None else int(frames),
        None if seconds is None else float(seconds),
    )
