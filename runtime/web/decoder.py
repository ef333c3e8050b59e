"""The process in which one upload is decoded: it reads one request, answers, and ends.

Run by `guard.py` as `python -m reenact.runtime.web.decoder`. Whatever a file does to a decoder happens here, under
limits on memory, time and files, and not in the server. The request is one line of JSON; the answer is one line of
JSON and, for a photo, its pixels.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from ...errors import ReenactError
from ..media.frame import Image
from ..media.images import read_image, read_image_file
from ..media.limits import Limits
from ..media.reader import VideoReader
from .refusals import Refusal, refusal_of

MEMORY = 2 << 30  # bytes of address space
FILES = 64  # open at once
PHOTO_KINDS = ("jpeg", "png", "webp", "bmp", "tiff")


def main() -> None:
    """Serve one request."""
    answers = private_output()
    line = sys.stdin.buffer.readline()
    if not line:  # the server had no use for this process
        return
    request = json.loads(line)
    _limit_resources(request["seconds"])
    path = Path(request["path"])
    limits = Limits(request["max_pixels"], request.get("max_seconds", Limits.max_seconds))
    try:
        if request["what"] == "photo":
            image = _photo(path, limits, request["max_side"])
            _answer(answers, {"height": image.shape[0], "width": image.shape[1]}, image.tobytes())
        else:
            _answer(answers, _video(path, limits))
    except (ReenactError, Refusal) as error:
        refusal = error if isinstance(error, Refusal) else refusal_of(error, path)
        _answer(answers, {"refused": [refusal.status, refusal.code, refusal.message]})
    except MemoryError:
        _answer(answers, {"refused": [413, "too_large", "It takes more memory to decode than is allowed."]})
    answers.flush()


def private_output() -> BinaryIO:
    """The way to the server; what libraries print goes elsewhere."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return out


def _limit_resources(seconds: float) -> None:
    try:
        import resource
    except ImportError:  # Windows has none; there the server's own time limit remains
        return
    wanted = {
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_CPU: max(1, int(seconds)),
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: FILES,
    }
    for what, most in wanted.items():
        hard = resource.getrlimit(what)[1]
        resource.setrlimit(what, (most, most) if hard == resource.RLIM_INFINITY else (min(most, hard), hard))


def _photo(path: Path, limits: Limits, max_side: int) -> Image:
    """The picture, upright, with no side longer than `max_side`."""
    file = read_image_file(path, limits)
    if file is None or file[0].kind not in PHOTO_KINDS:
        raise Refusal(
            415, "unknown_kind", "This is no photo that can be read; use JPEG, PNG, WebP, BMP or TIFF."
        )
    image = read_image(path, limits=limits)
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _video(path: Path, limits: Limits) -> dict[str, Any]:
    with VideoReader(path, limits=limits) as reader:
        info = reader.info
        next(iter(reader))
        return {
            "width": info.width,
            "height": info.height,
            "fps": float(info.fps),
            "frames": info.frames,
            "seconds": info.duration,
        }


def _answer(answers: BinaryIO, facts: dict[str, Any], pixels: bytes = b"") -> None:
    answers.write(json.dumps(facts).encode() + b"\n")
    answers.write(pixels)


if __name__ == "__main__":
    main()
