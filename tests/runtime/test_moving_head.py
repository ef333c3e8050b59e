"""The generated head in place of a camera: a face for any tracker, at the pace of a camera."""

import threading
import time

import numpy as np
import pytest
from reenact.errors import ReenactError
from reenact.runtime.engines import Engines
from reenact.runtime.live import LiveSession
from reenact.runtime.moving_head import REST_S, MovingHead
from reenact.runtime.systems import registry
from reenact.runtime.tracking.face import euler_angles


@pytest.fixture(scope="module")
def engines(models_home):
    with Engines() as made:
        yield made


def test_a_tracker_sees_the_head_at_rest_and_then_moving(engines, clock):
    head = MovingHead(engines.tracker.sibling(smooth=False), size=(320, 240), clock=clock, sleep=clock.sleep)
    tracker = engines.tracker.sibling(smooth=False)
    yaws, times = [], []
    for _ in range(100):
        captured = head.read()
        assert captured.image.shape == (240, 320, 3)
        face = tracker.track(captured.image, captured.time)
        yaws.append(face.pose.yaw_pitch_roll[0])
        times.append(captured.time)
    rest = np.array(yaws)[np.array(times) < times[0] + REST_S - 0.05]
    assert np.ptp(rest) < 0.02
    assert np.ptp(yaws) > 0.2
    np.testing.assert_allclose(np.diff(times), 1 / 30, atol=1e-6)


def test_where_making_a_frame_takes_too_long_frames_are_left_out(engines, clock):
    head = MovingHead(engines.tracker.sibling(smooth=False), size=(160, 120), clock=clock, sleep=clock.sleep)
    head.read()
    head.read()
    assert head.lost == {}
    clock.pass_(0.5)
    late = head.read()
    assert head.lost == {"source left out": 14}  # of 15 in that time the last was made
    assert late.time == pytest.approx(clock.now)
    assert head.read().time - late.time < 0.05  # what was missed is not made up for


def test_the_wait_for_the_next_frame_can_be_stopped(engines):
    head = MovingHead(engines.tracker.sibling(smooth=False), size=(160, 120), fps=1 / 30)
    began = time.perf_counter()
    threading.Timer(0.1, head.stop).start()
    head.read()
    assert time.perf_counter() - began < 5


def test_an_unknown_motion_is_refused(engines):
    with pytest.raises(ReenactError, match="no motion is called 'dance'"):
        MovingHead(engines.tracker, motion="dance")


def test_trackers_that_share_networks_do_not_disturb_each_other(engines, clock):
    head = MovingHead(engines.tracker.sibling(smooth=False), size=(320, 240), clock=clock, sleep=clock.sleep)
    alone, one, other = (engines.tracker.sibling(smooth=False) for _ in range(3))
    frames = [head.read() for _ in range(12)]
    expected = [alone.track(frame.image, frame.time).landmarks_px for frame in frames]
    for frame, landmarks in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(one.track(frame.image, frame.time).landmarks_px, landmarks)
        other.track(frames[0].image[:, ::-1].copy(), frame.time)  # somebody else, in between


def test_a_real_session_turns_the_photo_as_the_head_turns(engines, clock):
    """Everything real but time: what is driven is tracked again and compared with what drives it."""
    from reenact.runtime.assets import portrait
    from reenact.runtime.media.images import read_image

    head = MovingHead(
        engines.tracker.sibling(smooth=False), size=(320, 240), fps=15.0, clock=clock, sleep=clock.sleep
    )
    seen, judge = (engines.tracker.sibling(smooth=False) for _ in range(2))
    with LiveSession(engines, size=(256, 256)) as session:
        session.set_photo(read_image(portrait("grace_hopper")))
        still = session.newest(None, 20.0)
        assert still is not None
        judge.track(still.image, 0.0)
        driving, driven = [], []
        for _ in range(55):
            captured = head.read()
            session.offer(captured.image, captured.time)
            picture = still
            while picture.captured != captured.time:
                picture = session.newest(picture.number, 5.0) or picture
            if session.status.state != "live":
                continue
            driving.append(seen.track(captured.image, captured.time).pose.rotation)
            driven.append(judge.track(picture.image, captured.time).pose.rotation)
    yaws = np.array([[euler_angles(rotation)[0] for rotation in each] for each in (driving, driven)])
    assert np.ptp(yaws[0]) > 0.3
    assert np.corrcoef(yaws)[0, 1] > 0.97


def test_networks_are_freed_when_the_second_part_cannot_be_loaded(monkeypatch):
    from reenact.runtime import engines as module

    closed = []

    class Animator:
        def close(self):
            closed.append(self)

    def broken(**_):
        raise ReenactError("no tracker")

    monkeypatch.setattr(registry, "create", lambda *_: Animator())
    monkeypatch.setattr(module, "Tracker", broken)
    with pytest.raises(ReenactError, match="no tracker"):
        Engines()
    assert len(closed) == 1
