"""Videos: frames come out upright, in true colours, of one size and at their own times."""

import gc
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from reenact.errors import LimitError, MediaError
from reenact.runtime.media.frame import Frame, Image
from reenact.runtime.media.limits import Limits
from reenact.runtime.media.reader import VideoReader

Make = Callable[..., Path]
Shades = Callable[[int], list[Image]]
Quadrants = Callable[[int, int], Image]


def frames_of(path: Path, **options: object) -> list[Frame]:
    with VideoReader(path, **options) as reader:  # type: ignore[arg-type]
        return list(reader)


def numbers(frames: list[Frame]) -> list[int]:
    """Which frames of `shades` these are."""
    return [round((float(frame.image.mean()) - 40) / 4) for frame in frames]


def middle_error(image: Image, scene: Image) -> int:
    """Largest difference at the middles of the quadrants."""
    height, width = scene.shape[:2]
    rows, columns = [height // 4, height * 3 // 4], [width // 4, width * 3 // 4]
    return int(np.abs(image[np.ix_(rows, columns)].astype(int) - scene[np.ix_(rows, columns)]).max())


def test_a_plain_video_gives_every_frame_and_its_description(
    tmp_path: Path, make_video: Make, shades: Shades
) -> None:
    path = make_video(tmp_path / "clip.mp4", shades(30), click_at=0.5)
    with VideoReader(path) as reader:
        frames = list(reader)
        info = reader.info
    assert (info.width, info.height, info.fps, info.frames, info.has_audio) == (
        64,
        48,
        Fraction(25),
        30,
        True,
    )
    assert info.duration == pytest.approx(1.2)
    assert numbers(frames) == list(range(30))
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(30)])
    assert all(frame.image.flags.c_contiguous and frame.image.dtype == np.uint8 for frame in frames)


def test_uneven_times_are_kept_and_counted_from_the_first_frame(
    tmp_path: Path, make_video: Make, shades: Shades
) -> None:
    times = [500, 566, 632, 732, 2232, 2252]
    path = make_video(tmp_path / "vfr.mkv", shades(6), times=times, time_base=Fraction(1, 1000))
    frames = frames_of(path)
    assert [round(frame.pts * frame.time_base * 1000) for frame in frames] == [0, 66, 132, 232, 1732, 1752]


@pytest.mark.parametrize("start", [0.48, 0.5])
def test_start_and_duration_cut_by_time(
    tmp_path: Path, make_video: Make, shades: Shades, start: float
) -> None:
    options = {"g": "10", "bf": "2", "crf": "8"}
    path = make_video(tmp_path / "clip.mp4", shades(50), options=options)
    with VideoReader(path, start=start, duration=0.4) as reader:
        frames = list(reader)
        info, origin = reader.info, reader.origin
    first = 12 if start == 0.48 else 13
    assert numbers(frames) == list(range(first, first + 10))
    assert frames[0].pts == 0
    assert origin == pytest.approx(first / 25)
    assert info.frames == 10
    assert info.duration == pytest.approx(0.4)


def test_a_transport_stream_is_cut_at_the_right_frame(
    tmp_path: Path, make_video: Make, shades: Shades
) -> None:
    options = {"g": "40", "crf": "8"}
    path = make_video(tmp_path / "clip.ts", shades(50), options=options)
    frames = frames_of(path, start=1.0)
    assert numbers(frames) == list(range(25, 50))


def test_a_cut_beyond_the_end_says_how_long_the_video_is(
    tmp_path: Path, make_video: Make, shades: Shades
) -> None:
    path = make_video(tmp_path / "clip.mp4", shades(25))
    with pytest.raises(MediaError, match=r"clip\.mp4: lasts only 1\.00 s.*--start"):
        VideoReader(path, start=2.0)
    with pytest.raises(MediaError, match="--start -1"):
        VideoReader(path, start=-1)
    with pytest.raises(MediaError, match="--duration 0"):
        VideoReader(path, duration=0)


# (a, b, c, d) of the display matrix, and what it does to the stored picture
MATRICES = {
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (0, 1, 1, 0): lambda image: image.transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_the_display_matrix_is_followed(
    tmp_path: Path, make_video: Make, quadrants: Quadrants, matrix: tuple[int, int, int, int]
) -> None:
    scene = quadrants(64, 48)
    path = make_video(tmp_path / "clip.mp4", [scene] * 3)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (65536 * value for value in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30)
    path.write_bytes(content)
    expected = MATRICES[matrix](scene)
    with VideoReader(path) as reader:
        image = next(iter(reader)).image
        assert (reader.info.height, reader.info.width) == expected.shape[:2]
    assert image.shape == expected.shape
    assert middle_error(image, expected) <= 6


def test_frames_that_were_read_do_not_wait_for_the_garbage_collector(
    tmp_path: Path, make_video: Make, shades: Shades
) -> None:
    path = make_video(tmp_path / "clip.mp4", shades(40))
    gc.collect()
    gc.disable()
    try:
        frames_of(path)
        kept = sum(isinstance(each, av.VideoFrame) for each in gc.get_objects())
    finally:
        gc.enable()
    assert kept == 0


@pytest.mark.parametrize(
    ("stored", "aspect", "shown"),
    [((48, 64), Fraction(4, 3), (64, 64)), ((64, 48), Fraction(2, 3), (64, 72))],
)
def test_pixels_become_square(
    tmp_path: Path,
    make_video: Make,
    quadrants: Quadrants,
    stored: tuple[int, int],
    aspect: Fraction,
    shown: tuple[int, int],
) -> None:
    path = make_video(tmp_path / "clip.mp4", [quadrants(*stored)] * 2, pixel_aspect=aspect)
    image = frames_of(path)[0].image
    assert image.shape[1::-1] == shown
    assert middle_error(image, quadrants(*shown)) <= 6


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("h264.mp4", "libx264", "yuv420p"),
        ("ten_bit.mp4", "libx264", "yuv420p10le"),
        ("hevc.mp4", "libx265", "yuv420p"),
        ("vp9.webm", "libvpx-vp9", "yuv420p"),
        ("prores.mov", "prores_ks", "yuv422p10le"),
        ("mjpeg.avi", "mjpeg", "yuvj420p"),
        ("ffv1.mkv", "ffv1", "bgr0"),
        ("apng.apng", "apng", "rgb24"),
    ],
)
def test_many_codecs_come_out_in_true_colours(
    tmp_path: Path, make_video: Make, quadrants: Quadrants, name: str, codec: str, pix_fmt: str
) -> None:
    scene = quadrants(64, 48)
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {"qscale": "2"}
    path = make_video(tmp_path / name, [scene] * 4, codec=codec, pix_fmt=pix_fmt, options=options)
    frames = frames_of(path)
    assert len(frames) == 4
    assert middle_error(frames[-1].image, scene) <= 8


@pytest.mark.parametrize("matrix", [1, 5])
def test_the_stated_colour_matrix_is_used(
    tmp_path: Path, make_video: Make, quadrants: Quadrants, matrix: int
) -> None:
    scene = quadrants(64, 48)
    path = make_video(tmp_path / "clip.mp4", [scene], matrix=matrix)
    assert middle_error(frames_of(path)[0].image, scene) <= 4


def test_without_a_stated_matrix_hd_is_taken_for_bt709(
    tmp_path: Path, make_video: Make, quadrants: Quadrants
) -> None:
    scene = quadrants(1280, 16)
    path = make_video(tmp_path / "hd.mkv", [scene], matrix=1)
    with av.open(str(path)) as source, av.open(str(tmp_path / "untagged.mkv"), "w") as target:
        stream = target.add_stream("libx264", rate=25, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = 1280, 16, "yuv444p"
        frame = next(source.decode(video=0))
        frame.colorspace = 2
        frame.pts = 0
        target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    assert middle_error(frames_of(tmp_path / "untagged.mkv")[0].image, scene) <= 4


def test_a_change_of_size_keeps_the_first_size(
    tmp_path: Path, make_video: Make, quadrants: Quadrants
) -> None:
    large = make_video(tmp_path / "large.ts", [quadrants(64, 48)] * 5).read_bytes()
    small = make_video(tmp_path / "small.ts", [quadrants(48, 32)] * 5).read_bytes()
    path = tmp_path / "both.ts"
    path.write_bytes(large + small)
    frames = frames_of(path)
    assert len(frames) == 10
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert middle_error(frames[-1].image, quadrants(64, 48)) <= 6
    times = [frame.time for frame in frames]
    assert np.diff(times) == pytest.approx([0.04] * 9, abs=1e-3)  # the second clock starts anew


def test_noise_in_the_middle_costs_only_the_frames_it_hits(
    tmp_path: Path, make_video: Make, shades: Shades, capfd: pytest.CaptureFixture[str]
) -> None:
    textured = [image.copy() for image in shades(50)]
    noise = np.random.default_rng(2)
    for image in textured:
        image[:24] = noise.integers(0, 255, (24, 64, 3))
    options = {"g": "5", "bf": "0", "crf": "20"}
    path = make_video(tmp_path / "clip.mp4", textured, options=options)
    content = bytearray(path.read_bytes())
    begin, end = int(len(content) * 0.4), int(len(content) * 0.5)
    content[begin:end] = noise.integers(0, 255, end - begin, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert reader.damaged > 0
    assert 35 <= len(frames) < 50
    assert frames[-1].time == pytest.approx(49 / 25)
    assert np.all(np.diff([frame.pts for frame in frames]) > 0)
    assert capfd.readouterr() == ("", "")


def test_a_file_cut_short_gives_what_is_there(tmp_path: Path, make_video: Make, shades: Shades) -> None:
    noise = np.random.default_rng(3)
    images = [noise.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(20)]
    path = make_video(tmp_path / "clip.mkv", images)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert 5 <= len(frames_of(path)) < 15


def test_a_single_picture_is_a_video_of_one_frame(tmp_path: Path, quadrants: Quadrants) -> None:
    scene = quadrants(32, 24)
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), cv2.cvtColor(scene, cv2.COLOR_RGB2BGR))
    with VideoReader(path) as reader:
        frames = list(reader)
        assert (reader.info.frames, reader.info.fps, reader.info.has_audio) == (1, Fraction(25), False)
    assert len(frames) == 1
    assert np.array_equal(frames[0].image, scene)


def test_an_animated_gif_gives_all_its_frames_over_white(tmp_path: Path, quadrants: Quadrants) -> None:
    path = tmp_path / "clip.gif"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 12, "pal8"
        palette = np.zeros((256, 4), np.uint8)  # alpha, red, green, blue; number 1 is transparent
        palette[0] = (255, 200, 30, 60)
        palette[2] = (255, 20, 180, 40)
        for number, right in enumerate([1, 2]):
            indices = np.zeros((12, 16), np.uint8)
            indices[:, 8:] = right
            frame = av.VideoFrame.from_ndarray((indices, palette), format="pal8")  # type: ignore[arg-type]
            frame.pts, frame.time_base = number, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    frames = frames_of(path)
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1])
    assert frames[0].image[5, 2].tolist() == [200, 30, 60]
    assert frames[0].image[5, 12].tolist() == [255, 255, 255]
    assert frames[1].image[5, 12].tolist() == [20, 180, 40]


def test_a_folder_is_read_in_natural_order_at_one_size(tmp_path: Path, quadrants: Quadrants) -> None:
    for number in (10, 9, 1):
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), np.full((20, 30, 3), number, np.uint8))
    cv2.imwrite(str(tmp_path / "frame11.png"), np.full((40, 40, 3), 11, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_text("not a picture")
    with VideoReader(tmp_path, fps=Fraction(10)) as reader:
        frames = list(reader)
        assert (reader.info.frames, reader.info.fps, reader.info.duration) == (4, Fraction(10), 0.4)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 9, 10, 11]
    assert {frame.image.shape for frame in frames} == {(20, 30, 3)}
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [
        int(f.image[0, 0, 0]) for f in frames_of(tmp_path, fps=Fraction(10), start=0.1, duration=0.2)
    ] == [9, 10]


def test_what_is_no_video_is_refused_by_name(
    tmp_path: Path, make_video: Make, shades: Shades, capfd: pytest.CaptureFixture[str]
) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    whole = make_video(tmp_path / "whole.mp4", shades(20)).read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_bytes(b"hello\n" * 100)
    (tmp_path / "text.txt").write_bytes(b"hello\n" * 100)
    (tmp_path / "folder").mkdir()
    for name, reason in {
        "sound.mp4": "no video stream",
        "headless.mp4": "cannot be read",
        "empty.mp4": "empty",
        "text.mp4": "cannot be read",
        "text.txt": "text",
        "folder": "no picture",
        "missing.mp4": "no such file",
        "x" * 300: "too long",
    }.items():
        with pytest.raises(MediaError, match=reason) as caught:
            VideoReader(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_play_list_leads_nowhere(tmp_path: Path, make_video: Make, shades: Shades) -> None:
    make_video(tmp_path / "secret.ts", shades(5))
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile 'secret.ts'\n")
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n"
    )
    for name in ("list.ffconcat", "list.m3u8"):
        with pytest.raises(MediaError, match=name):
            VideoReader(tmp_path / name)


def test_limits_name_the_flag_that_raises_them(tmp_path: Path, make_video: Make, shades: Shades) -> None:
    path = make_video(tmp_path / "clip.mp4", shades(50), pixel_aspect=Fraction(2))
    assert len(frames_of(path, limits=Limits(max_pixels=128 * 48, max_seconds=2))) == 50
    with pytest.raises(LimitError, match=r"clip\.mp4: 128x48 pixels.*--max-pixels 6144"):
        VideoReader(path, limits=Limits(max_pixels=128 * 48 - 1))
    with pytest.raises(LimitError, match=r"clip\.mp4: 2\.0 s.*1\.5 s.*--max-seconds"):
        VideoReader(path, limits=Limits(max_seconds=1.5))
    assert len(frames_of(path, limits=Limits(max_seconds=1.5), start=1.0)) == 25
    assert len(frames_of(path, limits=Limits(max_seconds=1.5), duration=1.0)) == 25


def test_a_length_that_the_file_hides_is_limited_while_reading(
    tmp_path: Path, make_video: Make, shades: Shades
) -> None:
    path = make_video(tmp_path / "clip.ts", shades(20), times=[*range(19), 25 * 100])
    content = path.read_bytes()
    assert len(frames_of(path)) == 20
    with pytest.raises(LimitError, match="--max-seconds"):
        list(VideoReader(path, limits=Limits(max_seconds=10)))
    assert path.read_bytes() == content


def test_colons_and_patterns_in_a_name_are_only_a_name(
    tmp_path: Path, make_video: Make, shades: Shades
) -> None:
    plain = make_video(tmp_path / "clip.mp4", shades(3))
    odd = plain.rename(tmp_path / "concat:a|%04d ü.mp4")
    assert len(frames_of(odd)) == 3
