"""What the kernel answers about cameras, from answers made as the kernel's headers lay them out."""

import errno
import struct

import pytest
from reenact.runtime.media.v4l2 import CameraFormat, describe, device_paths, why_not

QUERYCAP, ENUM_FMT, ENUM_SIZES, ENUM_INTERVALS = 0x80685600, 0xC0405602, 0xC02C564A, 0xC034564B
REQBUFS = 0xC0145608
CAPTURE, METADATA, DEVICE_CAPS = 0x1, 0x800000, 0x80000000


def code(text):
    return struct.unpack("I", text.encode())[0]


MJPG_SIZES = [(1280, 720, [(1, 30), (1, 15)]), (640, 480, [(1, 60)])]


class MadeCamera:
    """Answers like a webcam with MJPG in two sizes and YUYV in a range of sizes."""

    def __init__(self, capabilities=CAPTURE | METADATA | DEVICE_CAPS, of_this_node=CAPTURE, busy=False):
        self.capabilities, self.of_this_node, self.busy = capabilities, of_this_node, busy

    def __call__(self, handle, request, answer):
        if request == QUERYCAP:
            assert len(answer) == 104
            struct.pack_into(
                "16s32s32sIII", answer, 0, b"uvcvideo", b"Made Webcam: HD\0rest", b"usb-1", 1,
                self.capabilities, self.of_this_node,
            )  # fmt: skip
        elif request == ENUM_FMT:
            number, kind = struct.unpack_from("II", answer)
            assert (len(answer), kind) == (64, CAPTURE)
            self._refuse_after(number, 2)
            struct.pack_into("I", answer, 44, code(["MJPG", "YUYV"][number]))
        elif request == ENUM_SIZES:
            number, pixels = struct.unpack_from("II", answer)
            assert len(answer) == 44
            if pixels == code("YUYV"):
                struct.pack_into("7I", answer, 8, 3, 160, 1920, 16, 120, 1080, 8)
            else:
                self._refuse_after(number, 2)
                struct.pack_into("3I", answer, 8, 1, *MJPG_SIZES[number][:2])
        elif request == ENUM_INTERVALS:
            number, pixels, width, height = struct.unpack_from("4I", answer)
            assert len(answer) == 52
            if pixels == code("YUYV"):
                struct.pack_into("7I", answer, 16, 3, 1, 25, 1, 5, 1, 1000)
                return
            rates = next(rates for w, h, rates in MJPG_SIZES if (w, h) == (width, height))
            self._refuse_after(number, len(rates))
            struct.pack_into("3I", answer, 16, 1, *rates[number])

        elif request == REQBUFS:
            assert struct.unpack("5I", answer) == (0, CAPTURE, 1, 0, 0)  # none, for mapping
            if self.busy:
                raise OSError(errno.EBUSY, "Device or resource busy")

    @staticmethod
    def _refuse_after(number, count):
        if number >= count:
            raise OSError(errno.EINVAL, "no more")


def test_a_camera_tells_its_name_and_formats(tmp_path):
    device = tmp_path / "video0"
    device.touch()
    described = describe(device, MadeCamera())
    assert described is not None
    name, formats = described
    assert name == "Made Webcam: HD"
    assert formats == [
        CameraFormat("MJPG", 640, 480, 60.0),
        CameraFormat("MJPG", 1280, 720, 30.0),
        CameraFormat("YUYV", 160, 120, 25.0),
        CameraFormat("YUYV", 1920, 1080, 25.0),
    ]


def test_the_metadata_node_of_a_camera_is_no_camera(tmp_path):
    device = tmp_path / "video1"
    device.touch()
    assert describe(device, MadeCamera(of_this_node=METADATA)) is None
    assert describe(device, MadeCamera(capabilities=METADATA)) is None


def test_a_device_that_does_not_answer_raises_oserror(tmp_path):
    device = tmp_path / "video0"
    with pytest.raises(OSError, match="No such file"):
        describe(device, MadeCamera())
    device.touch()

    def silent(handle, request, answer):
        raise OSError(errno.ENOTTY, "not a device")

    with pytest.raises(OSError, match="not a device"):
        describe(device, silent)


def test_devices_are_in_the_order_of_their_numbers(tmp_path, monkeypatch):
    for name in ("video10", "video2", "video0", "videoX", "vbi0"):
        (tmp_path / name).touch()
    monkeypatch.setattr("reenact.runtime.media.v4l2.DEVICES", tmp_path)
    assert [path.name for path in device_paths()] == ["video0", "video2", "video10"]


def test_what_keeps_a_camera_from_being_opened_is_found_out(tmp_path):
    device = tmp_path / "video0"
    assert why_not(device, MadeCamera()) == "it is not there; plug it in"
    device.touch()
    assert why_not(device, MadeCamera()) == ""
    assert why_not(device, MadeCamera(busy=True)) == "another program uses it; close that"
    assert why_not(device, MadeCamera(of_this_node=METADATA)).startswith("it is no camera")

    def forbidden(handle, request, answer):
        raise PermissionError(errno.EACCES, "Permission denied")

    assert why_not(device, forbidden).startswith("no permission; add yourself to the group video")
