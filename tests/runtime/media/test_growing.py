"""Outputs of what cannot be made again: readable at any moment, and kept as far as they go where writing fails."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from reenact.errors import MediaError
from reenact.runtime.media.frame import Frame
from reenact.runtime.media.metadata import Statement
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.media.writer import VideoSink, open_writer

MOVIES = [".mp4", ".m4v", ".mov", ".mkv", ".webm"]


def write(sink: VideoSink, numbers: range) -> None:
    """Noise, which takes room, around a shade that tells the number; 25 frames a second."""
    for number in numbers:
        image = np.random.default_rng(number).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        image[:, :64] = 2 * number % 250
        sink.write(Frame(image, number, Fraction(1, 25)))


def count(path: Path) -> int:
    with VideoReader(path) as reader:
        return len(list(reader))


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", MOVIES)
def test_while_it_is_written_all_but_the_last_seconds_can_be_read(tmp_path: Path, suffix: str) -> None:
    sink = open_writer(tmp_path / f"live{suffix}", width=128, height=96, growing=True)
    write(sink, range(125))
    (part,) = tmp_path.iterdir()
    copy = tmp_path / f"copy{suffix}"  # as it would be found after the power has gone
    copy.write_bytes(part.read_bytes())
    assert count(copy) >= 50
    sink.close()
    assert count(tmp_path / f"live{suffix}") == 125


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_when_it_is_finished_it_is_an_ordinary_file_that_says_how_long_it_is(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"live{suffix}"
    with open_writer(path, width=128, height=96, system="made-up", growing=True) as sink:
        write(sink, range(60))
    with VideoReader(path) as reader:
        assert reader.info.frames == 60
        assert reader.info.duration == pytest.approx(2.4)
        assert isinstance(reader.statement(), Statement)
        shades = [frame.image[:, :64].mean() for frame in reader]
    np.testing.assert_allclose(shades, [2 * number for number in range(60)], atol=4)
    content = path.read_bytes()
    assert content.rindex(b"moov") > content.index(b"mdat")  # nothing was written a second time


@pytest.mark.parametrize("suffix", MOVIES)
def test_a_full_disk_leaves_what_was_written_before(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"live{suffix}"
    sink = open_writer(path, width=128, height=96, growing=True)
    with disk_of(1_000_000):
        with pytest.raises(
            MediaError, match=r"live.*cannot be written \(File too large\); choose another place"
        ):
            write(sink, range(1000))
        sink.close()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_size > 800_000
    assert count(path) > 25


def test_a_disk_that_is_full_when_it_is_finished_leaves_it_too(tmp_path: Path) -> None:
    path = tmp_path / "live.mp4"
    sink = open_writer(path, width=128, height=96, growing=True)
    write(sink, range(60))
    (part,) = tmp_path.iterdir()
    with disk_of(part.stat().st_size + 2000), pytest.raises(MediaError, match="File too large"):
        sink.close()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert count(path) >= 25


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ""])
def test_what_took_its_name_meanwhile_stays_and_it_gets_the_next_free_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, has_links: bool
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not has_links:
        monkeypatch.setattr(os, "link", link)
    first = open_writer(tmp_path / f"live{suffix}", width=128, height=96, growing=True)
    second = open_writer(tmp_path / f"live{suffix}", width=128, height=96, growing=True)
    write(first, range(5))
    write(second, range(7))
    (tmp_path / f"live{suffix}").write_text("copied here")
    second.close()
    first.close()
    assert second.path == tmp_path / f"live-2{suffix}"
    assert first.path == tmp_path / f"live-3{suffix}"
    assert (tmp_path / f"live{suffix}").read_text() == "copied here"
    assert (count(second.path), count(first.path)) == (7, 5)
    assert len(list(tmp_path.iterdir())) == 3


def test_without_a_frame_nothing_is_left(tmp_path: Path) -> None:
    sink = open_writer(tmp_path / "live.mp4", width=64, height=48, growing=True)
    with pytest.raises(MediaError, match="no frame was written"):
        sink.close()
    assert list(tmp_path.iterdir()) == []
