"""What cameras Linux knows and what they can do, asked of the kernel (Video4Linux2); opens no stream."""

import errno
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CameraFormat", "describe", "device_paths", "is_no_camera", "reason", "why_not"]

DEVICES = Path("/dev")

_QUERYCAP, _ENUM_FMT = 0x80685600, 0xC0405602
_ENUM_FRAMESIZES, _ENUM_FRAMEINTERVALS = 0xC02C564A, 0xC034564B
_REQBUFS = 0xC0145608
_MMAP = 1  # memory of buffers
_CAPTURE, _DEVICE_CAPS = 0x1, 0x80000000  # of v4l2_capability
_DISCRETE = 1  # of sizes and of intervals
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)
_MOST = 64  # answers to one question

Ioctl = Callable[[int, int, bytearray], object]


@dataclass(frozen=True, order=True)
class CameraFormat:
    """One way in which a camera gives pictures."""

    pixels: str  # four characters, such as MJPG or YUYV
    width: int
    height: int
    fps: float  # the highest; 0 where the camera does not say


def device_paths() -> list[Path]:
    """Everything that may be a camera, in the order of its number."""
    paths = [path for path in DEVICES.glob("video*") if path.name[5:].isdecimal()]
    return sorted(paths, key=lambda path: int(path.name[5:]))


def describe(path: Path, ioctl: Ioctl) -> tuple[str, list[CameraFormat]] | None:
    """Name and formats of a camera; None for what is none, such as a camera's second node for its metadata.

    `ioctl` is `fcntl.ioctl`. Raises OSError where the device cannot be opened or does not answer.
    """
    handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        name = _camera_name(handle, ioctl)
        return None if name is None else (name, sorted(_formats(handle, ioctl)))
    finally:
        os.close(handle)


def reason(error: OSError) -> str:
    """Why a device cannot be used and what to do, for people."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            "no permission; add yourself to the group video (sudo usermod -aG video $USER) and log in again"
        )
    if error.errno == errno.EBUSY:
        return "another program uses it; close that"
    if error.errno in _GONE:
        return "it is not there; plug it in"
    return f"it does not answer ({error.strerror or error})"


def is_no_camera(error: OSError) -> bool:
    """Whether a device is something else, or was unplugged while it was looked for."""
    return error.errno in (*_GONE, errno.ENOTTY, errno.EINVAL)


def why_not(path: Path, ioctl: Ioctl) -> str:
    """Why a camera that was just tried cannot be opened, for people; "" where nothing is found wrong with it.

    Asks for no buffers: that is refused while another program has some.
    """
    request = bytearray(20)
    struct.pack_into("3I", request, 0, 0, _CAPTURE, _MMAP)
    try:
        if describe(path, ioctl) is None:
            return "it is no camera; reenact live without --camera lists those that are"
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            ioctl(handle, _REQBUFS, request)
        finally:
            os.close(handle)
    except OSError as error:
        return reason(error)
    return ""


def _camera_name(handle: int, ioctl: Ioctl) -> str | None:
    answer = bytearray(104)
    ioctl(handle, _QUERYCAP, answer)
    _, card, _, _, capabilities, of_this_node = struct.unpack_from("16s32s32sIII", answer)
    if capabilities & _DEVICE_CAPS:
        capabilities = of_this_node
    return str(card.split(b"\0")[0].decode(errors="replace")) if capabilities & _CAPTURE else None


def _asked(handle: int, ioctl: Ioctl, request: int, size: int, *fields: int) -> Iterator[bytearray]:
    """All answers to a question that is asked by number until the device says that there are no more."""
    with suppress(OSError):
        for number in range(_MOST):
            answer = bytearray(size)
            struct.pack_into(f"{1 + len(fields)}I", answer, 0, number, *fields)
            ioctl(handle, request, answer)
            yield answer


def _formats(handle: int, ioctl: Ioctl) -> Iterator[CameraFormat]:
    for answer in _asked(handle, ioctl, _ENUM_FMT, 64, _CAPTURE):
        (code,) = struct.unpack_from("I", answer, 44)
        pixels = struct.pack("I", code).decode("ascii", errors="replace").strip("\0 ")
        for width, height in _sizes(handle, ioctl, code):
            yield CameraFormat(pixels, width, height, _fastest(handle, ioctl, code, width, height))


def _sizes(handle: int, ioctl: Ioctl, code: int) -> Iterator[tuple[int, int]]:
    for answer in _asked(handle, ioctl, _ENUM_FRAMESIZES, 44, code):
        kind, *numbers = struct.unpack_from("7I", answer, 8)
        if kind != _DISCRETE:  # a range of sizes: its two ends
            yield numbers[0], numbers[3]
            yield numbers[1], numbers[4]
            return
        yield numbers[0], numbers[1]


def _fastest(handle: int, ioctl: Ioctl, code: int, width: int, height: int) -> float:
    """Frames a second; intervals are fractions of a second, and a range begins with its shortest."""
    fastest = 0.0
    for answer in _asked(handle, ioctl, _ENUM_FRAMEINTERVALS, 52, code, width, height):
        kind, numerator, denominator = struct.unpack_from("3I", answer, 16)
        if numerator:
            fastest = max(fastest, denominator / numerator)
        if kind != _DISCRETE:
            break
    return round(fastest, 2)
