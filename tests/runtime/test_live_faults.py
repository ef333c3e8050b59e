"""What goes wrong in front of a camera: it is too fast, it stops and returns, it changes its size. Nothing crashes."""

import threading
import time
from collections import Counter

import numpy as np
import pytest
from reenact.errors import MediaError
from reenact.runtime.live import LiveSession
from reenact.runtime.media.camera import CameraFeed
from reenact.runtime.media.inputs import Captured


class Script:
    """An input that plays (frames, fps, width, height, green) parts in real time, then stops."""

    name, asked = "scripted", ""

    def __init__(self, colours, *parts):
        self.colours, self.parts, self.opened = colours, list(parts), 0
        self.lost: Counter[str] = Counter()

    def open(self):
        self.opened += 1
        if not self.parts:
            raise MediaError("scripted: still gone")
        part = self.parts.pop(0)
        if isinstance(part, MediaError):
            raise part
        self.frames = (
            (fps, self.colours.picture(width=width, height=height, green=green))
            for count, fps, width, height, green in part
            for _ in range(count)
        )
        return self

    def read(self):
        following = next(self.frames, None)
        if following is None:
            raise MediaError("scripted: it gives no more pictures")
        time.sleep(1 / following[0])
        return Captured(following[1], time.perf_counter())

    def stop(self):
        pass

    def close(self):
        pass


@pytest.fixture
def play(colours):
    """Plays a script into a session; gives the pictures, what was said, and the session's status."""

    def play(*parts, until, **hooks):
        said: list[str] = []
        script = Script(colours, *parts)
        pictures = []
        with LiveSession(colours.engines(**hooks), size=(64, 64), tell=said.append) as session:
            session.set_photo(colours.picture(red=50, width=64, height=64))
            session.newest(None, 10.0)
            feed = CameraFeed(
                script.open, session.offer, session.announce, wait=lambda stop, _: stop.wait(0.01)
            )
            ends = time.perf_counter() + 20
            number = 0
            while not until(said, script):
                assert time.perf_counter() < ends, said
                picture = session.newest(number, 0.02)
                if picture is not None:
                    session.shown(picture)
                    pictures.append(picture)
                    number = picture.number
            feed.close()
            assert feed.error is None
            return pictures, said, session.status

    return play


def test_a_source_that_is_faster_than_the_machine_is_followed_by_its_newest_frames(play):
    pictures, _, status = play(
        [(400, 400.0, 64, 48, 128)],
        before_track=lambda image: time.sleep(0.02),
        before_each=lambda portrait: time.sleep(0.03),
        until=lambda said, script: script.opened > 1,
    )
    shown = len(pictures)
    assert 5 < shown < 60
    assert status.drops["frame rate"] > 200  # 400 a second were offered, 30 are wanted
    # What is shown is new: it waits for nothing but the two stages.
    lags = [picture.presented - picture.captured for picture in pictures[2:]]
    assert np.median(lags) < 0.15
    assert [picture.number for picture in pictures] == sorted(picture.number for picture in pictures)


def test_a_camera_that_stops_and_returns_goes_on_with_the_same_neutral_face(play):
    live = (60, 50.0, 64, 48, 128)
    pictures, said, status = play(
        [live],
        MediaError("gone"),
        MediaError("gone"),
        [(40, 50.0, 64, 48, 168)],
        until=lambda said, script: script.opened > 6,
    )
    assert said.count("calibrated") == 1
    assert said.index("scripted is back") > said.index(
        "scripted: it gives no more pictures; the last picture stands until it is back"
    )
    assert abs(int(pictures[-1].image[0, 0, 1]) - 168) <= 3
    assert status.state in ("live", "waiting")
    assert status.error is None


def test_a_camera_that_changes_its_size_is_followed(play):
    pictures, said, status = play(
        [
            (60, 50.0, 64, 48, 128),
            (30, 50.0, 128, 96, 128),  # the same shape
            (80, 50.0, 128, 72, 128),  # another one
            (1, 50.0, 1, 1, 128),  # nonsense
            (30, 50.0, 64, 48, 128),
        ],
        until=lambda said, script: script.opened > 1,
    )
    assert "the input is now 128x96" in said
    assert "the input is now 128x72: it is calibrated anew" in said
    assert said.count("calibrated") >= 2
    assert status.input_size == (64, 48)
    assert status.error is None
    assert {picture.image.shape for picture in pictures} == {(64, 64, 3)}


def test_no_thread_outlives_a_session_and_its_feed(play):
    before = set(threading.enumerate())
    play([(5, 50.0, 64, 48, 128)], until=lambda said, script: script.opened > 1)
    assert {thread for thread in threading.enumerate() if thread not in before} == set()
