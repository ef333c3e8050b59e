"""Cameras, files and streams that give frames in real time."""

import platform

import cv2
import numpy as np
import pytest
from reenact.errors import MediaError
from reenact.runtime.media.inputs import CameraRequest, DeviceInput, FileInput
from reenact.runtime.media.reader import VideoReader


class Clock:
    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def taken(opened):
    """The next frame of an input that has one."""
    captured = opened.read()
    assert captured is not None
    return captured


class MadeCapture:
    """OpenCV's capture of a camera that knows 640x480 only."""

    def __init__(self, pictures, opened=True, stamp=0.0):
        self.pictures, self.opened, self.stamp = list(pictures), opened, stamp
        self.asked, self.released = [], False

    def isOpened(self):  # noqa: N802
        return self.opened

    def set(self, what, value):
        self.asked.append((what, value))
        return False

    def get(self, what):
        return {
            cv2.CAP_PROP_FRAME_WIDTH: 640.0,
            cv2.CAP_PROP_FRAME_HEIGHT: 480.0,
            cv2.CAP_PROP_FPS: 25.0,
            cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*"YUYV")),
            cv2.CAP_PROP_POS_MSEC: self.stamp * 1000,
        }[what]

    def getBackendName(self):  # noqa: N802
        return "MADE"

    def grab(self):
        return bool(self.pictures)

    def retrieve(self):
        picture = self.pictures.pop(0)
        if isinstance(picture, Exception):
            raise picture
        return picture is not None, picture

    def release(self):
        self.released = True


BLUE = np.full((4, 6, 3), (250, 20, 10), np.uint8)  # as OpenCV has it: blue first


def camera(capture, clock, request=None):
    return DeviceInput(
        0, request or CameraRequest(), name="0 (Made)", open_capture=lambda *_: capture, clock=clock
    )


def test_a_camera_is_asked_for_a_format_and_says_what_it_gives(clock):
    capture = MadeCapture([BLUE])
    opened = camera(capture, clock, CameraRequest(1920, 1080, 60.0))
    assert [what for what, _ in capture.asked][:3] == [
        cv2.CAP_PROP_FOURCC,  # first: it decides which sizes there are
        cv2.CAP_PROP_FRAME_WIDTH,
        cv2.CAP_PROP_FRAME_HEIGHT,
    ]
    assert dict(capture.asked)[cv2.CAP_PROP_FPS] == 60.0
    assert opened.asked == "asked for 1920x1080, 60 fps, MJPG through MADE; it says 640x480, 25 fps, YUYV"
    without = MadeCapture([BLUE])
    camera(without, clock, CameraRequest(mjpeg=False))
    assert cv2.CAP_PROP_FOURCC not in dict(without.asked)


@pytest.mark.parametrize(
    ("system", "backend"),
    [
        ("Linux", cv2.CAP_V4L2),
        ("Windows", cv2.CAP_DSHOW),
        ("Darwin", cv2.CAP_AVFOUNDATION),
        ("FreeBSD", cv2.CAP_ANY),
    ],
)
def test_a_camera_is_opened_through_the_systems_own_interface(clock, monkeypatch, system, backend):
    monkeypatch.setattr(platform, "system", lambda: system)
    opened = []

    def open_capture(*arguments):
        opened.append(arguments)
        return MadeCapture([BLUE])

    DeviceInput("/dev/video0", CameraRequest(), name="made", open_capture=open_capture, clock=clock)
    assert opened == [("/dev/video0", backend)]


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux opens cameras by path")
def test_opencv_opens_device_paths_with_video4linux():
    assert cv2.CAP_V4L2 in cv2.videoio_registry.getStreamBackends()  # what opens names, here paths


def test_a_frame_is_rgb_and_carries_the_time_of_its_capture(clock):
    captured = camera(MadeCapture([BLUE]), clock).read()
    np.testing.assert_array_equal(captured.image[0, 0], (10, 20, 250))
    assert captured.time == 50.0
    assert camera(MadeCapture([BLUE], stamp=49.96), clock).read().time == pytest.approx(49.96)
    # Drivers that count otherwise, or from another beginning, are not believed.
    assert camera(MadeCapture([BLUE], stamp=1.0), clock).read().time == 50.0
    assert camera(MadeCapture([BLUE], stamp=50.5), clock).read().time == 50.0


def test_a_grey_camera_is_shown_in_grey(clock):
    captured = camera(MadeCapture([np.full((4, 6), 99, np.uint8)]), clock).read()
    np.testing.assert_array_equal(captured.image, np.full((4, 6, 3), 99))


def test_a_camera_that_cannot_be_opened_or_stops_says_so(clock):
    closed = MadeCapture([], opened=False)
    with pytest.raises(MediaError, match=r"camera 0 \(Made\): cannot be opened: check that it is plugged in"):
        camera(closed, clock)
    assert closed.released
    with pytest.raises(MediaError, match=r"made: cannot be opened: another program uses /dev/video0$"):
        DeviceInput(
            "/dev/video0",
            CameraRequest(),
            name="made",
            open_capture=lambda *_: MadeCapture([], opened=False),
            explain=lambda device: f"another program uses {device}",
        )
    stopping = camera(MadeCapture([BLUE]), clock)
    stopping.read()
    with pytest.raises(MediaError, match="gives no more pictures"):
        stopping.read()


def test_a_damaged_picture_is_passed_over_and_counted(clock):
    opened = camera(MadeCapture([None, cv2.error("corrupt"), BLUE, None, BLUE]), clock)
    for _ in range(2):
        np.testing.assert_array_equal(opened.read().image[0, 0], (10, 20, 250))
    assert opened.lost == {"damaged": 3}


def test_a_camera_whose_pictures_are_all_damaged_is_given_up(clock):
    opened = camera(MadeCapture([None] * 40), clock)
    with pytest.raises(MediaError, match="30 pictures in a row cannot be read; ask for another format"):
        opened.read()
    assert opened.lost == {"damaged": 30}


def stamps_read(clock, stamps):
    """What a camera lost whose pictures bear these times, read at once each."""
    capture = MadeCapture([BLUE] * len(stamps))
    opened = camera(capture, clock)
    for stamp in stamps:
        capture.stamp, clock.now = stamp, stamp + 0.01
        assert opened.read().time == pytest.approx(stamp)
    return dict(opened.lost)


def test_frames_that_the_driver_left_out_are_counted_by_the_holes_in_its_time_stamps(clock):
    number = np.arange(200)
    jitter = np.random.default_rng(0).uniform(-0.004, 0.004, 200)
    even = 100 + number / 30 + jitter
    assert stamps_read(clock, even) == {}
    missing = np.isin(number, [50, 90, 91, 92, 150])
    assert stamps_read(clock, even[~missing]) == {"source left out": 5}


def test_a_camera_that_slows_down_in_the_dark_has_left_nothing_out(clock):
    times = np.concatenate([np.arange(60) / 30, 2 + np.arange(60) / 15, 6 + np.arange(60) / 30])
    assert stamps_read(clock, 100 + times) == {}


def test_a_file_is_played_at_its_own_times(clock, film):
    path = film(4, times=[0, 2, 3, 10])
    opened = FileInput(path, loop=False, clock=clock, sleep=clock.sleep)
    frames = [taken(opened) for _ in range(4)]
    np.testing.assert_allclose([f.time - 50 for f in frames], np.array([0, 2, 3, 10]) / 25, atol=1e-6)
    assert [int(f.image.mean()) // 4 for f in frames] == [10, 11, 12, 13]
    assert opened.read() is None
    opened.close()


def test_a_file_goes_round_without_a_gap(clock, film):
    opened = FileInput(film(3), loop=True, clock=clock, sleep=clock.sleep)
    times = [taken(opened).time for _ in range(10)]
    np.testing.assert_allclose(np.diff(times), 1 / 25, atol=1e-6)
    opened.close()


def test_the_damaged_packets_of_a_film_are_counted_each_time_it_is_played(clock, film):
    path = film(40)
    content = bytearray(path.read_bytes())
    middle = range(int(len(content) * 0.3), int(len(content) * 0.5))
    content[middle.start : middle.stop] = np.random.default_rng(2).bytes(len(middle))
    path.write_bytes(content)
    with VideoReader(path) as reader:
        frames = len(list(reader))
        damaged = reader.damaged
    assert damaged > 0
    opened = FileInput(path, loop=True, clock=clock, sleep=clock.sleep)
    for _ in range(2 * frames):
        taken(opened)
    opened.close()
    assert opened.lost == {"damaged": 2 * damaged}


def test_a_file_that_fell_behind_does_not_hurry_to_catch_up(clock, film):
    opened = FileInput(film(10), loop=False, clock=clock, sleep=clock.sleep)
    opened.read()
    clock.now += 3.0
    behind = taken(opened).time
    assert behind == pytest.approx(53.0)
    assert taken(opened).time == pytest.approx(53.04)
    opened.close()


def test_a_small_delay_is_caught_up_with(clock, film):
    opened = FileInput(film(10), loop=False, clock=clock, sleep=clock.sleep)
    opened.read()
    clock.now += 0.1
    assert [round(taken(opened).time - 50, 3) for _ in range(3)] == [0.04, 0.08, 0.12]
    opened.close()
