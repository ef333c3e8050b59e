"""Size and orientation of an image file from its bytes alone, so that limits apply before decoding.

PNG checksums and the end of a JPEG are checked here too, because decoders are lenient about them. A file that gives its
size more than once is refused: which of them a decoder takes is its own affair, and might not be the one checked here.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["HEADER_ERRORS", "SIGNATURE_LENGTH", "Header", "is_known_image", "read_header"]

HEADER_ERRORS = (ValueError, struct.error, IndexError)
"""What `read_header` raises for a damaged file: a ValueError with its own words, or that it ended early."""

SIGNATURE_LENGTH = 16
"""Bytes from the start of a file that `is_known_image` needs."""

_TIFF_SIZE = (256, 257)  # tags of width and height
_ORIENTATION_TAG = 274
_EXIF_PREFIX = b"Exif\0\0"
_JPEG_SCANS = 100  # at most; progressive files have about ten, and each costs a pass over the whole picture
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True)
class Header:
    """What an image file says about itself."""

    kind: str  # "png", "jpeg", "webp", "bmp", "tiff" or "gif"
    width: int  # pixels as stored
    height: int
    orientation: int = 1  # EXIF: 1 upright ... 8
    animated: bool = False


def is_known_image(start: bytes) -> bool:
    """Whether a file that begins with these SIGNATURE_LENGTH bytes is of a kind that `read_header` reads."""
    return _parser(start) is not None


def read_header(content: bytes) -> Header | None:
    """The header of a whole image file, None where the file is of none of the kinds known here.

    Raises one of HEADER_ERRORS where the kind is known but the file is damaged or cut short.
    """
    parse = _parser(content[:SIGNATURE_LENGTH])
    if parse is None:
        return None
    header = parse(content)
    if header.width < 1 or header.height < 1:
        raise ValueError(f"its header says {header.width}x{header.height} pixels")
    return header


def _parser(start: bytes) -> Callable[[bytes], Header] | None:
    return next((parse for signature, parse in _PARSERS if signature.match(start)), None)


def _png(content: bytes) -> Header:
    if content[8:16] != b"\0\0\0\x0dIHDR":
        raise ValueError("it does not begin with its size")
    width, height = struct.unpack_from(">II", content, 16)
    orientation, animated, at = 1, False, 8
    while True:
        length, name = struct.unpack_from(">I4s", content, at)
        end = at + 8 + length
        (checksum,) = struct.unpack_from(">I", content, end)
        if zlib.crc32(content[at + 4 : end]) != checksum:
            raise ValueError(f"checksum of its {name.decode('latin-1')} chunk does not match")
        if name == b"IEND":
            return Header("png", width, height, orientation, animated)
        if name == b"IHDR" and at != 8:
            raise ValueError("it gives its size twice")
        if name == b"eXIf":
            orientation = _exif_orientation(content[at + 8 : end])
        animated = animated or name == b"acTL"
        at = end + 4


def _jpeg(content: bytes) -> Header:
    size: tuple[int, int] | None = None  # height, width
    orientation, scans, at = 1, 0, 2
    while True:
        found = _JPEG_MARKER.search(content, at)
        if found is None:
            raise ValueError("it is cut short (the JPEG end marker is missing)")
        at = found.start()
        marker = content[at + 1]
        if marker == 0xD9:
            height, width = size or (0, 0)
            return Header("jpeg", width, height, orientation)
        if marker == 0x01:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", content, at + 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if size is not None:
                raise ValueError("it gives its size twice")
            size = struct.unpack_from(">HH", content, at + 5)
        if marker == 0xDA:
            scans += 1
            if size is None or scans > _JPEG_SCANS:
                raise ValueError(
                    "its size is missing" if size is None else f"it has over {_JPEG_SCANS} scans"
                )
        if marker == 0xD8:
            raise ValueError("a second picture begins inside it")
        if marker == 0xE1 and content[at + 4 : at + 10] == _EXIF_PREFIX:
            orientation = _exif_orientation(content[at + 10 : at + 2 + length])
        at += 2 + length


def _webp(content: bytes) -> Header:
    (size,) = struct.unpack_from("<I", content, 4)
    if size + 8 > len(content):
        raise ValueError("it is cut short")
    name = content[12:16]
    if name == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", content, 26))
        return Header("webp", width, height)
    if name == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if name != b"VP8X":
        raise ValueError("its first chunk is not a WebP picture")
    width = int.from_bytes(content[24:27], "little") + 1
    height = int.from_bytes(content[27:30], "little") + 1
    orientation, at = 1, 12
    while at + 8 <= size + 8:
        name, length = struct.unpack_from("<4sI", content, at)
        if name == b"EXIF":
            orientation = _exif_orientation(content[at + 8 : at + 8 + length].removeprefix(_EXIF_PREFIX))
        at += 8 + length + length % 2
    return Header("webp", width, height, orientation, animated=bool(content[20] & 0x02))


def _bmp(content: bytes) -> Header:
    (size,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", content, 18)
    return Header("bmp", width, abs(height))


def _gif(content: bytes) -> Header:
    width, height = struct.unpack_from("<HH", content, 6)
    return Header("gif", width, height, animated=True)


def _tiff(content: bytes) -> Header:
    tags = _tiff_tags(content)
    width, height = (tags.get(tag) for tag in _TIFF_SIZE)
    if width is None or height is None:
        raise ValueError("its size is missing")
    return Header("tiff", width, height, _valid_orientation(tags))


def _exif_orientation(exif: bytes) -> int:
    """Orientation of an EXIF block; 1 where it has none or cannot be read, as viewers do."""
    try:
        return _valid_orientation(_tiff_tags(exif))
    except HEADER_ERRORS:
        return 1


def _valid_orientation(tags: dict[int, int]) -> int:
    orientation = tags.get(_ORIENTATION_TAG, 1)
    return orientation if 1 <= orientation <= 8 else 1


def _tiff_tags(content: bytes) -> dict[int, int]:
    """The single 16- and 32-bit values of the first directory of a TIFF structure."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None:
        raise ValueError("its byte order mark is missing")
    (directory,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, directory)
    tags: dict[int, int] = {}
    seen: set[int] = set()
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", content, at)
        if tag in seen and tag in _TIFF_SIZE:
            raise ValueError("it gives its size twice")
        seen.add(tag)
        if values == 1 and kind in (3, 4):
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), content, at + 8)
    return tags


_PARSERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Header]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), _bmp),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb"II\*\0|MM\0\*"), _tiff),
)
