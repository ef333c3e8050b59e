"""Pictures among training files: found to be pictures before training, decoded when they are needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import MediaError, ReenactError

__all__ = ["SIGNATURES", "Image", "decoded", "raise_for", "require_signature"]

Image = NDArray[np.uint8]
SIGNATURES = {".jpg": b"\xff\xd8\xff", ".png": b"\x89PNG\r\n\x1a\n"}

_SHOWN = 5  # complaints in one message


def require_signature(path: Path) -> None:
    """Raise MediaError where a file does not begin as a picture of its ending, .jpg or .png, does."""
    signature = SIGNATURES[path.suffix]
    try:
        with path.open("rb") as file:
            head = file.read(len(signature))
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from error
    if head != signature:
        raise MediaError(f"{path}: is no {path.suffix[1:]} picture")


def decoded(path: Path, how: int) -> Image:
    """The picture in a file, as OpenCV decodes it in this way; MediaError where it cannot."""
    try:
        content = np.fromfile(path, np.uint8)
        picture = cv2.imdecode(content, how) if content.size else None
    except (OSError, cv2.error) as error:
        raise MediaError(f"{path}: cannot be read ({error})") from error
    if picture is None:
        raise MediaError(f"{path}: cannot be decoded; it is damaged or no picture")
    return np.asarray(picture)


def raise_for(where: Path, complaints: Sequence[str], otherwise: str) -> NoReturn:
    """Raise ReenactError with the first complaints; `otherwise` is what to do where they cannot be mended."""
    more = f"; and {len(complaints) - _SHOWN} more" if len(complaints) > _SHOWN else ""
    raise ReenactError(
        f"{where}: {len(complaints)} of the training files are wrong: {'; '.join(complaints[:_SHOWN])}{more}. "
        f"Mend them, or {otherwise}"
    )
