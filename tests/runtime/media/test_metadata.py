"""What outputs say of themselves: in every kind of file, readable by others, and found again."""

import logging
import struct
import xml.etree.ElementTree as Xml
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from reenact.runtime.media.frame import Frame, Image
from reenact.runtime.media.images import read_image, write_image
from reenact.runtime.media.metadata import Statement, find_statement, with_statement
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.media.writer import open_writer
from reenact.runtime.watermark import marked

Quadrants = Callable[[int, int], Image]

SAID = Statement("1.2.3", "meshwarp", "2026-01-02T03:04:05Z")
PICTURES = [".png", ".jpg", ".jpeg", ".webp"]
MOVIES = ["out.mp4", "out.m4v", "out.mov", "out.mkv", "out.webm", "out.gif", "out/"]


def write(path: str, image: Image, **options: object) -> None:
    height, width = image.shape[:2]
    with open_writer(path, width=width, height=height, **options) as sink:  # type: ignore[arg-type]
        for number in range(3):
            sink.write(Frame(image, number, Fraction(1, 25)))


def encoded(suffix: str, image: Image) -> bytes:
    return bytes(cv2.imencode(suffix, image)[1].tobytes())


def test_a_statement_is_one_plain_line_that_is_found_again() -> None:
    assert SAID.text == (
        "AI-generated; generator=reenact; version=1.2.3; system=meshwarp; created=2026-01-02T03:04:05Z"
    )
    assert find_statement(f"before {SAID.text}\nafter") == SAID
    assert find_statement(b"\xff\x00" + SAID.text.encode() + b"\x00") == SAID
    assert find_statement("AI-generated; generator=another; version=1; system=a; created=2026") is None
    assert find_statement(b"") is None


def test_a_new_statement_names_system_and_time() -> None:
    said = Statement.of("face2face_rho")
    assert said.system == "face2face_rho"
    assert find_statement(said.text) == said
    assert len(said.created) == len("2026-01-02T03:04:05Z")
    for wrong in ("", "two words", "a;b", "<a>"):
        with pytest.raises(ValueError, match="system is"):
            Statement.of(wrong)


@pytest.mark.parametrize("suffix", PICTURES)
def test_a_picture_with_a_statement_is_the_same_picture(
    suffix: str, tmp_path: Path, quadrants: Quadrants
) -> None:
    plain = encoded(suffix, quadrants(33, 20))
    content = with_statement(plain, suffix, SAID)
    assert find_statement(plain) is None
    assert find_statement(content) == SAID
    before, after = (cv2.imdecode(np.frombuffer(c, np.uint8), cv2.IMREAD_COLOR) for c in (plain, content))
    assert before is not None
    assert after is not None
    assert np.array_equal(before, after)
    path = tmp_path / f"said{suffix}"
    path.write_bytes(content)
    assert read_image(path).shape == (20, 33, 3)  # the strict reader takes it, checksums and all


@pytest.mark.parametrize("options", [[cv2.IMWRITE_WEBP_QUALITY, 80], [cv2.IMWRITE_WEBP_QUALITY, 101]])
def test_lossy_and_lossless_webp_state_their_size(options: list[int], quadrants: Quadrants) -> None:
    plain = bytes(cv2.imencode(".webp", quadrants(33, 20), options)[1].tobytes())
    assert plain[12:16] == (b"VP8L" if options[1] > 100 else b"VP8 ")
    content = with_statement(plain, ".webp", SAID)
    assert content[12:16] == b"VP8X"
    assert int.from_bytes(content[24:27], "little") + 1 == 33
    assert int.from_bytes(content[27:30], "little") + 1 == 20
    assert struct.unpack_from("<I", content, 4)[0] + 8 == len(content)


@pytest.mark.parametrize("suffix", PICTURES)
def test_xmp_tells_other_programs_how_the_picture_was_made(suffix: str, quadrants: Quadrants) -> None:
    content = with_statement(encoded(suffix, quadrants(8, 8)), suffix, SAID)
    start = content.index(b"<x:xmpmeta")
    packet = Xml.fromstring(content[start : content.index(b"</x:xmpmeta>") + len(b"</x:xmpmeta>")])
    description = packet.find(".//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert description is not None
    source = description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source == "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    assert description.get("{http://ns.adobe.com/xap/1.0/}CreatorTool") == "reenact 1.2.3"


@pytest.mark.parametrize("name", MOVIES)
def test_every_movie_says_what_made_it(name: str, tmp_path: Path, quadrants: Quadrants) -> None:
    write(f"{tmp_path}/{name}", quadrants(64, 48), system="made-up")
    with VideoReader(tmp_path / name) as reader:
        said = reader.statement()
        assert len(list(reader)) == 3
    assert said is not None
    assert said.system == "made-up"


def test_players_show_the_statement_as_the_comment(tmp_path: Path, quadrants: Quadrants) -> None:
    for name in ("out.mp4", "out.mov", "out.mkv", "out.webm", "out.gif"):
        write(f"{tmp_path}/{name}", quadrants(64, 48))
        with av.open(str(tmp_path / name)) as file:
            tags = {key.lower(): value for key, value in file.metadata.items()}
        assert tags["comment"].startswith("AI-generated; generator=reenact; ")


def test_a_written_picture_is_marked_in_pixels_and_words(tmp_path: Path, quadrants: Quadrants) -> None:
    scene = quadrants(64, 48)
    write_image(tmp_path / "out.png", scene, system="made-up")
    assert np.array_equal(read_image(tmp_path / "out.png"), marked(scene))
    said = find_statement((tmp_path / "out.png").read_bytes())
    assert said is not None
    assert said.system == "made-up"


def test_each_frame_is_marked_once_and_the_callers_picture_is_left_alone(
    tmp_path: Path, quadrants: Quadrants
) -> None:
    scene = quadrants(64, 48)
    before = scene.copy()
    write(f"{tmp_path}/out/", scene)
    for path in (tmp_path / "out").iterdir():
        assert np.array_equal(read_image(path), marked(before))
    assert np.array_equal(scene, before)


@pytest.mark.parametrize("name", [*MOVIES, "out.png", "out.jpg", "out.webp"])
def test_without_the_mark_nothing_is_added_and_the_log_says_so(
    name: str, tmp_path: Path, quadrants: Quadrants, caplog: pytest.LogCaptureFixture
) -> None:
    scene = quadrants(64, 48)
    with caplog.at_level(logging.WARNING):
        if Path(name).suffix in (".png", ".jpg", ".webp"):
            write_image(tmp_path / name, scene, mark=False)
        else:
            write(f"{tmp_path}/{name}", scene, mark=False)
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / name}: written without the mark of AI-generated pictures, as asked"
    ]
    with VideoReader(tmp_path / name) as reader:
        assert reader.statement() is None
        first = next(iter(reader)).image
    if name in ("out/", "out.png"):
        assert np.array_equal(first, scene)


def test_marked_outputs_are_not_mentioned_in_the_log(
    tmp_path: Path, quadrants: Quadrants, caplog: pytest.LogCaptureFixture
) -> None:
    write(f"{tmp_path}/out.mp4", quadrants(64, 48))
    write_image(tmp_path / "out.png", quadrants(64, 48))
    assert caplog.records == []


def test_bmp_carries_the_mark_but_no_words(tmp_path: Path, quadrants: Quadrants) -> None:
    scene = quadrants(64, 48)
    write_image(tmp_path / "out.bmp", scene)
    assert np.array_equal(read_image(tmp_path / "out.bmp"), marked(scene))
    assert find_statement((tmp_path / "out.bmp").read_bytes()) is None
