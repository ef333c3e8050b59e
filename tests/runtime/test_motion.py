"""Motion files: what presets do, how keys are joined, and what is refused in one line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from reenact.errors import ReenactError
from reenact.runtime.motion import MotionTrack, control_ranges, load_motion, preset_names
from reenact.runtime.tracking.canonical import load as load_canonical
from reenact.runtime.tracking.face import euler_angles

ROOT = Path(__file__).resolve().parents[2]
UPPER_LIP, LOWER_LIP, RIGHT_CORNER, LEFT_CORNER, BROW = 13, 14, 61, 291, 105


def track(tmp_path: Path, **fields: object) -> MotionTrack:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"duration": 2.0, **fields}))
    return load_motion(path)


def degrees(motion):
    return np.degrees(euler_angles(motion.rotation))


def over(motion_track, samples=200):
    return [motion_track.at(t) for t in np.linspace(0, motion_track.duration, samples, endpoint=False)]


def test_all_promised_presets_are_there_and_documented():
    assert {"nod", "look-around", "smile", "talk", "blink", "demo"} <= set(preset_names())
    documented = (ROOT / "docs/motions.md").read_text()
    for name in preset_names():
        assert f"`{name}`" in documented


def test_every_control_is_documented():
    documented = set(re.findall(r"`([A-Za-z_]+)`", (ROOT / "docs/motions.md").read_text()))
    assert set(control_ranges()) <= documented


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_still_at_the_start_and_smooth_over_the_loop(name):
    preset = load_motion(name)
    start = preset.at(0.0)
    assert np.abs(degrees(start)).max() < 0.5
    assert np.abs(start.expression).max() < 0.05
    np.testing.assert_allclose(start.lids, 1, atol=0.01)
    before, after = preset.at(preset.duration - 1e-3), preset.at(preset.duration + 1e-3)
    assert np.abs(degrees(before) - degrees(after)).max() < 0.2
    assert np.abs(before.expression - after.expression).max() < 0.02


def test_nod_bends_the_head_and_carries_the_face_downwards():
    motions = over(load_motion("nod"))
    pitches = np.array([degrees(m)[1] for m in motions])
    assert pitches.max() > 10
    lowest = motions[int(pitches.argmax())]
    assert lowest.translation[1] > 0.5  # cm: the face lies before the point about which heads turn
    assert abs(degrees(lowest)[0]) < 1e-3


def test_look_around_turns_to_both_sides_with_the_eyes_ahead_of_the_head():
    preset = load_motion("look-around")
    yaws = np.array([degrees(m)[0] for m in over(preset)])
    assert yaws.max() > 15
    assert yaws.min() < -15
    early = preset.at(0.35)
    assert degrees(early)[0] < 3
    assert early.gaze[0, 0] < -0.1  # to the left in the picture, where a positive yaw looks


def test_smile_lifts_and_widens_the_corners_of_the_mouth():
    widest = max(over(load_motion("smile")), key=lambda m: float(np.abs(m.expression).max()))
    right, left = widest.expression[RIGHT_CORNER], widest.expression[LEFT_CORNER]
    assert right[1] < -0.2
    assert left[1] < -0.2
    assert left[0] - right[0] > 0.3


def test_talk_opens_and_shuts_the_mouth_several_times():
    gaps = np.array(
        [(m.expression[LOWER_LIP] - m.expression[UPPER_LIP])[1] for m in over(load_motion("talk"), 400)]
    )
    wide = gaps > 0.5 * gaps.max()
    assert 0.3 < gaps.max() < 2.5
    assert np.count_nonzero(wide[1:] & ~wide[:-1]) >= 3
    assert gaps.min() > -0.1


def test_blink_shuts_both_lids_fully_and_leaves_the_lids_out_of_the_expression(tmp_path):
    assert min(m.lids.max() for m in over(load_motion("blink"), 1000)) == 0
    shut = track(tmp_path, controls={"blink": [[0, 1]]}).at(0.0)
    np.testing.assert_array_equal(shut.lids, [0, 0])
    np.testing.assert_array_equal(shut.expression, 0)


def test_one_eye_can_be_shut_under_either_name(tmp_path):
    for control in ("blink_right", "eyeBlink_R"):
        wink = track(tmp_path, controls={control: [[0, 1]]}).at(0.0)
        np.testing.assert_array_equal(wink.lids, [0, 1])
    np.testing.assert_array_equal(track(tmp_path, controls={"eyeBlink_L": [[0, 1]]}).at(0).lids, [1, 0])


def test_a_shape_of_the_canonical_face_moves_the_points_as_that_shape(tmp_path):
    canonical = load_canonical()
    motion = track(tmp_path, controls={"jawOpen": [[0, 0.5]]}).at(0.0)
    np.testing.assert_allclose(motion.expression, 0.5 * canonical.shape("jawOpen"), atol=1e-6)
    up = track(tmp_path, controls={"brow_up": [[0, 1]]}).at(0.0)
    assert up.expression[BROW, 1] < -0.1


def test_pose_controls_are_degrees_centimetres_and_a_ratio(tmp_path):
    motion = track(
        tmp_path,
        controls={"yaw": [[0, 10]], "pitch": [[0, -5]], "roll": [[0, 3]], "scale": [[0, 1.1]]},
    ).at(0.0)
    np.testing.assert_allclose(degrees(motion), [10, -5, 3], atol=1e-3)
    assert motion.scale == 1.1
    shifted = track(tmp_path, controls={"x": [[0, 1.5]], "y": [[0, -2]]}).at(0.0)
    np.testing.assert_allclose(shifted.translation, [1.5, -2], atol=1e-6)


def test_smooth_keys_are_met_exactly_and_never_overshot(tmp_path):
    keys: list[list[float]] = [[0, 0], [0.3, 10], [0.5, 10], [1.2, -20], [2, 0]]
    smooth = track(tmp_path, controls={"yaw": keys})
    for time, value in keys:
        assert degrees(smooth.at(time))[0] == pytest.approx(value, abs=1e-3)
    between = [degrees(smooth.at(t))[0] for t in np.linspace(0.3, 0.5, 20)]
    np.testing.assert_allclose(between, 10, atol=1e-3)
    yaws = np.array([degrees(smooth.at(t))[0] for t in np.linspace(0, 2, 400)])
    assert yaws.max() <= 10.001
    assert yaws.min() >= -20.001


def test_linear_keys_are_joined_by_straight_lines(tmp_path):
    straight = track(tmp_path, interpolation="linear", controls={"yaw": [[0, 0], [1, 10], [2, 0]]})
    assert degrees(straight.at(0.25))[0] == pytest.approx(2.5, abs=1e-3)


def test_without_a_loop_the_last_key_stays_and_with_one_it_goes_round(tmp_path):
    keys = {"yaw": [[0.5, 4], [1.5, 8]]}
    once = track(tmp_path, controls=keys)
    assert degrees(once.at(0))[0] == pytest.approx(4, abs=1e-3)
    assert degrees(once.at(50))[0] == pytest.approx(8, abs=1e-3)
    loop = track(tmp_path, loop=True, controls=keys)
    assert degrees(loop.at(2.0))[0] == pytest.approx(6, abs=1e-3)  # half way from the last key to the first
    assert degrees(loop.at(7.5))[0] == pytest.approx(8, abs=1e-3)


BAD = {
    "no control": ({"controls": {}}, "controls"),
    "no duration": ({"duration": None, "controls": {"yaw": [[0, 1]]}}, "duration"),
    "negative duration": ({"duration": -1, "controls": {"yaw": [[0, 1]]}}, "duration"),
    "endless duration": ({"duration": 1e9, "controls": {"yaw": [[0, 1]]}}, "duration"),
    "nan": ({"controls": {"yaw": [[0, float("nan")]]}}, "yaw"),
    "infinite": ({"controls": {"yaw": [[float("inf"), 0]]}}, "yaw"),
    "unknown field": ({"speed": 2, "controls": {"yaw": [[0, 1]]}}, "speed"),
    "unknown control": ({"controls": {"smlie": [[0, 1]]}}, "did you mean 'smile'"),
    "too far": ({"controls": {"yaw": [[0, 190]]}}, "-60 to 60"),
    "after the end": ({"controls": {"yaw": [[3, 0]]}}, "duration"),
    "unsorted": ({"controls": {"yaw": [[1, 0], [0.5, 1]]}}, "sort"),
    "twice at once": ({"controls": {"yaw": [[1, 0], [1, 1]]}}, "sort"),
    "no keys": ({"controls": {"yaw": []}}, "0 keys"),
    "key of three": ({"controls": {"yaw": [[0, 1, 2]]}}, "yaw"),
    "text": ({"controls": {"yaw": [["0", "1"]]}}, "yaw"),
    "torn loop": ({"loop": True, "controls": {"yaw": [[0, 0], [2, 5]]}}, "end as it begins"),
    "a list": ([1, 2], "object"),
}


@pytest.mark.parametrize(("content", "says"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_in_one_line_that_names_it(tmp_path, content, says):
    path = tmp_path / "bad.json"
    if isinstance(content, dict):
        content = {"duration": 2.0, **content}
    path.write_text(json.dumps(content))
    with pytest.raises(ReenactError, match=re.escape(says)) as caught:
        load_motion(path)
    message = str(caught.value)
    assert "bad.json" in message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"\xff\xfe\x00", b'{"duration": 1' + b"0" * 5000 + b"}"]
)
def test_what_is_not_json_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ReenactError, match=r"bad\.json") as caught:
        load_motion(path)
    assert "\n" not in str(caught.value)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.json"
    path.write_bytes(b" " * 1_000_001)
    with pytest.raises(ReenactError, match="1000001 bytes"):
        load_motion(path)


def test_a_missing_file_and_an_unknown_name_say_what_there_is(tmp_path):
    with pytest.raises(ReenactError, match=r"none\.json: cannot be read"):
        load_motion(tmp_path / "none.json")
    with pytest.raises(ReenactError, match="nod"):
        load_motion("noddle")


def test_the_deeply_nested_file_is_refused(shared_data):
    with pytest.raises(ReenactError, match=r"deep\.json"):
        load_motion(shared_data / "hostile/deep.json")
