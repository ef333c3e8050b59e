"""Real outputs, marked, damaged and looked at: what the mark survives, how well it is hidden, what it costs."""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import ReenactError
from ..runtime.media.frame import Frame, Image
from ..runtime.media.images import read_image
from ..runtime.media.reader import VideoReader
from ..runtime.media.writer import open_writer
from ..runtime.provenance import verify
from ..runtime.reenactor import Reenactor
from ..runtime.watermark import marked, read_mark
from .damage import DAMAGES, psnr

__all__ = ["Output", "measure_cost", "measure_output", "measure_photo"]

SECONDS, FPS, STEP = 2.0, 25, 2  # of each output; every second frame is read
LONGEST = 1024  # pixels of a whole photo's longer side
WRITTEN: dict[str, dict[str, str]] = {
    ".mp4": {},
    ".mp4, hevc": {"codec": "hevc"},
    ".webm": {},
    ".gif": {},
}


@dataclass(frozen=True)
class Output:
    """A real output before it is marked."""

    size: str  # which of the sizes that are told apart
    frames: list[Image]


def measure_photo(photo: Path, frames_to: Path, *, whole: bool) -> dict[str, Any]:
    """All outputs of one photo: "readings" as [size, damage, found, score], "psnr" of each frame, why it is "left_out".

    Some frames without the mark are kept in `frames_to`, a .npz: "pictures" of all sizes, "film" of 256x256.
    """
    readings: list[list[Any]] = []
    noise: list[float] = []
    plain: dict[str, Any] = {}
    try:
        for output in _outputs(photo, whole=whole):
            readings += measure_output(output, noise)
            for number, image in enumerate(output.frames[::20]):
                plain[f"picture {output.size} {number}"] = image
            if output.size == "256x256":
                plain["film"] = np.stack(output.frames)
    except ReenactError as error:
        return {"photo": photo.name, "left_out": str(error).replace(str(photo), photo.name)}
    np.savez(frames_to, **plain)
    return {"photo": photo.name, "left_out": None, "readings": readings, "psnr": noise}


def _outputs(photo: Path, *, whole: bool) -> Iterator[Output]:
    """A photo moved by the motion `demo`: a crop of 512 pixels, that crop at 256 and, where asked, the whole photo."""
    image = read_image(photo)
    longest = max(image.shape[:2])
    if longest > LONGEST:
        factor = LONGEST / longest
        image = np.asarray(
            cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8
        )
    square = _animated(image, crop=True)
    yield Output("512x512", square)
    small = np.asarray(cv2.resize(square[0], (256, 256), interpolation=cv2.INTER_AREA), np.uint8)
    yield Output("256x256", _animated(small, crop=False))
    if whole:
        yield Output("whole photo", _animated(image, crop=False))


def _animated(image: Image, *, crop: bool) -> list[Image]:
    with tempfile.TemporaryDirectory() as folder, Reenactor(image, crop=crop, mark=False) as reenactor:
        reenactor.run_motion("demo", f"{folder}/frames/", duration=SECONDS, fps=FPS)
        with VideoReader(f"{folder}/frames") as reader:
            return [frame.image for frame in reader]


def measure_output(output: Output, noise: list[float]) -> list[list[Any]]:
    """Mark an output, damage it, and look for the mark without telling what was done; adds to `noise` the PSNR."""
    clip = [marked(image) for image in output.frames]
    noise += [psnr(*pair) for pair in zip(output.frames, clip, strict=True)]
    readings = []
    for damage in DAMAGES:
        reading = read_mark(damage.apply(clip)[::STEP] if damage.moves else damage.apply(clip[:1]))
        readings.append([output.size, damage.name, reading.found, reading.score])
    if output.size == "512x512":
        with tempfile.TemporaryDirectory() as folder:
            for name, options in WRITTEN.items():
                path = Path(folder) / f"out{name.partition(',')[0]}"
                _write(path, output.frames, mark=True, **options)
                verdict = verify(path)
                if verdict.statement is None:
                    raise SystemExit(f"{name}: the statement in its metadata was not found")
                mark = verdict.watermark
                readings.append([output.size, f"written as {name}", mark.found, mark.score])
    return readings


def _write(path: Path, frames: list[Image], *, mark: bool, **options: str) -> None:
    height, width = frames[0].shape[:2]
    with open_writer(path, width=width, height=height, mark=mark, **options) as sink:  # type: ignore[arg-type]
        for number, image in enumerate(frames):
            sink.write(Frame(image, number, Fraction(1, FPS)))


def measure_cost(photos: list[Path]) -> dict[str, float]:
    """Milliseconds to mark a 512 frame and to copy it, to write one with and without the mark; growth of the file."""
    clips = [_animated(read_image(photo), crop=True) for photo in photos]
    frame, copy = clips[0][0], np.empty_like(clips[0][0])
    costs = {"mark_ms": _best_ms(lambda: marked(frame)), "copy_ms": _best_ms(lambda: np.copyto(copy, frame))}
    sizes, times = {True: 0, False: 0}, {True: 0.0, False: 0.0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.mp4"
        for clip in clips:
            for mark in (True, False):
                times[mark] += _best_ms(lambda: _write(path, clip, mark=mark), 5) / len(clip) / len(clips)  # noqa: B023
                sizes[mark] += path.stat().st_size
    costs |= {"write_ms": times[False], "write_marked_ms": times[True]}
    return costs | {"file_growth": sizes[True] / sizes[False] - 1}


def _best_ms(work: Callable[[], object], rounds: int = 300) -> float:
    """Milliseconds of the quickest of many rounds: others may use the machine at the same time."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times) * 1000
