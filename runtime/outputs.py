"""Where live pictures go beside the preview: a recording, a virtual camera. Each has a thread and holds up nobody."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ..errors import ReenactError
from .live import Presented
from .media.frame import Frame, Image
from .media.writer import VideoSink, open_writer
from .rate import rate_of
from .stream import NewestSlot
from .watermark import marked

__all__ = ["Output", "Recording", "VirtualCamera", "free_name"]

_log = logging.getLogger(__name__)

WAITING = 8  # pictures that a recording may be behind before it leaves some out
TICKS = 90_000  # of a recording, a second
REPEAT_S = 0.1  # programs that read the virtual camera give up where nothing comes


class Output(Protocol):
    """Takes every picture that is shown; `put` never waits."""

    name: str
    dropped: int
    """Pictures that came faster than it could take them."""
    error: ReenactError | None
    """Why it ended early."""

    def put(self, picture: Presented) -> None:
        """Take a picture."""

    def close(self) -> None:
        """Finish what was put."""


class Recording:
    """A movie of the pictures at the times at which their frames were taken, however uneven."""

    def __init__(
        self, path: Path, size: tuple[int, int], fps: float, *, system: str, mark: bool = True
    ) -> None:
        """`size` (width, height); `fps` is what is expected; `system` is named in the file as what made it.

        Raises MediaError where it cannot be written.
        """
        self.name = str(path)
        self.dropped = 0
        self.error: ReenactError | None = None
        self.seconds = 0.0  # recorded so far
        self._sink = open_writer(
            path, width=size[0], height=size[1], fps=rate_of(fps), system=system, mark=mark
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
        """Write what waits and complete the file; raises MediaError where it could not be written."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        if self.error is not None:
            self._sink.abort()
            raise self.error
        if self._began is None:
            self._sink.abort()  # nothing was shown: nothing is left
        else:
            self._sink.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._waiting)
                if not self._waiting:
                    return
                picture = self._waiting.popleft()
            try:
                self._write(self._sink, picture)
            except ReenactError as error:
                self.error = error
                return

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
        self._slot = NewestSlot(self._count)
        self._thread = threading.Thread(target=self._run, name="reenact-virtual-camera", daemon=True)
        self._thread.start()

    def put(self, picture: Presented) -> None:
        """Take a picture."""
        self._slot.put(picture)

    def close(self) -> None:
        """The camera is gone for the programs that read it. Raises ReenactError where it ended before."""
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
            if newest is not None:
                shown = marked(newest.image) if self._mark else newest.image
            if shown is None or self._slot.closed:
                continue
            try:
                self._camera.send(shown)
            except Exception as error:  # noqa: BLE001  the driver's own errors are of any kind; told by the loop
                self.error = ReenactError(f"virtual camera {self.name}: it takes no more pictures ({error})")
                return


def free_name(path: Path, exists: Callable[[Path], bool] = Path.exists) -> Path:
    """`path`, or where there is such a file its name with -2, -3 and so on."""
    number, free = 1, path
    while exists(free):
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


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
