"""Small inputs that the media tests make for themselves."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from reenact.runtime.media.frame import Image


@pytest.fixture
def quadrants() -> Callable[[int, int], Image]:
    """A picture whose corners tell how it is turned: red, green / blue, white."""

    def make(width: int, height: int) -> Image:
        image = np.empty((height, width, 3), np.uint8)
        image[: height // 2, : width // 2] = (220, 40, 40)
        image[: height // 2, width // 2 :] = (40, 200, 60)
        image[height // 2 :, : width // 2] = (30, 50, 210)
        image[height // 2 :, width // 2 :] = (235, 235, 235)
        return image

    return make


@pytest.fixture
def shades() -> Callable[[int], list[Image]]:
    """Grey pictures of 64x48 pixels, each brighter than the one before: frame n has the value 40 + 4 * n."""

    def make(count: int) -> list[Image]:
        return [np.full((48, 64, 3), 40 + 4 * number, np.uint8) for number in range(count)]

    return make


@pytest.fixture
def make_video() -> Callable[..., Path]:
    """Encode pictures: `times` in ticks of `time_base` (frame numbers at 25 a second where left out)."""

    def make(
        path: Path,
        images: Sequence[Image],
        *,
        times: Sequence[int] | None = None,
        time_base: Fraction = Fraction(1, 25),
        codec: str = "libx264",
        pix_fmt: str = "yuv444p",
        options: dict[str, str] | None = None,
        pixel_aspect: Fraction | None = None,
        matrix: int | None = None,
        click_at: float | None = None,
        audio_codec: str = "aac",
    ) -> Path:
        height, width = images[0].shape[:2]
        with av.open(str(path), "w") as output:
            stream = output.add_stream(codec, rate=25, options=options or {"crf": "8", "preset": "ultrafast"})
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            stream.codec_context.time_base = time_base
            if pixel_aspect is not None:
                stream.codec_context.sample_aspect_ratio = pixel_aspect
            if matrix is not None:
                stream.codec_context.colorspace = matrix
            sound = None if click_at is None else output.add_stream(audio_codec, rate=48_000, layout="mono")
            assert sound is None or isinstance(sound, av.AudioStream)
            for number, image in enumerate(images):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame = frame.reformat(format=pix_fmt, dst_colorspace=matrix if matrix is not None else 5)
                frame.pts = number if times is None else times[number]
                frame.time_base = time_base
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
            if sound is not None and click_at is not None:
                _write_click(output, sound, click_at, len(images) / 25)
        return path

    return make


def _write_click(
    output: av.container.OutputContainer, sound: av.AudioStream, at: float, seconds: float
) -> None:
    sound.codec_context.open(strict=False)
    kind = sound.codec_context.format.name
    size = sound.codec_context.frame_size or 1024
    samples = np.zeros(int(seconds * 48_000), np.float32)
    samples[int(at * 48_000) :][:480] = 0.8 * np.sin(np.arange(480) * 0.3)
    if kind.startswith("s16"):
        samples = (samples * 32767).astype(np.int16)
    for begin in range(0, len(samples), size):
        frame = av.AudioFrame.from_ndarray(samples[None, begin : begin + size], format=kind, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, begin, Fraction(1, 48_000)
        output.mux(sound.encode(frame))
    output.mux(sound.encode(None))


@pytest.fixture
def film(tmp_path, make_video, shades):
    """Makes a film of so many shades of grey, 25 a second or at `times`."""

    def make(count, **options):
        path = tmp_path / "film.mp4"
        make_video(path, shades(count), **options)
        return path

    return make
