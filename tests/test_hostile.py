"""Every damaged, odd or hostile file, as source and as driving of the command line: the right film, or one line.

Nothing else may be left behind: no output, no temporary file, and no trace of what a file tried to do.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from reenact import cli
from reenact.runtime import assets, reenactor
from reenact.runtime.media.frame import Image
from reenact.runtime.media.images import read_image, write_image
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.reenactor import Reenactor
from reenact.runtime.tracking.tracker import Tracker
from typer.testing import CliRunner, Result

HOSTILE = Path(__file__).resolve().parents[1] / "../shared/data/hostile"
ABSENT = pytest.param("", marks=pytest.mark.skip(reason="the folder ../shared/data/hostile is absent"))
PICTURES = {".gif", ".jpg", ".png", ".webp"}
MOVIES = {".mp4", ".webm", ".ts"}
SHOWN = {"non_square_pixels.mp4": [256, 256]}  # the list gives the stored size of this one
NOD_FRAMES = 6  # 0.2 s of a motion

every_file = pytest.mark.parametrize("name", sorted(p.name for p in HOSTILE.glob("*")) or [ABSENT])


@dataclass(frozen=True)
class Workplace:
    """A folder to run in, deep enough that a file which leaves it by two steps is still seen."""

    top: Path

    @property
    def output(self) -> Path:
        return self.top / "deep" / "down" / "out.mp4"

    def left(self) -> set[str]:
        files = {path.relative_to(self.top).as_posix() for path in self.top.rglob("*")}
        return files - {"deep", "deep/down"}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    place = Workplace(tmp_path / "work")
    place.output.parent.mkdir(parents=True)
    monkeypatch.chdir(place.output.parent)
    return place


@pytest.fixture(scope="module")
def tracker(models_home: Path) -> Iterator[Tracker]:
    with Tracker() as made:
        yield made


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one, so that many films are made quickly."""
    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    write_image(path, np.asarray(cv2.resize(read_image(assets.portrait("grace_hopper")), (192, 192))))
    return path


@pytest.fixture(scope="module")
def registered(models_home: Path, portrait: Path) -> Iterator[Reenactor]:
    with Reenactor(portrait) as made:
        yield made


@pytest.fixture(scope="module")
def expected() -> Iterator[dict[str, dict[str, Any]]]:
    """What the folder's own list says of each file; no run may change the folder."""
    before = {path.name: path.stat().st_mtime_ns for path in HOSTILE.iterdir()}
    yield json.loads((HOSTILE / "expected.json").read_text())
    assert {path.name: path.stat().st_mtime_ns for path in HOSTILE.iterdir()} == before


def is_film(name: str, row: dict[str, Any]) -> bool | None:
    """Whether a film must come of a file, or an error; None where either will do."""
    expect = row.get("expect", "error")
    if Path(name).suffix not in PICTURES | MOVIES or expect.startswith(("error", "no face")):
        return False
    return None if "may find no face" in expect else True


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["run", *map(str, arguments)])


def is_one_line_about(name: str, done: Result, workplace: Workplace) -> None:
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    *remarks, said = done.stderr.splitlines()
    assert said.startswith("error: ")
    assert all(remark.startswith("no GPU is used (") for remark in remarks)
    assert len(remarks) <= 1
    assert name in said
    assert "fault of reenact" not in done.stderr
    assert workplace.left() == set()


def films_frames(path: Path) -> tuple[list[Image], list[float]]:
    with VideoReader(path) as reader:
        frames = list(reader)
        assert reader.damaged == 0
    return [frame.image for frame in frames], [frame.time for frame in frames]


@every_file
def test_as_source(
    name: str,
    expected: dict[str, dict[str, Any]],
    tracker: Tracker,
    workplace: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(reenactor, "Tracker", lambda **_: tracker)
    monkeypatch.setattr(tracker, "close", lambda: None)
    row = expected.get(name, {})
    done = run(HOSTILE / name, "--motion", "nod", "--duration", "0.2", "-o", workplace.output)
    assert capfd.readouterr() == ("", "")
    film = is_film(name, row)
    if film is False or (film is None and done.exit_code):
        return is_one_line_about(name, done, workplace)
    assert done.exit_code == 0, done.stderr
    assert workplace.left() == {"deep/down/out.mp4"}
    images, times = films_frames(workplace.output)
    np.testing.assert_allclose(times, np.arange(NOD_FRAMES) / 30, atol=1e-3)
    still = read_image(HOSTILE / name)
    height, width = still.shape[:2]
    if "size" in row:
        assert [width, height] == SHOWN.get(name, row["size"])
    # H.264 with shared colours has even sides only.
    assert images[0].shape == (height + height % 2, width + width % 2, 3)
    # A motion starts from the still source: upright, in its own colours.
    assert np.abs(images[0][:height, :width].astype(int) - still).mean() < 8
    return None


@every_file
def test_as_driving(
    name: str,
    expected: dict[str, dict[str, Any]],
    registered: Reenactor,
    portrait: Path,
    workplace: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(reenactor, "Reenactor", lambda *_, **__: registered)
    monkeypatch.setattr(registered, "close", lambda: None)
    row = expected.get(name, {})
    done = run(portrait, HOSTILE / name, "-o", workplace.output)
    assert capfd.readouterr() == ("", "")
    film = is_film(name, row)
    if film is False or (film is None and done.exit_code):
        return is_one_line_about(name, done, workplace)
    assert done.exit_code == 0, done.stderr
    assert workplace.left() == {"deep/down/out.mp4"}
    images, times = films_frames(workplace.output)
    assert {image.shape for image in images} == {(192, 192, 3)}
    with VideoReader(HOSTILE / name) as reader:
        driving_times = [frame.time for frame in reader]
        damaged, audible = reader.damaged, reader.info.has_audio
    count = row.get("readable_frames_skip_bad_packets", row.get("frames", len(driving_times)))
    assert len(times) == (1 if Path(name).suffix in PICTURES - {".gif"} else count)
    np.testing.assert_allclose(times, driving_times, atol=1.5e-3)
    if "pts_ms" in row:
        np.testing.assert_allclose(np.multiply(times, 1000), row["pts_ms"], atol=1.5)
    assert ("damaged" in done.stderr) == (damaged > 0)
    with VideoReader(workplace.output) as reader:
        assert reader.info.has_audio == audible
    return None


@every_file
def test_as_motion(
    name: str,
    registered: Reenactor,
    portrait: Path,
    workplace: Workplace,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(reenactor, "Reenactor", lambda *_, **__: registered)
    monkeypatch.setattr(registered, "close", lambda: None)
    done = run(portrait, "--motion", HOSTILE / name, "-o", workplace.output)
    assert capfd.readouterr() == ("", "")
    is_one_line_about(Path(name).stem, done, workplace)
