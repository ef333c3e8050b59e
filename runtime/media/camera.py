"""Cameras: which there are, which one is meant, and a feed that goes on when one is unplugged and comes back."""

import os
import platform
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av

from ...errors import MediaError
from .frame import Image
from .inputs import CameraRequest, Captured, DeviceInput, FileInput, Input
from .limits import DEFAULT_LIMITS, Limits
from .network import UrlInput, check_url
from .v4l2 import CameraFormat, describe, device_paths, is_no_camera, reason

__all__ = ["CameraFeed", "CameraInfo", "choose_input", "list_cameras"]

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 5.0  # between two tries to open a camera that is gone
MEASURED_S = 2.0  # the real frame rate is told after so long
CLOSE_S = 3.0  # an input that does not answer is left to its thread after that

OpenInput = Callable[[], Input]


@dataclass(frozen=True)
class CameraInfo:
    """A camera of this machine."""

    device: int | str  # what opens it: a path on Linux, elsewhere its number
    index: int  # what --camera takes
    name: str
    formats: tuple[CameraFormat, ...]  # empty where the system does not say
    problem: str = ""  # why it cannot be used, and what to do

    def __str__(self) -> str:
        return f"{self.index} ({self.name}{f': {self.problem}' if self.problem else ''})"


def list_cameras() -> list[CameraInfo]:
    """All cameras in the order of their numbers; one that cannot be read is named by its path, with its problem."""
    system = platform.system()
    if system == "Linux":
        return _linux_cameras()
    format_name = "dshow" if system == "Windows" else "avfoundation"
    try:
        devices = av.enumerate_input_devices(format_name)
    except (ValueError, av.FFmpegError):
        return []
    films = [device for device in devices if "video" in (device.media_types or ["video"])]
    return [
        CameraInfo(index, index, device.description or device.name, ()) for index, device in enumerate(films)
    ]


def _linux_cameras() -> list[CameraInfo]:
    from fcntl import ioctl

    cameras = []
    for path in device_paths():
        try:
            found = describe(path, ioctl)
        except OSError as error:
            if not is_no_camera(error):
                cameras.append(CameraInfo(str(path), int(path.name[5:]), str(path), (), reason(error)))
            continue
        if found is not None:
            cameras.append(CameraInfo(str(path), int(path.name[5:]), found[0], tuple(found[1])))
    return cameras


def choose_input(
    choice: str,
    request: CameraRequest,
    *,
    loop: bool,
    allowed_hosts: list[str],
    limits: Limits = DEFAULT_LIMITS,
    cameras: Callable[[], list[CameraInfo]] = list_cameras,
) -> OpenInput:
    """What opens the input that `choice` names: a number, a device, an address, a file, or a part of a camera's name.

    Raises MediaError where the name fits nothing or more than one camera, a camera that cannot be used, a file that
    cannot be read or is beyond `limits`, or an address whose host is not allowed. What is returned looks anew and
    raises likewise: a camera that was named may come back under another number.
    """
    if "://" in choice:
        return partial(UrlInput, check_url(choice, allowed_hosts), limits=limits)
    path = Path(choice)
    is_number = choice.isascii() and choice.isdecimal()
    if is_number or not path.exists():
        find = partial(_numbered, int(choice)) if is_number else partial(_named, choice)
        find(cameras())
        return lambda: _opened(find(cameras()), request)
    mode = path.stat().st_mode
    if stat.S_ISCHR(mode):
        return partial(DeviceInput, os.fspath(path), request, name=choice)
    opened = partial(FileInput, path, loop=loop, limits=limits)
    if not stat.S_ISFIFO(mode):  # which gives what it has once
        opened().close()
    return opened


def _opened(camera: CameraInfo, request: CameraRequest) -> Input:
    return DeviceInput(camera.device, request, name=str(camera))


def _numbered(number: int, cameras: list[CameraInfo]) -> CameraInfo:
    for camera in cameras:
        if camera.index == number:
            return _usable(camera)
    raise MediaError(f"--camera {number}: there is no such camera; {_there_are(cameras)}")


def _named(name: str, cameras: list[CameraInfo]) -> CameraInfo:
    found = [camera for camera in cameras if name.lower() in camera.name.lower()]
    if len(found) == 1:
        return _usable(found[0])
    what = "no file and no camera" if not found else "more than one camera"
    raise MediaError(f"--camera {name}: {what} of that name; {_there_are(cameras)}")


def _usable(camera: CameraInfo) -> CameraInfo:
    if camera.problem:
        raise MediaError(f"--camera {camera}")
    return camera


def _there_are(cameras: list[CameraInfo]) -> str:
    if not cameras:
        return "no camera is found here; name a video file, or `test` for a generated head"
    return "there are " + ", ".join(str(camera) for camera in cameras)


class CameraFeed:
    """Reads an input in a thread of its own and delivers each frame; opens it again when it stops.

    While the input is gone nothing is delivered; tries follow after 0.25, 0.5, 1, 2, 4 and then every 5 seconds. It is
    back with its first frame: one that opens but gives none is still gone.
    """

    ended: bool = False
    """Whether a file came to its end."""
    error: BaseException | None = None
    """What ended the feed: a fault of the receiver; the input's own are waited out."""

    def __init__(
        self,
        open_input: OpenInput,
        deliver: Callable[[Image, float, Mapping[str, int]], None],
        tell: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.perf_counter,
        wait: Callable[[threading.Event, float], bool] = threading.Event.wait,
    ) -> None:
        """Open the input now: MediaError where it cannot be.

        `deliver` takes each frame, when it was taken, and how many came to nothing since the one before, by cause;
        `tell` takes lines for people.
        """
        self._open, self._deliver, self._tell = open_input, deliver, tell
        self._clock, self._wait = clock, wait
        self._stop = threading.Event()
        self._input: Input | None = open_input()
        self.name = self._input.name
        self._measured_from: float | None = None
        self._frames = 0
        self._told = False
        self._gone, self._pause = False, FIRST_WAIT_S
        self._lost: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="reenact-camera", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading and release the input; says so where that has to be left to its thread."""
        self._stop.set()
        opened = self._input
        if opened is not None:
            opened.stop()
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            self._tell(f"{self.name} has not answered for {CLOSE_S:g} s: it is released once it does")

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and not self.ended:
                opened = self._input or self._opened_again()
                if opened is None:
                    return
                self._read(opened)
        except BaseException as error:  # noqa: BLE001  whoever uses the feed raises it again
            self.error = error
        finally:
            self._release()

    def _read(self, opened: Input) -> None:
        """Deliver frames until the input stops or ends."""
        self._measured_from, self._told = None, False
        while not self._stop.is_set():
            try:
                captured = opened.read()
            except MediaError as error:
                if self._stop.is_set():
                    return
                self._take_lost(opened)
                if not self._gone:
                    self._tell(f"{error}; the last picture stands until it is back")
                self._gone = True
                self._release()
                return
            if captured is None:
                self.ended = True
                return
            if self._stop.is_set():
                return
            self._pause = FIRST_WAIT_S
            if self._gone:
                self._gone = False
                self._tell(f"{self.name} is back")
            self._measure(opened, captured)
            self._take_lost(opened)
            self._deliver(captured.image, captured.time, dict(self._lost))
            self._lost.clear()

    def _take_lost(self, opened: Input) -> None:
        self._lost.update(opened.lost)
        opened.lost.clear()

    def _opened_again(self) -> Input | None:
        """The input, once it can be opened; None where that is not waited for any more."""
        while not self._wait(self._stop, self._pause):
            self._pause = min(2 * self._pause, LONGEST_WAIT_S)
            try:
                self._input = self._open()
            except MediaError:
                continue
            return self._input
        return None

    def _measure(self, opened: Input, captured: Captured) -> None:
        """Tell, once each time it was opened, what really comes; the first frame only starts the clock."""
        if self._told:
            return
        if self._measured_from is None:
            self._measured_from, self._frames = captured.time, 0
            return
        self._frames += 1
        seconds = captured.time - self._measured_from
        if seconds >= MEASURED_S:
            height, width = captured.image.shape[:2]
            asked = f"{opened.asked}; " if opened.asked else ""
            self._tell(
                f"{opened.name}: {asked}what comes is {width}x{height}, {self._frames / seconds:.1f} fps"
            )
            self._told = True

    def _release(self) -> None:
        opened, self._input = self._input, None
        if opened is not None:
            opened.close()
