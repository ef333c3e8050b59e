"""Face2Face-rho at the user's: a photo is registered, moved and put back together, and what is wrong is told.

The bundle's weights are made by rule, so its pictures show nobody; what matters is where they go.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from reenact import cli
from reenact.errors import BackendError, BundleError, FaceNotFoundError, ReenactError
from reenact.kernels.composite import blend_reference
from reenact.runtime import assets, models
from reenact.runtime.bundle import Weights, write_bundle
from reenact.runtime.files import bundle_home
from reenact.runtime.media.images import read_image
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.systems import registry
from reenact.runtime.systems.face2face_rho.animator import FaceToFaceRho
from reenact.runtime.systems.protocol import Observation, SystemSettings
from reenact.runtime.tracking.canonical import load
from reenact.runtime.tracking.face import HeadPose, Motion, rotation_matrix
from reenact.runtime.tracking.geometry import describe
from typer.testing import CliRunner

TURNED = replace(Motion.still(), rotation=rotation_matrix(0.3, 0.1, 0.0))


def face_at(x, y, scale=4.0, yaw=0.1):
    """The canonical face as the tracker would have found it; `scale` is in pixels a centimetre."""
    pose = HeadPose(rotation_matrix(yaw, 0.05, 0.02), scale, np.array([x, y, 0], np.float32))
    irises = np.tile(np.array([[x, y, 0]], np.float32), (10, 1))
    return describe(np.concatenate([pose.project(load().neutral), irises]).astype(np.float32), pose, 1.0)


def photo_of(height, width):
    whole = read_image(assets.portrait("eileen_collins"))
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


@pytest.fixture(scope="module")
def animator(rho_bundle):
    animator = FaceToFaceRho(SystemSettings(rho_bundle, "cpu", "fp32"))
    yield animator
    animator.close()


@pytest.fixture(scope="module")
def portrait(animator):
    return animator.register(photo_of(240, 320), face_at(150, 115))


def square_of(portrait):
    """Rows and columns of the photo in which the networks' square lies."""
    side = portrait.mask.shape[0]
    return (
        slice(max(portrait.top, 0), portrait.top + side),
        slice(max(portrait.left, 0), portrait.left + side),
    )


def test_still_motion_gives_a_picture_of_the_photos_size(animator, portrait):
    photo = portrait.image.copy()
    result = animator.animate(portrait, Observation(Motion.still()))
    assert (result.shape, result.dtype) == (photo.shape, np.uint8)
    assert not np.shares_memory(result, portrait.image)
    assert np.array_equal(portrait.image, photo)
    assert np.abs(result.astype(int) - photo)[square_of(portrait)].mean() > 10


def test_still_motion_shows_the_networks_own_answer_to_the_photos_face(animator, portrait):
    square = animator.decode(portrait.features, *portrait.shape.still)
    side = portrait.mask.shape[0]
    assert side > animator.size  # so that the square is made larger
    expected = portrait.image.copy()
    grown = cv2.resize(square, (side, side), interpolation=cv2.INTER_LINEAR)
    blend_reference(expected, grown, portrait.mask, portrait.left, portrait.top)
    result = animator.animate(portrait, Observation(Motion.still()))
    apart = np.abs(result.astype(int) - expected)
    assert (
        apart.max() <= 1 or np.quantile(apart, 0.99) == 0
    )  # a keypoint on a pixel's edge may fall to either side


def test_the_square_frames_the_face_as_the_networks_learned_it(animator, portrait):
    keypoints, head_pose = portrait.shape.still
    low, high = keypoints.min(axis=0), keypoints.max(axis=0)
    assert (high - low).max() / 2 == pytest.approx(0.36, abs=0.01)
    assert (low + high)[0] / 2 == pytest.approx(0, abs=0.02)
    assert 0.03 < (low + high)[1] / 2 < 0.12  # a little below the middle
    assert 0.2 < head_pose[3] < 0.3
    assert 0.001 < head_pose[5] < 0.002


def test_motion_changes_the_picture(animator, portrait):
    still, moved = (animator.animate(portrait, Observation(motion)) for motion in (Motion.still(), TURNED))
    assert np.abs(still.astype(int) - moved)[square_of(portrait)].mean() > 1


def test_the_same_motion_gives_the_same_picture(animator, portrait):
    first, second = (animator.animate(portrait, Observation(TURNED)) for _ in range(2))
    assert np.array_equal(first, second)


def test_two_portraits_do_not_disturb_each_other(animator, portrait):
    before = animator.animate(portrait, Observation(TURNED))
    other = animator.register(photo_of(300, 300), face_at(140, 140))
    animator.animate(other, Observation(Motion.still()))
    assert np.array_equal(animator.animate(portrait, Observation(TURNED)), before)


def test_pixels_outside_the_square_are_the_photos_own(animator, portrait):
    result = animator.animate(portrait, Observation(TURNED))
    outside = np.ones(result.shape[:2], bool)
    outside[square_of(portrait)] = False
    assert outside.mean() > 0.3
    assert np.array_equal(result[outside], portrait.image[outside])


def test_the_square_fades_softly_into_the_photo(animator, portrait):
    mask = portrait.mask.astype(int)
    side = len(mask)
    middle = mask[side // 2]
    rise = middle[: side // 2]
    assert mask[0].max() <= 16
    assert mask[:, 0].max() <= 16
    assert (np.diff(rise) >= 0).all()
    assert np.diff(rise).max() < 100
    assert 0.04 * side < np.count_nonzero(rise < 255) < 0.08 * side
    assert np.array_equal(mask, mask[:, ::-1])
    assert np.array_equal(mask, mask[::-1])
    result = animator.animate(portrait, Observation(TURNED))
    rows, columns = square_of(portrait)
    rim = np.abs(result.astype(int) - portrait.image)[rows, columns][[0, -1]]
    assert rim.max() <= 16


def test_the_other_backend_shows_the_same(rho_bundle, animator, portrait):
    other = FaceToFaceRho(SystemSettings(rho_bundle, "openvino", "fp32"))
    again = other.register(portrait.image, portrait.face)
    pictures = [
        each.animate(own, Observation(TURNED)).astype(int)
        for each, own in ((animator, portrait), (other, again))
    ]
    other.close()
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


@pytest.mark.parametrize(
    ("x", "y", "whole"),
    [(20, 115, "left"), (300, 115, "right"), (150, 20, "top"), (150, 220, "bottom")],
)
def test_at_the_photos_border_the_picture_goes_on_to_the_edge(animator, x, y, whole):
    photo = photo_of(240, 320)
    portrait = animator.register(photo, face_at(x, y))
    mask, side = portrait.mask, portrait.mask.shape[0]
    edges = {
        "left": mask[side // 2, max(-portrait.left, 0)],
        "right": mask[side // 2, min(side, 320 - portrait.left) - 1],
        "top": mask[max(-portrait.top, 0), side // 2],
        "bottom": mask[min(side, 240 - portrait.top) - 1, side // 2],
    }
    assert edges.pop(whole) == 255
    result = animator.animate(portrait, Observation(TURNED))
    assert result.shape == photo.shape
    rows, columns = square_of(portrait)
    outside = np.ones(photo.shape[:2], bool)
    outside[rows, columns] = False
    assert np.array_equal(result[outside], photo[outside])
    assert np.abs(result.astype(int) - photo)[rows, columns].mean() > 5


def test_a_face_larger_than_the_photo_fills_it(animator):
    photo = photo_of(60, 60)
    portrait = animator.register(photo, face_at(30, 10, scale=6.0))
    assert portrait.mask.min() == 255
    assert animator.animate(portrait, Observation(TURNED)).shape == photo.shape


@pytest.mark.parametrize(("x", "y"), [(-60, 115), (400, 115), (150, -80), (150, 330)])
def test_a_face_outside_the_photo_is_told(animator, x, y):
    with pytest.raises(FaceNotFoundError, match="outside the photo; use a photo that shows the whole face"):
        animator.register(photo_of(240, 320), face_at(x, y))


@pytest.mark.parametrize("scale", [0.02, 0.2, 1.0])
def test_a_tiny_face_is_moved_as_well(animator, scale):
    photo = photo_of(24, 32)
    portrait = animator.register(photo, face_at(16, 12, scale=scale))
    result = animator.animate(portrait, Observation(TURNED))
    assert result.shape == photo.shape
    assert portrait.mask.shape[0] >= 2


def test_a_huge_photo_keeps_its_size(animator):
    photo = photo_of(3000, 4000)
    portrait = animator.register(photo, face_at(2000, 1500, scale=60.0))
    result = animator.animate(portrait, Observation(TURNED))
    assert result.shape == photo.shape
    rows, columns = square_of(portrait)
    assert rows.stop - rows.start > 10 * animator.size
    assert np.abs(result[rows, columns].astype(int) - photo[rows, columns]).mean() > 10


@pytest.mark.parametrize(
    "change",
    [
        {"rotation": np.full((3, 3), np.nan, np.float32)},
        {"translation": np.array([np.nan, 0], np.float32)},
        {"translation": np.array([0, np.inf], np.float32)},
        {"scale": float("nan")},
        {"expression": np.full((468, 3), np.nan, np.float32)},
        {"lids": np.array([np.nan, 1], np.float32)},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_motion_that_is_not_finite_is_an_error_and_not_a_picture(animator, portrait, change):
    with pytest.raises(ReenactError, match=r"keypoint \d+ is \[.*(nan|inf).*\], not a place in the picture"):
        animator.animate(portrait, Observation(replace(Motion.still(), **change)))
    assert np.isfinite(animator.animate(portrait, Observation(TURNED))).all()


def test_motion_out_of_all_bounds_still_gives_a_picture(animator, portrait):
    far = replace(TURNED, translation=np.array([1e6, -1e6], np.float32), scale=1e3)
    assert animator.animate(portrait, Observation(far)).shape == portrait.image.shape


def test_closing_twice_does_nothing_and_using_it_afterwards_is_an_error(rho_bundle, portrait):
    animator = FaceToFaceRho(SystemSettings(rho_bundle, "cpu", "fp32"))
    animator.close()
    animator.close()
    with pytest.raises(BackendError, match="has been closed"):
        animator.animate(portrait, Observation(Motion.still()))
    with pytest.raises(BackendError, match="has been closed"):
        animator.register(portrait.image, portrait.face)


def test_it_runs_where_there_is_no_torch(rho_bundle):
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from reenact.runtime.systems import registry\n"
        "from reenact.runtime.systems.protocol import SystemSettings\n"
        "system = registry.create('face2face_rho', SystemSettings(Path(sys.argv[1]), 'cpu', 'fp32'))\n"
        "points = np.linspace(-0.5, 0.5, 144, dtype=np.float32).reshape(72, 2)\n"
        "features = system.encode(np.zeros((128, 128, 3), np.uint8), points, np.zeros(6))\n"
        "print(system.decode(features, points, np.zeros(6)).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(rho_bundle)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(128, 128, 3)\n"


# --- settings and bundles -------------------------------------------------------------------------


def settings(folder):
    return SystemSettings(folder, "cpu", "fp32")


def test_without_a_bundle_the_error_says_how_to_make_one(small_home):
    with pytest.raises(BundleError, match="does not exist; make one with `reenact export face2face_rho`"):
        registry.create("face2face_rho")


def test_the_bundle_is_looked_for_where_export_puts_it(small_home, rho_bundle):
    assert bundle_home("face2face_rho") == small_home / "bundles/face2face_rho"
    shutil.copytree(rho_bundle, bundle_home("face2face_rho"))
    system = registry.create("face2face_rho", settings(None))
    assert isinstance(system, FaceToFaceRho)
    assert (system.name, system.size) == ("face2face_rho", 128)
    system.close()


def test_a_folder_that_is_no_bundle_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(BundleError, match=r"manifest\.json: cannot be read .*expected a bundle's folder"):
            registry.create("face2face_rho", settings(folder))


def made_bundle(folder, scaling_graph, system, names=("source", "frame")):
    write_bundle(
        folder,
        system=system,
        resolution=128,
        graphs={name: scaling_graph() for name in names},
        preprocessing={},
        precision="fp32",
        weights=Weights(origin="made for this test", licence="CC0-1.0"),
    )
    return folder


def test_a_bundle_of_another_system_is_told_with_its_name(tmp_path, scaling_graph):
    folder = made_bundle(tmp_path / "bundle", scaling_graph, "gdpw")
    with pytest.raises(BundleError, match="a bundle of gdpw, not of face2face_rho; use --system gdpw"):
        registry.create("face2face_rho", settings(folder))


def test_a_bundle_with_other_graphs_or_inputs_is_an_error(tmp_path, scaling_graph):
    lacking = made_bundle(tmp_path / "a", scaling_graph, "face2face_rho", names=("source",))
    with pytest.raises(BundleError, match="no graph is called 'frame'; the bundle has source"):
        registry.create("face2face_rho", settings(lacking))
    foreign = made_bundle(tmp_path / "b", scaling_graph, "face2face_rho")
    with pytest.raises(BundleError, match=r"no driving_3, .*export the bundle again"):
        registry.create("face2face_rho", settings(foreign))


@pytest.mark.parametrize("name", ["source.onnx", "frame.onnx"])
def test_a_bundle_with_a_tampered_file_is_refused(tmp_path, rho_bundle, name):
    folder = shutil.copytree(rho_bundle, tmp_path / "bundle")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(
        BundleError, match=rf"{name}: its sha256 is \w+, the manifest says \w+; export or copy"
    ):
        registry.create("face2face_rho", settings(folder))


def test_a_manifest_that_tells_another_size_is_refused(tmp_path, rho_bundle, portrait):
    folder = shutil.copytree(rho_bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"]["frame"]["outputs"]["image"]["shape"] = [256, 256, 3]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"output image is \(128, 128, 3\) uint8, the manifest says \(256"):
        registry.create("face2face_rho", settings(folder))


def test_a_backend_without_the_precision_is_an_error(rho_bundle):
    with pytest.raises(BackendError, match="the cpu backend has fp32 only"):
        registry.create("face2face_rho", SystemSettings(rho_bundle, "cpu", "bf16"))


def test_meshwarp_takes_no_bundle(rho_bundle):
    with pytest.raises(ReenactError, match=r"meshwarp has no networks and takes no bundle; .*face2face_rho"):
        registry.create("meshwarp", settings(rho_bundle))


# --- through the command line ---------------------------------------------------------------------


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_a_photo_is_run_from_the_command_line(models_home, rho_bundle, tmp_path):
    photo, out = assets.portrait("eileen_collins"), tmp_path / "out.mp4"
    done = call(
        *("run", photo, "--motion", "nod", "--duration", 0.2, "--crop", "--crf", 0, "-o", out),
        *("--system", "face2face_rho", "--bundle", rho_bundle, "--precision", "fp32"),
    )
    assert done.exit_code == 0, done.output
    assert f"{out.name}: 6 frames" in done.stdout.replace("\n", "")
    with VideoReader(out) as reader:
        frames = [frame.image.astype(int) for frame in reader]
    assert len(frames) == 6
    assert {frame.shape for frame in frames} == {(512, 512, 3)}
    middle = frames[0][150:350, 150:350]
    assert middle.std() > 10
    assert np.abs(middle - frames[-1][150:350, 150:350]).mean() > 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--system", "face2face_rho"), "make one with `reenact export face2face_rho`"),
        (("--system", "face2face_rho", "--bundle", "none"), "none/manifest.json: cannot be read"),
        (("--system", "meshwarp", "--bundle", "none"), "meshwarp has no networks and takes no bundle"),
    ],
)
def test_a_bundle_that_cannot_be_used_is_one_line_and_exit_code_1(monkeypatch, small_home, options, said):
    monkeypatch.setattr(models, "ensure", lambda progress: None)
    done = call("run", assets.portrait("eileen_collins"), "--motion", "nod", "-o", "out.mp4", *options)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
