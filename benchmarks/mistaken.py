"""Looks for the mark where it is not: in parts of pictures and of films that nobody has marked."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from ..runtime.media.frame import Image
from ..runtime.media.images import read_image
from ..runtime.media.reader import VideoReader
from ..runtime.provenance import looks
from ..runtime.watermark import Reading, read_mark
from .damage import jpeg, random_picture, synthetic

__all__ = ["FILMS", "PICTURES", "in_films", "in_pictures"]

PHOTOS, CLIPS, OUTPUTS = "parts of photos", "parts of frames of clips", "parts of outputs before marking"
DRAWN = "drawn: noise, slopes, stripes, squares, strokes"
PICTURES = (PHOTOS, CLIPS, OUTPUTS, DRAWN)
FILM_CLIPS, FILM_OUTPUTS = "films: parts of clips", "films: parts of outputs before marking"
FILMS = (FILM_CLIPS, FILM_OUTPUTS)
SEED = 20
FILM_SIDES = 96, 320  # pixels of a film's longer side


def in_pictures(kind: str, sources: list[Path], block: int, trials: int) -> dict[str, float]:
    """Look in `trials` random pictures of one of PICTURES; other pictures in each `block`, the same in each run.

    `sources` are photos, clips or .npz files of outputs. A flat picture, in which nothing is looked for, counts for
    nothing. Result: "trials", "found", the "highest" score, the lowest that was "needed".
    """
    random = np.random.default_rng([SEED, PICTURES.index(kind), block])
    if kind == DRAWN:
        return _counted(lambda: read_mark([synthetic(random)]), trials)
    pictures = [image for source in sources for image in _pictures(kind, source)]
    return _counted(lambda: read_mark([random_picture(pictures, random)]), trials)


def in_films(kind: str, sources: list[Path], block: int, trials: int) -> dict[str, float]:
    """The same in `trials` random films of one of FILMS, of a few frames to ten seconds, looked at as `verify` does."""
    random = np.random.default_rng([SEED, len(PICTURES) + FILMS.index(kind), block])
    source = sources[block % len(sources)]
    if kind == FILM_OUTPUTS:
        with np.load(source) as kept:
            frames = list(kept["film"])
    else:
        with VideoReader(source, duration=10.0) as reader:
            frames = [_small(frame.image) for frame in reader]
    return _counted(lambda: read_mark(_random_film(frames, random)), trials)


def _counted(look: Callable[[], Reading], trials: int) -> dict[str, float]:
    done, found, highest, needed = 0, 0, 0.0, float("inf")
    while done < trials:
        reading = look()
        if reading.score == 0:  # nothing but a flat picture gives that
            continue
        done, found = done + 1, found + reading.found
        highest, needed = max(highest, reading.score), min(needed, reading.needed)
    return {"trials": done, "found": found, "highest": highest, "needed": needed}


def _pictures(kind: str, source: Path) -> Iterator[Image]:
    if kind == PHOTOS:
        yield read_image(source)
    elif kind == CLIPS:
        with VideoReader(source, duration=8.0) as reader:
            yield from (frame.image for number, frame in enumerate(reader) if number % 25 == 0)
    else:
        with np.load(source) as kept:
            yield from (kept[name] for name in kept.files if name != "film")


def _small(image: Image) -> Image:
    factor = 640 / max(image.shape[:2])
    if factor >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def _random_film(frames: list[Image], random: np.random.Generator) -> Iterator[Image]:
    """The looks at a part of a film: of its time, of its picture, at another size, at times through JPEG."""
    length = int(random.integers(min(25, len(frames)), len(frames) + 1))
    first = int(random.integers(len(frames) - length + 1))
    height, width = frames[0].shape[:2]
    tall, wide = (int(side * random.uniform(0.35, 1.0)) for side in (height, width))
    top, left = int(random.integers(height - tall + 1)), int(random.integers(width - wide + 1))
    factor = float(random.uniform(*FILM_SIDES)) / max(tall, wide)
    size = (max(32, round(wide * factor)), max(32, round(tall * factor)))
    quality = int(random.integers(40, 96)) if random.random() < 0.5 else None
    for image in looks(frames[first : first + length], length):
        part = image[top : top + tall, left : left + wide]
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
        yield part if quality is None else jpeg(part, quality)
