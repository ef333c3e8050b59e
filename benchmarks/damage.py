"""What happens to pictures on their way: compressed, rescaled, cropped; and pictures that nobody has marked."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from ..runtime.media.frame import Image

__all__ = ["DAMAGES", "Damage", "cropped", "h264", "jpeg", "psnr", "random_picture", "resized", "synthetic"]

Clip = Sequence[Image]


@dataclass(frozen=True)
class Damage:
    """Something that is done to a clip, or to its first picture alone."""

    name: str
    moves: bool  # a clip rather than a picture
    apply: Callable[[Clip], Clip]


def jpeg(image: Image, quality: int) -> Image:
    """(H, W, 3) uint8 RGB after JPEG."""
    _, content = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return np.asarray(cv2.cvtColor(cv2.imdecode(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)


def resized(image: Image, factor: float) -> Image:
    """Both sides times `factor`."""
    height, width = image.shape[:2]
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def cropped(image: Image, left: float = 0, top: float = 0, right: float = 0, bottom: float = 0) -> Image:
    """Without these parts of its width and height."""
    height, width = image.shape[:2]
    rows = slice(round(top * height), height - round(bottom * height))
    return np.ascontiguousarray(image[rows, round(left * width) : width - round(right * width)])


def h264(clip: Clip, crf: int, preset: str = "medium") -> list[Image]:
    """A clip after libx264, 25 frames a second."""
    height, width = (side - side % 2 for side in clip[0].shape[:2])
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=25, options={"crf": str(crf), "preset": preset})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for image in clip:
            even = np.ascontiguousarray(image[:height, :width])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        output.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as source:
        return [np.asarray(f.to_ndarray(format="rgb24"), np.uint8) for f in source.decode(video=0)]


def _each(change: Callable[[Image], Image]) -> Callable[[Clip], Clip]:
    return lambda clip: [change(image) for image in clip]


def _around(image: Image) -> Image:
    return cropped(image, 0.1, 0.1, 0.1, 0.1)


def _corner(image: Image) -> Image:
    return cropped(image, left=0.1, top=0.1)


DAMAGES = (
    Damage("as it was made", False, _each(lambda image: image)),
    Damage("JPEG 60", False, _each(lambda image: jpeg(image, 60))),
    Damage("half size", False, _each(lambda image: resized(image, 0.5))),
    Damage("10 % cut off at the left", False, _each(lambda image: cropped(image, left=0.1))),
    Damage("10 % cut off at the top", False, _each(lambda image: cropped(image, top=0.1))),
    Damage("10 % cut off at the right", False, _each(lambda image: cropped(image, right=0.1))),
    Damage("10 % cut off at the bottom", False, _each(lambda image: cropped(image, bottom=0.1))),
    Damage("10 % cut off all around", False, _each(_around)),
    Damage("0.7 of the size, JPEG 60", False, _each(lambda image: jpeg(resized(image, 0.7), 60))),
    Damage("1.5 of the size, JPEG 60", False, _each(lambda image: jpeg(resized(image, 1.5), 60))),
    Damage("10 % cut off all around, JPEG 60", False, _each(lambda image: jpeg(_around(image), 60))),
    Damage("half size, JPEG 60", False, _each(lambda image: jpeg(resized(image, 0.5), 60))),
    Damage(
        "10 % cut off, half size, JPEG 60", False, _each(lambda image: jpeg(resized(_corner(image), 0.5), 60))
    ),
    Damage("H.264 crf 28", True, lambda clip: h264(clip, 28)),
    Damage("H.264 crf 28, superfast", True, lambda clip: h264(clip, 28, "superfast")),
    Damage("10 % cut off, H.264 crf 28", True, lambda clip: h264(_each(_corner)(clip), 28)),
    Damage(
        "H.264 crf 28, half size", True, lambda clip: _each(lambda image: resized(image, 0.5))(h264(clip, 28))
    ),
    Damage("half size, H.264 crf 28", True, lambda clip: h264([resized(image, 0.5) for image in clip], 28)),
    Damage(
        "10 % cut off, half size, H.264 crf 28",
        True,
        lambda clip: h264([resized(_corner(image), 0.5) for image in clip], 28),
    ),
)
"""What marks have to survive, alone and together."""


def random_picture(pictures: Sequence[Image], random: np.random.Generator) -> Image:
    """A part of one of the pictures, at another size, at times turned over or through JPEG: 96 to 400 pixels a side."""
    picture = pictures[int(random.integers(len(pictures)))]
    height, width = picture.shape[:2]
    most = min(height, width)
    side = int(random.integers(min(96, most), min(512, most) + 1))
    tall = int(np.clip(side * random.uniform(0.7, 1.4), 96, height)) if height > 96 else height
    top, left = random.integers(height - tall + 1), random.integers(width - side + 1)
    part = np.ascontiguousarray(picture[top : top + tall, left : left + side])
    if random.random() < 0.7:
        longest = max(part.shape[:2])
        part = resized(part, float(random.uniform(96, 400)) / longest)
    elif max(part.shape[:2]) > 400:
        part = np.ascontiguousarray(part[:400, :400])
    if random.random() < 0.3:
        part = np.ascontiguousarray(np.rot90(part, int(random.integers(1, 4))))
    if random.random() < 0.5:
        part = jpeg(part, int(random.integers(40, 96)))
    return part


def synthetic(random: np.random.Generator) -> Image:
    """A drawn picture: noise, blurred noise, flat, a slope, stripes, squares or text-like strokes; 96 to 400 pixels."""
    height, width = (int(side) for side in random.integers(96, 401, 2))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    colour = random.uniform(20, 235, 3)
    kind = random.integers(7)
    if kind == 0:
        plane = random.normal(0, random.uniform(2, 60), (height, width))
    elif kind == 1:
        plane = cv2.GaussianBlur(random.normal(0, 1, (height, width)), (0, 0), float(random.uniform(0.7, 6)))
        plane *= random.uniform(5, 50) / plane.std()
    elif kind == 2:
        plane = np.zeros((height, width))
    elif kind == 3:
        plane = (x * random.uniform(-1, 1) + y * random.uniform(-1, 1)) * random.uniform(0.1, 1)
    elif kind == 4:
        angle, length = random.uniform(0, np.pi), random.uniform(3, 40)
        plane = 60 * np.sign(np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length))
    elif kind == 5:
        side = int(random.integers(2, 40))
        plane = 80.0 * (((x // side) + (y // side)) % 2)
    else:
        plane = np.zeros((height, width), np.float32)
        for _ in range(60):
            ends = random.integers(0, [width, height], (2, 2))
            cv2.line(plane, ends[0].tolist(), ends[1].tolist(), float(random.uniform(-120, 120)), 2)
    picture = np.clip(plane[..., None] + colour, 0, 255).astype(np.uint8)
    return jpeg(picture, int(random.integers(40, 96))) if random.random() < 0.5 else picture


def psnr(first: Image, second: Image) -> float:
    """Peak signal over noise of two pictures, in dB; 99 where they are alike."""
    error = float(np.mean((first.astype(np.float64) - second) ** 2))
    return float(10 * np.log10(255**2 / error)) if error else 99.0
