"""Reads and writes still pictures; size limits are checked on the header, before anything is decoded."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np

from ...errors import LimitError, MediaError
from ..watermark import marked
from .decode import StreamDecoder
from .frame import Image
from .headers import HEADER_ERRORS, SIGNATURE_LENGTH, Header, is_known_image, read_header
from .limits import DEFAULT_LIMITS, Limits
from .metadata import UNNAMED, new_statement, with_statement
from .picture import over_white, upright

__all__ = ["file_status", "read_image", "read_image_file", "write_image"]

_WRITE_OPTIONS: dict[str, list[int]] = {
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95],
    ".bmp": [],
    ".tiff": [],
    ".tif": [],
}


def read_image(path: str | Path, *, limits: Limits = DEFAULT_LIMITS) -> Image:
    """The picture in a file: (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    Reads JPEG, PNG, WebP, BMP and TIFF of any depth and colour model, and the first frame of a GIF, of a
    video and of whatever else FFmpeg reads. Transparent parts are laid over white. Colours are
    taken to be sRGB: embedded ICC profiles are not applied.

    Raises LimitError for a picture beyond `limits`, before it is decoded, and MediaError for a file that is
    missing, not a picture, cut short or damaged.
    """
    path = Path(path)
    file = read_image_file(path, limits)
    if file is not None and file[0].kind != "gif":
        return _decode(path, *file)
    with StreamDecoder(path, limits=limits) as decoder:
        return decoder.first.image


def read_image_file(path: Path, limits: Limits) -> tuple[Header, bytes] | None:
    """Header and content of an image file that is within `limits`; None for a file of any other kind.

    Raises as `read_image` does.
    """
    status = file_status(path)
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path}: this is not a file; name a picture or a video")
    size = status.st_size
    if size == 0:
        raise MediaError(f"{path}: the file is empty; get it again from where it came from")
    try:
        with path.open("rb") as file:
            start = file.read(SIGNATURE_LENGTH)
            if not is_known_image(start):
                return None
            if (
                size > 8 * limits.max_pixels + 2**24
            ):  # no picture within the limit is larger, even uncompressed
                raise LimitError(
                    f"{path}: {size} bytes are more than a picture of {limits.max_pixels} pixels takes; "
                    f"make it smaller or allow it with --max-pixels {size // 8}"
                )
            content = start + file.read()
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    try:
        header = read_header(content)
    except HEADER_ERRORS as error:
        reason = str(error) if type(error) is ValueError else "it is cut short"
        raise MediaError(
            f"{path}: the picture is damaged: {reason}; get it again from where it came from"
        ) from error
    if header is None:
        return None
    limits.check_pixels(path, header.width, header.height)
    return header, content


def file_status(path: Path) -> os.stat_result:
    """What the file system says of a path. Raises MediaError where there is nothing."""
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise MediaError(f"{path}: no such file; check the spelling") from error
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror}); check the name") from error


def write_image(path: str | Path, image: Image, *, system: str = UNNAMED, mark: bool = True) -> None:
    """Write a picture (H, W, 3) uint8 RGB as PNG, JPEG, WebP, BMP or TIFF, by the suffix of `path`.

    It is marked as AI-generated, in its pixels and in words, made by `system`; with `mark` off it is not, which the
    log says. The file appears whole or not at all; an existing one is replaced. Raises MediaError where it cannot be
    written.
    """
    path = Path(path)
    options = _WRITE_OPTIONS.get(path.suffix.lower())
    if options is None:
        raise MediaError(
            f"{path}: unknown kind of picture; end the name in one of {', '.join(_WRITE_OPTIONS)}"
        )
    statement = new_statement(path, system, mark)
    shown = marked(image) if statement else image
    _, encoded = cv2.imencode(path.suffix, cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), options)
    content = encoded.tobytes()
    if statement:
        content = with_statement(content, path.suffix, statement)
    part = path.with_name(f".{path.name[:60]}.part-{secrets.token_hex(4)}")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):  # the name itself may be what is wrong
            part.unlink()
        raise MediaError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def _decode(path: Path, header: Header, content: bytes) -> Image:
    try:
        with _quiet_opencv():
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise MediaError(
            f"{path}: the picture cannot be decoded ({error.err}); save it as PNG or JPEG"
        ) from error
    if pixels is None:
        raise MediaError(
            f"{path}: the picture is damaged or of an unknown variant; save it anew as PNG or JPEG"
        )
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    if pixels.dtype != np.uint8:
        raise MediaError(
            f"{path}: the picture holds {pixels.dtype} values; save it with 8 or 16 bits a channel"
        )
    if pixels.ndim == 2:
        image = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    elif pixels.shape[2] == 4:
        image = over_white(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA))
    else:
        image = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return upright(image, header.orientation)


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """Keep OpenCV's own warnings off the terminal; what is wrong is told by the error that we raise."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
