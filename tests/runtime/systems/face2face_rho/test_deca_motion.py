"""Face2Face-rho driven by DECA's coefficients: the published fit's numbers, the tracker's motion, real clips."""

import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from reenact import cli
from reenact.errors import BundleError, ReenactError
from reenact.runtime import assets
from reenact.runtime.controls import Controls, applied
from reenact.runtime.media.images import read_image
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.systems import registry
from reenact.runtime.systems.deca.model import Deca
from reenact.runtime.systems.face2face_rho import deca_motion as module
from reenact.runtime.systems.face2face_rho.fitting import PoseTransform
from reenact.runtime.systems.face2face_rho.points import Crop
from reenact.runtime.systems.protocol import Observation, SystemSettings
from reenact.runtime.tracking.canonical import load
from reenact.runtime.tracking.face import HeadPose, Motion, rotation_matrix
from reenact.runtime.tracking.geometry import describe
from reenact.runtime.tracking.look import Look
from typer.testing import CliRunner

CROP = Crop(20.0, 10.0, 200.0)
LOWER_LIP, UPPER_LIP, NOSE = 71, 58, 30


def face_at(x, y):
    """The canonical face as the tracker would have found it, four pixels a centimetre."""
    pose = HeadPose(rotation_matrix(0.1, 0.05, 0.02), 4.0, np.array([x, y, 0], np.float32))
    irises = np.tile(np.array([[x, y, 0]], np.float32), (10, 1))
    return describe(np.concatenate([pose.project(load().neutral), irises]).astype(np.float32), pose, 1.0)


@pytest.fixture(scope="module")
def deca(deca_export):
    with Deca(SystemSettings(deca_export.folder, "cpu", "fp32")) as opened:
        yield opened


@pytest.fixture
def motion(deca):
    return module.DecaMotion(deca)


@pytest.fixture
def image():
    random = np.random.default_rng(0)
    return random.integers(0, 256, (220, 260, 3), np.uint8)


@pytest.fixture
def shape(motion, image):
    return motion.shape(image, face_at(120, 110), CROP)


@pytest.fixture
def own(shape):
    """What DECA sees in the source itself."""
    return shape._fit


def test_the_still_source_is_the_published_fit(deca, shape, own):
    points = deca.points(deca.person(own.shape), own.exp, own.pose)
    k, (left, top) = own.to_crop[0, 0], -own.to_crop[:2, 2] / own.to_crop[0, 0]
    s, tx, ty = own.cam.astype(float)
    x = ((112 * s * (points.keypoints[:, 0] + tx) + 112) / k + left - CROP.left) * 2 / CROP.side - 1
    y = ((112 - 112 * s * (points.keypoints[:, 1] + ty)) / k + top - CROP.top) * 2 / CROP.side - 1
    keypoints, head_pose = shape.still
    assert np.abs(keypoints - np.stack([x, y], 1)).max() < 1e-4
    assert np.abs(head_pose[:3] - own.pose[:3]).max() < 1e-6
    assert head_pose[5] == pytest.approx(224 * s / (k * CROP.side) / PoseTransform().scale, rel=1e-5)


class Seer:
    """Sees what it is told, in dark pictures the person at rest."""

    def __init__(self, rest):
        self.rest = self.seen = rest
        self.looks = 0

    def fit(self, views):
        self.looks += len(views)
        return [self.rest if view.crop[:, 112, 112].mean() < 0.4 else self.seen for view in views]


class Driven:
    """A source that is shown one observation after the other, at 25 a second."""

    def __init__(self, shape, rest):
        self.shape, self.time, self.face = shape, 100.0, face_at(120, 110)
        shape._driving._deca = self.seer = Seer(rest)
        self.neutral = Look(np.full((220, 260, 3), 50, np.uint8), self.face)

    def see(self, fit, motion=None, seconds=0.04, **changes):
        """Keypoints and head pose after `seconds` of it; `fit` None: the face is lost."""
        given = {"neutral": self.neutral, "smoothing": 0.0, **changes}
        self.seer.seen = fit or self.seer.seen
        for _ in range(round(seconds / 0.04)):
            self.time += 0.04
            observation = Observation(
                motion or Motion.still(),
                self.face if fit else None,
                np.full((220, 260, 3), 200, np.uint8),
                self.time,
                **given,
            )
            shown = self.shape.moved(observation)
        return shown


@pytest.fixture
def driven(shape, own):
    return Driven(shape, own)


def opened(fit, radians):
    return replace(fit, pose=fit.pose + np.array([0, 0, 0, radians, 0, 0], np.float32))


def test_a_driving_at_rest_changes_nothing_whoever_it_is(shape, own, driven):
    other = replace(own, exp=own.exp + 1, pose=own.pose + np.float32(0.1), shape=own.shape - 1)
    driven.seer.rest = other
    for fit in (other, None):
        keypoints, head_pose = driven.see(fit)
        assert np.abs(keypoints - shape.still[0]).max() < 1e-4
        assert np.abs(head_pose - shape.still[1]).max() < 1e-4


def test_the_driving_opens_the_sources_jaw_and_no_more(shape, own, driven):
    wide = replace(opened(own, 0.3), shape=own.shape + 3)
    keypoints, head_pose = driven.see(wide)
    gone = keypoints - shape.still[0]
    assert gone[LOWER_LIP, 1] > 0.02
    assert np.abs(gone[[UPPER_LIP, NOSE]]).max() < 0.01
    assert np.abs(head_pose - shape.still[1]).max() < 0.01


def test_the_driving_is_counted_from_its_neutral_face(shape, own, driven):
    """A person whose mouth is never quite shut does not open the source's."""
    driven.seer.rest = opened(own, 0.2)
    same = driven.see(opened(own, 0.2))[0]
    more = driven.see(opened(own, 0.4))[0]
    driven.seer.rest = own
    driven.neutral = replace(driven.neutral)
    driven.see(own, seconds=0.4)
    from_shut = driven.see(opened(own, 0.2))[0]
    assert np.abs(same - shape.still[0]).max() < 1e-4
    assert np.abs(more - from_shut).max() < 1e-4


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_the_expressions_strength_reaches_deca(shape, own, driven, strength):
    keypoints = driven.see(opened(own, 0.2), expression_strength=strength)[0]
    expected = driven.see(opened(own, 0.2 * strength))[0]
    assert np.abs(keypoints - expected).max() < 1e-4
    assert (np.abs(keypoints - shape.still[0]).max() > 0.005) == (strength > 0)


def test_the_photo_stands_still_while_the_driving_is_calibrated(shape, own, driven):
    keypoints, head_pose = driven.see(opened(own, 0.4), neutral=None)
    assert np.abs(keypoints - shape.still[0]).max() < 1e-4
    assert np.abs(head_pose - shape.still[1]).max() < 1e-4
    assert driven.seer.looks == 0


def test_another_neutral_face_is_blended_over_to(shape, own, driven):
    before = driven.see(opened(own, 0.3))[0]
    driven.neutral, driven.seer.rest = replace(driven.neutral), opened(own, 0.3)
    first = driven.see(opened(own, 0.3))[0]
    last = driven.see(opened(own, 0.3), seconds=0.4)[0]
    assert np.abs(first - before).max() < 1e-4
    assert np.abs(last - shape.still[0]).max() < 1e-4


def test_an_edit_moves_the_keypoints_as_it_moves_the_trackers(shape, own, driven):
    controls = Controls(edits={"smile": 0.8, "yaw": 10.0})
    seen = driven.see(own, applied(Motion.still(), controls), edits=controls.offset)
    turned = driven.see(own, applied(Motion.still(), Controls(edits={"yaw": 10.0})))
    smiling = shape._tracked.moved(controls.offset)[0]
    straight = shape._tracked.moved(applied(Motion.still(), Controls(edits={"yaw": 10.0})))[0]
    moved = seen[0] - turned[0]
    assert np.abs(moved).max() > 0.01
    assert np.abs(moved - (smiling - straight)).max() < 1e-5
    assert np.abs(seen[1] - turned[1]).max() < 1e-6


def jittering(driven, own, step, seconds, smoothing=1.0):
    """How much of a quiver of the jaw at 10 Hz is left, seen every `step` seconds."""
    found = []
    for number in range(round(seconds / step)):
        driven.time += step - 0.04
        angle = 0.02 * np.sin(2 * np.pi * 10 * number * step + 0.7)
        found.append(driven.see(opened(own, angle), smoothing=smoothing)[0][LOWER_LIP, 1])
    return np.ptp(found[len(found) // 2 :])


def test_what_is_seen_is_calmed_by_the_drivings_own_time(shape, own):
    """A quiver of so many Hz is as much calmed at any rate."""
    raw = jittering(Driven(shape, own), own, 1 / 24, 2.0, smoothing=0.0)
    calm = {rate: jittering(Driven(shape, own), own, 1 / rate, 2.0) for rate in (24, 60)}
    assert calm[24] < 0.6 * raw
    assert calm[60] == pytest.approx(calm[24], rel=0.25)


def test_nothing_of_before_a_loss_calms_what_is_seen_after_it(own, driven):
    driven.see(own, seconds=0.4, smoothing=1.0)
    driven.see(None, seconds=0.2)
    driven.see(opened(own, 0.3), smoothing=1.0)
    once = driven.see(opened(own, 0.3), seconds=0.4, smoothing=0.0)[0]
    driven.see(None, seconds=0.2)
    driven.see(opened(own, 0.3), smoothing=1.0)
    again = driven.see(opened(own, 0.3), seconds=0.28, smoothing=1.0)[0]
    assert np.abs(again - once).max() < 1e-4


def test_the_head_goes_where_the_tracked_one_goes(shape, own, driven):
    turned = replace(
        Motion.still(),
        rotation=rotation_matrix(0.4, 0.0, 0.0),
        scale=1.2,
        translation=np.array([2.0, -1.0], np.float32),
    )
    keypoints, head_pose = driven.see(own, turned)
    tracked = shape._tracked.moved(turned)[0] - shape._tracked_still[0]
    gone = keypoints - shape.still[0]
    assert np.abs(gone.mean(axis=0) - tracked.mean(axis=0)).max() < 1e-4
    assert gone[NOSE, 0] < gone.mean(axis=0)[0] - 0.02  # the nose goes further to the left than the head
    assert head_pose[5] == pytest.approx(1.2 * shape.still[1][5], rel=1e-5)
    assert head_pose[1] < shape.still[1][1] - 0.3


def test_a_lost_driving_is_held_then_eased_back_and_blended_in_again(shape, own, driven):
    still, full = shape.still[0], driven.see(opened(own, 0.3))[0]
    assert np.abs(full - still).max() > 0.01
    assert np.abs(driven.see(None, seconds=0.4)[0] - full).max() < 1e-4
    eased = [driven.see(None)[0] for _ in range(30)]
    steps = [np.abs(b - a).max() for a, b in pairwise(eased)]
    assert max(steps) < 0.15 * np.abs(full - still).max()
    assert np.abs(driven.see(None, seconds=0.2)[0] - still).max() < 1e-4
    assert np.abs(driven.see(opened(own, 0.3))[0] - still).max() < 1e-4
    assert np.abs(driven.see(opened(own, 0.3), seconds=0.4)[0] - full).max() < 1e-4


def test_a_standing_picture_stands_and_follows_its_controls(shape, own, driven):
    full = driven.see(opened(own, 0.3))[0]
    again = Observation(Motion.still(), time=driven.time, neutral=driven.neutral)
    for _ in range(3):
        assert np.abs(shape.moved(again)[0] - full).max() < 1e-6
    half = shape.moved(replace(again, expression_strength=0.0))[0]
    assert np.abs(half - shape.still[0]).max() < 1e-4


def test_another_driving_and_a_preset_begin_anew(shape, own, driven):
    driven.see(opened(own, 0.3))
    preset = shape.moved(Observation(Motion.still(), time=driven.time + 0.04))[0]
    assert np.abs(preset - shape.still[0]).max() < 1e-6
    driven.see(opened(own, 0.3))
    driven.time -= 50
    assert np.abs(driven.see(None)[0] - shape.still[0]).max() < 1e-6


def test_the_neutral_face_is_looked_at_once(own, driven):
    driven.see(own, seconds=0.4)
    assert driven.seer.looks == 11


def test_a_preset_moves_the_source_as_it_moves_the_trackers_points(shape):
    nodding = replace(Motion.still(), rotation=rotation_matrix(0.0, 0.3, 0.0))
    keypoints, head_pose = shape.moved(Observation(nodding))
    moved, still = shape._tracked.moved(nodding), shape._tracked_still
    assert np.abs(keypoints - shape.still[0] - (moved[0] - still[0])).max() < 1e-6
    assert np.abs(head_pose - shape.still[1] - (moved[1] - still[1])).max() < 1e-6


class TestWhereItIsTaken:
    @pytest.fixture
    def usual_place(self, monkeypatch, tmp_path):
        place = tmp_path / "deca"
        monkeypatch.setattr(module, "bundle_home", lambda system: place)
        monkeypatch.setattr("reenact.runtime.systems.protocol.bundle_home", lambda system: place)
        return place

    def test_not_where_there_is_no_bundle(self, usual_place):
        assert module.deca_motion(SystemSettings(backend="cpu")) is None

    def test_not_where_the_bundle_has_no_keypoints(self, usual_place, deca_export, monkeypatch, caplog):
        usual_place.symlink_to(deca_export.folder)
        monkeypatch.setattr(Deca, "has_keypoints", False)
        with caplog.at_level("WARNING"):
            assert module.deca_motion(SystemSettings(backend="cpu")) is None
        assert "DECA is not used: its bundle has no keypoints; add landmark_embedding.json" in caplog.text

    def test_not_where_the_tracker_is_asked_for(self, usual_place, deca_export):
        usual_place.symlink_to(deca_export.folder)
        assert module.deca_motion(SystemSettings(backend="cpu", motion_source="tracker")) is None

    def test_where_it_is_asked_for_and_cannot_be_had_that_is_an_error(
        self, usual_place, deca_export, monkeypatch
    ):
        asked = SystemSettings(backend="cpu", motion_source="deca")
        with pytest.raises(BundleError, match="make one with `reenact export deca`"):
            module.deca_motion(asked)
        usual_place.symlink_to(deca_export.folder)
        monkeypatch.setattr(Deca, "has_keypoints", False)
        with pytest.raises(BundleError, match="--motion-source deca: its bundle has no keypoints"):
            module.deca_motion(asked)
        with pytest.raises(ReenactError, match="meshwarp is driven by the tracker alone"):
            registry.create("meshwarp", asked)

    def test_a_damaged_bundle_is_an_error(self, usual_place, deca_export):
        shutil.copytree(deca_export.folder, usual_place)
        (usual_place / "skin.npz").write_bytes(b"x")
        with pytest.raises(BundleError, match=r"skin.npz: its sha256 is"):
            module.deca_motion(SystemSettings(backend="cpu"))

    def test_a_real_clip_is_animated_end_to_end(
        self, usual_place, deca_export, rho_bundle, models_home, shared_data, tmp_path
    ):
        photo, clip = assets.portrait("eileen_collins"), shared_data / "clips/lp_d0.mp4"
        pictures = []
        for name in ("tracker", "deca"):
            if name == "deca":
                usual_place.symlink_to(deca_export.folder)
            words = ("run", photo, clip, "-o", tmp_path / f"{name}.mp4", "--duration", 0.3)
            words += ("--system", "face2face_rho", "--bundle", rho_bundle, "--backend", "cpu")  # type: ignore[assignment]
            done = CliRunner().invoke(cli.app, [str(word) for word in words])
            assert done.exit_code == 0, done.output
            with VideoReader(tmp_path / f"{name}.mp4") as reader:
                pictures.append([frame.image for frame in reader])
        assert len(pictures[0]) == len(pictures[1]) > 5
        assert pictures[1][0].shape == read_image(photo).shape
        apart = [np.abs(a.astype(int) - b).mean() for a, b in zip(*pictures, strict=True)]
        assert min(apart) > 0.5  # other keypoints, another picture
