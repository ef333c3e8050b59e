"""Sizes read from image files: what a decoder would make of them, or a refusal where that cannot be known."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from reenact.runtime.media.headers import HEADER_ERRORS, read_header

TWO_SIZES = Path(__file__).resolve().parents[2] / "data/two_sizes.jpg"
"""644 bytes that decode to 8000x8000 pixels, followed by a second size of 16x16."""


def encoded(kind, *options):
    return cv2.imencode(kind, np.full((24, 40, 3), 90, np.uint8), options)[1].tobytes()


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def frame(width, height):
    return b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00"


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_the_size_is_that_of_the_picture(kind):
    header = read_header(encoded(kind))
    assert header is not None
    assert (header.width, header.height) == (40, 24)


def test_a_progressive_jpeg_and_one_with_more_behind_its_end_are_read():
    progressive = encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert progressive.count(b"\xff\xda") > 1
    for content in (progressive, encoded(".jpg") + encoded(".jpg")):
        header = read_header(content)
        assert header is not None
        assert (header.width, header.height) == (40, 24)


def test_a_jpeg_with_two_sizes_is_refused():
    """A decoder takes the first and stops before the second; whoever takes the last allows what it must not."""
    with pytest.raises(ValueError, match="size twice"):
        read_header(TWO_SIZES.read_bytes())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xd8" + frame(8, 8) + frame(9, 9) + b"\xff\xd9", "size twice"),
        (b"\xff\xd8" + b"\xff\xda\x00\x02" + frame(8, 8) + b"\xff\xd9", "size is missing"),
        (b"\xff\xd8" + frame(8, 8) + b"\xff\xd8\x00\x02" + b"\xff\xd9", "second picture"),
        (b"\xff\xd8" + frame(8, 8) + b"\xff\xda\x00\x02" * 101 + b"\xff\xd9", "over 100 scans"),
        (b"\xff\xd8\xff\xd9", "0x0"),
        (b"\xff\xd8" + frame(0, 8) + b"\xff\xd9", "0x8"),
    ],
)
def test_a_jpeg_that_leaves_its_size_or_its_work_open_is_refused(content, said):
    with pytest.raises(ValueError, match=said):
        read_header(content)


def test_a_png_with_two_sizes_is_refused():
    signature = b"\x89PNG\r\n\x1a\n"
    size = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))
    end = chunk(b"IEND", b"")
    assert read_header(signature + size + end) is not None
    with pytest.raises(ValueError, match="size twice"):
        read_header(signature + size + size + end)
    with pytest.raises(ValueError, match="begin with its size"):
        read_header(signature + chunk(b"tEXt", bytes(13)) + size + end)


def test_a_tiff_with_two_sizes_is_refused():
    def entries(*pairs):
        rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in pairs)
        return b"II*\0" + struct.pack("<IH", 8, len(pairs)) + rows + bytes(4)

    assert read_header(entries((256, 40), (257, 24))) is not None
    with pytest.raises(ValueError, match="size twice"):
        read_header(entries((256, 90_000), (256, 40), (257, 24)))


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
def test_no_file_that_was_cut_or_changed_raises_anything_unforeseen(kind):
    content = encoded(kind)
    chance = np.random.default_rng(3)
    for _ in range(400):
        damaged = bytearray(content[: chance.integers(4, len(content) + 1)])
        damaged[chance.integers(len(damaged))] = chance.integers(256)
        try:
            header = read_header(bytes(damaged))
        except HEADER_ERRORS:
            continue
        assert header is None or (header.width > 0 and header.height > 0)
