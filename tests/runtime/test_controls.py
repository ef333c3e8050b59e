"""Strengths, mirror and edits of a live portrait."""

import numpy as np
import pytest
from reenact.errors import ReenactError
from reenact.runtime.controls import Controls, applied, mirrored_face, mirrored_motion
from reenact.runtime.tracking.canonical import load
from reenact.runtime.tracking.face import Motion, euler_angles
from reenact.runtime.tracking.relative import between


def test_edits_are_added_to_what_the_driving_does(colours):
    driven = between(colours.face(), colours.face(yaw=0.2))
    edited = applied(driven, Controls(edits={"yaw": 10, "smile": 0.5, "blink_right": 1}))
    assert euler_angles(edited.rotation)[0] == pytest.approx(0.2 + np.radians(10), abs=1e-3)
    smile = applied(Motion.still(), Controls(edits={"smile": 0.5})).expression
    np.testing.assert_allclose(edited.expression - driven.expression, smile, atol=1e-5)
    assert smile[61, 1] < -0.1  # the right corner of the mouth goes up, in cm
    np.testing.assert_allclose(edited.lids, [0, 0.9625], atol=1e-3)  # a smile narrows the eyes a little


def test_strengths_scale_the_driving_and_not_the_edits(colours):
    driven = between(colours.face(), colours.face(yaw=0.2))
    edited = applied(driven, Controls(pose_strength=0.5, expression_strength=0, edits={"yaw": 10}))
    assert euler_angles(edited.rotation)[0] == pytest.approx(0.1 + np.radians(10), abs=1e-3)


def test_controls_at_rest_change_nothing(colours):
    driven = between(colours.face(), colours.face(yaw=0.2, mouth=0.5))
    assert applied(driven, Controls()) is driven


def test_a_mirrored_motion_is_that_of_the_mirrored_faces(colours):
    neutral, face = colours.face(yaw=0.05), colours.face(yaw=0.3, mouth=0.4)
    seen = between(mirrored_face(neutral, 64), mirrored_face(face, 64))
    mirrored = mirrored_motion(between(neutral, face))
    for name in ("rotation", "translation", "scale", "expression", "lids", "gaze"):
        np.testing.assert_allclose(getattr(mirrored, name), getattr(seen, name), atol=2e-3, err_msg=name)
    assert euler_angles(mirrored.rotation)[0] == pytest.approx(-0.25, abs=0.005)


def test_a_mirrored_face_lies_where_it_is_in_the_mirrored_picture(colours):
    face = colours.face(yaw=0.3)
    mirrored = mirrored_face(face, 64)
    nose = 4
    assert mirrored.landmarks_px[nose, 0] == pytest.approx(63 - face.landmarks_px[nose, 0])
    left = load().mirror[33]
    assert mirrored.landmarks_px[33, 0] == pytest.approx(63 - face.landmarks_px[left, 0])
    np.testing.assert_allclose(
        mirrored_face(mirrored, 64).landmarks_px, face.landmarks_px, rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pose_strength": 3.5}, "pose_strength is 3.5; expected 0 to 3"),
        ({"smoothing": float("nan")}, "smoothing is 'nan'; expected a number from 0 to 4"),
        ({"edits": {"smil": 1.0}}, "edits: no control is called 'smil'; did you mean 'smile'?"),
        ({"edits": {"yaw": 90}}, "yaw is 90; expected -60 to 60"),
        ({"edits": {"smile": "much"}}, "smile is 'much'; expected a number from 0 to 1"),
        ({"edits": {"smile": True}}, "smile is 'True'; expected a number"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ReenactError) as refused:
        Controls(**settings)
    assert message in str(refused.value)
