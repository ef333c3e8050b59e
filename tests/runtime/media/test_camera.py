"""Which camera is meant, and a feed that outlives its camera."""

import errno
import os
import platform
import threading
import time
from collections import Counter
from functools import partial

import av
import numpy as np
import pytest
from reenact.errors import LimitError, MediaError
from reenact.runtime.media import camera as module
from reenact.runtime.media.camera import CameraFeed, CameraInfo, choose_input, list_cameras
from reenact.runtime.media.inputs import CameraRequest, Captured, FileInput
from reenact.runtime.media.limits import Limits
from reenact.runtime.media.network import UrlInput
from reenact.runtime.media.v4l2 import CameraFormat

CAMERAS = [
    CameraInfo("/dev/video0", 0, "Integrated Camera", (CameraFormat("MJPG", 640, 480, 30.0),)),
    CameraInfo("/dev/video2", 2, "USB Camera", ()),
]


class MadeDevice:
    asked = "asked for this; it says that"

    def __init__(self, device, request, *, name):
        self.device, self.request, self.name = device, request, name


@pytest.fixture
def opened(monkeypatch):
    """Opens what `choose_input` chooses, with a made device."""
    monkeypatch.setattr(module, "DeviceInput", MadeDevice)

    def choose(choice, **options):
        settings = {"loop": True, "allowed_hosts": [], "cameras": lambda: CAMERAS, **options}
        return choose_input(choice, CameraRequest(320, 240), **settings)()

    return choose


def test_a_camera_is_chosen_by_number_or_by_part_of_its_name(opened):
    assert (opened("2").device, opened("2").name) == ("/dev/video2", "2 (USB Camera)")
    assert opened("integrated").device == "/dev/video0"
    assert opened("2").request == CameraRequest(320, 240)


def test_a_camera_is_chosen_by_its_device_file(opened):
    assert opened("/dev/null").device == "/dev/null"  # a character device, as cameras are


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("7", r"--camera 7: there is no such camera; there are 0 \(Integrated Camera\), 2 \(USB Camera\)"),
        ("camera", "--camera camera: more than one camera of that name"),
        ("webcam", "--camera webcam: no file and no camera of that name"),
    ],
)
def test_a_choice_that_fits_nothing_says_what_there_is(opened, choice, message):
    with pytest.raises(MediaError, match=message):
        opened(choice)


def test_without_any_camera_it_says_what_can_stand_in(opened):
    with pytest.raises(MediaError, match="no camera is found here; name a video file, or `test`"):
        opened("0", cameras=list)


def test_a_file_is_played_as_a_camera(tmp_path, make_video, shades):
    path = tmp_path / "film.mp4"
    make_video(path, shades(3))
    made = choose_input(str(path), CameraRequest(), loop=False, allowed_hosts=[])()
    assert isinstance(made, FileInput)
    captured = made.read()
    assert captured is not None
    assert captured.image.shape == (48, 64, 3)
    made.close()


def test_a_named_camera_is_looked_for_anew_each_time_it_is_opened(monkeypatch):
    """It may come back under another number, or not at all."""
    monkeypatch.setattr(module, "DeviceInput", MadeDevice)
    here = list(CAMERAS)
    opens = choose_input(
        "integrated", CameraRequest(), loop=True, allowed_hosts=[], cameras=lambda: list(here)
    )
    here[0] = CameraInfo("/dev/video5", 5, "Integrated Camera", ())
    assert opens().name == "5 (Integrated Camera)"
    here.clear()
    with pytest.raises(MediaError, match="no file and no camera of that name"):
        opens()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_opened_before_its_time(tmp_path):
    """What it gives comes once; and opening waits until there is something."""
    os.mkfifo(tmp_path / "pipe")
    assert isinstance(
        choose_input(str(tmp_path / "pipe"), CameraRequest(), loop=False, allowed_hosts=[]), partial
    )


def test_a_file_is_read_up_to_the_limit_that_is_given_however_long_it_plays(tmp_path, make_video, shades):
    path = tmp_path / "film.mp4"
    make_video(path, shades(3))

    def opened(limits):
        return choose_input(str(path), CameraRequest(), loop=False, allowed_hosts=[], limits=limits)()

    opened(Limits(max_pixels=64 * 48, max_seconds=0.01)).close()
    with pytest.raises(LimitError, match="allow it with --max-pixels 3072"):
        opened(Limits(max_pixels=64 * 48 - 1))


def test_an_address_is_refused_before_it_is_opened():
    with pytest.raises(MediaError, match="--allow-url cam"):
        choose_input("rtsp://cam/1", CameraRequest(), loop=False, allowed_hosts=[])
    chosen = choose_input("rtsp://cam/1", CameraRequest(), loop=False, allowed_hosts=["cam"])
    assert isinstance(chosen, partial)
    assert chosen.func is UrlInput


@pytest.fixture
def devices(tmp_path, monkeypatch):
    """What Linux answers about its devices: (name, formats), None, or the number of an error."""

    def answer(*answers):
        paths = [tmp_path / f"video{number}" for number in range(len(answers))]

        def describe(path, ioctl):
            found = answers[paths.index(path)]
            if isinstance(found, int):
                raise OSError(found, os.strerror(found))
            return found

        monkeypatch.setattr(platform, "system", lambda: "Linux")
        monkeypatch.setattr(module, "device_paths", lambda: paths)
        monkeypatch.setattr(module, "describe", describe)
        return paths

    return answer


def test_cameras_are_listed_without_what_is_none(devices):
    formats = [CameraFormat("MJPG", 640, 480, 30.0)]
    paths = devices(None, ("Webcam", formats), errno.ENOTTY, errno.ENODEV)
    assert list_cameras() == [CameraInfo(str(paths[1]), 1, "Webcam", tuple(formats))]


NO_PERMISSION = (
    "no permission; add yourself to the group video (sudo usermod -aG video $USER) and log in again"
)


def test_a_camera_that_may_not_be_read_is_listed_with_what_to_do(devices):
    paths = devices(errno.EACCES, errno.EBUSY, errno.EIO)
    assert [(camera.name, camera.problem) for camera in list_cameras()] == [
        (str(paths[0]), NO_PERMISSION),
        (str(paths[1]), "another program uses it; close that"),
        (str(paths[2]), "it does not answer (Input/output error)"),
    ]
    for choice in ("0", "video0"):
        with pytest.raises(
            MediaError, match=r"^--camera 0 \(.*/video0: no permission; add yourself to the gro"
        ):
            choose_input(choice, CameraRequest(), loop=False, allowed_hosts=[])()
    with pytest.raises(MediaError, match=r"no such camera; there are 0 \(.*/video0: no permission"):
        choose_input("7", CameraRequest(), loop=False, allowed_hosts=[])()


def test_elsewhere_ffmpeg_knows_the_cameras(monkeypatch):
    asked = []

    class Device:
        def __init__(self, description, kinds):
            self.name, self.description, self.media_types = "@id", description, kinds

    def enumerate_devices(format_name):
        asked.append(format_name)
        return [Device("Microphone", ["audio"]), Device("FaceTime", ["video"]), Device("Other", [])]

    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(av, "enumerate_input_devices", enumerate_devices)
    assert [(camera.device, camera.name) for camera in list_cameras()] == [(0, "FaceTime"), (1, "Other")]
    assert asked == ["dshow"]


class MadeInput:
    """Gives `frames`, one each 1/30 s of its own time, then stops or ends."""

    name, asked = "made", ""

    def __init__(self, frames, *, ends=False, start=0.0, size=(48, 64)):
        self.left, self.ends, self.time, self.size, self.closed = frames, ends, start, size, False
        self.lost: Counter[str] = Counter()

    def read(self):
        if not self.left:
            if self.ends:
                return None
            raise MediaError("camera made: it gives no more pictures")
        self.left -= 1
        self.time += 1 / 30
        return Captured(np.zeros((*self.size, 3), np.uint8), self.time)

    def stop(self):
        pass

    def close(self):
        self.closed = True


class Rig:
    """A feed over made inputs; refusals to open stand for a camera that is unplugged."""

    def __init__(self, *openings):
        self.openings = list(openings)
        self.frames: list[tuple[tuple[int, ...], float]] = []
        self.lost: list[dict[str, int]] = []
        self.said: list[str] = []
        self.waits: list[float] = []
        self.done = threading.Event()
        self.inputs: list[MadeInput] = []
        self.feed = CameraFeed(self.open, self.deliver, self.said.append, wait=self.wait)

    def open(self):
        following = self.openings.pop(0)
        if isinstance(following, Exception):
            raise following
        self.inputs.append(following)
        return following

    def deliver(self, image, time_, lost):
        self.frames.append((image.shape, time_))
        self.lost.append(lost)

    def wait(self, stop, seconds):
        self.waits.append(seconds)
        if not self.openings:
            self.done.set()
            return True
        return stop.is_set()


GONE = MediaError("not there")


def test_a_camera_that_is_unplugged_is_tried_again_with_longer_and_longer_pauses():
    back = MadeInput(3, start=100.0)
    rig = Rig(MadeInput(2), *[GONE] * 6, back)
    assert rig.done.wait(5)
    rig.feed.close()
    assert [round(time_, 2) for _, time_ in rig.frames] == [0.03, 0.07, 100.03, 100.07, 100.1]
    assert rig.waits == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 0.25]  # after it was back it begins anew
    assert rig.said[:2] == [
        "camera made: it gives no more pictures; the last picture stands until it is back",
        "made is back",
    ]
    assert all(each.closed for each in rig.inputs)
    assert rig.feed.error is None


def test_a_camera_that_opens_but_gives_nothing_is_not_back_and_waited_for_longer_and_longer():
    rig = Rig(MadeInput(1), *[MadeInput(0) for _ in range(4)], GONE, MadeInput(1, start=100.0), MadeInput(0))
    assert rig.done.wait(5)
    rig.feed.close()
    assert rig.waits == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 0.25, 0.5]
    gone = "camera made: it gives no more pictures; the last picture stands until it is back"
    assert rig.said == [gone, "made is back", gone]


def test_a_camera_that_cannot_be_opened_at_first_is_an_error_at_once():
    with pytest.raises(MediaError, match="not there"):
        Rig(GONE)


def test_a_file_that_ends_ends_the_feed():
    rig = Rig(MadeInput(5, ends=True))
    rig.feed._thread.join(5)
    assert rig.feed.ended
    assert len(rig.frames) == 5
    assert rig.said == []


def test_what_was_lost_is_delivered_with_the_next_frame_even_after_a_break():
    class Losing(MadeInput):
        def read(self):
            self.lost["damaged"] += 1
            return super().read()

    rig = Rig(Losing(2), Losing(1, start=100.0))
    assert rig.done.wait(5)
    rig.feed.close()
    # The third was lost in the read that found the input gone.
    assert rig.lost == [{"damaged": 1}, {"damaged": 1}, {"damaged": 2}]


def test_what_really_comes_is_measured_and_told_once():
    rig = Rig(MadeInput(200, ends=True, size=(720, 1280)))
    rig.feed._thread.join(5)
    assert rig.said == ["made: what comes is 1280x720, 30.0 fps"]


def test_what_was_asked_for_stands_beside_what_comes():
    made = MadeInput(100, ends=True)
    made.asked = "asked for 1280x720, 30 fps; it says 640x480, 30 fps"
    rig = Rig(made)
    rig.feed._thread.join(5)
    assert rig.said == [f"made: {made.asked}; what comes is 64x48, 30.0 fps"]


def test_a_receiver_that_fails_ends_the_feed_and_is_told():
    made = MadeInput(5)

    def broken(*_):
        raise ZeroDivisionError("made")

    feed = CameraFeed(lambda: made, broken, lambda _: None)
    feed._thread.join(5)
    assert isinstance(feed.error, ZeroDivisionError)
    assert made.closed


def test_whatever_ends_the_feed_is_told():
    def ends(*_):
        raise SystemExit(1)  # as a console whose reader has gone does

    feed = CameraFeed(lambda: MadeInput(5), ends, lambda _: None)
    feed._thread.join(5)
    assert isinstance(feed.error, SystemExit)


def test_closing_does_not_wait_for_a_driver_that_hangs_but_says_so(monkeypatch):
    monkeypatch.setattr(module, "CLOSE_S", 0.05)
    going = threading.Event()
    said: list[str] = []

    class Hanging(MadeInput):
        def read(self):
            going.wait(5)
            return super().read()

    delivered: list[object] = []
    hanging = Hanging(1)
    feed = CameraFeed(lambda: hanging, lambda *_: delivered.append(1), said.append)
    began = time.perf_counter()
    feed.close()
    assert time.perf_counter() - began < 1
    assert said == ["made has not answered for 0.05 s: it is released once it does"]
    going.set()
    feed._thread.join(5)
    assert hanging.closed
    assert not delivered  # nobody expects a frame after closing
    assert len(said) == 1


def test_closing_interrupts_the_wait_for_a_frames_time(tmp_path, make_video, shades):
    path = tmp_path / "film.mp4"
    make_video(path, shades(2), times=[0, 750])  # the second is due after half a minute
    said: list[str] = []
    first = threading.Event()
    feed = CameraFeed(partial(FileInput, path, loop=False), lambda *_: first.set(), said.append)
    assert first.wait(5)
    began = time.perf_counter()
    feed.close()
    assert time.perf_counter() - began < 1
    assert said == []
    assert not feed._thread.is_alive()


def test_a_device_is_named_in_its_errors():
    cameras = [CameraInfo("/dev/video99", 99, "Integrated Camera", ())]
    made = choose_input("99", CameraRequest(), loop=False, allowed_hosts=[], cameras=lambda: cameras)
    with pytest.raises(MediaError, match=r"^camera 99 \(Integrated Camera\): cannot be opened: "):
        made()
