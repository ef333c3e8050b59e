"""What gives frames in real time: a camera, or a file played as if it were one; `network.py` has streams.

Each is used by one thread, except `stop`. Capture times are seconds of `time.perf_counter`.
"""

import math
import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from ...errors import MediaError
from .frame import Image
from .gaps import Gaps
from .limits import DEFAULT_LIMITS, Limits
from .reader import VideoReader
from .v4l2 import why_not

__all__ = [
    "DAMAGED",
    "LATE_S",
    "LEFT_OUT",
    "MOST_DAMAGED",
    "CameraRequest",
    "Captured",
    "DeviceInput",
    "FileInput",
    "Input",
]

LEFT_OUT, DAMAGED = "source left out", "damaged"  # causes of losses

LATE_S = 0.5  # a file that is so far behind its times is not played faster to catch up
STAMPED_S = 2.0  # a driver's time stamp is believed when it lies no further back
MOST_DAMAGED = 30  # pictures in a row; then the input counts as broken
_STALLED_CAMERA_S = "2"
UNEXPLAINED = "check that it is plugged in, that no other program uses it, and that you may read it"

# Left to itself OpenCV opens a device path with FFmpeg, which takes no wishes and tells no capture times.
_BACKENDS = {"Linux": cv2.CAP_V4L2, "Windows": cv2.CAP_DSHOW, "Darwin": cv2.CAP_AVFOUNDATION}


@dataclass(frozen=True, eq=False)
class Captured:
    """A frame, (H, W, 3) uint8 RGB, and when it was taken."""

    image: Image
    time: float


class Input(Protocol):
    """Something that gives frames in real time."""

    name: str  # for people
    asked: str  # what was asked of it and what it says to give; "" for what takes no wishes
    lost: Counter[str]  # cause -> frames that never came; whoever reads takes them out

    def read(self) -> Captured | None:
        """The next frame, waited for; None at the end. Raises MediaError where it stopped."""

    def stop(self) -> None:
        """From any thread: let a `read` that waits for its time return; what it gives is of no use any more."""

    def close(self) -> None:
        """Release it."""


@dataclass(frozen=True)
class CameraRequest:
    """What is asked of a camera when it is opened; it may give something else."""

    width: int = 1280  # pixels
    height: int = 720
    fps: float = 30.0
    mjpeg: bool = True  # compressed by the camera: most give their full rate at larger sizes only so

    def __str__(self) -> str:
        return f"{self.width}x{self.height}, {self.fps:g} fps{', MJPG' if self.mjpeg else ''}"


def _why_not(device: int | str) -> str:
    """Why a camera cannot be opened, where the system says."""
    if platform.system() != "Linux" or isinstance(device, int):
        return ""
    from fcntl import ioctl

    return why_not(Path(device), ioctl)


class DeviceInput:
    """A camera of this machine, opened with OpenCV through the system's own interface."""

    def __init__(
        self,
        device: int | str,
        request: CameraRequest,
        *,
        name: str,
        open_capture: Callable[[Any, int], Any] = cv2.VideoCapture,
        explain: Callable[[int | str], str] = _why_not,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`device` is a number or a path such as /dev/video0.

        Raises MediaError where it cannot be opened, with what `explain` finds out about it.
        """
        # OpenCV waits 10 s for a frame of a camera that stalls; it reads this at the first wait.
        os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", _STALLED_CAMERA_S)
        self.name = name
        self.lost: Counter[str] = Counter()
        self._gaps = Gaps()
        self._clock = clock
        self._capture = open_capture(device, _BACKENDS.get(platform.system(), cv2.CAP_ANY))
        if not self._capture.isOpened():
            self._capture.release()
            raise MediaError(f"camera {name}: cannot be opened: {explain(device) or UNEXPLAINED}")
        self.asked = self._ask(request)

    def _ask(self, request: CameraRequest) -> str:
        capture = self._capture
        if request.mjpeg:  # before the size: some cameras know large sizes in this format only
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, request.width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, request.height)
        capture.set(cv2.CAP_PROP_FPS, request.fps)
        # One is filled while the other is read; with a single one a camera gives half its rate.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
        code = int(capture.get(cv2.CAP_PROP_FOURCC))
        pixels = "".join(chr(code >> shift & 255) for shift in (0, 8, 16, 24)) if code > 0 else ""
        given = (
            f"{int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))}x{int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))}, "
            f"{capture.get(cv2.CAP_PROP_FPS):g} fps{', ' + pixels if pixels.isprintable() and pixels.strip() else ''}"
        )
        return f"asked for {request} through {capture.getBackendName()}; it says {given}"

    def read(self) -> Captured:
        """The next frame that can be read; raises MediaError where the camera gives none any more."""
        for _ in range(MOST_DAMAGED):
            if not self._capture.grab():
                raise MediaError(f"camera {self.name}: it gives no more pictures; check its plug")
            captured = self._captured_at()
            picture = self._retrieved()
            if picture is not None:
                return Captured(picture, captured)
            self.lost[DAMAGED] += 1
        raise MediaError(
            f"camera {self.name}: {MOST_DAMAGED} pictures in a row cannot be read; ask for another format"
        )

    def _captured_at(self) -> float:
        """When the grabbed picture was taken."""
        now = self._clock()
        # Video4Linux tells when the picture was taken, on the clock that perf_counter is on Linux.
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if not now - STAMPED_S < stamp <= now:
            return now
        left_out = self._gaps.before(stamp)
        if left_out:
            self.lost[LEFT_OUT] += left_out
        return float(stamp)

    def _retrieved(self) -> Image | None:
        """The grabbed picture as RGB; None where it is damaged."""
        try:
            retrieved, picture = self._capture.retrieve()
        except cv2.error:
            return None
        if not retrieved or picture is None or picture.ndim not in (2, 3):
            return None
        code = cv2.COLOR_GRAY2RGB if picture.ndim == 2 else cv2.COLOR_BGR2RGB
        return np.asarray(cv2.cvtColor(picture, code), np.uint8)

    def stop(self) -> None:
        """Nothing: a camera that gives no picture is waited for no longer than two seconds."""

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


class FileInput:
    """A video, GIF, folder or picture, played at its own times as a camera would give it."""

    asked = ""

    def __init__(
        self,
        path: Path,
        *,
        loop: bool,
        limits: Limits = DEFAULT_LIMITS,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Raises MediaError where the file cannot be read or is beyond `limits`, those of its length apart.

        `sleep` waits so many seconds, until `stop` by default.
        """
        self.name = str(path)
        self.lost: Counter[str] = Counter()
        self._path, self._loop = path, loop
        self._limits = replace(limits, max_seconds=math.inf)
        self._stopped = threading.Event()
        self._clock, self._sleep = clock, sleep or self._stopped.wait
        self._opened = ExitStack()
        self._frames = self._open()
        self._began: float | None = None  # when the first frame of this round was due
        self._due = 0.0

    def _open(self) -> Iterator[tuple[float, Image]]:
        self._opened.close()
        self._reader = self._opened.enter_context(VideoReader(self._path, limits=self._limits))
        self._damaged = 0  # of this round, counted so far
        self._period = float(1 / (self._reader.info.fps or Fraction(25)))
        return ((frame.time, frame.image) for frame in self._reader)

    def _following(self) -> tuple[float, Image] | None:
        following = next(self._frames, None)
        damaged = self._reader.damaged
        if damaged > self._damaged:
            self.lost[DAMAGED] += damaged - self._damaged
            self._damaged = damaged
        return following

    def read(self) -> Captured | None:
        """The next frame when it is due; None after the last one, unless it is played again and again."""
        following = self._following()
        if following is None:
            if not self._loop:
                return None
            self._frames = self._open()
            self._began = self._due + self._period
            following = self._following()
        assert following is not None  # opening has shown that there is one
        at, image = following
        now = self._clock()
        if self._began is None or now - self._began - at > LATE_S:
            self._began = now - at
        self._due = self._began + at
        if self._due > now:
            self._sleep(self._due - now)
        return Captured(image, self._due)

    def stop(self) -> None:
        """Wait for no frame's time any more."""
        self._stopped.set()

    def close(self) -> None:
        """Release the file."""
        self._opened.close()
