"""Walks the folder of hostile media: each file gives what is expected of it, or one line that names it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reenact.errors import LimitError, MediaError
from reenact.runtime.media.images import read_image
from reenact.runtime.media.reader import VideoReader

MEDIA = {".mp4", ".webm", ".ts", ".gif", ".jpg", ".png", ".webp", ".wav"}
PIXELS_SHOWN = {"non_square_pixels.mp4": [256, 256]}  # what the list gives is the stored size


@pytest.fixture(scope="module")
def hostile(shared_data: Path) -> dict[Path, dict[str, Any]]:
    folder = shared_data / "hostile"
    expected = json.loads((folder / "expected.json").read_text())
    return {folder / name: row for name, row in expected.items() if Path(name).suffix in MEDIA}


def is_refused(path: Path, row: dict[str, Any]) -> bool:
    found_later = "no face" in row["expect"]  # readable, but of no use to whoever looks for a face
    sound = path.suffix == ".wav"
    return sound or path.name == "truncated.jpg" or (row["expect"].startswith("error") and not found_later)


def test_every_file_gives_its_frames_or_one_line(
    hostile: dict[Path, dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    for path, row in hostile.items():
        if is_refused(path, row):
            for read in (VideoReader, read_image):
                read_it: Callable[[Path], object] = read
                with pytest.raises(MediaError) as caught:
                    read_it(path)
                assert path.name in str(caught.value)
                assert "\n" not in str(caught.value)
            continue
        with VideoReader(path) as reader:
            frames = list(reader)
            shape = (reader.info.height, reader.info.width, 3)
        name = path.name
        assert {frame.image.shape for frame in frames} == {shape}, name
        if "size" in row:
            assert [shape[1], shape[0]] == PIXELS_SHOWN.get(name, row["size"]), name
        if "frames" in row:
            assert len(frames) == row.get("readable_frames_skip_bad_packets", row["frames"]), name
        if "pts_ms" in row:
            assert [round(frame.time * 1000) for frame in frames] == row["pts_ms"], name
        assert np.array_equal(read_image(path), frames[0].image), name
    assert capfd.readouterr() == ("", "")


def test_damage_is_counted_and_the_rest_comes_through(hostile: dict[Path, dict[str, Any]]) -> None:
    for path, row in hostile.items():
        if "readable_frames_skip_bad_packets" in row:
            with VideoReader(path) as reader:
                assert len(list(reader)) == row["readable_frames_skip_bad_packets"], path.name
                assert reader.damaged > 0


def test_bombs_are_refused_by_size(hostile: dict[Path, dict[str, Any]]) -> None:
    bombs = [path for path in hostile if path.name in ("bomb_40000.png", "huge_header.png")]
    assert len(bombs) == 2
    for path in bombs:
        with pytest.raises(LimitError, match="--max-pixels"):
            read_image(path)


def test_colours_are_the_same_in_every_colour_model(hostile: dict[Path, dict[str, Any]]) -> None:
    by_name = {path.name: path for path in hostile}
    truth = read_image(by_name["rgb16.png"]).astype(int)
    for name in ("cmyk.jpg", "progressive.jpg", "still.webp", "palette.png"):
        assert np.abs(read_image(by_name[name]).astype(int) - truth).mean() < 6, name
