"""The loop that shows a live session: keys, preview, outputs, and how it ends."""

import gc
import threading
import time
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from reenact.errors import MediaError, ReenactError
from reenact.runtime import live_loop as module
from reenact.runtime import overlay
from reenact.runtime.live import LiveSession
from reenact.runtime.live_loop import LiveLoop
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.media.writer import VideoSink
from reenact.runtime.meters import Recent
from reenact.runtime.outputs import Recording


class MadeWindow:
    """Presses `keys` one after the other, each once the condition that goes with it holds; then Q."""

    def __init__(self, *keys):
        self.script, self.shown, self.pressed, self.closed = list(keys), [], [], False
        self.ends = time.perf_counter() + 10

    def show(self, picture):
        assert picture.flags.c_contiguous
        self.shown.append(picture)

    def key(self):
        assert time.perf_counter() < self.ends, f"waited in vain before {self.script[:1]}"
        if not self.shown:
            return None
        if not self.script:
            return "q"
        key, condition = self.script[0]
        if not condition():
            return None
        self.script.pop(0)
        self.pressed.append(key)
        return key

    def close(self):
        self.closed = True


class MadeOutput:
    def __init__(self, fails_after=10**9):
        self.name, self.dropped, self.error, self.pictures, self.closed = "made output", 3, None, [], False
        self.goes_to, self.latency = "the made place", Recent(10.0)
        self.fails_after = fails_after

    def put(self, picture):
        self.pictures.append(picture)
        self.latency.add(time.perf_counter(), 0.005)
        if len(self.pictures) > self.fails_after:
            self.error = ReenactError("the made output is full")

    def close(self):
        self.closed = True
        if self.error is not None:
            raise self.error


class Stage:
    """Photos of red 50, 60 and 70, a session, and a camera that gives some 200 frames a second."""

    def __init__(self, colours, folder):
        self.colours, self.folder = colours, folder
        self.said: list[str] = []
        self.photos = []
        for red in (50, 60, 70):
            self.photos.append(folder / f"{red}.png")
            cv2.imwrite(str(self.photos[-1]), colours.picture(red=red, width=64, height=64)[..., ::-1])
        self.session = LiveSession(colours.engines(), size=(64, 64), fps=240, tell=self.said.append)
        self.feed: Any = SimpleNamespace(error=None, ended=False, close=lambda: self.closed.append(1))
        self.closed: list[int] = []
        self.figures: list[str] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._film, daemon=True)
        self.thread.start()

    def _film(self):
        while not self.stop.wait(0.004):
            if not self.feed.ended:
                self.session.offer(self.colours.picture(green=140), time.perf_counter())

    def start(self):
        assert self.red() == 50  # the first photo is shown before
        return self.feed

    def loop(self, *keys, **options):
        self.window = MadeWindow(*keys)
        return LiveLoop(self.session, self.start, self.photos, window=self.window, **options)

    def red(self):
        picture = self.session.newest()
        return -1 if picture is None else int(picture.image[0, 0, 0])

    def close(self):
        self.stop.set()
        self.thread.join()
        self.session.close()


@pytest.fixture
def stage(colours, tmp_path, monkeypatch):
    made = Stage(colours, tmp_path)

    def panel(picture, lines, **options):
        made.figures += lines
        overlay.panel(picture, lines, **options)

    monkeypatch.setattr(module, "panel", panel)
    yield made
    made.close()


def always():
    return True


def test_keys_change_the_photo(stage):
    reds = []

    def shows(red):
        def condition():
            if stage.red() == red:
                reds.append(red)
                return True
            return False

        return condition

    keys = [
        ("3", shows(50)),
        ("next", shows(70)),  # after the last comes the first
        ("previous", shows(50)),
        ("2", shows(70)),
        ("9", shows(60)),  # there is no ninth
        ("i", always),
    ]
    stats = stage.loop(*keys).run()
    assert reds == [50, 70, 50, 70, 60]
    assert stage.red() == 60
    assert stats.pictures > 5
    assert stats.status.photo == "ready"
    assert not stats.interrupted
    assert stage.window.closed


def test_keys_reset_the_pose_find_a_neutral_frame_and_mirror(stage):
    def live():
        return stage.session.status.state == "live"

    keys = [
        ("x", live),
        ("f", lambda: "the pose was reset" in stage.said),
        ("m", lambda: any("looking for a better" in line for line in stage.said)),
    ]
    stage.loop(*keys).run()
    assert stage.session.controls.mirror
    assert stage.window.script == []


def test_the_preview_shows_figures_help_and_the_badge_and_the_picture_stays_clean(stage):
    def shown(count):
        return lambda: len(stage.window.shown) >= count

    output = MadeOutput()
    keys = [
        ("i", shown(5)),
        ("h", shown(10)),
        ("h", shown(15)),
        ("b", shown(20)),
        ("b", shown(25)),
        ("i", shown(30)),
    ]
    stage.loop(*keys, outputs=[output]).run()
    for picture in output.pictures:
        # of a photo of one colour every picture is of one colour: nothing is drawn on what leaves
        assert len(np.unique(picture.image.reshape(-1, 3), axis=0)) == 1
    drawn = [changed(picture) for picture in stage.window.shown]
    assert drawn[2]["top left"]  # figures
    assert all(each["badge"] for each in (drawn[2], drawn[8]))
    assert not drawn[8]["top left"]  # figures off
    assert drawn[13]["top left"]  # help
    assert not drawn[28]["bottom right"]  # the badge has moved


def changed(picture):
    """Which corners of a preview of one colour were written to: those with nearly white or yellow pixels."""
    bright = picture.min(axis=2) > 100
    half = picture.shape[0] // 2
    return {
        "top left": bool(bright[:half, :half].any()),
        "bottom right": bool(bright[half:, half:].any()),
        "badge": bool(bright.any()),
    }


def test_recording_starts_at_once_and_r_ends_it_and_begins_the_next(stage):
    path = stage.folder / "live.mp4"
    loop = stage.loop(
        ("r", lambda: len(stage.window.shown) > 20),
        ("r", path.exists),
        ("r", lambda: len(stage.window.shown) > 60),
        record=path,
    )
    stats = loop.run()
    assert stats.recordings == (str(path), str(stage.folder / "live-2.mp4"))
    for name in stats.recordings:
        with VideoReader(name) as reader:
            frames = list(reader)
        assert len(frames) > 5
        assert abs(frames[-1].image[..., 0].mean() - 50) < 6


def test_a_recording_that_cannot_begin_while_live_is_told_and_ends_nothing(stage, monkeypatch):
    monkeypatch.setattr(module, "Recording", lambda *_, **__: (_ for _ in ()).throw(MediaError("no room")))
    stage.loop(("r", always), ("i", lambda: "no room" in stage.said)).run()


def test_an_output_that_fails_is_told_while_the_others_go_on_and_at_the_end(stage):
    bad, good = MadeOutput(fails_after=5), MadeOutput()
    loop = stage.loop(("i", lambda: len(good.pictures) > 30), outputs=[bad, good])
    stats = loop.run()
    assert stats.faults == ("the made output is full",)
    assert stats.outputs_dropped["made output"] == 6  # of both
    assert stage.said.count("the made output is full") == 1
    assert stage.closed
    assert bad.closed
    assert good.closed
    assert len(bad.pictures) == 6


def test_when_the_last_output_without_a_window_fails_it_is_over(stage):
    bad = MadeOutput(fails_after=5)
    loop = LiveLoop(stage.session, stage.start, stage.photos, outputs=[bad])
    stats = loop.run(seconds=20)
    assert stats.seconds < 10
    assert stats.faults == ("the made output is full",)


def test_it_ends_when_the_file_does(stage, monkeypatch):
    monkeypatch.setattr("reenact.runtime.live.SILENCE_S", 0.05)
    output = MadeOutput()
    loop = LiveLoop(stage.session, stage.start, stage.photos, outputs=[output])

    def end():
        while len(output.pictures) < 5:
            time.sleep(0.01)
        stage.feed.ended = True

    threading.Thread(target=end, daemon=True).start()
    stats = loop.run(seconds=20)
    assert stats.seconds < 10
    assert stats.pictures == len(output.pictures) > 3
    assert stats.outputs_dropped == {"made output": 3}


def test_it_ends_after_the_seconds_it_was_given_and_when_told(stage):
    loop = LiveLoop(stage.session, stage.start, stage.photos, outputs=[MadeOutput()])
    assert 0.2 <= loop.run(seconds=0.2).seconds < 2
    stop = threading.Event()
    stop.set()
    again = LiveLoop(stage.session, stage.start, stage.photos, outputs=[MadeOutput()])
    assert again.run(stop=stop).seconds < 2


def test_its_seconds_count_from_the_first_picture(stage, monkeypatch):
    registers = stage.session.set_photo

    def late(photo):
        threading.Timer(0.6, registers, (photo,)).start()

    monkeypatch.setattr(stage.session, "set_photo", late)
    path = stage.folder / "live.mp4"
    stats = LiveLoop(stage.session, stage.start, stage.photos, record=path).run(seconds=0.3)
    assert 0.3 <= stats.seconds < 0.9
    assert stats.recordings == (str(path),)
    assert stats.faults == ()


def test_what_closing_takes_is_not_among_its_seconds(stage, monkeypatch):
    monkeypatch.setattr(stage.feed, "close", lambda: time.sleep(0.8))
    loop = LiveLoop(stage.session, stage.start, stage.photos, outputs=[MadeOutput()])
    stats = loop.run(seconds=0.2)
    assert 0.2 <= stats.seconds < 0.8
    assert loop.stats.seconds == stats.seconds


def test_the_collector_passes_over_what_was_loaded_while_it_runs(stage):
    stage.loop(("i", lambda: gc.get_freeze_count() > 10_000 and len(stage.window.shown) > 3)).run()
    assert gc.get_freeze_count() == 0


def test_nothing_is_shown_in_a_window_that_was_closed(stage):
    loop = stage.loop()
    shown = []
    pressed = stage.window.key

    def key():
        shown.append(len(stage.window.shown))
        return pressed()

    stage.window.key = key
    loop.run()
    assert len(stage.window.shown) == shown[-1] > 0


def test_ctrl_c_ends_it_with_everything_closed(stage, monkeypatch):
    output = MadeOutput()

    def interrupt():
        if len(output.pictures) > 3:
            raise KeyboardInterrupt
        return False

    stats = stage.loop(("i", interrupt), outputs=[output]).run()
    assert stats.interrupted
    assert output.closed
    assert stage.window.closed
    assert stage.closed


def test_ctrl_c_again_and_again_does_not_take_the_recording(stage, monkeypatch):
    """Each wait of the closing is interrupted once more; the file is whole all the same."""
    path = stage.folder / "live.mp4"
    interrupts: list[int] = []
    join, finish = threading.Thread.join, Recording.close

    def slowly(self):
        time.sleep(0.2)
        finish(self)

    def interrupted_join(self, timeout=None):
        if self.name == "reenact-finish" and len(interrupts) < 3:
            interrupts.append(1)
            raise KeyboardInterrupt
        join(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted_join)
    monkeypatch.setattr(Recording, "close", slowly)
    monkeypatch.setattr(stage.feed, "close", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    loop = stage.loop(("i", lambda: len(stage.window.shown) > 20), record=path)
    with pytest.raises(KeyboardInterrupt):  # of the feed, which is closed after the outputs
        loop.run()
    assert len(interrupts) == 3
    assert loop.stats.recordings == (str(path),)
    assert stage.window.closed
    with VideoReader(path) as reader:
        assert len(list(reader)) > 5


def test_a_window_that_blocks_does_not_starve_the_recording(stage, monkeypatch):
    def block(self, picture):
        time.sleep(0.4)
        self.shown.append(picture)

    monkeypatch.setattr(MadeWindow, "show", block)
    output = MadeOutput()
    stats = stage.loop(("i", lambda: len(stage.window.shown) > 3), outputs=[output]).run()
    assert len(output.pictures) > 10 * len(stage.window.shown)
    assert stats.pictures == len(output.pictures)
    assert stats.outputs_dropped["the window"] > 10
    assert stats.latency["display"].p50 > 400
    assert stats.latency["the made place"].p50 == 5
    assert any("the window was too slow" in line for line in stage.figures)


def test_a_recording_that_takes_long_to_finish_does_not_hold_up_the_window(stage, monkeypatch):
    finish, finished = Recording.close, []

    def slowly(self: Recording) -> None:
        time.sleep(0.5)
        finished.append(len(stage.window.shown))
        finish(self)

    monkeypatch.setattr(Recording, "close", slowly)
    keys = [("r", lambda: len(stage.window.shown) > 20), ("i", lambda: finished)]
    stats = stage.loop(*keys, record=stage.folder / "live.mp4").run()
    assert finished[0] > 40  # twenty were shown before the key, the rest while it was finished
    assert stats.recordings == (str(stage.folder / "live.mp4"),)


def test_a_full_disk_keeps_what_was_recorded_and_tells_what_the_others_did(stage, monkeypatch):
    path, bad = stage.folder / "live.mp4", []
    write = VideoSink.write

    def full(self, frame):
        if frame.time > 0.4:
            bad.append(frame)
            raise OSError("made")
        write(self, frame)

    monkeypatch.setattr(VideoSink, "write", full)
    stats = stage.loop(("i", lambda: len(bad) and len(stage.window.shown) > 60), record=path).run()
    assert len(stats.faults) == 1
    assert "live.mp4: OSError: made" in stats.faults[0]
    assert "live.mp4 holds what was recorded before" in stats.faults[0]
    assert stats.recordings == (str(path),)
    assert stats.latency["display"].p50 > 0
    with VideoReader(path) as reader:
        assert 0.2 < list(reader)[-1].time <= 0.4


def test_a_recording_of_nothing_is_not_told_as_one(stage, monkeypatch):
    """Ended before the first picture."""
    stop = threading.Event()
    stop.set()
    monkeypatch.setattr(stage.session, "set_photo", lambda photo: None)
    path = stage.folder / "live.mp4"
    stats = stage.loop(record=path).run(stop=stop)
    assert stats.recordings == ()
    assert stats.faults == (f"{path}: nothing was recorded, no picture was made by then",)
    assert stage.said == list(stats.faults)
    assert stats.seconds == 0
    assert not path.exists()


def test_a_file_that_is_there_is_not_replaced_by_a_recording(stage):
    path = stage.folder / "live.mp4"
    path.write_text("dear")
    stats = stage.loop(("i", lambda: len(stage.window.shown) > 20), record=path).run()
    assert path.read_text() == "dear"
    assert stats.recordings == (str(stage.folder / "live-2.mp4"),)
    assert f"{path} is there already; recording to {stage.folder / 'live-2.mp4'}" in stage.said


def test_a_file_that_came_while_it_was_recorded_is_not_replaced_either(stage):
    path, other = stage.folder / "live.mp4", stage.folder / "live-2.mp4"

    def copied():
        if len(stage.window.shown) > 20:
            path.write_text("dear")
        return path.exists()

    stats = stage.loop(("i", copied), record=path).run()
    assert path.read_text() == "dear"
    assert stats.recordings == (str(other),)
    assert f"{path} is there by now; what was recorded is {other}" in stage.said
    assert f"the encoder of {other}" in stats.latency
    with VideoReader(other) as reader:
        assert len(list(reader)) > 5


def test_a_first_photo_that_cannot_be_used_ends_it_with_that_reason(stage):
    stage.photos[0] = stage.folder / "none.png"
    with pytest.raises(ReenactError, match=r"none\.png: no such file"):
        stage.loop().run()
    assert stage.window.closed


def test_a_feed_that_broke_ends_it_with_that_fault(stage):
    stage.feed.error = ZeroDivisionError("made")
    with pytest.raises(ZeroDivisionError):
        stage.loop().run()
    assert stage.window.closed


def test_a_feed_that_was_ended_by_no_common_error_ends_it_with_one(stage):
    stage.feed.error = SystemExit(1)
    with pytest.raises(ReenactError, match="SystemExit: 1"):
        stage.loop().run()


def test_latency_is_measured_to_the_display(stage, monkeypatch):
    show = MadeWindow.show

    def slow(self, picture):
        time.sleep(0.05)
        show(self, picture)

    monkeypatch.setattr(MadeWindow, "show", slow)
    stats = stage.loop(("i", lambda: len(stage.window.shown) > 8)).run()
    assert stats.status.latency_ms.p50 > 50
    assert stats.latency["display"].p50 > 50


def test_without_a_window_latency_is_that_of_the_outputs(stage):
    stats = LiveLoop(stage.session, stage.start, stage.photos, outputs=[MadeOutput()]).run(seconds=0.5)
    assert list(stats.latency) == ["the made place"]
    assert stats.status.latency_ms is None  # nobody has seen anything
