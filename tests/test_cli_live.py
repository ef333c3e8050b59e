"""`reenact live`: what its options do, what it refuses, and a whole run with keys on a virtual display."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from reenact import cli, cli_live
from reenact.errors import ReenactError
from reenact.runtime import assets, camera_choice, engine, engines, live, live_loop, models, outputs, window
from reenact.runtime.live_loop import LiveStats
from reenact.runtime.media import camera
from reenact.runtime.media.camera import CameraInfo
from reenact.runtime.media.limits import Limits
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.media.v4l2 import CameraFormat
from reenact.runtime.meters import Percentiles
from typer.testing import CliRunner


class Made(SimpleNamespace):
    """Remembers how it was made."""

    def __init__(self, kind, calls, *args, **options):
        super().__init__(kind=kind, args=args, options=options)
        calls.setdefault(kind, []).append(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def offer(self, *_):
        pass

    def announce(self, *_):
        pass

    def close(self):
        pass

    def run(self, **options):
        self.ran = options
        return self.stats

    name = "made"


@pytest.fixture
def live_stats(live_status):
    return LiveStats(
        pictures=100,
        seconds=4.0,
        status=live_status,
        latency={"the encoder of live.mp4": Percentiles(20.0, 40.0, 60.0)},
        outputs_dropped={"live.mp4": 2, "other": 0},
        recordings=("live.mp4",),
        faults=(),
        interrupted=False,
    )


@pytest.fixture
def calls(monkeypatch, live_stats):
    """Everything heavy is made; what was made, by kind."""
    made: dict[str, list[Made]] = {}

    def maker(kind):
        return lambda *args, **options: Made(kind, made, *args, **options)

    for module, name in (
        (engines, "Engines"),
        (live, "LiveSession"),
        (live_loop, "LiveLoop"),
        (camera, "CameraFeed"),
        (window, "PreviewWindow"),
        (outputs, "VirtualCamera"),
    ):
        monkeypatch.setattr(module, name, maker(name))
    monkeypatch.setattr(Made, "stats", live_stats, raising=False)
    monkeypatch.setattr(models, "ensure", lambda progress: None)
    return made


def run(*arguments):
    return CliRunner().invoke(cli.app, ["live", *map(str, arguments)])


def test_without_a_gpu_it_says_once_where_networks_run(calls, monkeypatch):
    monkeypatch.setattr(engine, "no_gpu", lambda: "none is here")
    assert run("a.jpg", "--camera", "test").stderr.count("no GPU is used (none is here)") == 1
    assert "no GPU" not in run("a.jpg", "--camera", "test", "--backend", "cpu").stderr


def test_options_reach_what_they_are_for(calls, tmp_path):
    done = run(
        *("a.jpg", "b.jpg", "--camera", "test", "--record", tmp_path / "out.mp4", "--virtual-camera"),
        *("--size", "320x240", "--resolution", "640x480", "--fps", "25", "--no-mjpeg", "--whole", "--mirror"),
        *("--strength", "0.5", "--smoothing", "2", "--seconds", "9", "--no-mark", "--max-pixels", "99"),
    )
    assert done.exit_code == 0, done.output
    session, loop = calls["LiveSession"][0], calls["LiveLoop"][0]
    assert session.options["size"] == (320, 240)
    assert (session.options["fps"], session.options["whole"]) == (25.0, True)
    assert session.options["limits"] == Limits(max_pixels=99)
    controls = session.options["controls"]
    assert (controls.pose_strength, controls.expression_strength) == (0.5, 0.5)
    assert (controls.smoothing, controls.mirror) == (2.0, True)
    assert loop.args[2] == [Path("a.jpg"), Path("b.jpg")]
    assert loop.options["record"] == tmp_path / "out.mp4"
    assert loop.options["window"] is calls["PreviewWindow"][0]
    assert loop.options["outputs"] == [calls["VirtualCamera"][0]]
    assert loop.ran["seconds"] == 9.0
    assert calls["VirtualCamera"][0].args == ((320, 240), 25.0, None)
    assert calls["VirtualCamera"][0].options == {"mark": False}
    assert loop.options["mark"] is False
    assert calls["PreviewWindow"][0].args[1] == (320, 240)


def test_without_photos_the_packaged_ones_are_shown(calls):
    assert run("--camera", "test").exit_code == 0
    assert calls["LiveLoop"][0].args[2] == [
        assets.portrait("eileen_collins"),
        assets.portrait("grace_hopper"),
    ]
    assert calls["LiveSession"][0].options["size"] == (512, 512)


def test_it_says_what_was_done(calls):
    done = run("--camera", "test", "--no-preview", "--record", "live.mp4")
    assert done.stdout.splitlines() == [
        "100 pictures in 4.0 s, 25.0 fps",
        "latency from capture to the encoder of live.mp4: p50 20 ms, p95 40 ms, p99 60 ms, of the last 10 s",
        "dropped: 7 frames, cause: frame rate",
        "dropped: 2 pictures, cause: live.mp4 was too slow",
        "at the end: at most 20 fps",
        "recorded: live.mp4",
    ]
    assert "PreviewWindow" not in calls


def test_ctrl_c_gives_its_own_exit_code(calls, live_stats, monkeypatch):
    monkeypatch.setattr(Made, "stats", replace(live_stats, interrupted=True))
    assert run("--camera", "test").exit_code == 130


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--camera", "test", "--no-preview"], "nothing is left to show it"),
        (["--camera", "test", "--size", "big"], "'big' is no size; write 512 or 640x480"),
        (["--camera", "test", "--resolution", "1x2x3"], "is no size"),
        (["--camera", "test", "--virtual-device", "x"], "goes together with --virtual-camera"),
        (["--camera", "test", "--smoothing", "9"], "less than or equal to 4"),
    ],
)
def test_misuse_is_refused_with_code_2(calls, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
    assert "Engines" not in calls


def test_the_largest_picture_is_that_of_the_driving_too(calls, tmp_path):
    cv2.imwrite(str(tmp_path / "driving.png"), np.zeros((10, 10, 3), np.uint8))
    done = run("--camera", tmp_path / "driving.png", "--max-pixels", "99")
    assert done.exit_code == 1
    assert "allow it with --max-pixels 100" in " ".join(done.output.split())
    assert run("--camera", tmp_path / "driving.png", "--max-pixels", "100").exit_code == 0


@pytest.mark.parametrize("choice", ["77", "no such camera", "broken.mp4"])
def test_a_camera_that_cannot_be_is_told_before_anything_is_loaded_or_recorded(
    calls, tmp_path, monkeypatch, choice
):
    monkeypatch.chdir(tmp_path)
    Path("broken.mp4").write_bytes(b"no film")
    done = run("--camera", choice, "--record", "out.mp4")
    assert done.exit_code == 1
    assert f"{choice}: " in done.output
    assert not {"Engines", "LiveLoop", "PreviewWindow"} & set(calls)


def test_an_address_needs_to_be_allowed(calls):
    done = run("--camera", "rtsp://cam/one")
    assert done.exit_code == 1
    assert "allow it with --allow-url cam" in done.output
    assert run("--camera", "rtsp://cam/one", "--allow-url", "cam").exit_code == 0


def test_without_any_camera_it_says_what_can_stand_in(calls, monkeypatch):
    monkeypatch.setattr(camera, "list_cameras", list)
    done = run()
    assert done.exit_code == 1
    assert "no camera is found here" in done.output


CAMERAS = [
    CameraInfo(
        "/dev/video0",
        0,
        "Webcam",
        (
            CameraFormat("MJPG", 1280, 720, 30.0),
            CameraFormat("MJPG", 640, 480, 0),
            CameraFormat("YUYV", 320, 240, 15.0),
        ),
    ),
    CameraInfo("/dev/video4", 4, "Other", ()),
]


def test_cameras_are_listed_with_their_formats_where_there_is_no_display(calls, monkeypatch):
    monkeypatch.setattr(camera, "list_cameras", lambda: CAMERAS)
    monkeypatch.setattr(window, "why_no_window", lambda: "there is no display")
    done = run()
    assert done.exit_code == 2
    assert done.output.splitlines() == [
        "0  Webcam",
        "   MJPG: 1280x720@30, 640x480",
        "   YUYV: 320x240@15",
        "4  Other",
        "choose a camera: reenact live --camera N",
    ]


def test_with_a_display_a_camera_is_chosen_by_its_picture(calls, monkeypatch):
    monkeypatch.setattr(camera, "list_cameras", lambda: CAMERAS)
    monkeypatch.setattr(window, "why_no_window", lambda: None)
    chosen = []

    def opener(choice, *_):
        chosen.append(choice)
        return lambda: None

    monkeypatch.setattr(cli_live, "_open_input", opener)
    monkeypatch.setattr(camera_choice, "pictures_of", lambda cameras: [None] * len(cameras))
    monkeypatch.setattr(camera_choice, "choose_camera", lambda cameras, pictures, window: cameras[1])
    assert run().exit_code == 0
    assert chosen == ["4"]


@pytest.fixture
def display(display):
    """One that keys can be pressed on."""
    if shutil.which("xdotool") is None:
        pytest.skip("xdotool is not installed")
    return display


@pytest.fixture
def started(tmp_path):
    """Starts `reenact live` in a process of its own; ended at the latest with the test."""
    processes = []

    def start(*arguments, stderr=subprocess.STDOUT, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "reenact", "live", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.communicate()


def until(condition, seconds=40):
    ends = time.perf_counter() + seconds
    while not (value := condition()):
        assert time.perf_counter() < ends
        time.sleep(0.1)
    return value


@pytest.fixture
def clip(tmp_path):
    """A still face for two seconds: what moves here is not the point."""
    from fractions import Fraction

    from reenact.runtime.media.frame import Frame
    from reenact.runtime.media.images import read_image
    from reenact.runtime.media.writer import open_writer

    face = np.asarray(cv2.resize(read_image(assets.portrait("eileen_collins")), (320, 320)), np.uint8)
    with open_writer(tmp_path / "clip.mp4", width=320, height=320) as sink:
        for number in range(50):
            sink.write(Frame(face, number, Fraction(1, 25)))
    return tmp_path / "clip.mp4"


def test_a_run_with_keys_in_a_window_records_what_was_shown(models_home, display, started, clip, tmp_path):
    process = started("--camera", clip, "--record", "out.mp4", "--size", "256", DISPLAY=display)

    def press(key):
        found = subprocess.run(
            ["xdotool", "search", "--name", "reenact live"],
            env={**os.environ, "DISPLAY": display},
            capture_output=True,
            text=True,
            check=False,
        )
        for window_id in found.stdout.split():
            subprocess.run(
                ["xdotool", "key", "--window", window_id, key],
                env={**os.environ, "DISPLAY": display},
                check=False,
                capture_output=True,
            )

    until(lambda: any(tmp_path.glob(".out.mp4.part-*")))
    time.sleep(2.0)
    for key in ("2", "h", "i", "m", "b"):
        press(key)
        time.sleep(0.4)
    until(lambda: (press("q"), process.poll())[1] is not None)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert "recorded: out.mp4" in output
    with VideoReader(tmp_path / "out.mp4") as reader:
        frames = list(reader)
    assert frames[0].image.shape == (256, 256, 3)
    assert len(frames) > 20
    assert np.diff([frame.time for frame in frames]).max() < 1.5
    first, last = (frame.image.mean(axis=(0, 1)) for frame in (frames[0], frames[-1]))
    assert np.abs(first - last).max() > 15  # another photo
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.timed
def test_every_key_does_what_the_help_says(models_home, display, started, clip, tmp_path):
    """Seen on the screen, in what is said, and in the files."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg, which takes the pictures of the screen, is not installed")
    environment = {**os.environ, "DISPLAY": display}
    log = tmp_path / "log.txt"
    process = started(
        "--camera", clip, "--record", "out.mp4", "--size", "320", DISPLAY=display, stderr=log.open("w")
    )

    def screen():
        """(320, 320, 3), what the window shows."""
        grab = f"ffmpeg -v error -f x11grab -video_size 320x320 -i {display} -frames:v 1 -f rawvideo -pix_fmt rgb24 -"
        found = subprocess.run(grab.split(), env=environment, capture_output=True, check=True).stdout
        return np.frombuffer(found, np.uint8).reshape(320, 320, 3).astype(int)

    def press(key):
        search = ["xdotool", "search", "--name", "reenact live"]
        found = subprocess.run(search, env=environment, capture_output=True, text=True, check=False)
        for window_id in found.stdout.split():
            keys = ["xdotool", "key", "--window", window_id, key]
            subprocess.run(keys, env=environment, check=False, capture_output=True)

    def mean_colour():
        return screen()[100:220, 60:260].mean(axis=(0, 1))

    def said(text):
        return lambda: text in log.read_text()

    until(said("calibrated"))
    time.sleep(4.5)  # so that no notice stands any more
    top, left = slice(0, 60), slice(0, 160)
    first = mean_colour()
    press("2")
    until(lambda: np.abs(mean_colour() - first).max() > 15)
    press("Right")
    until(lambda: np.abs(mean_colour() - first).max() < 10)
    press("Left")
    until(lambda: np.abs(mean_colour() - first).max() > 15)
    press("1")
    until(lambda: np.abs(mean_colour() - first).max() < 10)
    shown = screen()
    press("h")
    until(
        lambda: np.abs(screen() - shown)[100:160, 60:150].mean() > 10
    )  # the help is longer than the figures
    press("h")
    until(lambda: np.abs(screen() - shown)[100:160, 60:150].mean() < 10)
    dark = screen()[top, left].mean()
    press("i")
    until(lambda: screen()[top, left].mean() > dark + 15)
    press("i")
    until(lambda: screen()[top, left].mean() < dark + 10)
    before = screen()
    press("b")  # from the right to the left: dark there, and here no longer
    until(lambda: np.abs(screen() - before)[298:, :80].mean() > 20)
    until(lambda: (screen() - before)[298:, 240:].mean() > 20)
    for key, text in (
        ("x", "the pose was reset"),
        ("f", "looking for a better neutral frame"),
        ("m", "mirrored"),
    ):
        press(key)
        until(said(text))
    press("r")
    until((tmp_path / "out.mp4").exists)
    press("r")
    until(lambda: any(path.stat().st_size for path in tmp_path.glob(".out-2.mp4.part-*")))
    until(lambda: (press("q"), process.poll())[1] is not None)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert "recorded: out.mp4" in output
    assert "recorded: out-2.mp4" in output
    for name in ("out.mp4", "out-2.mp4"):
        with VideoReader(tmp_path / name) as reader:
            assert len(list(reader)) > 3


def test_ctrl_c_completes_the_recording(models_home, started, clip, tmp_path):
    process = started("--camera", clip, "--no-preview", "--record", "out.mp4", "--size", "128")
    until(lambda: any(path.stat().st_size for path in tmp_path.glob(".out.mp4.part-*")))
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 130, output
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert len(list(reader)) > 3


def test_a_request_to_end_and_impatience_complete_the_recording(models_home, started, clip, tmp_path):
    """The end of the terminal, a request to end, and Ctrl-C twice while it is heeded."""
    for number, signals in enumerate(
        [[signal.SIGHUP], [signal.SIGTERM, signal.SIGINT, signal.SIGINT], [signal.SIGINT, signal.SIGINT]]
    ):
        name = f"out{number}.mp4"
        process = started("--camera", clip, "--no-preview", "--record", name, "--size", "128")
        until(lambda name=name: any(path.stat().st_size for path in tmp_path.glob(f".{name}.part-*")))
        for one in signals:
            process.send_signal(one)
            time.sleep(0.03)
        output = process.communicate(timeout=60)[0]
        # A signal that comes when all is done ends what is left of the process in its own way.
        assert process.returncode in (130, -signal.SIGINT), output
        assert f"recorded: {name}" in output
        assert "nothing was written" not in output
        with VideoReader(tmp_path / name) as reader:
            assert len(list(reader)) > 3
    assert list(tmp_path.glob(".*")) == []


def test_what_was_recorded_outlives_a_process_that_is_killed(models_home, started, clip, tmp_path):
    process = started("--camera", clip, "--no-preview", "--record", "out.mp4", "--size", "256")

    def part():
        return next((path for path in tmp_path.glob(".out.mp4.part-*") if path.stat().st_size), None)

    found = until(part)
    time.sleep(4)
    process.kill()
    process.communicate()
    with VideoReader(found) as reader:
        assert list(reader)[-1].time > 1


def test_signals_that_are_ignored_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as with nohup
    try:
        with cli_live._ended_by_signals() as ended:
            signal.raise_signal(signal.SIGHUP)
            assert not ended.is_set()
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert ended.is_set()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # once is enough
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with cli_live._ended_by_signals():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_failed_output_is_an_error_after_all_else_was_told(calls, live_stats, monkeypatch):
    monkeypatch.setattr(Made, "stats", replace(live_stats, faults=("the camera is gone",)))
    done = run("--camera", "test")
    assert done.exit_code == 1
    assert "100 pictures in 4.0 s" in done.output
    assert "recorded: live.mp4" in done.output
    assert "error: the camera is gone" in done.output


def test_what_ends_the_session_hides_nothing_that_was_done(calls, monkeypatch):
    def fail(self, **options):
        raise ReenactError("the session has failed")

    monkeypatch.setattr(Made, "run", fail)
    done = run("--camera", "test")
    assert done.exit_code == 1
    assert "recorded: live.mp4" in done.output
    assert "error: the session has failed" in done.output


def test_window_and_virtual_camera_are_closed_where_the_engines_fail(calls, monkeypatch):
    closed = []

    def fail(*_):
        raise ReenactError("no engines")

    monkeypatch.setattr(engines, "Engines", fail)
    monkeypatch.setattr(Made, "close", lambda self: closed.append(self.kind))
    done = run("--camera", "test", "--virtual-camera")
    assert done.exit_code == 1
    assert "no engines" in done.output
    assert sorted(closed) == ["PreviewWindow", "VirtualCamera"]


def test_a_file_that_is_played_once_ends_the_run(models_home, started, clip, tmp_path):
    process = started("--camera", clip, "--once", "--no-preview", "--record", "out.mp4", "--size", "128")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "latency from capture to the encoder of out.mp4: p50" in output
    assert "to display" not in output  # nothing was displayed
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert 0.5 < list(reader)[-1].time < 2.5
