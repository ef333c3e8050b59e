"""What an output says of itself in words: a statement, how each kind of file carries it, and how it is found again."""

import logging
import re
import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

__all__ = ["UNNAMED", "Statement", "find_statement", "movie_tags", "new_statement", "with_statement"]

_log = logging.getLogger(__name__)

UNNAMED = "unnamed"
"""The system of an output whose maker names none."""

# For programs that label pictures by it: made from a picture of something else by learnt networks.
_DIGITAL_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_WORD = r"[\w.+-]+"
_TEXT = re.compile(
    rf"AI-generated; generator=reenact; version=({_WORD}); system=({_WORD}); created=([\d:TZ-]+)", re.ASCII
)
_BYTES = re.compile(_TEXT.pattern.encode("ascii"))


@dataclass(frozen=True)
class Statement:
    """That a picture was made by a program, and by which."""

    version: str  # of reenact
    system: str
    created: str  # ISO 8601, UTC, to the second

    @classmethod
    def of(cls, system: str) -> Self:
        """What is to be said of something that `system` makes now; ValueError where that is not one word."""
        if not re.fullmatch(_WORD, system, re.ASCII):
            raise ValueError(f"system is {system!r}; expected letters, digits and any of . + - _")
        try:
            number = version("reenact")
        except PackageNotFoundError:
            number = "from-sources"
        return cls(number, system, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))

    @property
    def text(self) -> str:
        """One line, ASCII, without quotes or angle brackets."""
        return (
            f"AI-generated; generator=reenact; version={self.version}; system={self.system}; "
            f"created={self.created}"
        )


def new_statement(path: Path, system: str, mark: bool) -> Statement | None:
    """The statement of an output that begins; where it is not to be marked, None and a line in the log."""
    if not mark:
        _log.warning("%s: written without the mark of AI-generated pictures, as asked", path)
        return None
    return Statement.of(system)


def find_statement(content: str | bytes) -> Statement | None:
    """The first statement in a text, or in a file: those that carry it have it in plain letters."""
    if isinstance(content, str):
        found = _TEXT.search(content)
        return Statement(*found.groups()) if found else None
    raw = _BYTES.search(content)
    return Statement(*(part.decode("ascii") for part in raw.groups())) if raw else None


def movie_tags(statement: Statement) -> dict[str, str]:
    """Tags of a movie file; a container leaves out those that it does not know."""
    return {
        "comment": statement.text,
        "description": statement.text,
        "encoding_tool": f"reenact {statement.version}",
        "creation_time": statement.created,
    }


def with_statement(content: bytes, suffix: str, statement: Statement) -> bytes:
    """A file that we have encoded, with the statement in it; BMP and TIFF stay as they are.

    `suffix` is the file's, such as ".png". PNG gets a description and XMP, JPEG a comment and XMP, WebP XMP, GIF a
    comment.
    """
    add = {".png": _png, ".jpg": _jpeg, ".jpeg": _jpeg, ".webp": _webp, ".gif": _gif}.get(suffix.lower())
    return add(content, statement) if add else content


def _png(content: bytes, statement: Statement) -> bytes:
    end = 8 + 25  # signature and IHDR
    chunks = b"".join(
        _chunk(b"iTXt", keyword + b"\0\0\0\0\0" + text)
        for keyword, text in (
            (b"Description", statement.text.encode()),
            (b"XML:com.adobe.xmp", _xmp(statement)),
        )
    )
    return content[:end] + chunks + content[end:]


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _jpeg(content: bytes, statement: Statement) -> bytes:
    end = 2
    if content[2:4] == b"\xff\xe0":  # JFIF comes first
        end += 2 + int.from_bytes(content[4:6], "big")
    segments = b"".join(
        marker + struct.pack(">H", len(body) + 2) + body
        for marker, body in (
            (b"\xff\xe1", b"http://ns.adobe.com/xap/1.0/\0" + _xmp(statement)),
            (b"\xff\xfe", statement.text.encode()),
        )
    )
    return content[:end] + segments + content[end:]


def _webp(content: bytes, statement: Statement) -> bytes:
    """The chunks of the simple form, in the extended form that may hold XMP."""
    if content[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
    has_xmp = 0x04
    canvas = (
        bytes([has_xmp, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )
    chunks = _riff(b"VP8X", canvas) + content[12:] + _riff(b"XMP ", _xmp(statement))
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _riff(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _gif(content: bytes, statement: Statement) -> bytes:
    colours = 3 << ((content[10] & 0x07) + 1) if content[10] & 0x80 else 0
    end = 13 + colours
    text = statement.text.encode()
    return content[:end] + b"\x21\xfe" + bytes([len(text)]) + text + b"\0" + content[end:]


def _xmp(statement: Statement) -> bytes:
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmp:CreatorTool="reenact {statement.version}"
    xmp:CreateDate="{statement.created}"
    Iptc4xmpExt:DigitalSourceType="{_DIGITAL_SOURCE}">
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{statement.text}</rdf:li></rdf:Alt></dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>""".encode()
