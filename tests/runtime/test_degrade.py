"""A machine that is too slow: what is reduced, when it is given back, and that it does not swing."""

from itertools import pairwise

import pytest
from reenact.runtime.degrade import Degrader, Pace


class Machine:
    """Stages that take so many milliseconds at full quality; `animate` gets cheaper with the output, if `elastic`."""

    def __init__(self, track=5.0, animate=10.0, *, fps=30.0, elastic=True, side=1280):
        self.track, self.animate, self.fps, self.elastic, self.side = track, animate, fps, elastic, side
        self.degrader = Degrader(30.0)
        self.now, self.said = 0.0, []

    def run(self, seconds):
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            quality = self.degrader.quality
            share = quality.output_scale**2 if self.elastic else 1.0
            busy = {
                "track": self.track * (0.8**quality.tracking) / 1000,
                "animate": self.animate * share / 1000,
            }
            message = self.degrader.update(self.now, busy, self.fps, self.side)
            if message:
                self.said.append((self.now, message))
        return self.degrader.quality


def test_a_machine_that_keeps_up_is_left_alone():
    machine = Machine(track=20, animate=30)
    assert machine.run(60).step == 0
    assert machine.said == []


def test_pictures_that_take_too_long_are_made_smaller_until_they_keep_up():
    machine = Machine(animate=50)
    quality = machine.run(20)
    assert (quality.output_scale, quality.tracking, quality.rate) == (0.75, 0, 0)
    assert [message for _, message in machine.said] == ["this machine is too slow: made at 75% of the size"]
    assert 1.5 <= machine.said[0][0] <= 3  # one slow second is no reason


def test_slow_tracking_is_done_on_smaller_frames_and_only_where_they_are_large():
    large = Machine(track=38, side=1920)
    assert large.run(30).tracking_side == 960
    small = Machine(track=38, side=640)
    quality = small.run(30)
    assert quality.tracking == 0
    assert quality.fps(30.0) == pytest.approx(20.0)


def test_what_gains_nothing_is_given_back_and_the_frame_rate_is_lowered():
    machine = Machine(animate=60, elastic=False)
    quality = machine.run(30)
    assert quality.output_scale == 1.0
    assert quality.fps(30.0) == pytest.approx(15.0)
    assert machine.said[-1][1] == "this machine is too slow: at most 15 fps"


def test_where_nothing_is_left_it_says_so_once():
    machine = Machine(animate=5000, elastic=False)
    assert machine.run(100).fps(30.0) == pytest.approx(10.0)
    assert [text for _, text in machine.said].count(
        "this machine is too slow, and nothing is left to reduce"
    ) == 1


def test_what_is_tried_again_where_nothing_is_left_is_undone_aloud():
    machine = Machine(animate=150, elastic=False)
    machine.run(120)
    assert machine.degrader.quality.output == 0
    told = len(machine.said)
    machine.run(30)
    assert machine.degrader.quality.output == 0
    tried, undone = (text for _, text in machine.said[told:])
    assert tried == "this machine is too slow: made at 75% of the size, at most 10 fps"
    assert undone == "what was reduced last gained nothing and is given back: at most 10 fps"


def test_a_slow_camera_asks_for_no_more_than_it_gives():
    assert Machine(animate=60, fps=15.0).run(30).step == 0
    # 20 and 15 fps would change nothing for a camera of 14
    quality = Machine(animate=90, fps=14.0, elastic=False).run(12)
    assert quality.fps(30.0) == pytest.approx(10.0)


def test_quality_comes_back_when_there_is_room_again():
    machine = Machine(animate=70)
    assert machine.run(20).step >= 1
    machine.animate = 10
    assert machine.run(40).step == 0
    assert machine.said[-1][1] == "there is room again: full quality"


def test_it_is_not_given_back_what_would_not_last():
    machine = Machine(animate=50)
    machine.run(300)
    assert (
        len(machine.said) == 1
    )  # at 75 % there is room, but by what was measured full size would be too slow


def test_a_load_that_comes_and_goes_is_followed_more_and_more_slowly():
    machine = Machine(animate=10)
    for _ in range(20):  # busy for 6 seconds whenever it has just been given back
        machine.animate = 50
        machine.run(6)
        machine.animate = 10
        while machine.degrader.quality.step and machine.now < 2000:
            machine.run(1)
    restored = [now for now, text in machine.said if text.startswith("there is room")]
    gaps = [after - before for before, after in pairwise(restored)]
    assert gaps[-1] > 5 * gaps[0]


@pytest.mark.parametrize(("source", "shown"), [(60, 30), (30, 30), (25, 25), (120, 30), (31, 30), (50, 30)])
def test_frames_are_let_through_evenly(source, shown):
    pace = Pace()
    times = [index / source for index in range(10 * source)]
    taken = [time for time in times if pace.takes(time, 30.0)]
    assert len(taken) == pytest.approx(10 * shown, rel=0.02)
    gaps = [after - before for before, after in pairwise(taken)]
    assert max(gaps) < 2.1 / shown


def test_a_pause_is_not_caught_up_with():
    pace = Pace()
    assert pace.takes(0.0, 10.0)
    taken = [time for time in (5.0, 5.02, 5.04, 5.05, 5.07, 5.09) if pace.takes(time, 10.0)]
    assert taken == [5.0, 5.07]


def test_frames_that_jitter_are_all_taken():
    pace = Pace()
    times = [index / 30 + (0.008 if index % 2 else -0.003) for index in range(300)]
    assert sum(pace.takes(time, 30.0) for time in times) == 300
