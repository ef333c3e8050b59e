"""`reenact reconstruct`: the files of a head open elsewhere, movies move, what is missing is told."""

import builtins
import json
import sys
import weakref
from fractions import Fraction
from pathlib import PurePath
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from reenact.cli import app
from reenact.errors import BackendError, FaceNotFoundError, MediaError, ModelError, ReenactError
from reenact.runtime import assets
from reenact.runtime.media.frame import Frame
from reenact.runtime.media.images import read_image, write_image
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.media.writer import open_writer
from reenact.runtime.reconstruct import Reconstructor, inputs_of, place_of
from reenact.runtime.reposing import animation_camera, animation_poses
from reenact.runtime.stream import StreamInterrupted
from reenact.runtime.systems.deca.model import Deca
from reenact.runtime.systems.protocol import SystemSettings
from reenact.runtime.tracking import face_squares
from reenact.runtime.tracking.face_squares import FaceAlignment, find_squares
from reenact.runtime.tracking.flame_crop import FaceSquare
from typer.testing import CliRunner

VERTICES, TRIANGLES = 5023, 9976


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("heads")


@pytest.fixture(scope="module")
def photo(folder):
    path = folder / "eileen.png"
    image = read_image(assets.portrait("eileen_collins"))
    side = min(image.shape[:2])
    write_image(path, cv2.resize(image[:side, :side], (240, 240)), mark=False)
    return path


@pytest.fixture(scope="module")
def clip(folder, photo):
    """Five frames that get darker."""
    path, image = folder / "clip.mp4", read_image(photo)
    writer = open_writer(path, width=240, height=240, mark=False)
    for number in range(5):
        writer.write(Frame((image * (1 - 0.15 * number)).astype(np.uint8), number, Fraction(1, 25)))
    writer.close()
    return path


def write_clip(path, images):
    writer = open_writer(path, width=images[0].shape[1], height=images[0].shape[0], mark=False)
    for number, image in enumerate(images):
        writer.write(Frame(image, number, Fraction(1, 25)))
    writer.close()


@pytest.fixture
def finds_where_light(monkeypatch):
    """Faces are seen in the middle of pictures that are not dark; gives a list of what looked."""
    looked = []

    def square(image):
        looked.append(weakref.ref(image))
        return None if image.mean() < 20 else FaceSquare(image.shape[1] / 2, image.shape[0] / 2, 150)

    seeing = SimpleNamespace(still=square, reset=lambda: None, close=lambda: None)
    seeing.follow = lambda image, time: square(image)
    monkeypatch.setattr("reenact.runtime.reconstruct.find_squares", lambda *_, **__: seeing)
    return looked


@pytest.fixture(scope="module")
def settings(deca_export):
    return SystemSettings(deca_export.folder, backend="cpu")


@pytest.fixture(scope="module")
def heads(folder, photo, settings):
    with Reconstructor(settings, whole=True) as reconstructor:
        done = reconstructor.run(photo, folder / "out")
    assert done.folder == folder / "out/eileen"
    return {path.name: path for path in done.files}


def test_every_file_is_there_and_named_after_the_photo(heads):
    assert all(path.stat().st_size for path in heads.values())
    assert sorted(name.removeprefix("eileen") for name in heads) == sorted(
        (
            *(".obj", ".mtl", ".png", "_normals.png", "_displacement.png", "_detail.obj", "_depth.png"),
            *("_view_normals.png", "_kpt2d.txt", "_kpt3d.txt", "_albedo.png", ".npz", ".json", "_vis.jpg"),
        )
    )


def test_the_meshes_open_in_trimesh_with_the_right_counts(heads, deca_export):
    trimesh = pytest.importorskip("trimesh", reason="meshes are opened with trimesh, which is not installed")
    coarse = trimesh.load(heads["eileen.obj"], process=False, maintain_order=True)
    assert coarse.vertices.shape == (VERTICES, 3)
    assert coarse.faces.shape == (TRIANGLES, 3)
    assert coarse.visual.kind == "texture"
    assert coarse.visual.material.image.size == (256, 256)
    assert (coarse.faces == deca_export.files.template.triangles).all()
    detailed = trimesh.load(heads["eileen_detail.obj"], process=False, maintain_order=True)
    assert len(detailed.vertices) > 10 * VERTICES
    assert detailed.visual.kind == "vertex"
    assert np.abs(detailed.bounds - coarse.bounds).max() < 0.012  # wrinkles, metres


def test_the_lines_of_the_mesh_are_the_templates(heads, deca_export):
    lines = heads["eileen.obj"].read_text().splitlines()
    kinds = {kind: [line for line in lines if line.startswith(f"{kind} ")] for kind in ("v", "vt", "f")}
    template = deca_export.files.template
    assert {kind: len(there) for kind, there in kinds.items()} == {
        "v": VERTICES,
        "vt": len(template.uvs),
        "f": TRIANGLES,
    }
    assert [float(word) for word in kinds["vt"][7].split()[1:]] == template.uvs[7].tolist()
    corners = [tuple(map(int, corner.split("/"))) for corner in kinds["f"][11].split()[1:]]
    assert [a - 1 for a, _ in corners] == template.triangles[11].tolist()
    assert [b - 1 for _, b in corners] == template.uv_triangles[11].tolist()
    assert lines[0] == "mtllib eileen.mtl"
    assert "map_Kd eileen.png" in heads["eileen.mtl"].read_text()


def test_depth_and_normals_of_a_head_that_looks_ahead(heads):
    depth = cv2.imread(str(heads["eileen_depth.png"]), cv2.IMREAD_UNCHANGED)
    normals = (
        np.asarray(cv2.imread(str(heads["eileen_view_normals.png"])))[..., ::-1].astype(float) / 127.5 - 1
    )
    assert depth is not None
    assert depth.shape == (224, 224)
    assert depth.dtype == np.uint16
    seen = np.asarray(depth > 0)
    assert 0.1 < seen.mean() < 0.9
    assert depth.max() > 0.97 * 65535  # the tip of the nose is the nearest
    assert (normals[~seen] == -1).all()
    assert np.abs(np.linalg.norm(normals[seen], axis=1) - 1).mean() < 0.02
    left, right = normals[:, :112][seen[:, :112]], normals[:, 112:][seen[:, 112:]]
    assert left[:, 0].mean() < -0.2 < 0.2 < right[:, 0].mean()
    assert normals[seen][:, 2].mean() > 0.4


def test_coefficients_are_the_same_in_both_files(heads):
    with np.load(heads["eileen.npz"], allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    text = json.loads(heads["eileen.json"].read_text())
    assert arrays.keys() == text.keys() >= {"shape", "exp", "pose", "cam", "light", "detail", "to_crop"}
    for name, values in arrays.items():
        assert np.allclose(text[name], values), name


def test_the_grid_is_six_pictures_wide_with_a_colour_model(heads):
    assert read_image(heads["eileen_vis.jpg"]).shape == (224, 1344, 3)


def test_the_colour_models_skin_is_written_as_it_is(heads):
    with np.load(heads["eileen.npz"], allow_pickle=False) as file:
        lighter, yellower = file["tex"][:2]
    row = read_image(heads["eileen_albedo.png"]).astype(float)[100].mean(axis=0) / 255
    expected = np.array([0.7 + 0.2 * 100 / 256, 0.55, 0.5]) + 0.05 * lighter - [0, 0, 0.05 * yellower]
    assert np.abs(row - expected).max() < 0.01


def test_a_video_gives_a_grid_a_frame_and_rows_of_coefficients(folder, clip, settings):
    with Reconstructor(settings, whole=True) as reconstructor:
        done = reconstructor.run(clip, folder / "out")
    movie, packed = done.files[:2]
    with VideoReader(movie) as reader:
        assert [frame.image.shape for frame in reader] == [(224, 1344, 3)] * 5
    with np.load(packed, allow_pickle=False) as file:
        assert file["exp"].shape == (5, 50)
        assert (file["shape"] == file["shape"][0]).all()
        assert np.abs(np.diff(file["exp"], axis=0)).max(axis=1).min() > 1e-4


def test_the_coefficients_of_whole_pictures_are_calmed_as_well(clip, settings, tmp_path):
    codes = {}
    for smooth in (True, False):
        with Reconstructor(settings, whole=True, smooth=smooth) as reconstructor:
            done = reconstructor.run(clip, tmp_path / str(smooth))
        with np.load(done.files[1], allow_pickle=False) as file:
            codes[smooth] = file["exp"]
    steps = {smooth: np.abs(np.diff(exp, axis=0)).sum() for smooth, exp in codes.items()}
    assert steps[True] < 0.9 * steps[False]


def test_ctrl_c_leaves_a_movie_and_the_coefficients_of_the_same_frames(photo, settings, tmp_path):
    write_clip(tmp_path / "long.mp4", [read_image(photo)] * 40)

    pressed: list[int] = []

    def press(written, total):
        if written and not pressed:
            pressed.append(written)
            raise KeyboardInterrupt

    def fail(written, total):
        raise ZeroDivisionError

    with Reconstructor(settings, whole=True) as reconstructor:
        with pytest.raises(StreamInterrupted) as stopped:
            reconstructor.run(tmp_path / "long.mp4", tmp_path, progress=press)
        with pytest.raises(ZeroDivisionError):
            reconstructor.run(tmp_path / "long.mp4", tmp_path / "failed", progress=fail)
    place = tmp_path / "long"
    assert sorted(path.name for path in place.iterdir()) == ["long.json", "long.npz", "long_vis.mp4"]
    with VideoReader(place / "long_vis.mp4") as reader:
        frames = sum(1 for _ in reader)
    assert 0 < frames == stopped.value.stats.frames < 40
    with np.load(place / "long.npz", allow_pickle=False) as file:
        assert np.allclose(file["time"], np.arange(frames) / 25)
    assert list((tmp_path / "failed/long").iterdir()) == []


def test_a_long_start_without_a_face_is_not_kept(photo, settings, finds_where_light, tmp_path):
    dark, light = np.zeros((240, 240, 3), np.uint8), read_image(photo)
    write_clip(tmp_path / "late.mp4", [*[dark] * 60, light])
    alive = []

    def look(image, time):
        alive.append(sum(ref() is not None for ref in finds_where_light))
        return squares.still(image)  # type: ignore[union-attr]

    with Reconstructor(settings) as reconstructor:
        squares = reconstructor._squares
        assert squares is not None
        squares.follow = look  # type: ignore[method-assign]
        done = reconstructor.run(tmp_path / "late.mp4", tmp_path)
    assert len(alive) == 61
    assert max(alive) < 5  # pictures
    assert done.stats is not None
    assert (done.stats.frames, done.stats.frames_without_face) == (61, 60)
    with np.load(done.files[1], allow_pickle=False) as file:
        assert np.allclose(file["time"], [60 / 25])
    with VideoReader(done.files[0]) as reader:
        assert all(np.abs(frame.image[:, :224].astype(int).mean() - light.mean()) < 60 for frame in reader)


def test_a_video_as_source_is_its_first_frame_with_a_face(photo, settings, finds_where_light, tmp_path):
    dark, light = np.zeros((240, 240, 3), np.uint8), read_image(photo)
    write_clip(tmp_path / "late.mp4", [dark, dark, light, light // 2])
    write_clip(tmp_path / "never.mp4", [dark, dark])
    with Reconstructor(settings) as reconstructor:
        seen, wanted = (reconstructor.photo(path).crop for path in (tmp_path / "late.mp4", photo))
        with pytest.raises(FaceNotFoundError, match=r"never\.mp4: no face is seen in it; use a video"):
            reconstructor.animate(tmp_path / "never.mp4", tmp_path)
    assert np.abs(seen - wanted).mean() < 0.03
    assert not (tmp_path / "never").exists()


def test_expressions_are_taken_from_fits_alone(photo, clip, settings, monkeypatch, tmp_path):
    """A head and its wrinkles are made for what is shown, not for the driving; two photos are looked at together."""
    made, looked = [], []
    wrinkles, fit = Deca.wrinkles, Deca.fit

    def counted_wrinkles(self, *rest):
        made.append(1)
        return wrinkles(self, *rest)

    def counted_fit(self, views):
        looked.append(len(views))
        return fit(self, views)

    monkeypatch.setattr(Deca, "wrinkles", counted_wrinkles)
    monkeypatch.setattr(Deca, "fit", counted_fit)
    other = tmp_path / "other.png"
    write_image(other, read_image(photo) // 2, mark=False)
    with Reconstructor(settings, whole=True) as reconstructor:
        reconstructor.transfer(photo, other, tmp_path)
        assert (len(made), looked) == (2, [2])
        reconstructor.transfer(photo, clip, tmp_path)
        assert (len(made), looked) == (2 + 1 + 5, [2, 1] + [1] * 5)


def test_expressions_are_handed_over_from_a_photo_and_a_video(folder, photo, clip, settings):
    dark = folder / "dark.png"
    write_image(dark, (read_image(photo) * 0.4).astype(np.uint8), mark=False)
    with Reconstructor(settings, whole=True) as reconstructor:
        still = reconstructor.transfer(photo, dark, folder / "moved")
        moving = reconstructor.transfer(photo, clip, folder / "moved")
        source, other = (reconstructor.photo(path) for path in (photo, dark))
    with np.load(folder / "moved/eileen/eileen_as_dark.npz", allow_pickle=False) as file:
        assert np.allclose(file["exp"], other.fit.exp, atol=1e-5)
        assert np.allclose(file["pose"], [*source.fit.pose[:3], *other.fit.pose[3:]], atol=1e-5)
        for name in ("shape", "cam", "detail"):
            mine = source.detail if name == "detail" else getattr(source.fit, name)
            assert np.allclose(file[name], mine, atol=1e-4), name
    assert read_image(still.files[-1]).shape == (224, 1120, 3)
    with VideoReader(moving.files[0]) as reader:
        assert sum(1 for _ in reader) == 5


def test_the_animation_turns_once_around_opens_the_jaw_and_comes_back():
    exp, pose = np.ones(50, np.float32), np.float32([0.3, 0.2, 0.1, 0.05, 0, 0])  # type: ignore[arg-type]
    camera = np.float32([6, 0, -0.01])  # type: ignore[arg-type]
    frames = animation_poses(exp, pose, camera).frames  # type: ignore[arg-type]
    assert all((one[2] == camera).all() for pair in frames for one in pair)
    turned, moved = ([pair[i] for pair in frames] for i in (0, 1))
    yaws = np.array([one[1][1] for one in turned])
    assert np.allclose(np.diff(yaws[:96]), 2 * np.pi / 96, atol=1e-5)
    assert all((one[0] == exp).all() and one[1][3] == pose[3] for one in turned)  # type: ignore[index]
    jaws = np.array([one[1][3] for one in moved])
    assert jaws[0] == 0
    assert np.degrees(jaws.max()) == pytest.approx(30, abs=0.1)
    assert (jaws[32:] == 0).all()
    codes = np.array([one[0] for one in moved[32:]])
    assert codes[:, :4].max(axis=0) == pytest.approx(2, abs=0.02)
    assert codes[:, :4].min(axis=0) == pytest.approx(-2, abs=0.02)
    assert (codes[:, 4:] == 0).all()


def test_the_animation_shows_the_whole_head_from_every_side(photo, settings):
    with Reconstructor(settings, whole=True) as reconstructor:
        made, deca = reconstructor.photo(photo), reconstructor._deca
        camera = animation_camera(deca, made)
        poses = animation_poses(made.fit.exp, made.fit.pose, camera)
        projected = np.stack([deca.head(made.person, *turned).projected for turned, _ in poses.frames[:96:5]])
    assert 5 < camera[0] <= 8
    assert 0.85 < np.abs(projected[..., 0]).max() <= 0.96  # nose and back of the head
    assert -0.96 <= projected[..., 1].min() < -0.85  # the crown


def test_the_command_finds_the_face_itself(models_home, deca_export, tmp_path):
    photo = assets.portrait("grace_hopper")
    done = call("reconstruct", photo, "-o", tmp_path, "--bundle", deca_export.folder, "--backend", "cpu")
    assert done.exit_code == 0, done.output
    (folder,) = tmp_path.iterdir()
    assert f"{folder}: 14 files of {photo}" in done.stdout.replace("\n", "")
    to_crop = json.loads((folder / f"{folder.name}.json").read_text())["to_crop"]
    assert to_crop[0][0] > 223 / max(read_image(photo).shape)  # closer than the whole photo


def test_a_photo_without_a_face_is_told(clip, settings, monkeypatch, tmp_path):
    blind = SimpleNamespace(still=lambda image: None, reset=lambda: None, close=lambda: None)
    blind.follow = lambda image, time: None
    monkeypatch.setattr("reenact.runtime.reconstruct.find_squares", lambda *_, **__: blind)
    grey = tmp_path / "grey.png"
    write_image(grey, np.full((64, 64, 3), 90, np.uint8), mark=False)
    with Reconstructor(settings) as reconstructor:
        with pytest.raises(FaceNotFoundError, match=r"grey.png: no face number 0 is seen.*--whole"):
            reconstructor.run(grey, tmp_path)
        with pytest.raises(FaceNotFoundError, match=r"clip.mp4: no face is seen in it"):
            reconstructor.run(clip, tmp_path)
        with pytest.raises(MediaError, match=r"nothere\.jpg: no such file"):
            reconstructor.run(tmp_path / "nothere.jpg", tmp_path)
    assert list(tmp_path.iterdir()) == [grey]


def test_where_the_face_is_lost_the_last_head_is_held(clip, settings, monkeypatch, tmp_path):
    def follow(image, time):
        return None if 0.02 < time < 0.1 else FaceSquare(120, 120, 150)

    seeing = SimpleNamespace(follow=follow, reset=lambda: None, close=lambda: None)
    monkeypatch.setattr("reenact.runtime.reconstruct.find_squares", lambda *_, **__: seeing)
    with Reconstructor(settings) as reconstructor:
        done = reconstructor.run(clip, tmp_path)
    assert done.stats.frames == 5  # type: ignore[union-attr]
    assert done.stats.frames_without_face == 2  # type: ignore[union-attr]
    with np.load(done.files[1], allow_pickle=False) as file:
        assert len(file["exp"]) == 3
        assert np.allclose(file["time"], [0, 0.12, 0.16])


def test_one_input_that_fails_does_not_end_the_others(
    photo, settings, finds_where_light, monkeypatch, tmp_path
):
    monkeypatch.setattr("reenact.runtime.models.ensure", lambda told: None)
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    write_image(photos / "a.png", np.zeros((64, 64, 3), np.uint8), mark=False)
    (photos / "b.jpg").write_bytes(b"no picture at all")
    write_image(photos / "c.png", read_image(photo), mark=False)
    options = ("-o", out, "--bundle", settings.bundle, "--backend", "cpu")
    done = call("reconstruct", photos, *options)
    told = " ".join(done.stderr.split())
    assert done.exit_code == 1
    assert "a.png: no face number 0 is seen in it" in told
    assert "2 of 3 inputs could not be reconstructed: " in told
    assert told.index("a.png") < told.index("b.jpg") < told.index("2 of 3")
    assert "c: 14 files of" in done.stdout
    assert [path.name for path in out.iterdir()] == ["c"]
    alone = call("reconstruct", tmp_path / "nothere.jpg", *options)
    assert alone.exit_code == 1
    assert "nothere.jpg: no such file" in alone.stderr
    assert "of 1 inputs" not in alone.stderr
    driven = call("reconstruct", photos, *options, "--transfer", tmp_path / "nobody.mp4")
    assert driven.stderr.count("nobody.mp4: no such file") == 1
    assert [path.name for path in out.iterdir()] == ["c"]


def test_no_result_replaces_what_it_is_made_from(photo, settings, tmp_path):
    heads = tmp_path / "heads"
    (heads / "me").mkdir(parents=True)
    given = {name: heads / "me" / name for name in ("me.png", "me_vis.mp4", "other.png")}
    for path in given.values():
        path.write_bytes(photo.read_bytes())
    options = ("-o", heads, "--bundle", settings.bundle, "--backend", "cpu", "--whole")
    beside = tmp_path / "me.png"
    beside.symlink_to(given["me.png"])
    for inputs in (
        (given["me.png"],),
        (beside,),
        (photo, given["me.png"]),
        (beside, given["me_vis.mp4"]),
    ):
        done = call("reconstruct", *inputs, *options)
        assert done.exit_code == 1
        assert "could replace it; choose another with -o" in " ".join(done.stderr.split())
    with Reconstructor(settings, whole=True) as reconstructor:
        for make in (reconstructor.run, reconstructor.animate):
            with pytest.raises(ReenactError, match=r"me\.png: the results of .* could replace it"):
                make(given["me.png"], heads)
        with pytest.raises(ReenactError, match=r"other\.png: the results of .* could replace it"):
            reconstructor.transfer(tmp_path / "me.jpg", given["other.png"], heads)
    assert all(path.read_bytes() == photo.read_bytes() for path in given.values())
    assert sorted(path.name for path in (heads / "me").iterdir()) == sorted(given)
    assert place_of(heads, given["other.png"], list(given.values())) == heads / "other"


def test_ctrl_c_tells_how_much_was_finished(photo, settings, monkeypatch, tmp_path):
    run, count = Reconstructor.run, []

    def second(self, *rest, **named):
        count.append(1)
        if len(count) % 2 == 0:
            raise KeyboardInterrupt
        return run(self, *rest, **named)

    monkeypatch.setattr(Reconstructor, "run", second)
    other = tmp_path / "other.png"
    other.write_bytes(photo.read_bytes())
    options = ("-o", tmp_path, "--bundle", settings.bundle, "--backend", "cpu", "--whole")
    done = call("reconstruct", photo, other, *options)
    assert done.exit_code == 130
    assert "eileen: 14 files of" in done.stdout.replace("\n", "")
    assert "1 results were finished" in done.stderr
    assert "nothing was written" not in done.stderr


def test_many_inputs_are_told_apart_at_once(tmp_path, monkeypatch):
    for number in range(200):
        (tmp_path / f"{number}.jpg").touch()
    stem, asked = PurePath.stem, []

    def counted(self):
        asked.append(1)
        return stem.fget(self)  # type: ignore[attr-defined]

    monkeypatch.setattr(PurePath, "stem", property(counted))
    assert len(inputs_of([tmp_path])) == 200
    assert len(asked) <= 400


def test_folders_are_taken_apart_and_equal_names_refused(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "c.mp4", "d.gif"):
        (tmp_path / name).touch()
    (tmp_path / "frames.png").mkdir()
    assert [path.name for path in inputs_of([tmp_path])] == ["a.PNG", "b.jpg", "c.mp4", "d.gif"]
    done = call("reconstruct", tmp_path, tmp_path / "a.jpg", "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "two inputs are called a" in done.output
    (tmp_path / "none").mkdir()
    done = call("reconstruct", tmp_path / "none", "-o", tmp_path / "out")
    assert "none: no pictures or videos in this folder" in done.output


def test_without_a_bundle_the_command_says_how_to_make_one(small_home, photo, tmp_path):
    done = call("reconstruct", photo, "--whole", "-o", tmp_path)
    assert done.exit_code == 1
    assert "make one with `reenact export deca`" in " ".join(done.output.split())


class TestFaceAlignment:
    @pytest.fixture
    def package(self, monkeypatch):
        """A package that sees the landmarks it is told."""
        module = ModuleType("face_alignment")
        module.LandmarksType = SimpleNamespace(TWO_D="2d")  # type: ignore[attr-defined]
        module.seen = [np.array([[10.0, 20], [50, 20], [30, 80]]), np.array([[0.0, 0], [10, 10]])]  # type: ignore[attr-defined]
        module.asked = []  # type: ignore[attr-defined]

        class Network:
            def __init__(self, kind, *, flip_input, device):
                module.asked.append((kind, flip_input, device))

            def get_landmarks_from_image(self, image):
                return module.seen

        module.FaceAlignment = Network  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "face_alignment", module)
        return module

    def test_a_face_gives_the_square_of_its_landmarks(self, package):
        squares = find_squares("face-alignment", backend="cpu", face=0, smooth=True)
        square = squares.still(np.zeros((100, 100, 3), np.uint8))
        assert square == FaceSquare(30, 50, int((40 + 60) / 2 * 1.1 * 1.25))
        assert squares.follow(np.zeros((100, 100, 3), np.uint8), 0.0) == square
        assert package.asked == [("2d", False, "cpu")]
        assert FaceAlignment(face=1).still(np.zeros((9, 9, 3), np.uint8)).x == 5  # type: ignore[union-attr]
        package.seen = None
        assert squares.still(np.zeros((100, 100, 3), np.uint8)) is None

    def test_the_largest_face_is_the_first_whatever_the_order_it_is_found_in(self, package):
        picture = np.zeros((100, 100, 3), np.uint8)
        for found in (package.seen, package.seen[::-1]):
            package.seen = found
            centres = [FaceAlignment(face=face).still(picture).x for face in (0, 1)]  # type: ignore[union-attr]
            assert centres == [30, 5]
        assert FaceAlignment(face=2).still(picture) is None

    def test_weights_that_cannot_be_fetched_are_told_with_where_they_belong(self, package):
        def fails(*_, **__):
            raise OSError("<urlopen error no route>")

        package.FaceAlignment = fails
        with pytest.raises(
            ModelError, match=r"networks cannot be had \(<urlopen error no route>\).*TORCH_HOME"
        ):
            FaceAlignment(face=0)

    def test_a_package_that_is_not_there_is_told_with_the_line_that_brings_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "face_alignment", None)
        with pytest.raises(BackendError, match="pip install face-alignment"):
            FaceAlignment(face=0)

    def test_the_package_is_not_touched_where_the_built_in_tracker_is_used(self, monkeypatch):
        monkeypatch.setattr(face_squares, "Tracker", lambda **_: SimpleNamespace(close=lambda: None))
        real, asked = builtins.__import__, []
        monkeypatch.setattr(
            builtins,
            "__import__",
            lambda name, *rest: (asked.append(name), real(name, *rest))[1],  # type: ignore[func-returns-value]
        )
        find_squares("built-in", backend="cpu", face=0, smooth=False).close()
        assert "face_alignment" not in asked


def test_nvdiffrast_draws_the_meshes_where_it_is_asked_for(settings, monkeypatch):
    from reenact.kernels import raster
    from reenact.runtime.backends.torch import nvdiffrast

    with pytest.raises(BackendError, match="--rasterizer nvdiffrast: "):
        Reconstructor(settings, whole=True, rasterizer="nvdiffrast")
    drawn = []

    def rasterize(vertices, triangles, height, width):
        drawn.append((height, width))
        return raster.rasterize(vertices, triangles, height, width)

    monkeypatch.setattr(nvdiffrast, "missing", lambda: None)
    monkeypatch.setattr(nvdiffrast, "rasterize", rasterize)
    with Reconstructor(settings, whole=True, rasterizer="nvdiffrast") as reconstructor:
        assert reconstructor._deca.skin.rasterize is rasterize
