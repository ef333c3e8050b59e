"""Turns stored pixels into the one kind of picture that the runtime knows: opaque, upright, square RGB."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideData, SideDataContainer
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from ...errors import MediaError
from .frame import Image
from .limits import Limits

__all__ = ["FrameConverter", "over_white", "upright"]

_TURNS: dict[int, Callable[[Image], Image]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: lambda image: cv2.transpose(image),
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}

# (a, b, c, d) of a display matrix in units of one, as the EXIF orientation that shows the same
_MATRIX_ORIENTATIONS = {
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}


def upright(image: Image, orientation: int) -> Image:
    """The picture (H, W, 3) as it is meant to be seen; `orientation` is EXIF's 1 (upright) to 8."""
    return np.ascontiguousarray(_TURNS[orientation](image)) if orientation in _TURNS else image


def over_white(rgba: NDArray[np.uint8]) -> Image:
    """(H, W, 4) uint8 with straight alpha laid over white: (H, W, 3)."""
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    # 255 - (255 - colour) * alpha / 255, rounded
    darkness = (255 - rgba[..., :3]).astype(np.uint16) * alpha
    return np.asarray(255 - (darkness + 127) // 255, np.uint8)


class FrameConverter:
    """Makes every decoded frame of one video a picture of the size that the first one has.

    Colours follow the video's own matrix and range; where the matrix is not stated, BT.709 is taken for HD
    sizes and BT.601 below, as players do. Brightness curves are taken as they are: HDR is not tone mapped.
    """

    def __init__(self, path: Path, limits: Limits, pixel_aspect: Fraction):
        self._path = path
        self._limits = limits
        self._pixel_aspect = pixel_aspect
        self._size: tuple[int, int] | None = None  # (width, height) as shown
        self._reformatter = VideoReformatter()

    def convert(self, frame: av.VideoFrame) -> Image:
        """(H, W, 3) uint8 RGB. Raises LimitError for a first frame beyond the limit of pixels."""
        orientation = _orientation(frame)
        turned = orientation >= 5
        if self._size is None:
            width, height = _square_size(frame.width, frame.height, self._pixel_aspect)
            self._size = (height, width) if turned else (width, height)
            self._limits.check_pixels(self._path, *self._size)
        width, height = reversed(self._size) if turned else self._size
        has_alpha = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
        scaled = (width, height) != (frame.width, frame.height)
        try:
            shown = self._reformatter.reformat(
                frame,
                width=width,
                height=height,
                format="rgba" if has_alpha else "rgb24",
                src_colorspace=_assumed_matrix(frame),
                interpolation=Interpolation.BICUBIC if scaled else None,
                threads=1,
            )
        except av.FFmpegError as error:
            raise MediaError(
                f"{self._path}: its pixel format {frame.format.name} cannot be converted ({error.strerror}); "
                "convert the video to H.264, for example with ffmpeg"
            ) from error
        pixels = np.ascontiguousarray(shown.to_ndarray(), np.uint8)
        return upright(over_white(pixels) if has_alpha else pixels, orientation)


def _square_size(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """The size in square pixels that loses none: the narrower side grows."""
    if pixel_aspect >= 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


def _orientation(frame: av.VideoFrame) -> int:
    """The frame's display matrix as EXIF orientation; slanted angles, which no camera makes, are ignored."""
    # Not frame.side_data, which keeps what it gives in the frame: both would wait for the garbage collector, and a
    # picture with them.
    matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # missing in its stubs
    if matrix is None:
        return 1
    a, b, _, c, d = np.frombuffer(bytes(cast(SideData, matrix)), np.int32)[:5] / 65536
    return _MATRIX_ORIENTATIONS.get((round(a), round(b), round(c), round(d)), 1)


def _assumed_matrix(frame: av.VideoFrame) -> Colorspace | None:
    """The colour matrix where the frame names none; None leaves swscale to follow the frame."""
    unspecified = 2
    if frame.format.is_rgb or frame.colorspace != unspecified:
        return None
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601
