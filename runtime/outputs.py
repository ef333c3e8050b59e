"""Where live pictures go beside the preview: a recording, a virtual camera. Each has a thread and holds up nobody.

`FanOut` hands them every picture, in a thread that waits for no window.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ..errors import MediaError, ReenactError
from .live import LATENCY_S, LiveSession, Presented
from .media.frame import Frame, Image
from .media.reader import VideoReader
from .media.writer import VideoSink, open_writer
from .meters import Recent
from .portraits import described
from .rate import rate_of
from .stream import NewestSlot
from .watermark import marked

__all__ = ["FanOut", "Output", "Recording", "VirtualCamera"]

_log = logging.getLogger(__name__)

WAITING = 8  # pictures that a recording may be behind before it leaves some out
TICKS = 90_000  # of a recording, a second
WAIT_S = 0.05  # for a picture, before it is seen whether to end
REPEAT_S = 0.1  # programs that read the virtual camera give up where nothing comes


class Output(Protocol):
    """Takes every picture that is shown; `put` never waits."""

    name: str
    dropped: int
    """Pictures that came faster than it could take them."""
    error: ReenactError | None
    """Why it ended early."""
    goes_to: str
    """Where a picture is when its latency ends, for people."""
    latency: Recent
    """From a frame's capture until its picture was sent."""

    def put(self, picture: Presented) -> None:
        """Take a picture."""

    def close(self) -> None:
        """Finish what was put."""


class Recording:
    """A movie of the pictures at the times at which their frames were taken, however uneven.

    What was written stays, whatever happens to the disk or to this process. It replaces no file: where there is one
    of its name at the end it gets the next free one, which is its `name` once it was closed.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], fps: float, *, system: str, mark: bool = True
    ) -> None:
        """`size` (width, height); `fps` is what is expected; `system` is named in the file as what made it.

        Raises MediaError where it cannot be written.
        """
        self.name = str(path)
        self.goes_to = f"the encoder of {path}"
        self.dropped = 0
        self.error: ReenactError | None = None
        self.latency = Recent(LATENCY_S)
        self.seconds = 0.0  # recorded so far
        self.kept = False  # whether there is a file, once it was closed
        self._sink = open_writer(
            path, width=size[0], height=size[1], fps=rate_of(fps), system=system, mark=mark, growing=True
        )
        self._began: float | None = None
        self._last = -1
        self._waiting: deque[Presented] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="reenact-record", daemon=True)
        self._thread.start()

    def put(self, picture: Presented) -> None:
        """Take a picture; where the encoder is too far behind it is left out, and the one before is shown longer."""
        with self._changed:
            if self._closed or self.error is not None:
                return
            if len(self._waiting) >= WAITING:
                self.dropped += 1
                return
            self._waiting.append(picture)
            self._changed.notify_all()

    def close(self) -> None:
        """Write what waits and complete the file; a second call does nothing.

        Raises ReenactError where it could not be written to its end; `kept` says whether there is a file with what
        came before.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        if self._began is None:
            self._sink.abort()  # nothing was shown: nothing is left
            return
        try:
            self._sink.close()
        except ReenactError as error:
            self.error = self.error or error
        self.kept = self._sink.kept
        self.name = str(self._sink.path)
        self.goes_to = f"the encoder of {self.name}"
        if self.error is not None:
            self.kept = self.kept and _can_be_read(self._sink.path)
            rest = f"; {self.name} holds what was recorded before" if self.kept else ""
            raise ReenactError(f"{self.error}{rest}") from self.error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if not self._waiting:
                    return
                picture = self._waiting.popleft()
            try:
                self._write(self._sink, picture)
            except Exception as error:  # noqa: BLE001  told by `close`; a dead thread would tell nobody
                self.error = _named(self.name, error)
                return
            now = time.perf_counter()
            self.latency.add(now, now - picture.captured)

    def _write(self, sink: VideoSink, picture: Presented) -> None:
        if self._began is None:
            self._began = picture.captured
        tick = max(self._last + 1, round((picture.captured - self._began) * TICKS))
        self._last = tick
        sink.write(Frame(picture.image, tick, Fraction(1, TICKS)))
        self.seconds = tick / TICKS


class VirtualCamera:
    """A camera that other programs can choose; repeats the last picture while none comes."""

    def __init__(
        self, size: tuple[int, int], fps: float, device: str | None = None, *, mark: bool = True
    ) -> None:
        """`size` (width, height); with `mark` off its pictures are not marked as AI-generated, which the log says.

        Raises ReenactError, saying what to install, where there is no such camera.
        """
        if not mark:
            _log.warning("the virtual camera's pictures are not marked as AI-generated, as asked")
        self._mark = mark
        try:
            module = import_module("pyvirtualcam")
        except ImportError as error:
            raise ReenactError(
                'the virtual camera needs pyvirtualcam; install it with `pip install "reenact[camera]"`'
            ) from error
        self.dropped = 0
        self.error: ReenactError | None = None
        self._camera = _opened(module, size, fps, device)
        self.name = str(self._camera.device)
        self.goes_to = f"the virtual camera {self.name}"
        self.latency = Recent(LATENCY_S)
        self._closed = False
        self._slot = NewestSlot(self._count)
        self._thread = threading.Thread(target=self._run, name="reenact-virtual-camera", daemon=True)
        self._thread.start()

    def put(self, picture: Presented) -> None:
        """Take a picture."""
        self._slot.put(picture)

    def close(self) -> None:
        """The camera is gone for the programs that read it; a second call does nothing.

        Raises ReenactError where it ended before.
        """
        if self._closed:
            return
        self._closed = True
        self._slot.close()
        self._thread.join()
        self._camera.close()
        if self.error is not None:
            raise self.error

    def _count(self) -> None:
        self.dropped += 1

    def _run(self) -> None:
        shown: Image | None = None
        while not self._slot.closed:
            newest: Presented | None = self._slot.take(REPEAT_S)
            try:
                if newest is not None:
                    shown = marked(newest.image) if self._mark else newest.image
                if shown is None or self._slot.closed:
                    continue
                self._camera.send(shown)
            except Exception as error:  # noqa: BLE001  the driver's own errors are of any kind; told by the loop
                self.error = ReenactError(f"virtual camera {self.name}: it takes no more pictures ({error})")
                return
            if newest is not None:
                now = time.perf_counter()
                self.latency.add(now, now - newest.captured)


class FanOut:
    """Hands every picture of a session to all outputs as soon as it is there, in a thread of its own."""

    count: int = 0
    """Pictures so far."""
    missed: int = 0
    """Those that were followed by a newer one before this thread came to them."""
    error: ReenactError | None = None
    """What ended the session or this thread."""

    def __init__(self, session: LiveSession, outputs: Sequence[Output] = ()) -> None:
        self._session = session
        self._outputs = list(outputs)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reenact-fan-out", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    @property
    def outputs(self) -> list[Output]:
        """Those that are given pictures."""
        with self._lock:
            return list(self._outputs)

    def add(self, output: Output) -> None:
        """Give it the next pictures too."""
        with self._lock:
            self._outputs.append(output)

    def remove(self, output: Output) -> None:
        """Give it no more."""
        with self._lock:
            self._outputs.remove(output)

    def close(self) -> None:
        """Hand out nothing more; the outputs stay open."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        number: int | None = None
        try:
            while not self._stop.is_set():
                picture = self._session.newest(number or 0, WAIT_S)
                if picture is None:
                    continue
                self.missed += 0 if number is None else picture.number - number - 1
                number = picture.number
                for output in self.outputs:
                    if output.error is None:
                        output.put(picture)
                self.count += 1
        except Exception as error:  # noqa: BLE001  raised by the loop
            self.error = _named("outputs", error)


def _named(name: str, error: Exception) -> ReenactError:
    if isinstance(error, ReenactError):
        return error
    failed = ReenactError(f"{name}: {described(error)}")
    failed.__cause__ = error
    return failed


def _can_be_read(path: Path) -> bool:
    """Whether a file that could not be completed shows anything; one that does not is removed."""
    try:
        with VideoReader(path) as reader:
            next(iter(reader))
    except (MediaError, StopIteration):
        if path.is_file():
            path.unlink()
        return False
    return True


def _opened(module: Any, size: tuple[int, int], fps: float, device: str | None) -> Any:
    width, height = size
    try:
        return module.Camera(
            width=width, height=height, fps=fps, fmt=module.PixelFormat.RGB, device=device, print_fps=False
        )
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ReenactError(
            f"no virtual camera can be opened ({reason}); on Linux load one with `sudo modprobe v4l2loopback "
            "exclusive_caps=1`, on Windows and macOS install OBS, which brings one"
        ) from error
