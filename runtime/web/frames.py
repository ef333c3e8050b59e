"""Pictures as they come and go: camera pictures checked before they are decoded, results marked as AI-generated."""

import secrets
from pathlib import Path

import av
import cv2
import numpy as np

from ..media.frame import Image
from ..media.headers import HEADER_ERRORS, read_header
from ..media.images import write_image
from ..watermark import marked
from .refusals import Refusal

__all__ = ["decode_frame", "encode_frame", "encode_png", "video_frame"]

QUALITY = 88


def decode_frame(content: bytes, max_pixels: int) -> Image:
    """(H, W, 3) uint8 RGB of a JPEG; Refusal where it is none, damaged, or has more than `max_pixels`."""
    try:
        header = read_header(content)
    except HEADER_ERRORS:
        header = None
    if header is None or header.kind != "jpeg":
        raise Refusal(422, "bad_frame", "A camera picture must be a whole JPEG.")
    if header.width * header.height > max_pixels:
        raise Refusal(
            413,
            "too_large",
            f"A camera picture of {header.width}x{header.height} is beyond {max_pixels} pixels.",
        )
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise Refusal(422, "bad_frame", "A camera picture could not be decoded.")
    return np.asarray(pixels, np.uint8)


def encode_frame(image: Image) -> bytes:
    """JPEG of (H, W, 3) uint8 RGB, marked."""
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    shown = cv2.cvtColor(marked(image), cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", shown, options)[1].tobytes())


def video_frame(image: Image) -> av.VideoFrame:
    """(H, W, 3) uint8 RGB, marked, as FFmpeg's encoders take it."""
    return av.VideoFrame.from_ndarray(marked(image), format="rgb24").reformat(format="yuv420p")


def encode_png(image: Image, folder: Path, system: str) -> bytes:
    """PNG of (H, W, 3) uint8 RGB, marked, that says so in words too; `folder` is where it is put together."""
    path = folder / f"{secrets.token_hex(16)}.png"
    try:
        write_image(path, image, system=system)
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)
