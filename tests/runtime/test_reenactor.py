"""Driving a source end to end, with a tracker and a system that can be read off the colours of the pictures.

A driving picture of one colour says: red, how many faces; green, the yaw of the face; blue, how open its
mouth is. The made system paints the motion it is given in the same way.
"""

import time
from dataclasses import dataclass
from fractions import Fraction
from types import SimpleNamespace
from typing import ClassVar

import av
import numpy as np
import pytest
from reenact.errors import FaceNotFoundError, LimitError, MediaError, ReenactError
from reenact.runtime import reenactor as module
from reenact.runtime.media.frame import Frame
from reenact.runtime.media.images import read_image, write_image
from reenact.runtime.media.limits import Limits
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.media.writer import open_writer
from reenact.runtime.neutral import find_reference
from reenact.runtime.reenactor import Reenactor
from reenact.runtime.stream import StreamInterrupted
from reenact.runtime.systems import registry
from reenact.runtime.tracking.canonical import load
from reenact.runtime.tracking.face import HeadPose, euler_angles, rotation_matrix
from reenact.runtime.tracking.geometry import measure
from reenact.runtime.watermark import marked

FACE = 100  # red of one face
STILL = 128  # green of yaw 0
RADIANS = 0.005  # yaw of one step of green


def make_face(yaw=0.0, roll=0.0, mouth=0.0, scale=2.0, at=(48.0, 40.0)):
    canonical = load()
    points = np.zeros((478, 3), np.float32)
    points[:468] = canonical.neutral + mouth * canonical.shape("jawOpen")
    points[468:473], points[473:] = points[[33, 133]].mean(axis=0), points[[263, 362]].mean(axis=0)
    pose = HeadPose(rotation_matrix(yaw, 0, roll), scale, np.array([*at, 0], np.float32))
    return measure(pose.project(points), 1.0)


class ColourTracker:
    made: ClassVar[list["ColourTracker"]] = []

    def __init__(self, **options):
        self.options, self.looks, self.resets, self.closed = options, 0, 0, False
        ColourTracker.made.append(self)

    def find_faces(self, image):
        red, green, _ = image.reshape(-1, 3).mean(axis=0)
        yaw = (green - STILL) * RADIANS
        roll = np.pi if red > 250 else 0.0
        return [make_face(yaw, roll, scale=2.0 / (1 + n)) for n in range(min(round(red / FACE), 2))]

    def track(self, image, time):
        self.looks += 1
        red, green, blue = image.reshape(-1, 3).mean(axis=0)
        return make_face((green - STILL) * RADIANS, mouth=blue / 255) if red > FACE / 2 else None

    def reset(self):
        self.resets += 1

    def close(self):
        self.closed = True


class ColourSystem:
    name = "colours"

    def __init__(self, settings):
        self.settings = settings

    def close(self):
        pass

    def register(self, image, face):
        return SimpleNamespace(image=image, face=face)

    def animate(self, portrait, observation):
        self.observation = observation
        yaw = euler_angles(observation.motion.rotation)[0]
        return np.full_like(portrait.image, (FACE, np.clip(STILL + yaw / RADIANS, 0, 255).round(), 0))


@pytest.fixture(autouse=True)
def _colours(monkeypatch):
    ColourTracker.made = []
    monkeypatch.setattr(module, "Tracker", ColourTracker)
    monkeypatch.setitem(registry._SYSTEMS, "colours", ColourSystem)


def picture(green=STILL, faces=1, mouth=0, size=(80, 96)):
    return np.full((*size, 3), (FACE * faces, green, mouth), np.uint8)


def source(**options):
    """Results are compared by their colours, so they are not marked unless a test asks for it."""
    return Reenactor(options.pop("image", picture()), system="colours", **{"mark": False} | options)


def folder(tmp_path, pictures, name="driving"):
    (tmp_path / name).mkdir()
    for number, image in enumerate(pictures):
        write_image(tmp_path / name / f"{number:03}.png", image, mark=False)
    return tmp_path / name


def movie(path, pictures, milliseconds):
    with open_writer(path, width=96, height=80, crf=0, mark=False) as sink:
        for image, time in zip(pictures, milliseconds, strict=True):
            sink.write(Frame(image, time, Fraction(1, 1000)))
    return path


@dataclass
class Shown:
    greens: list[int]
    times: list[float]
    size: tuple[int, int]


def look(path):
    with VideoReader(path) as reader:
        frames = list(reader)
    greens = [round(float(f.image[:, -8:, 1].mean())) for f in frames]
    return Shown(greens, [f.time for f in frames], frames[0].image.shape[:2])


def test_a_movie_keeps_every_frame_with_its_own_time(tmp_path):
    times = [0, 40, 70, 400, 410, 700]
    driving = movie(tmp_path / "vfr.mp4", [picture(g) for g in (128, 138, 148, 158, 168, 178)], times)
    with source() as reenactor:
        stats = reenactor.run(driving, tmp_path / "out.mp4", reference_frame=0, crf=0)
    shown = look(tmp_path / "out.mp4")
    np.testing.assert_allclose(shown.times, np.array(times) / 1000, atol=0.002)
    np.testing.assert_allclose(shown.greens, [128, 138, 148, 158, 168, 178], atol=3)
    assert stats.frames == 6
    assert [stage.name for stage in stats.stages] == ["decode", "track", "animate", "encode"]
    assert stats.stages[1].frames == 6
    assert stats.output == str(tmp_path / "out.mp4")


def test_the_neutral_frame_is_the_one_at_rest(tmp_path):
    driving = folder(
        tmp_path, [picture(188), picture(178), picture(138, mouth=200), picture(133), picture(148)]
    )
    with source() as reenactor:
        reenactor.run(driving, tmp_path / "out")
    np.testing.assert_allclose(look(tmp_path / "out").greens, [183, 173, 133, 128, 143], atol=1)


def test_the_neutral_frame_can_be_chosen(tmp_path):
    driving = folder(tmp_path, [picture(188), picture(128), picture(108)])
    with source() as reenactor:
        reenactor.run(driving, tmp_path / "out", reference_frame=2)
        np.testing.assert_allclose(look(tmp_path / "out").greens, [208, 148, 128], atol=1)
        with pytest.raises(FaceNotFoundError, match=r"driving.*only 3 frames"):
            reenactor.run(driving, tmp_path / "other", reference_frame=3)
    assert not (tmp_path / "other").exists()


def test_the_chosen_neutral_frame_is_one_of_the_driving_at_any_frame_rate(tmp_path):
    driving = movie(tmp_path / "d.mp4", [picture(128 + 4 * n) for n in range(10)], range(0, 1000, 100))
    with source() as reenactor:
        reenactor.run(driving, tmp_path / "out", fps=5, reference_frame=7)
    np.testing.assert_allclose(look(tmp_path / "out").greens, [100, 108, 116, 124, 132], atol=3)


def test_absolute_turns_to_where_the_driving_looks(tmp_path):
    driving = folder(tmp_path, [picture(148), picture(168)])
    with source(image=picture(118)) as reenactor:
        reenactor.run(driving, tmp_path / "out", relative=False)
    np.testing.assert_allclose(look(tmp_path / "out").greens, [158, 178], atol=1)


def test_strength_scales_the_motion(tmp_path):
    driving = folder(tmp_path, [picture(128), picture(168)])
    with source() as reenactor:
        reenactor.run(driving, tmp_path / "out", pose_strength=0.5)
    np.testing.assert_allclose(look(tmp_path / "out").greens, [128, 148], atol=1)


def test_a_lost_face_is_held_eased_back_and_counted(tmp_path):
    pictures = [picture(128), picture(168)] + [picture(faces=0)] * 60
    driving = folder(tmp_path, pictures)
    with source() as reenactor:
        stats = reenactor.run(driving, tmp_path / "out")
    greens = look(tmp_path / "out").greens
    assert greens[5] == greens[1] == 168
    assert 128 < greens[25] < 168
    assert greens[-1] == 128
    assert stats.frames_without_face == 60


def test_a_face_that_comes_late_is_found(tmp_path):
    driving = folder(tmp_path, [picture(faces=0)] * 30 + [picture(158), picture(138)])
    with source() as reenactor:
        stats = reenactor.run(driving, tmp_path / "out")
    assert look(tmp_path / "out").greens[:30] == [128] * 30
    assert stats.frames_without_face == 30


def test_the_search_for_the_neutral_frame_looks_at_few_frames(tmp_path):
    driving = folder(tmp_path, [picture(128 + n % 5) for n in range(160)])
    with source() as reenactor:
        stats = reenactor.run(driving, tmp_path / "out")
    assert stats.stages[1].frames == 160
    assert 160 + 8 <= ColourTracker.made[0].looks < 160 + 12


def test_a_driving_without_a_face_is_named_and_leaves_no_output(tmp_path):
    driving = folder(tmp_path, [picture(faces=0)] * 3, "empty_room")
    with source() as reenactor, pytest.raises(FaceNotFoundError, match=r"empty_room.*3 frames"):
        reenactor.run(driving, tmp_path / "out.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty_room"]


def test_a_source_without_a_face_is_named(tmp_path):
    write_image(tmp_path / "cat.png", picture(faces=0))
    with pytest.raises(FaceNotFoundError, match=r"cat\.png: no face"):
        source(image=tmp_path / "cat.png")
    assert ColourTracker.made[0].closed


def test_a_face_number_beyond_those_found_says_how_many_there_are(tmp_path):
    write_image(tmp_path / "pair.png", picture(faces=2))
    with pytest.raises(FaceNotFoundError, match=r"pair\.png: 2 faces were found, --face 2"):
        source(image=tmp_path / "pair.png", face=2)
    with source(image=tmp_path / "pair.png", face=1) as reenactor:
        assert reenactor.portrait.face.pose.scale == pytest.approx(1.0, rel=0.05)


def test_a_source_that_lies_upside_down_is_refused():
    with pytest.raises(FaceNotFoundError, match="turned by 180 degrees"):
        source(image=np.full((80, 96, 3), 255, np.uint8))


def test_a_video_as_source_gives_its_first_frame_with_a_face_of_four_a_second(tmp_path):
    shades = [picture(faces=0)] * 8 + [picture(140 + n) for n in range(12)]
    video = folder(tmp_path, shades, "video")  # 25 pictures a second: looked at are 0, 7, 14
    with source(image=video) as reenactor:
        assert reenactor.portrait.image[0, 0, 1] == 146


def test_crop_is_a_square_around_the_head_within_the_photo():
    image = np.zeros((400, 600, 3), np.uint8)
    image[:] = (FACE, STILL, 0)
    with source(image=image, crop=True) as reenactor:
        portrait = reenactor.portrait
        assert portrait.image.shape == (512, 512, 3)
        x0, y0, x1, y1 = portrait.face.box
        assert min(x0, y0) >= 0
        assert max(x1, y1) <= 512
        assert max(x1 - x0, y1 - y0) == pytest.approx(512 / 2.2, rel=0.05)


def test_a_crop_never_reaches_beyond_a_small_photo():
    with source(image=picture(size=(30, 96)), crop=True) as reenactor:
        assert reenactor.portrait.image.shape == (512, 512, 3)
        assert reenactor.portrait.face.pose.scale == pytest.approx(2.0 * 512 / 30, rel=0.05)


def test_side_by_side_shows_the_driving_at_the_left(tmp_path):
    driving = folder(tmp_path, [picture(128, size=(40, 40)), picture(158, size=(40, 40))])
    with source() as reenactor:
        reenactor.run(driving, tmp_path / "out", side_by_side=True, reference_frame=0)
    with VideoReader(tmp_path / "out") as reader:
        last = list(reader)[1].image
    assert last.shape == (80, 80 + 96, 3)
    assert (last[:, :80] == (FACE, 158, 0)).all()
    assert last[0, 100, 1] == pytest.approx(158, abs=1)


def test_start_and_duration_cut_the_driving(tmp_path):
    driving = folder(tmp_path, [picture(128 + n) for n in range(50)])
    with source() as reenactor:
        reenactor.run(driving, tmp_path / "out", start=0.4, duration=0.2, reference_frame=0)
    np.testing.assert_allclose(look(tmp_path / "out").greens, [128, 129, 130, 131, 132], atol=1)


def test_an_even_frame_rate_counts_what_it_drops(tmp_path):
    driving = movie(tmp_path / "d.mp4", [picture(128 + 4 * n) for n in range(10)], range(0, 1000, 100))
    with source() as reenactor:
        stats = reenactor.run(driving, tmp_path / "out.mp4", fps=5, reference_frame=0, crf=0)
    np.testing.assert_allclose(look(tmp_path / "out.mp4").times, [0, 0.2, 0.4, 0.6, 0.8], atol=0.002)
    assert stats.drops == {"frame rate": 5}


def test_what_a_gif_cannot_show_is_no_frame_of_the_result(tmp_path):
    with source() as reenactor:
        stats = reenactor.run_motion("nod", tmp_path / "out.gif", fps=60, duration=0.5)
    assert stats.frames == len(look(tmp_path / "out.gif").times) == 25
    assert stats.drops == {"more than a GIF can show": 5}


def test_the_time_of_a_run_begins_with_the_search_for_the_neutral_frame(tmp_path, monkeypatch):
    def slow(*args, **options):
        time.sleep(0.3)
        return find_reference(*args, **options)

    monkeypatch.setattr(module, "find_reference", slow)
    with source() as reenactor:
        began = time.perf_counter()
        stats = reenactor.run(folder(tmp_path, [picture()] * 3), tmp_path / "out")
        assert 0.3 <= stats.seconds <= time.perf_counter() - began


def test_the_sound_of_the_driving_is_carried_over(tmp_path):
    path = tmp_path / "talk.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, width=96, height=80, pix_fmt="yuv420p")
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for _ in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture(), format="rgb24")))
        wave = (np.sin(np.arange(16000) * 0.2) * 20000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate = 16000
        container.mux(sound.encode(frame))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    with source() as reenactor:
        reenactor.run(path, tmp_path / "out.mp4", start=0.4, duration=0.4)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams.audio) == 1
        samples = sum(frame.samples for frame in container.decode(audio=0))
        assert samples / 16000 == pytest.approx(0.4, abs=0.15)


def test_ctrl_c_leaves_a_playable_file_and_says_what_is_in_it(tmp_path):
    pressed: list[int] = []

    def impatient(done, total):
        if done > 5 and not pressed:
            pressed.append(done)
            raise KeyboardInterrupt

    with source() as reenactor, pytest.raises(StreamInterrupted) as caught:
        reenactor.run_motion(
            "blink", tmp_path / "out.mp4", duration=600, fps=100, progress=impatient, side_by_side=True
        )
    stats = caught.value.stats
    assert stats.interrupted
    assert 5 < stats.frames < 60_000
    assert len(look(tmp_path / "out.mp4").times) == stats.frames
    assert stats.output == str(tmp_path / "out.mp4")


def test_an_error_while_animating_leaves_no_output(tmp_path, monkeypatch):
    def fail(self, portrait, observation):
        raise MediaError("the photo melted")

    monkeypatch.setattr(ColourSystem, "animate", fail)
    with source() as reenactor, pytest.raises(MediaError, match="melted"):
        reenactor.run_motion("nod", tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_motion_is_shown_once_through_at_an_even_rate(tmp_path):
    with source() as reenactor:
        stats = reenactor.run_motion("look-around", tmp_path / "out", fps=10)
    greens = look(tmp_path / "out").greens
    assert stats.frames == len(greens) == 60
    assert max(greens) > 128 + 0.25 / RADIANS
    assert min(greens) < 128 - 0.25 / RADIANS


def test_the_strength_of_a_motion_can_be_nothing(tmp_path):
    with source() as reenactor:
        reenactor.run_motion(
            "look-around", tmp_path / "out", fps=10, duration=2, pose_strength=0, expression_strength=0
        )
    assert set(look(tmp_path / "out").greens) == {128}


def test_single_frames_are_relative_to_the_first_face():
    with source() as reenactor:
        greens = [
            reenactor.animate(image)[0, 0, 1]
            for image in (picture(faces=0), picture(150), picture(170), picture(faces=0))
        ]
    np.testing.assert_allclose(greens, [128, 128, 148, 148], atol=1)


def test_a_single_frame_may_be_a_file(tmp_path):
    write_image(tmp_path / "frame.png", picture(170), mark=False)
    with source() as reenactor:
        reenactor.animate(picture(150), time=0.0)
        result = reenactor.animate(tmp_path / "frame.png", time=0.5)
        observation = reenactor._animator.observation
    assert result[0, 0, 1] == pytest.approx(148, abs=1)
    assert observation.image.shape == (80, 96, 3)
    assert observation.face is not None


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), picture()[..., :2]])
def test_arrays_of_another_kind_are_refused_with_their_shape(bad):
    with pytest.raises(ReenactError, match=r"expected \(H, W, 3\) uint8 RGB"):
        source(image=bad)


@pytest.mark.parametrize(
    "setting",
    [{"start": -1}, {"duration": 0}, {"fps": float("nan")}, {"pose_strength": 9}, {"start": float("inf")}],
)
def test_settings_out_of_range_are_refused(tmp_path, setting):
    driving = folder(tmp_path, [picture()])
    with source() as reenactor, pytest.raises(ReenactError, match=next(iter(setting)).replace("_", " ")):
        reenactor.run(driving, tmp_path / "out", **setting)


def test_an_output_never_replaces_what_it_is_made_from(tmp_path):
    driving = movie(tmp_path / "d.mp4", [picture()], [0])
    write_image(tmp_path / "photo.png", picture())
    before = driving.read_bytes()
    said = r"d\.mp4: the output would replace"
    with source(image=tmp_path / "photo.png") as reenactor, pytest.raises(ReenactError, match=said):
        reenactor.run(driving, driving)
    assert driving.read_bytes() == before


def test_limits_hold_for_source_driving_and_motion(tmp_path):
    write_image(tmp_path / "photo.png", picture())
    with pytest.raises(LimitError, match=r"photo\.png"):
        source(image=tmp_path / "photo.png", limits=Limits(max_pixels=100))
    driving = folder(tmp_path, [picture()] * 50)
    with source(limits=Limits(max_seconds=1)) as reenactor:
        with pytest.raises(LimitError, match="driving"):
            reenactor.run(driving, tmp_path / "out")
        with pytest.raises(LimitError, match="nod"):
            reenactor.run_motion("nod", tmp_path / "out")


def test_options_reach_the_tracker():
    source(driving_face=1, smooth=False, backend="cpu", precision="fp32").close()
    tracker = ColourTracker.made[0]
    assert tracker.options.pop("threads") >= 1
    assert tracker.options == {"face": 1, "smooth": False, "backend": "cpu", "precision": "fp32"}
    assert tracker.closed


def test_an_unknown_system_says_which_there_are():
    with pytest.raises(ReenactError, match="meshwarp"):
        Reenactor(picture(), system="magic")


def test_every_result_is_marked_and_names_its_system(tmp_path):
    driving = folder(tmp_path, [picture(128), picture(158)])
    with source(mark=True) as reenactor:
        reenactor.run(driving, tmp_path / "driven", reference_frame=0)
        reenactor.run_motion("nod", tmp_path / "moved.mp4", duration=0.2)
        live = reenactor.animate(picture())
    with source() as reenactor:
        plain = reenactor.animate(picture())
    assert np.array_equal(live, marked(plain))
    first = read_image(tmp_path / "driven" / "000000.png")
    assert np.array_equal(first, marked(np.full_like(first, (FACE, 128, 0))))
    for name in ("driven", "moved.mp4"):
        with VideoReader(tmp_path / name) as reader:
            assert reader.statement().system == "colours"  # type: ignore[union-attr]


def test_beside_the_driving_the_whole_picture_is_marked_once(tmp_path):
    driving = folder(tmp_path, [picture(128, size=(40, 40)), picture(158, size=(40, 40))])
    for name, mark in (("plain", False), ("marked", True)):
        with source(mark=mark) as reenactor:
            reenactor.run(driving, tmp_path / name, side_by_side=True, reference_frame=0)
    plain, result = (read_image(tmp_path / name / "000001.png") for name in ("plain", "marked"))
    assert np.array_equal(result, marked(plain))


def test_without_the_mark_the_log_says_so_once_a_result(tmp_path, caplog):
    with source() as reenactor:
        reenactor.run_motion("nod", tmp_path / "out.mp4", duration=0.2)
        for _ in range(3):
            reenactor.animate(picture())
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert str(tmp_path / "out.mp4") in told[0]
    assert all("without the mark of AI-generated pictures, as asked" in line for line in told)


@pytest.mark.parametrize("smooth", [True, False])
def test_systems_that_look_themselves_are_told_what_run_was_told(tmp_path, smooth, monkeypatch):
    seen = []
    plain = ColourSystem.animate

    def animate(self, portrait, observation):
        seen.append(observation)
        return plain(self, portrait, observation)

    monkeypatch.setattr(ColourSystem, "animate", animate)
    driving = movie(tmp_path / "d.mkv", [picture(green) for green in (150, 128, 170)], (0, 50, 100))
    with source(smooth=smooth) as reenactor:
        reenactor.run(driving, tmp_path / "o.mp4", expression_strength=0.5, reference_frame=1)
        assert [round(o.time, 3) for o in seen] == [0, 0.05, 0.1]
        assert {o.smoothing for o in seen} == {1.0 if smooth else 0.0}
        assert {o.expression_strength for o in seen} == {0.5}
        (neutral,) = {o.neutral for o in seen}
        assert neutral.image.reshape(-1, 3).mean(axis=0)[1] == pytest.approx(128, abs=3)
        seen.clear()
        for green in (128, 150):
            reenactor.animate(picture(green))
        assert [o.time for o in seen] == pytest.approx([0, 1 / 30])
        assert seen[0].neutral is seen[1].neutral is not None
        assert seen[0].smoothing == (1.0 if smooth else 0.0)
