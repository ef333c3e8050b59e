"""Recordings with the times of their frames, and a virtual camera that a made library stands in for."""

import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from reenact.errors import MediaError, ReenactError
from reenact.runtime import outputs as module
from reenact.runtime.files import free_name
from reenact.runtime.live import Presented
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.outputs import Recording, VirtualCamera

SIZE = (64, 48)


def picture(number, captured, shade=100):
    return Presented(np.full((48, 64, 3), shade, np.uint8), number, captured, captured + 0.01)


def test_a_recording_keeps_the_times_at_which_frames_were_taken(tmp_path):
    recording = Recording(tmp_path / "live.mp4", SIZE, 30.0, system="meshwarp")
    times = [7.0, 7.033, 7.3, 7.31, 9.0]
    for number, captured in enumerate(times):
        recording.put(picture(number, captured, 40 * (number + 1)))
        time.sleep(0.02)
    recording.close()
    recording.close()
    with VideoReader(tmp_path / "live.mp4") as reader:
        frames = list(reader)
    np.testing.assert_allclose([frame.time for frame in frames], np.array(times) - 7, atol=1e-3)
    np.testing.assert_allclose([frame.image.mean() for frame in frames], [40, 80, 120, 160, 200], atol=4)
    assert recording.seconds == pytest.approx(2.0)
    assert list(tmp_path.iterdir()) == [tmp_path / "live.mp4"]


def test_times_that_stand_still_still_make_a_movie(tmp_path):
    recording = Recording(tmp_path / "live.mp4", SIZE, 30.0, system="meshwarp")
    for number in range(3):
        recording.put(picture(number, 5.0))
    recording.close()
    with VideoReader(tmp_path / "live.mp4") as reader:
        assert len(list(reader)) == 3


def test_an_encoder_that_is_too_slow_leaves_pictures_out_and_counts_them(tmp_path, monkeypatch):
    going = threading.Event()
    write = Recording._write
    monkeypatch.setattr(
        Recording, "_write", lambda self, sink, shown: (going.wait(5), write(self, sink, shown))
    )
    recording = Recording(tmp_path / "live.mp4", SIZE, 30.0, system="meshwarp")
    began = time.perf_counter()
    for number in range(30):
        recording.put(picture(number, number / 30))
    assert time.perf_counter() - began < 1.0  # nobody waited for the encoder
    going.set()
    recording.close()
    assert 30 - module.WAITING - 1 <= recording.dropped <= 30 - module.WAITING
    with VideoReader(tmp_path / "live.mp4") as reader:
        assert len(list(reader)) == 30 - recording.dropped


def test_a_recording_of_nothing_leaves_nothing(tmp_path):
    Recording(tmp_path / "live.mp4", SIZE, 30.0, system="meshwarp").close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (MediaError("live.mp4: cannot be written (No space left on device)"), "No space left on device"),
        (ZeroDivisionError("made"), r"live\.mp4: ZeroDivisionError: made; this is a fault of reenact"),
        (MemoryError(), r"live\.mp4: MemoryError"),
    ],
)
def test_a_recording_that_cannot_go_on_says_so_and_keeps_what_it_has(tmp_path, monkeypatch, fault, told):
    recording = Recording(tmp_path / "live.mp4", SIZE, 30.0, system="meshwarp")
    write = recording._sink.write

    def full(frame):
        if frame.time >= 1:
            raise fault
        write(frame)

    monkeypatch.setattr(recording._sink, "write", full)
    for number in range(60):
        recording.put(picture(number, 5 + number / 30))
        time.sleep(0.002)
    recording._thread.join(5)
    assert recording.error is not None
    with pytest.raises(ReenactError, match=told) as caught:
        recording.close()
    assert "live.mp4 holds what was recorded before" in str(caught.value)
    assert recording.kept
    recording.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["live.mp4"]
    with VideoReader(tmp_path / "live.mp4") as reader:
        assert 0.5 < list(reader)[-1].time < 1


def test_a_recording_in_which_nothing_could_be_written_leaves_nothing(tmp_path, monkeypatch):
    recording = Recording(tmp_path / "live.mp4", SIZE, 30.0, system="meshwarp")

    def full(frame):
        raise MediaError("live.mp4: cannot be written (No space left on device)")

    monkeypatch.setattr(recording._sink, "write", full)
    recording.put(picture(1, 1.0))
    recording._thread.join(5)
    recording.put(picture(2, 2.0))
    with pytest.raises(ReenactError, match=r"No space left on device\)$"):
        recording.close()
    assert not recording.kept
    assert list(tmp_path.iterdir()) == []


def test_latency_ends_where_a_picture_is_sent(tmp_path, monkeypatch, library):
    slow_down(monkeypatch, Recording, "_write", 0.05)
    slow_down(monkeypatch, MadeCamera, "send", 0.07)
    outputs: list[Any] = [
        Recording(tmp_path / "live.mp4", SIZE, 30.0, system="meshwarp"),
        VirtualCamera(SIZE, 30.0),
    ]
    for output in outputs:
        now = time.perf_counter()
        output.put(picture(1, now))
        wait_for(lambda output=output: output.latency.percentiles(time.perf_counter()))
        output.close()
    recorded, sent = (output.latency.percentiles(time.perf_counter()).p50 for output in outputs)
    assert 50 <= recorded < 5000
    assert 70 <= sent < 5000
    assert [output.goes_to for output in outputs] == [
        f"the encoder of {tmp_path / 'live.mp4'}",
        "the virtual camera /dev/video9",
    ]


def test_every_picture_goes_to_all_outputs_and_those_missed_are_counted():
    pictures = [picture(number, float(number)) for number in (3, 4, 7, 8)]
    waiting = list(pictures)

    class Session:
        def newest(self, after, timeout):
            if not waiting:
                time.sleep(0.005)
                return None
            assert waiting[0].number > after
            return waiting.pop(0)

    first, second = (SimpleNamespace(taken=[], error=None) for _ in range(2))
    session: Any = Session()
    for output in (first, second):
        output.put = output.taken.append
    fan_out = module.FanOut(session, [first, second])
    fan_out.start()
    wait_for(lambda: fan_out.count == 4)
    fan_out.remove(second)
    waiting.append(picture(9, 9.0))
    wait_for(lambda: fan_out.count == 5)
    fan_out.close()
    assert [shown.number for shown in first.taken] == [3, 4, 7, 8, 9]
    assert [shown.number for shown in second.taken] == [3, 4, 7, 8]
    assert fan_out.missed == 2
    assert fan_out.error is None


def test_what_ends_the_session_ends_the_fan_out_and_is_told():
    class Session:
        def newest(self, after, timeout):
            raise ZeroDivisionError("made")

    session: Any = Session()
    fan_out = module.FanOut(session)
    fan_out.start()
    wait_for(lambda: fan_out.error is not None)
    assert "ZeroDivisionError: made" in str(fan_out.error)
    fan_out.close()


def test_where_it_cannot_be_written_is_known_before_anything_is_shown(tmp_path):
    with pytest.raises(MediaError, match=r"the folder .* does not exist"):
        Recording(tmp_path / "none" / "live.mp4", SIZE, 30.0, system="meshwarp")


def test_the_next_recording_has_a_name_of_its_own(tmp_path):
    path = tmp_path / "live.mp4"
    assert free_name(path) == path
    path.touch()
    (tmp_path / "live-2.mp4").touch()
    assert free_name(path) == tmp_path / "live-3.mp4"


def test_a_recording_whose_name_was_taken_meanwhile_says_which_it_got(tmp_path):
    recording = Recording(tmp_path / "live.mp4", SIZE, 30.0, system="meshwarp")
    recording.put(picture(1, 1.0))
    (tmp_path / "live.mp4").write_text("copied here")
    recording.close()
    assert recording.name == str(tmp_path / "live-2.mp4")
    assert recording.kept
    assert (tmp_path / "live.mp4").read_text() == "copied here"
    with VideoReader(recording.name) as reader:
        assert len(list(reader)) == 1


class MadeCamera:
    made: "MadeCamera"

    def __init__(self, *, width, height, fps, fmt, device, print_fps):
        self.settings = (width, height, fps, fmt, device)
        self.device, self.sent, self.closed = device or "/dev/video9", [], False
        MadeCamera.made = self

    def send(self, image):
        if self.closed:
            raise RuntimeError("gone")
        self.sent.append(image)

    def close(self):
        self.closed = True


@pytest.fixture
def library(monkeypatch):
    made = SimpleNamespace(Camera=MadeCamera, PixelFormat=SimpleNamespace(RGB="RGB"))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", made)
    return made


def slow_down(monkeypatch, owner, name, seconds):
    work = getattr(owner, name)

    def slowly(*arguments):
        time.sleep(seconds)
        return work(*arguments)

    monkeypatch.setattr(owner, name, slowly)


def wait_for(condition):
    end = time.perf_counter() + 5
    while not condition():
        assert time.perf_counter() < end
        time.sleep(0.002)


def test_a_virtual_camera_shows_the_newest_picture_and_repeats_it(library, monkeypatch):
    monkeypatch.setattr(module, "REPEAT_S", 0.01)
    camera = VirtualCamera(SIZE, 25.0, "/dev/video7")
    made = MadeCamera.made
    assert made.settings == (64, 48, 25.0, "RGB", "/dev/video7")
    assert camera.name == "/dev/video7"
    camera.put(picture(1, 1.0, 50))
    wait_for(lambda: len(made.sent) >= 3)
    assert abs(made.sent[2].mean() - 50) < 2
    camera.put(picture(2, 2.0, 90))
    wait_for(lambda: abs(made.sent[-1].mean() - 90) < 2)
    camera.close()
    assert made.closed


def test_what_the_virtual_camera_shows_is_marked(library):
    from reenact.runtime.watermark import marked

    camera = VirtualCamera(SIZE, 25.0)
    shown = picture(1, 1.0)
    camera.put(shown)
    wait_for(lambda: MadeCamera.made.sent)
    camera.close()
    np.testing.assert_array_equal(MadeCamera.made.sent[0], marked(shown.image))
    assert (MadeCamera.made.sent[0] != shown.image).any()


def test_a_mark_that_is_not_wanted_is_left_out_and_logged(library, caplog, tmp_path):
    camera = VirtualCamera(SIZE, 25.0, mark=False)
    shown = picture(1, 1.0)
    camera.put(shown)
    wait_for(lambda: MadeCamera.made.sent)
    camera.close()
    np.testing.assert_array_equal(MadeCamera.made.sent[0], shown.image)
    assert "the virtual camera's pictures are not marked" in caplog.text
    caplog.clear()
    Recording(tmp_path / "live.mp4", SIZE, 30.0, system="meshwarp", mark=False).close()
    assert "live.mp4" in caplog.text


def test_a_virtual_camera_that_is_taken_away_says_so(library):
    camera = VirtualCamera(SIZE, 25.0)
    MadeCamera.made.closed = True
    camera.put(picture(1, 1.0))
    wait_for(lambda: camera.error is not None)
    with pytest.raises(ReenactError, match=r"virtual camera /dev/video9: it takes no more pictures \(gone\)"):
        camera.close()


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(ReenactError, match=r'pip install "reenact\[camera\]"'):
        VirtualCamera(SIZE, 25.0)


def test_without_a_driver_it_says_how_to_get_one(library, monkeypatch):
    def none(**settings):
        raise RuntimeError("'v4l2loopback' backend: No v4l2 loopback device found at /dev/video[0-99]\n")

    monkeypatch.setattr(library, "Camera", none)
    with pytest.raises(ReenactError, match="sudo modprobe v4l2loopback") as refused:
        VirtualCamera(SIZE, 25.0)
    assert "\n" not in str(refused.value)


def test_the_real_library_is_called_as_it_wants(monkeypatch):
    real = pytest.importorskip("pyvirtualcam", reason="pyvirtualcam is not installed")
    calls: list[object] = []
    made: dict[str, object] = {}

    class Backend:
        def __init__(self, **settings):
            made.update(settings)
            calls.append("opened")

        def device(self):
            return "made"

        def send(self, frame):
            calls.append(frame.shape)

        def close(self):
            calls.append("closed")

    monkeypatch.setattr(real.camera, "BACKENDS", {"made": Backend})
    camera = VirtualCamera(SIZE, 25.0)
    camera.put(picture(1, 1.0))
    wait_for(lambda: len(calls) >= 2)
    camera.close()
    assert (made["width"], made["height"], made["fps"]) == (64, 48, 25.0)
    assert calls[-1] == "closed"
