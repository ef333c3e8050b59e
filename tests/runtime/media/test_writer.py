"""Outputs: playable, at their own times, in true colours, with the sound in step, and whole or not at all."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from reenact.errors import MediaError
from reenact.runtime.media.frame import Frame, Image
from reenact.runtime.media.images import read_image
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.media.writer import open_writer

Make = Callable[..., Path]
Shades = Callable[[int], list[Image]]
Quadrants = Callable[[int, int], Image]

MILLISECOND = Fraction(1, 1000)


def write(path: Path | str, images: list[Image], times: list[int] | None = None, **options: object) -> None:
    height, width = images[0].shape[:2]
    with open_writer(path, width=width, height=height, **options) as sink:  # type: ignore[arg-type]
        for number, image in enumerate(images):
            sink.write(Frame(image, 40 * number if times is None else times[number], MILLISECOND))


def read(path: Path) -> list[Frame]:
    with VideoReader(path) as reader:
        return list(reader)


def numbers(frames: list[Frame]) -> list[int]:
    return [round((float(frame.image.mean()) - 40) / 4) for frame in frames]


def click_time(path: Path) -> float:
    """Seconds from the first picture to the click in the sound, as a player shows them."""
    with av.open(str(path)) as file:
        first = next(file.decode(video=0))
    with av.open(str(path)) as file:
        for frame in file.decode(audio=0):
            samples = frame.to_ndarray().reshape(-1).astype(np.float64)
            loud = np.flatnonzero(np.abs(samples) > 0.3 * (32767 if samples.max() > 2 else 1))
            if loud.size:
                assert frame.time is not None
                assert first.time is not None
                return float(frame.time + loud[0] / frame.sample_rate - first.time)
    raise AssertionError("no click")


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """A disk that is full after so many bytes in one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov", ".mkv", ".webm"])
def test_a_movie_keeps_pictures_and_uneven_times(tmp_path: Path, shades: Shades, suffix: str) -> None:
    times = [0, 66, 132, 232, 1732, 1752]
    path = tmp_path / f"out{suffix}"
    write(path, shades(6), times, fps=Fraction(10))
    frames = read(path)
    assert numbers(frames) == list(range(6))
    assert [round(frame.time * 1000) for frame in frames] == times
    with VideoReader(path) as reader:
        assert reader.info.duration == pytest.approx(1.852, abs=0.002)  # the last one lasts 1/10 s
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_odd_times_are_kept_exactly_in_mp4(tmp_path: Path, shades: Shades) -> None:
    time_base = Fraction(1001, 24000)
    with open_writer(tmp_path / "out.mp4", width=64, height=48, fps=1 / time_base) as sink:
        for number, image in enumerate(shades(30)):
            sink.write(Frame(image, number, time_base))
    frames = read(tmp_path / "out.mp4")
    assert [frame.pts * frame.time_base for frame in frames] == [number * time_base for number in range(30)]


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", None), ("a.mp4", "hevc"), ("a.mov", "h264"), ("a.webm", "vp9")]
)
def test_movies_are_tagged_and_coloured_bt709(
    tmp_path: Path, quadrants: Quadrants, name: str, codec: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    scene = quadrants(64, 48)
    write(tmp_path / name, [scene] * 3, codec=codec, crf=8)
    with av.open(str(tmp_path / name)) as file:
        context = file.streams.video[0].codec_context
        assert context.pix_fmt == "yuv420p"
        assert (context.colorspace, context.color_range) == (1, 1)
        assert (context.color_primaries, context.color_trc) == (1, 1)
        assert context.name == (codec or "h264")
    image = read(tmp_path / name)[-1].image.astype(int)
    assert np.abs(image[12::24, 16::32] - scene[12::24, 16::32]).max() <= 6
    assert capfd.readouterr() == ("", "")


def test_mp4_begins_with_its_index(tmp_path: Path, shades: Shades) -> None:
    write(tmp_path / "out.mp4", shades(5))
    content = (tmp_path / "out.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_odd_sizes_repeat_the_last_row_and_column(tmp_path: Path, quadrants: Quadrants) -> None:
    scene = quadrants(33, 25)
    write(tmp_path / "out.mp4", [scene] * 2, crf=5)
    image = read(tmp_path / "out.mp4")[0].image.astype(int)
    assert image.shape == (26, 34, 3)
    assert np.abs(image[25, 25] - scene[24, 25]).max() <= 8
    assert np.abs(image[18, 33] - scene[18, 32]).max() <= 8


@pytest.mark.parametrize(
    ("source", "audio_codec", "target", "expected"),
    [
        ("in.mp4", "aac", "out.mp4", "aac"),
        ("in.ts", "aac", "out.mov", "aac"),
        ("in.mp4", "aac", "out.mkv", "aac"),
        ("in.mkv", "libopus", "out.mp4", "opus"),
        ("in.mkv", "libopus", "out.webm", "opus"),
        ("in.mkv", "pcm_s16le", "out.mp4", "aac"),
        ("in.mp4", "aac", "out.webm", "opus"),
    ],
)
@pytest.mark.parametrize("start", [0.0, 0.3])
def test_the_sound_stays_in_step(
    tmp_path: Path,
    make_video: Make,
    shades: Shades,
    source: str,
    audio_codec: str,
    target: str,
    expected: str,
    start: float,
) -> None:
    driving = make_video(tmp_path / source, shades(50), click_at=1.0, audio_codec=audio_codec)
    with VideoReader(driving, start=start, duration=1.5) as reader:
        output = tmp_path / target
        fps = reader.info.fps
        with open_writer(
            output, width=64, height=48, fps=fps, audio_from=driving, audio_start=reader.origin
        ) as sink:
            count = 0
            for frame in reader:
                sink.write(frame)
                count += 1
    first = round(start * 25 + 0.49) / 25
    assert click_time(output) == pytest.approx(1.0 - first, abs=0.002)
    with av.open(str(output)) as file:
        sound = file.streams.audio[0]
        assert sound.codec_context.name == expected
        end = max(float(frame.time or 0) + frame.samples / frame.sample_rate for frame in file.decode(sound))
    assert end == pytest.approx(count / 25, abs=0.05)


def test_copied_sound_is_not_encoded_anew(tmp_path: Path, make_video: Make, shades: Shades) -> None:
    driving = make_video(tmp_path / "in.mp4", shades(25), click_at=0.5)
    write(tmp_path / "out.mp4", shades(25), audio_from=driving)

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as file:
            return [bytes(packet) for packet in file.demux(audio=0) if packet.size]

    before, after = packets(driving), packets(tmp_path / "out.mp4")
    assert after == before[: len(after)]
    assert len(after) >= len(before) - 2


def test_audio_duration_ends_the_sound_before_the_pictures(
    tmp_path: Path, make_video: Make, shades: Shades
) -> None:
    driving = make_video(tmp_path / "in.mp4", shades(50), click_at=0.5)
    write(tmp_path / "out.mp4", shades(50), audio_from=driving, audio_duration=1.0)
    with av.open(str(tmp_path / "out.mp4")) as file:
        end = max(float(frame.time or 0) for frame in file.decode(audio=0))
    assert end == pytest.approx(1.0, abs=0.03)


def test_damaged_sound_does_not_stop_the_movie(tmp_path: Path, make_video: Make, shades: Shades) -> None:
    driving = make_video(tmp_path / "in.ts", shades(50), click_at=1.0)
    content = bytearray(driving.read_bytes())
    at = content.find(b"\xff\xf1", len(content) // 2)  # where an audio packet begins
    while at >= 0:
        content[at : at + 4] = b"\x00\x11\x22\x33"
        at = content.find(b"\xff\xf1", at + 1000)
    driving.write_bytes(content)
    write(tmp_path / "out.mp4", shades(50), audio_from=driving)
    assert numbers(read(tmp_path / "out.mp4")) == list(range(50))


def test_a_silent_driving_gives_a_silent_movie(tmp_path: Path, make_video: Make, shades: Shades) -> None:
    driving = make_video(tmp_path / "in.mp4", shades(5))
    write(tmp_path / "out.mp4", shades(5), audio_from=driving)
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert not file.streams.audio


def test_a_gif_has_the_colours_times_and_end_of_the_clip(tmp_path: Path, quadrants: Quadrants) -> None:
    scene = quadrants(64, 48)
    images = [np.roll(scene, 8 * number, axis=1) for number in range(5)]
    write(tmp_path / "out.gif", images, [0, 100, 150, 400, 500], fps=Fraction(5))
    frames = read(tmp_path / "out.gif")
    assert [round(frame.time * 1000) for frame in frames] == [0, 100, 150, 400, 500]
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(frame.image.astype(int) - image).mean() < 3
    with VideoReader(tmp_path / "out.gif") as reader:
        assert reader.info.duration == pytest.approx(0.7)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.gif"]


def test_a_gif_leaves_out_what_viewers_cannot_show(tmp_path: Path, shades: Shades) -> None:
    write(tmp_path / "out.gif", shades(20), [10 * number for number in range(20)], fps=Fraction(100))
    frames = read(tmp_path / "out.gif")
    assert np.diff([frame.time for frame in frames]) == pytest.approx([0.02] * 9)


def test_a_gif_shows_fifty_of_sixty_pictures_a_second_and_counts_the_others(
    tmp_path: Path, shades: Shades
) -> None:
    with open_writer(tmp_path / "out.gif", width=64, height=48, fps=Fraction(60)) as sink:
        for number, image in enumerate(shades(36)):
            sink.write(Frame(image, number, Fraction(1, 60)))
    frames = read(tmp_path / "out.gif")
    assert [round(frame.time * 100) for frame in frames] == list(range(0, 60, 2))
    # At each moment what the clip shows then.
    assert numbers(frames) == [number for number in range(36) if number % 6 != 5]
    assert dict(sink.drops) == {"more than a GIF can show": 6}


def test_a_gif_shows_a_picture_that_comes_too_soon_and_stays(tmp_path: Path, shades: Shades) -> None:
    write(tmp_path / "out.gif", shades(3), [0, 100, 110], fps=Fraction(2))
    frames = read(tmp_path / "out.gif")
    assert [
        (round(frame.time * 100), number) for frame, number in zip(frames, numbers(frames), strict=True)
    ] == [
        (0, 0),
        (10, 1),
        (12, 2),
    ]


@pytest.mark.parametrize("name", ["12:30.mp4", "take:1.gif", "rtmp:x.webm", "a:1/0:0.png.mkv", "1:2/"])
def test_a_colon_in_a_name_is_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shades: Shades, name: str
) -> None:
    (tmp_path / "a:1").mkdir()
    monkeypatch.chdir(tmp_path)
    write(name, shades(5))
    assert numbers(read(Path(name))) == list(range(5))


@pytest.mark.parametrize("name", ["frames/", "frames"])
def test_a_folder_gets_numbered_pngs(tmp_path: Path, shades: Shades, name: str) -> None:
    images = shades(3)
    write(f"{tmp_path}/{name}", images, mark=False)
    assert sorted(entry.name for entry in (tmp_path / "frames").iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
    ]
    assert np.array_equal(read_image(tmp_path / "frames/000002.png"), images[2])
    assert [entry.name for entry in tmp_path.iterdir()] == ["frames"]


def test_a_folder_with_something_in_it_is_not_touched(tmp_path: Path, shades: Shades) -> None:
    (tmp_path / "frames").mkdir()
    write(f"{tmp_path}/frames/", shades(1))
    with pytest.raises(MediaError, match="frames: already holds something"):
        write(f"{tmp_path}/frames/", shades(2))
    assert len(list((tmp_path / "frames").iterdir())) == 1


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out.webm", "out/"])
def test_an_exception_leaves_nothing_and_an_old_file_untouched(
    tmp_path: Path, shades: Shades, name: str
) -> None:
    if not name.endswith("/"):
        (tmp_path / name).write_text("old")
    before = [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()]

    def stop_half_way() -> None:
        with open_writer(f"{tmp_path}/{name}", width=64, height=48) as sink:
            for number, image in enumerate(shades(5)):
                sink.write(Frame(image, number, Fraction(1, 25)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop_half_way()
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == before


def test_a_finished_movie_replaces_an_old_file(tmp_path: Path, shades: Shades) -> None:
    (tmp_path / "out.mp4").write_text("old")
    write(tmp_path / "out.mp4", shades(4))
    assert numbers(read(tmp_path / "out.mp4")) == [0, 1, 2, 3]


def test_closing_after_an_interrupt_keeps_a_playable_movie(tmp_path: Path, shades: Shades) -> None:
    with open_writer(tmp_path / "out.mp4", width=64, height=48) as sink:
        try:
            for number, image in enumerate(shades(10)):
                if number == 6:
                    raise KeyboardInterrupt
                sink.write(Frame(image, number, Fraction(1, 25)))
        except KeyboardInterrupt:
            sink.close()
    assert numbers(read(tmp_path / "out.mp4")) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out/"])
def test_an_output_without_a_frame_is_an_error_and_no_file(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(MediaError, match=r"out.*: no frame was written"),
        open_writer(f"{tmp_path}/{name}", width=64, height=48),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.gif", "out/"])
def test_a_full_disk_is_one_clear_error_and_no_file(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(4)
    images = [noise.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(20)]
    with files_limited_to(9_000), pytest.raises(MediaError, match=r"out.*cannot be written.*disk") as caught:
        write(f"{tmp_path}/{name}", images)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_known_before_the_first_frame(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    for name, options, reason in [
        ("nowhere/out.mp4", {}, "folder .*nowhere does not exist; create it"),
        ("out.xyz", {}, r"unknown kind of output; end .* one of \.mp4.*leave the suffix away for a folder"),
        ("out.mp4", {"codec": "mpeg7"}, "--codec mpeg7 .*choose one of h264, hevc"),
        ("out.webm", {"codec": "h264"}, "--codec h264 does not go into .webm; choose one of vp9"),
        ("out.mp4", {"crf": 52}, r"--crf 52: h264 takes 0 \(best\) to 51"),
        ("out.mp4", {"fps": Fraction(0)}, "--fps 0"),
        ("folder.mp4", {}, "is a folder; name a file, or for a folder of pictures one without a suffix"),
        ("out.mp4", {"audio_from": tmp_path / "missing.mp4"}, r"missing\.mp4: its audio cannot be read"),
        ("x" * 300 + ".mp4", {}, "cannot be written"),
    ]:
        with pytest.raises(MediaError, match=reason) as caught:
            open_writer(tmp_path / name, width=64, height=48, **options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unwritable for root")
def test_an_unwritable_folder_is_known_before_the_first_frame(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for name in ("out.mp4", "out.gif", "out/"):
        with pytest.raises(MediaError, match="cannot be written"):
            open_writer(f"{tmp_path}/{name}", width=64, height=48)


def test_misuse_is_refused(tmp_path: Path, shades: Shades) -> None:
    image = shades(1)[0]
    with open_writer(tmp_path / "out.mp4", width=64, height=48) as sink:
        sink.write(Frame(image, 5, MILLISECOND))
        with pytest.raises(ValueError, match="frame of 48x64 pixels for an output of 64x48"):
            sink.write(Frame(np.ascontiguousarray(image.transpose(1, 0, 2)), 6, MILLISECOND))
        with pytest.raises(ValueError, match="in order"):
            sink.write(Frame(image, 5, MILLISECOND))
    assert list(tmp_path.iterdir()) == []
