"""From frames to motions: calibration, other neutral faces, loss, and inputs that change their size."""

import numpy as np
import pytest
from reenact.runtime.controls import Controls
from reenact.runtime.follow import Follower
from reenact.runtime.tracking.face import euler_angles

PLAIN = Controls(smoothing=0)


@pytest.fixture
def driven(colours):
    return Driven(colours)


class Driven:
    """A follower that is shown one picture after the other, at 30 a second."""

    def __init__(self, colours):
        self.colours, self.tracker = colours, colours.tracker()
        self.said: list[str] = []
        self.follower = Follower(self.tracker, self.said.append)
        self.time = 10.0

    def see(self, seconds, controls=PLAIN, side=None, size=(64, 48), **colour):
        """The yaws shown meanwhile."""
        yaws = []
        for _ in range(max(1, round(seconds * 30))):
            self.time += 1 / 30
            picture = self.colours.picture(width=size[0], height=size[1], **colour)
            self.seen = self.follower.follow(picture, self.time, side, controls)
            yaws.append(euler_angles(self.seen.motion.rotation)[0])
        return yaws


def test_the_calmest_face_of_the_first_second_is_neutral(driven):
    assert max(np.abs(driven.see(0.4, green=180, blue=200))) == 0  # nothing moves before
    assert driven.follower.state == "calibrating"
    driven.see(0.3, green=130)
    driven.see(0.5, green=170)
    assert driven.follower.state == "live"
    assert driven.said == ["calibrated"]
    yaws = driven.see(0.5, green=170)
    assert yaws[-1] == pytest.approx(40 * 0.005, abs=0.002)  # counted from 130


def test_after_calibration_the_motion_begins_without_a_jump(driven):
    yaws = driven.see(0.5, green=128) + driven.see(1.5, green=208)
    assert yaws[-1] == pytest.approx(0.4, abs=0.005)
    assert max(np.abs(np.diff(yaws))) < 0.08


def test_a_slow_machine_calibrates_on_enough_faces(driven):
    for _ in range(4):
        driven.time += 0.7
        driven.see(0, green=140)
    assert driven.said == []
    driven.time += 0.7
    driven.see(0, green=140)
    assert driven.said == ["calibrated"]


def test_the_pose_can_be_reset_to_what_is_seen(driven):
    driven.see(1.5, green=128)
    driven.see(1, green=168)
    driven.follower.reset_pose()
    yaws = driven.see(0.6, green=168)
    assert yaws[0] == pytest.approx(0.2, abs=0.005)
    assert yaws[-1] == pytest.approx(0.0, abs=0.005)
    assert driven.said[-1] == "the pose was reset"


def test_a_better_neutral_face_is_found_while_the_old_one_serves(driven):
    driven.see(1.5, green=168)  # calibrated on a turned head
    driven.follower.find_neutral()
    assert driven.see(1.0, green=168)[-1] == pytest.approx(0.0, abs=0.005)
    driven.see(1.5, green=130)
    assert driven.said[-1] == "a better neutral frame was found"
    assert driven.see(1.0, green=168)[-1] == pytest.approx(38 * 0.005, abs=0.005)


def test_a_neutral_face_that_is_better_than_all_that_come_stays(driven):
    driven.see(1.5, green=128)
    driven.follower.find_neutral()
    driven.see(2.5, green=190)
    assert driven.said[-1] == "the neutral frame stays: none was better"
    assert driven.see(0.5, green=128)[-1] == pytest.approx(0.0, abs=0.005)


def test_a_lost_face_is_held_then_eased_to_the_still_photo(driven):
    driven.see(1.5, green=128)
    assert driven.see(1, green=168)[-1] == pytest.approx(0.2, abs=0.005)
    yaws = driven.see(2.0, red=0)
    assert driven.follower.state == "no_face"
    assert yaws[12] == pytest.approx(0.2, abs=0.005)
    assert yaws[-1] == pytest.approx(0.0, abs=1e-4)
    assert driven.seen.face is None
    back = driven.see(1, green=168)
    assert back[0] == pytest.approx(0.0, abs=0.01)
    assert back[-1] == pytest.approx(0.2, abs=0.005)
    assert driven.follower.state == "live"


def test_without_a_face_from_the_start_it_waits_for_one(driven):
    driven.see(3, red=0)
    assert driven.follower.state == "no_face"
    driven.see(1.5, green=140)
    assert driven.said == ["calibrated"]


def test_another_size_of_the_same_shape_changes_nothing_but_the_tracking(driven):
    driven.see(1.5, green=128)
    before = driven.see(1, green=150)[-1]
    after = driven.see(0.2, green=150, size=(128, 96))
    assert (driven.tracker.resets, driven.tracker.scales) == (0, [2.0])
    np.testing.assert_allclose(after, before, atol=0.005)
    assert abs(driven.seen.motion.scale - 1) < 0.01
    assert np.abs(driven.seen.motion.translation).max() < 0.05
    assert driven.said == ["calibrated", "the input is now 128x96"]


def test_another_shape_is_calibrated_anew_and_held_meanwhile(driven):
    driven.see(1.5, green=128)
    before = driven.see(1, green=168)[-1]
    during = driven.see(0.4, green=100, size=(128, 72))
    assert driven.follower.state == "calibrating"
    assert driven.tracker.resets == 1
    np.testing.assert_allclose(during, before, atol=0.005)
    driven.see(1.5, green=100, size=(128, 72))
    assert driven.said[1:] == ["the input is now 128x72: it is calibrated anew", "calibrated"]
    assert driven.see(0.5, green=120, size=(128, 72))[-1] == pytest.approx(0.1, abs=0.005)


def test_frames_are_tracked_smaller_by_halves_and_mean_the_same(driven):
    driven.see(1.5, green=128, size=(640, 480))
    driven.see(0.5, green=168, size=(640, 480))
    exact = driven.seen
    driven.see(0.5, green=168, size=(640, 480), side=200)
    assert driven.tracker.widths[-1] == 160
    assert (driven.tracker.resets, driven.tracker.scales) == (0, [0.25])
    np.testing.assert_allclose(driven.seen.motion.translation, exact.motion.translation, atol=0.05)
    np.testing.assert_allclose(driven.seen.motion.rotation, exact.motion.rotation, atol=2e-3)
    # The face is told in the pixels of the whole frame.
    np.testing.assert_allclose(driven.seen.face.landmarks_px[4], exact.face.landmarks_px[4], atol=2.0)


def test_the_observation_shows_the_frame_and_its_mirror_image(driven):
    driven.see(1.5, green=128)
    driven.see(1, green=168)
    plain = driven.seen
    assert plain.face.landmarks_px[:468, 0].mean() == pytest.approx(32, abs=3)
    yaws = driven.see(0.1, green=168, controls=Controls(smoothing=0, mirror=True))
    assert yaws[-1] == pytest.approx(-0.2, abs=0.005)
    nose = 4
    assert driven.seen.face.landmarks_px[nose, 0] == pytest.approx(
        63 - plain.face.landmarks_px[nose, 0], abs=0.01
    )


def test_smoothing_calms_what_jitters(driven):
    driven.see(1.5, green=128)
    rough = [driven.see(0, green=green)[0] for green in [128, 132] * 15]
    calm = [driven.see(0, controls=Controls(smoothing=4), green=green)[0] for green in [128, 132] * 30]
    assert np.std(calm[-30:]) < 0.5 * np.std(rough)


def test_what_is_seen_comes_with_its_neutral_face_and_what_was_asked(driven):
    """For systems that look at the picture themselves."""
    controls = Controls(smoothing=2, expression_strength=0.5, edits={"smile": 0.3})
    driven.see(0.5, controls=controls, green=128)
    assert driven.seen.neutral is None  # calibrating: nothing is to be counted yet
    driven.see(1.5, controls=controls, green=128)
    driven.see(0.5, controls=controls, green=168)
    seen = driven.seen
    assert (seen.time, seen.smoothing, seen.expression_strength) == (driven.time, 2, 0.5)
    assert seen.edits is controls.offset
    assert seen.neutral is not None
    assert seen.neutral.image.reshape(-1, 3).mean(axis=0)[1] == pytest.approx(128, abs=2)
    assert euler_angles(seen.neutral.face.pose.rotation)[0] == pytest.approx(0, abs=0.01)
    driven.see(0.1, controls=controls, green=168)
    assert driven.seen.neutral is seen.neutral
    driven.follower.reset_pose()
    driven.see(0.1, controls=controls, green=168)
    assert driven.seen.neutral is not seen.neutral
    assert driven.seen.neutral.image.reshape(-1, 3).mean(axis=0)[1] == pytest.approx(168, abs=2)


def test_in_a_mirror_the_neutral_face_is_mirrored_too(driven):
    driven.see(2.0, green=140)
    plain = driven.seen.neutral
    mirror = Controls(smoothing=0, mirror=True)
    driven.see(0.1, controls=mirror, green=140)
    mirrored = driven.seen.neutral
    assert euler_angles(mirrored.face.pose.rotation)[0] == pytest.approx(
        -euler_angles(plain.face.pose.rotation)[0], abs=1e-3
    )
    assert np.array_equal(mirrored.image, plain.image[:, ::-1])
    driven.see(0.1, controls=mirror, green=140)
    assert driven.seen.neutral is mirrored  # or it would be looked at again each time


def test_what_stands_is_told_again_by_other_controls(driven):
    driven.see(2.0, green=128)
    yaw = driven.see(0.5, green=168)[-1]
    again = driven.follower.again(Controls(smoothing=0, pose_strength=0.5, expression_strength=2.0))
    assert euler_angles(again.motion.rotation)[0] == pytest.approx(yaw / 2, abs=0.005)
    assert (again.face, again.image, again.time) == (None, None, driven.time)
    assert again.neutral is driven.seen.neutral
    assert again.expression_strength == 2.0
    assert again.edits is None
