"""Asking files whether they were made here, from Python and from the command line."""

import json
from fractions import Fraction

import cv2
import numpy as np
import pytest
from reenact import cli
from reenact.benchmarks.damage import jpeg, resized
from reenact.errors import LimitError, MediaError
from reenact.runtime import assets, provenance
from reenact.runtime.media.frame import Frame
from reenact.runtime.media.images import read_image, write_image
from reenact.runtime.media.limits import Limits
from reenact.runtime.media.writer import open_writer
from reenact.runtime.provenance import verify
from reenact.runtime.watermark import marked
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def portrait():
    image = read_image(assets.portrait("eileen_collins"))
    return np.asarray(cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA), np.uint8)


def movie(path, images, fps=25, **options):
    height, width = images[0].shape[:2]
    with open_writer(path, width=width, height=height, system="made-up", **options) as sink:
        for number, image in enumerate(images):
            sink.write(Frame(image, number, Fraction(1, fps)))
    return path


def call(*arguments):
    return CliRunner().invoke(cli.app, ["verify", *map(str, arguments)])


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out.webm", "out"])
def test_a_marked_output_is_known_by_pixels_and_words(tmp_path, portrait, name):
    verdict = verify(movie(tmp_path / name, [portrait] * 5))
    assert verdict.marked
    assert verdict.watermark.found
    assert verdict.watermark.frames == 5
    assert verdict.confidence > 0.99999
    assert verdict.statement is not None
    assert verdict.statement.system == "made-up"


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.webp", "out.bmp"])
def test_a_marked_picture_is_known(tmp_path, portrait, name):
    write_image(tmp_path / name, portrait, system="made-up")
    verdict = verify(tmp_path / name)
    assert verdict.watermark.found
    assert (verdict.statement is None) == (name == "out.bmp")


def test_an_upload_takes_the_words_but_not_the_mark(tmp_path, portrait):
    write_image(tmp_path / "out.png", portrait)
    uploaded = jpeg(resized(read_image(tmp_path / "out.png"), 0.8), 70)
    write_image(tmp_path / "shared.png", uploaded, mark=False)
    verdict = verify(tmp_path / "shared.png")
    assert verdict.statement is None
    assert verdict.marked
    assert verdict.watermark.scale == pytest.approx(0.8, rel=0.01)


def test_a_picture_too_small_for_the_mark_is_known_by_its_words(tmp_path):
    write_image(tmp_path / "out.png", np.full((16, 16, 3), 90, np.uint8))
    verdict = verify(tmp_path / "out.png")
    assert verdict.marked
    assert not verdict.watermark.found
    assert verdict.confidence == 0


def test_what_was_not_marked_is_not_found(tmp_path, portrait):
    write_image(tmp_path / "plain.png", portrait, mark=False)
    for path in (tmp_path / "plain.png", movie(tmp_path / "plain.mp4", [portrait] * 3, mark=False)):
        verdict = verify(path)
        assert not verdict.marked
        assert verdict.confidence < 0.9


def test_of_a_long_video_frames_far_apart_are_looked_at_and_not_all(tmp_path, portrait):
    small = resized(portrait, 0.25)
    long = movie(tmp_path / "long.mp4", [small] * 400, fps=30)
    assert verify(long).watermark.frames == 25  # of ten seconds, every twelfth


def test_start_looks_at_a_later_part(tmp_path, portrait):
    plain = resized(portrait, 0.5)
    path = movie(tmp_path / "two.mp4", [plain] * 300 + [marked(plain)] * 10, mark=False)
    assert not verify(path).watermark.found
    assert verify(path, start=12.0).watermark.found


def test_limits_and_damage_are_errors_that_name_the_file(tmp_path, portrait):
    write_image(tmp_path / "out.png", portrait)
    with pytest.raises(LimitError, match=r"out\.png.*--max-pixels"):
        verify(tmp_path / "out.png", limits=Limits(max_pixels=1000))
    (tmp_path / "cut.png").write_bytes((tmp_path / "out.png").read_bytes()[:5000])
    with pytest.raises(MediaError, match=r"cut\.png"):
        verify(tmp_path / "cut.png")


def test_every_hostile_file_is_a_verdict_or_one_clear_error(shared_data, monkeypatch):
    monkeypatch.setattr(provenance, "_SECONDS", 0.2)  # enough to open and decode each
    files = sorted(path for path in (shared_data / "hostile").iterdir() if path.is_file())
    assert len(files) > 50
    complaints: dict[str, str] = {}
    for path in files:
        try:
            verdict = verify(path)
        except MediaError as error:
            complaints[path.name] = str(error)
        else:
            assert not verdict.marked, path
    assert len(complaints) > 20
    assert all(name in complaint for name, complaint in complaints.items())


def test_the_command_says_what_it_found_and_exits_by_it(tmp_path, portrait):
    write_image(tmp_path / "out.png", portrait, system="made-up")
    write_image(tmp_path / "plain.png", portrait, mark=False)
    done = call(tmp_path / "out.png")
    assert done.exit_code == 0
    assert "out.png: marked as AI-generated" in done.stdout
    assert "watermark: found, confidence more than 99.9999 %" in done.stdout
    assert "system made-up" in done.stdout
    done = call(tmp_path / "plain.png")
    assert done.exit_code == 1
    assert "plain.png: no mark found" in done.stdout
    assert "not found (score" in done.stdout
    assert call(tmp_path / "out.png", tmp_path / "plain.png").exit_code == 1


def test_the_command_goes_on_after_a_file_that_cannot_be_read(tmp_path, portrait):
    write_image(tmp_path / "out.png", portrait)
    done = call(tmp_path / "none.png", tmp_path / "out.png")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert "none.png: no such file" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "out.png: marked" in done.stdout
    with pytest.raises(MediaError):
        raise call(tmp_path / "none.png", "--debug").exception


def test_json_holds_the_same_a_line_for_each_file(tmp_path, portrait):
    write_image(tmp_path / "out.png", portrait, system="made-up")
    write_image(tmp_path / "plain.png", portrait, mark=False)
    done = call("--json", tmp_path / "out.png", tmp_path / "plain.png")
    found, plain = (json.loads(line) for line in done.stdout.splitlines())
    assert found["file"] == str(tmp_path / "out.png")
    assert found["marked"] is True
    assert found["confidence"] == pytest.approx(1.0)
    assert found["watermark"]["score"] > found["watermark"]["needed"] > 5
    assert found["watermark"]["chance"] < 1e-5
    assert found["metadata"]["system"] == "made-up"
    assert plain["marked"] is False
    assert plain["metadata"] is None
    assert plain["watermark"]["scale"] is None


def test_limits_of_the_command_can_be_raised(tmp_path, portrait):
    write_image(tmp_path / "out.png", portrait)
    assert call(tmp_path / "out.png", "--max-pixels", 1000).exit_code == 2
    assert call(tmp_path / "out.png", "--max-pixels", 100_000).exit_code == 0


def test_help_tells_the_exit_codes():
    shown = " ".join(call("--help").stdout.split())
    assert "Exit code: 0 all files are marked, 1 one of them is not" in shown
