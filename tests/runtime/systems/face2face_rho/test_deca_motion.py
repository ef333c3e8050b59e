"""Face2Face-rho driven by DECA's coefficients: the published fit's numbers, the tracker's motion, real clips."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from reenact import cli
from reenact.errors import BundleError, ReenactError
from reenact.runtime import assets
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


def test_a_driving_that_is_the_source_at_rest_changes_nothing(shape, own):
    for driving in (own, None):
        keypoints, head_pose = shape.moved(Motion.still(), driving)
        assert np.abs(keypoints - shape.still[0]).max() < 1e-4
        assert np.abs(head_pose - shape.still[1]).max() < 1e-4


def test_the_driving_opens_the_sources_jaw_and_no_more(shape, own):
    opened = replace(own, pose=own.pose + np.float32([0, 0, 0, 0.3, 0, 0]), shape=own.shape + 3)  # type: ignore[arg-type]
    keypoints, head_pose = shape.moved(Motion.still(), opened)
    gone = keypoints - shape.still[0]
    assert gone[LOWER_LIP, 1] > 0.02
    assert np.abs(gone[[UPPER_LIP, NOSE]]).max() < 0.01
    assert np.abs(head_pose - shape.still[1]).max() < 0.01


def test_the_head_goes_where_the_tracked_one_goes(shape, own):
    turned = replace(
        Motion.still(),
        rotation=rotation_matrix(0.4, 0.0, 0.0),
        scale=1.2,
        translation=np.array([2.0, -1.0], np.float32),
    )
    keypoints, head_pose = shape.moved(turned, own)
    tracked = shape._tracked.moved(turned)[0] - shape._tracked_still[0]
    gone = keypoints - shape.still[0]
    assert np.abs(gone.mean(axis=0) - tracked.mean(axis=0)).max() < 1e-4
    assert gone[NOSE, 0] < gone.mean(axis=0)[0] - 0.02  # the nose goes further to the left than the head
    assert head_pose[5] == pytest.approx(1.2 * shape.still[1][5], rel=1e-5)
    assert head_pose[1] < shape.still[1][1] - 0.3


def test_a_lost_driving_eases_back_with_the_motion(shape, own):
    smiling = replace(own, exp=own.exp + np.float32(0.8))
    expression = np.full((468, 3), 0.2, np.float32)
    moving = replace(Motion.still(), expression=expression)
    full = shape.moved(moving, smiling)[0]
    held = shape.moved(moving, None)[0]
    half = shape.moved(replace(moving, expression=expression / 2), None)[0]  # type: ignore[arg-type]
    back = shape.moved(Motion.still(), None)[0]
    still = shape.still[0]
    assert np.abs(full - still).max() > 0.01
    assert np.abs(held - full).max() < 1e-6
    assert np.abs((half - still) - (full - still) / 2).max() < 0.1 * np.abs(full - still).max()
    assert np.abs(back - still).max() < 1e-4


def test_a_preset_moves_the_source_as_it_moves_the_trackers_points(shape):
    nodding = replace(Motion.still(), rotation=rotation_matrix(0.0, 0.3, 0.0))
    keypoints, head_pose = shape.moved(nodding, None)
    moved, still = shape._tracked.moved(nodding), shape._tracked_still
    assert np.abs(keypoints - shape.still[0] - (moved[0] - still[0])).max() < 1e-6
    assert np.abs(head_pose - shape.still[1] - (moved[1] - still[1])).max() < 1e-6


def test_there_is_nothing_to_see_without_a_picture_or_a_face(motion, image):
    face = face_at(120, 110)
    assert motion.driving(Observation(Motion.still(), face, None)) is None
    assert motion.driving(Observation(Motion.still(), None, image)) is None
    assert motion.driving(Observation(Motion.still(), face, image)).exp.shape == (50,)


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
        with caplog.at_level("INFO"):
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
