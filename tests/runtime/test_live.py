"""Live sessions with their real threads: newest wins, drops, photos, faults, and that everything is freed."""

import gc
import threading
import time
import weakref

import cv2
import numpy as np
import pytest
from reenact.errors import MediaError, ReenactError
from reenact.runtime import live as module
from reenact.runtime.controls import Controls
from reenact.runtime.degrade import Degrader, Quality
from reenact.runtime.live import LiveSession
from reenact.runtime.media.limits import Limits

DEADLINE = 5.0


def until(condition, what="it"):
    """Wait until `condition()` holds and give its value."""
    end = time.perf_counter() + DEADLINE
    while time.perf_counter() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.002)
    raise AssertionError(f"{what} did not happen")


class Room:
    """A session, its engines and a source of frames at a made rate."""

    def __init__(self, colours, **options):
        hooks = {name: options.pop(name) for name in list(options) if name.startswith("before_")}
        self.colours, self.engines = colours, colours.engines(**hooks)
        self.said: list[str] = []
        self.session = LiveSession(self.engines, size=(64, 64), tell=self.said.append, **options)
        self.captured = time.perf_counter()

    def photo(self, **colour):
        self.session.set_photo(self.colours.picture(width=64, height=64, **colour))
        until(lambda: self.session.status.photo in ("ready", "failed"), "registering")

    def frame(self, step=0.05, **colour):
        """Offer a frame that was captured `step` seconds after the last."""
        self.captured += step
        self.session.offer(self.colours.picture(**colour), self.captured)
        return self.captured

    def shown(self, **colour):
        """Offer a frame and wait for its picture."""
        captured = self.frame(**colour)

        def made():
            picture = self.session.newest()
            return picture if picture is not None and picture.captured == captured else None

        return until(made, "the frame's picture")

    def calibrate(self):
        """Go on until the session is live; one frame after the other, none is dropped."""
        while self.session.status.state != "live":
            picture = self.shown()
        return picture.number


@pytest.fixture
def room(colours):
    rooms = []

    def make(**options):
        rooms.append(Room(colours, **options))
        return rooms[-1]

    yield make
    for each in rooms:
        each.session.close()


def test_frames_become_pictures_of_the_photo_moved_as_they_are(room):
    live = room(controls=Controls(smoothing=0))
    live.photo(red=77)
    live.calibrate()
    for _ in range(20):
        picture = live.shown(green=168)
    assert picture.image.shape == (64, 64, 3)
    assert (picture.image[..., 0] == 77).all()
    assert abs(int(picture.image[0, 0, 1]) - 168) <= 1
    status = live.session.status
    assert (status.state, status.photo, status.photo_error, status.error) == ("live", "ready", None, None)
    assert status.input_size == (64, 48)
    assert set(status.stages_ms) == {"track", "animate"}
    assert status.drops == {}


def test_the_newest_frame_wins_and_the_others_are_counted(room):
    going, entered = threading.Event(), threading.Event()

    def hold(portrait):
        entered.set()
        going.wait(DEADLINE)

    live = room(before_each=hold)
    live.photo(red=10)
    entered.wait(DEADLINE)  # the still photo is being made
    for number in range(5):
        live.frame(green=128)
        until(
            lambda wanted=number + 1: sum(s.looks for s in live.engines.tracker.siblings) >= wanted,
            "tracking",
        )
        until(
            lambda wanted=number: live.session.status.drops.get("animating was busy", 0) == wanted, "a drop"
        )
    last = live.captured
    going.set()
    picture = until(lambda: live.session.newest(1, 0.1), "a picture")
    assert picture.captured == last
    assert live.session.status.drops["animating was busy"] == 4


def test_frames_that_come_while_tracking_is_busy_are_dropped_there(room):
    going = threading.Event()
    live = room(before_track=lambda image: going.wait(DEADLINE) if image[0, 0, 1] == 1 else None)
    live.photo(red=10)
    live.frame(green=1)
    tracker = live.engines.tracker.siblings[0]
    until(lambda: tracker.looks, "tracking")
    for green in range(120, 130):
        live.frame(green=green)
    going.set()
    until(lambda: tracker.looks == 2, "the newest frame")
    time.sleep(0.02)
    assert tracker.looks == 2
    assert live.session.status.drops["tracking was busy"] == 9


def test_a_source_that_is_faster_than_wanted_is_thinned_evenly(room):
    live = room(fps=10.0)
    for _ in range(60):
        live.frame(step=1 / 60)
    dropped = live.session.status.drops
    assert dropped["frame rate"] in (49, 50)  # the first one is let through in any case
    live.frame(step=-1.0)
    assert live.session.status.drops["out of order"] == 1


def test_what_the_source_lost_is_among_the_drops(room):
    live = room()
    live.session.offer(live.colours.picture(), 1.0, {"damaged": 2})
    live.session.offer(live.colours.picture(), 2.0, {"damaged": 1, "source left out": 4})
    dropped = live.session.status.drops
    assert (dropped["damaged"], dropped["source left out"]) == (3, 4)


def test_the_photo_changes_while_no_frame_is_lost(room):
    registering, going = threading.Event(), threading.Event()

    def slow(image):
        if image[0, 0, 0] == 99:
            registering.set()
            going.wait(DEADLINE)

    live = room(before_register=slow)
    live.photo(red=11)
    live.calibrate()
    live.session.set_photo(live.colours.picture(red=99, width=64, height=64))
    assert registering.wait(DEADLINE)
    reds = []
    for index in range(30):
        if index == 20:
            going.set()
            until(lambda: live.session.status.photo == "ready", "registering")
        reds.append(int(live.shown().image[0, 0, 0]))
    assert reds == [11] * 20 + [99] * 10
    assert live.session.status.drops == {}


def test_a_photo_without_a_face_is_refused_and_the_old_one_stays(room):
    live = room()
    live.photo(red=11)
    live.photo(red=0)
    status = live.session.status
    assert status.photo == "failed"
    assert "no face found" in status.photo_error
    assert live.said[-1].startswith("the photo cannot be used: ")
    number = live.calibrate()
    assert live.session.newest(number - 1).image[0, 0, 0] == 11
    live.photo(red=12)
    assert live.session.status.photo_error is None


def test_a_photo_that_breaks_the_system_is_told_and_ends_nothing(room):
    def broken(image):
        if image[0, 0, 0] == 13:
            raise ZeroDivisionError("made")

    live = room(before_register=broken)
    live.photo(red=13)
    assert "ZeroDivisionError: made; this is a fault of reenact" in live.session.status.photo_error
    live.photo(red=14)
    live.calibrate()


def test_a_size_that_cannot_be_made_is_told_as_that_and_not_as_a_bad_photo(room):
    def broken(image):
        if image.shape[1] < 64:
            raise MediaError("made")

    live = room(before_register=broken)
    live.photo(red=14)
    live.session._portraits.rescale(0.5)
    until(lambda: live.said, "the refusal")
    assert live.said == ["pictures cannot be made at 50% of the size: made"]
    assert live.session.status.photo == "ready"


def test_a_photo_may_be_a_file_and_one_that_is_missing_is_told(room, tmp_path, colours):
    live = room()
    cv2.imwrite(str(tmp_path / "photo.png"), colours.picture(red=50, width=64, height=64)[..., ::-1])
    live.session.set_photo(tmp_path / "photo.png")
    assert until(lambda: live.session.newest(), "the still photo").image[0, 0, 0] == 50
    live.session.set_photo(tmp_path / "none.png")
    until(lambda: live.session.status.photo == "failed", "the refusal")
    assert "none.png: no such file" in live.session.status.photo_error


def test_a_photo_beyond_the_limit_is_refused_and_read_where_that_is_raised(room, tmp_path, colours):
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), colours.picture(red=50, width=64, height=64)[..., ::-1])
    tight = room(limits=Limits(max_pixels=64 * 64 - 1))
    tight.session.set_photo(path)
    until(lambda: tight.session.status.photo == "failed", "the refusal")
    assert "allow it with --max-pixels 4096" in tight.session.status.photo_error
    wide = room(limits=Limits(max_pixels=64 * 64))
    wide.session.set_photo(path)
    until(lambda: wide.session.status.photo == "ready", "registering")


def test_without_a_camera_the_photo_stands_still_and_follows_the_controls(room):
    live = room()
    live.photo(red=11)
    first = live.session.newest(None, DEADLINE)
    assert live.session.status.state == "waiting"
    assert first.image[0, 0, 1] == 128
    live.session.controls = Controls(edits={"yaw": 10})
    edited = live.session.newest(first.number, DEADLINE)
    assert edited.image[0, 0, 1] == round(128 + np.radians(10) / 0.005)


@pytest.mark.parametrize("change", ["controls", "photo"])
def test_what_changes_while_frames_still_come_is_shown_when_they_stop(room, clock, change):
    live = room(clock=clock)
    live.photo(red=11)
    still = live.session.newest(None, DEADLINE)
    live.session.offer(live.colours.picture(), clock())
    standing = live.session.newest(still.number, DEADLINE)
    if change == "photo":
        live.photo(red=99)
    else:
        live.session.controls = Controls(edits={"yaw": 10})
    assert live.session.status.state != "waiting"  # a frame may still come
    assert live.session.newest(standing.number, 3 * module.LOOK_S) is None
    clock.pass_(module.SILENCE_S + 0.1)
    changed = live.session.newest(standing.number, DEADLINE)
    assert changed is not None
    expected = (99, 128) if change == "photo" else (11, round(128 + np.radians(10) / 0.005))
    assert tuple(changed.image[0, 0, :2]) == expected
    assert live.session.newest(changed.number, 3 * module.LOOK_S) is None  # once


def test_settled_waits_for_the_picture_with_the_change_and_not_for_any_newer_one(room):
    going, entered = threading.Event(), threading.Event()

    def hold(portrait):
        entered.set()
        going.wait(DEADLINE)

    live = room(before_each=hold)
    live.photo(red=11)
    assert entered.wait(DEADLINE)  # a picture without the change is being made
    live.session.controls = Controls(edits={"yaw": 10})
    assert live.session.settled(0.05) is None
    going.set()
    picture = live.session.settled(DEADLINE)
    assert picture is not None
    assert picture.image[0, 0, 1] == round(128 + np.radians(10) / 0.005)
    assert live.session.settled(0.0) is picture


def test_changes_without_a_portrait_drop_no_frame(room):
    live = room()
    for yaw in range(5):
        live.session.controls = Controls(edits={"yaw": yaw})
    time.sleep(2 * module.LOOK_S)
    assert live.session.status.drops == {}


def test_no_picture_is_given_twice_and_none_without_news(room):
    live = room()
    live.photo(red=11)
    picture = live.session.newest(None, DEADLINE)
    assert live.session.newest(picture.number, 0.02) is None
    assert live.session.newest(picture.number - 1) is picture


def test_latency_is_measured_until_it_is_shown(room, clock):
    live = room(clock=clock)
    live.photo(red=11)
    live.session.offer(live.colours.picture(), clock())
    picture = until(lambda: live.session.newest(), "a picture")
    before = live.session.status
    clock.pass_(0.080)
    live.session.shown(picture)
    after = live.session.status
    assert before.latency_ms is None
    assert after.latency_ms is not None
    assert after.latency_ms.p50 == pytest.approx(80.0)


def test_an_input_that_stops_is_waited_for_and_the_last_picture_stands(room, clock):
    live = room(clock=clock)
    live.photo(red=11)
    live.session.offer(live.colours.picture(), clock())
    until(lambda: live.session.status.state == "calibrating", "calibrating")
    standing = until(lambda: live.session.newest(), "a picture")
    clock.pass_(2.0)
    assert live.session.status.state == "waiting"
    assert live.session.newest() is standing
    live.session.offer(live.colours.picture(), clock())
    assert live.session.status.state == "calibrating"


def test_every_change_of_quality_reaches_the_portrait_also_one_that_is_not_told(room):
    class Silent(Degrader):
        next = Quality()

        def update(self, now, busy, input_fps, input_side):
            self.quality = self.next

    live = room()
    live.photo(red=11)
    live.calibrate()
    degrader = live.session._degrader = Silent(30.0)
    for output, scale in ((1, 0.75), (0, 1.0)):
        degrader.next = Quality(output=output)
        live.shown()
        until(lambda wanted=scale: live.session._portraits.current.scale == wanted, "the other size")


def test_what_a_thread_ends_with_ends_the_session_whatever_it_is(room):
    def ends(image):
        raise SystemExit(1)  # as a console whose reader has gone does

    live = room(before_track=ends)
    live.frame()
    with pytest.raises(ReenactError, match="SystemExit: 1"):
        live.session.newest(None, DEADLINE)
    assert live.session.status.state == "failed"


def test_what_ends_a_session_is_raised_where_pictures_are_taken(room):
    def broken(portrait):
        raise ReenactError("the graph is gone")

    live = room(before_each=broken)
    live.session.set_photo(live.colours.picture(red=9))
    with pytest.raises(ReenactError, match="the graph is gone"):
        live.session.newest(None, DEADLINE)
    assert live.session.status.state == "failed"
    assert live.session.status.error == "the graph is gone"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (64, 20)}, "size 64x20: expected 64 to 2048 pixels a side"),
        ({"fps": 0.0}, "fps is 0; expected 1 to 240"),
    ],
)
def test_settings_out_of_range_are_refused(colours, options, message):
    with pytest.raises(ReenactError, match=message):
        LiveSession(colours.engines(), **options)


def test_arrays_that_are_no_pictures_are_refused(room):
    live = room()
    with pytest.raises(MediaError, match="the frame is an array of float64"):
        live.session.offer(np.zeros((4, 4, 3)), 0.0)
    with pytest.raises(MediaError, match="the photo is an array of uint8 of shape"):
        live.session.set_photo(np.zeros((4, 4), np.uint8))


def test_a_machine_that_is_too_slow_makes_smaller_pictures_and_shows_the_same_size(room, monkeypatch):
    monkeypatch.setattr(module, "RECENT_S", 0.5)
    monkeypatch.setattr("reenact.runtime.degrade.PERIOD_S", 0.05)
    live = room(before_each=lambda portrait: time.sleep(0.03 * portrait.image.shape[0] / 64), fps=40.0)
    live.photo(red=11)
    ends = time.perf_counter() + 4 * DEADLINE
    while 48 not in live.engines.animator.registered:
        assert time.perf_counter() < ends
        live.session.offer(live.colours.picture(), time.perf_counter())
        time.sleep(0.01)
    picture = until(lambda: live.session.newest(), "a picture")
    assert picture.image.shape == (64, 64, 3)
    assert live.session.status.step >= 1
    assert any("made at 75% of the size" in line for line in live.said)


def test_closing_frees_the_portrait_and_ends_the_threads(room):
    before = set(threading.enumerate())

    def begun():
        return [thread.name for thread in threading.enumerate() if thread not in before]

    live = room()
    live.photo(red=11)
    live.calibrate()
    portrait = weakref.ref(live.session._portraits.current.portrait)
    assert len(begun()) == 3
    live.session.close()
    live.session.close()
    gc.collect()
    assert begun() == []
    assert portrait() is None
    assert live.session.newest(None, 0.01) is None
    assert live.session.status.state == "closed"
    live.session.offer(live.colours.picture(), time.perf_counter())  # a late frame is of no harm


def test_two_sessions_share_engines_and_nothing_else(room, colours):
    engines = colours.engines()
    with LiveSession(engines, size=(64, 64)) as one, LiveSession(engines, size=(64, 64)) as two:
        one.set_photo(colours.picture(red=21))
        two.set_photo(colours.picture(red=22))
        two.controls = Controls(edits={"yaw": 10})
        pictures = [until(lambda s=session: s.newest(), "a picture") for session in (one, two)]

        def edited():
            picture = two.newest()
            return picture is not None and picture.image[0, 0, 1] != 128

        until(edited, "the edit")
        assert [int(picture.image[0, 0, 0]) for picture in pictures] == [21, 22]
        unedited = one.newest()
        assert unedited is not None
        assert unedited.image[0, 0, 1] == 128
        assert one.status.notices == 0
