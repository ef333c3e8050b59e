"""The built-in system on the embedded portraits: what must move, what must not, and by how much."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from reenact.errors import FaceNotFoundError
from reenact.runtime import assets
from reenact.runtime.media.images import read_image
from reenact.runtime.systems.meshwarp import MeshWarp
from reenact.runtime.systems.protocol import Observation
from reenact.runtime.tracking.canonical import load
from reenact.runtime.tracking.face import Motion, rotation_matrix
from reenact.runtime.tracking.tracker import Tracker

LOWER_LIP, UPPER_LIP, NOSE_TIP, CHIN = 14, 13, 1, 152


@pytest.fixture(scope="module")
def tracker(models_home):
    with Tracker(smooth=False) as tracker:
        yield tracker


@pytest.fixture(scope="module", params=["eileen_collins", "grace_hopper"])
def portrait(request, tracker):
    photo = read_image(assets.portrait(request.param))
    return MeshWarp().register(photo, tracker.find_faces(photo)[0])


def _motion(yaw=0.0, pitch=0.0, roll=0.0, **changes):
    return replace(Motion.still(), rotation=rotation_matrix(yaw, pitch, roll), **changes)


def _shape(name, amount=1.0):
    return load().shape(name) * np.float32(amount)


def _animate(portrait, motion):
    return MeshWarp().animate(portrait, Observation(motion))


def _difference(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max(axis=2)


def test_no_motion_gives_back_the_photo(portrait):
    difference = _difference(_animate(portrait, Motion.still()), portrait.image)
    assert difference.mean() < 0.3
    assert np.quantile(difference, 0.999) <= 12  # lids are cut out and put back: their rims may differ


def test_the_result_is_a_new_array_and_the_photo_stays_as_it_was(portrait):
    before = portrait.image.copy()
    result = _animate(portrait, _motion(yaw=0.2))
    assert not np.shares_memory(result, portrait.image)
    assert np.array_equal(portrait.image, before)


@pytest.mark.parametrize(("angle", "axis"), [("yaw", 0), ("pitch", 1), ("roll", 2)])
def test_the_head_turns_as_far_as_it_is_told(portrait, tracker, angle, axis):
    turned = tracker.find_faces(_animate(portrait, _motion(**{angle: 0.2})))[0]
    change = np.subtract(turned.pose.yaw_pitch_roll, portrait.face.pose.yaw_pitch_roll)
    assert change[axis] == pytest.approx(0.2, abs=0.09)
    assert np.abs(np.delete(change, axis)).max() < 0.1


def test_an_opened_jaw_opens_the_mouth_and_leaves_the_eyes(portrait, tracker):
    still = tracker.find_faces(portrait.image)[0]
    opened = tracker.find_faces(_animate(portrait, _motion(expression=_shape("jawOpen", 0.6))))[0]
    assert opened.mouth_openness > still.mouth_openness + 0.12
    assert opened.eye_openness == pytest.approx(still.eye_openness, abs=0.06)


def test_shut_lids_cover_the_eyes(portrait, tracker):
    shut = tracker.find_faces(_animate(portrait, _motion(lids=np.zeros(2, np.float32))))[0]
    assert (shut.eye_openness < 0.75 * portrait.face.eye_openness).all()


def test_gaze_moves_the_irises_and_nothing_else(portrait):
    gaze = np.full((2, 2), [0.15, 0.0], np.float32)
    difference = _difference(_animate(portrait, _motion(gaze=gaze)), _animate(portrait, Motion.still()))
    eyes = np.zeros(difference.shape, np.uint8)
    for corners in ((33, 133), (263, 362)):
        ends = portrait.face.landmarks_px[list(corners), :2]
        width = float(np.linalg.norm(ends[1] - ends[0]))
        cv2.circle(eyes, tuple(int(v) for v in ends.mean(axis=0)), int(0.7 * width), 1, -1)
    assert difference[eyes == 1].max() > 40
    assert difference[eyes == 0].max() == 0


def test_the_movement_fades_out_before_the_edge_of_what_moves(tracker):
    """A small face in a large photo: beyond its surroundings not one pixel may change."""
    photo = read_image(assets.portrait("grace_hopper"))
    canvas = np.random.default_rng(0).integers(0, 256, (900, 1100, 3), dtype=np.uint8)
    canvas[300:556, 400:656] = cv2.resize(photo, (256, 256), interpolation=cv2.INTER_AREA)
    portrait = MeshWarp().register(canvas, tracker.find_faces(canvas)[0])
    x0, y0, x1, y1 = portrait.box
    assert 0 < x0 < x1 < 1100
    assert 0 < y0 < y1 < 900
    difference = _difference(_animate(portrait, _motion(yaw=0.4, pitch=0.2)), canvas)
    difference[y0:y1, x0:x1] = 0
    assert difference.max() == 0


def test_the_mesh_never_folds_around_the_face_within_the_limits(portrait):
    """Ring triangles keep their winding, so no background is shown twice."""
    for motion in (_motion(yaw=0.35), _motion(pitch=-0.3), _motion(roll=0.4), _motion(yaw=-0.3, pitch=0.25)):
        moved = portrait.mesh.move(motion)
        rings = moved.triangles[(moved.triangles >= 468).all(axis=1)]
        areas = [_areas(points[rings]) for points in (portrait.mesh.sources, moved.vertices)]
        assert (np.sign(areas[0]) == np.sign(areas[1])).mean() > 0.985


def _areas(corners):
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def test_turns_beyond_what_a_photo_shows_are_held_back(portrait):
    far, farther = (portrait.mesh.move(_motion(yaw=angle)).face_px for angle in (1.0, 1.5))
    assert np.isfinite(farther).all()
    assert np.abs(far - farther).max() < 0.1 * np.ptp(portrait.face.landmarks_px[:468, 0])


def test_lips_that_are_told_to_cross_only_meet(portrait):
    crossing = np.zeros((468, 3), np.float32)
    crossing[[LOWER_LIP, 87, 317, 88, 178, 402, 318, 95, 324], 1] = -3.0
    head = portrait.mesh.move(_motion(expression=crossing)).head
    shut = min(0.0, float(portrait.mesh.head[LOWER_LIP, 1] - portrait.mesh.head[UPPER_LIP, 1]))
    assert head[LOWER_LIP, 1] - head[UPPER_LIP, 1] == pytest.approx(shut, abs=1e-3)


def test_an_open_mouth_shows_an_inside_that_is_not_skin(portrait):
    moved = portrait.mesh.move(_motion(expression=_shape("jawOpen", 0.9)))
    picture = _animate(portrait, _motion(expression=_shape("jawOpen", 0.9)))
    x, y = moved.face_px[[UPPER_LIP, LOWER_LIP], :2].mean(axis=0) + portrait.box[:2]
    inside = picture[round(y), round(x)].mean()
    chin_x, chin_y = moved.face_px[199, :2] + portrait.box[:2]
    chin = picture[round(chin_y), round(chin_x)].mean()
    assert inside < 0.6 * chin


def test_a_face_outside_the_photo_is_refused(portrait):
    with pytest.raises(FaceNotFoundError, match="outside the photo"):
        MeshWarp().register(portrait.image, portrait.face.placed(scale=1.0, x=9000, y=0))


def test_a_face_at_the_very_edge_is_animated_without_harm(portrait):
    half = np.ascontiguousarray(portrait.image[:, int(portrait.face.landmarks_px[NOSE_TIP, 0]) :])
    face = portrait.face.placed(scale=1.0, x=-float(int(portrait.face.landmarks_px[NOSE_TIP, 0])), y=0)
    result = _animate(MeshWarp().register(half, face), _motion(yaw=0.3, lids=np.zeros(2, np.float32)))
    assert result.shape == half.shape
