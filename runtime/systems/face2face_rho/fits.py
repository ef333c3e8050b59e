"""Reenactment from fits in text files, as the published scripts do it: no tracker, the source photo as it is.

A folder of fits holds `landmark.txt` and `headpose.txt`, or `landmark/<n>.txt` and `headpose/<n>.txt` for a sequence.
Fits of source and driving must come from one fitter, those of the driving in the source's shape.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ....errors import ReenactError
from ...media.frame import Frame
from ...media.images import read_image
from ...media.writer import open_writer
from ...stream import Stage, StreamStats, run_stream
from ..protocol import SystemSettings
from .animator import FaceToFaceRho
from .landmarks import read_head_pose, read_landmarks

__all__ = ["Fit", "read_fits", "reenact_fits"]

_LANDMARKS, _POSES = "landmark", "headpose"


@dataclass(frozen=True, eq=False)
class Fit:
    """One picture's fit."""

    keypoints: NDArray[np.float32]  # (72, 2) in [-1, 1] over the square picture
    head_pose: NDArray[np.float32]  # (6,)


def read_fits(folder: Path) -> list[Fit]:
    """The fits in a folder, a sequence in the order of its numbers.

    Raises ReenactError that names the file that is missing or wrong.
    """
    if not folder.is_dir():
        raise ReenactError(f"{folder}: not a folder; name one with {_LANDMARKS}.txt and {_POSES}.txt")
    single = folder / f"{_LANDMARKS}.txt", folder / f"{_POSES}.txt"
    if all(path.is_file() for path in single):
        return [Fit(read_landmarks(single[0]), read_head_pose(single[1]))]
    landmarks, poses = (_numbered(folder / name) for name in (_LANDMARKS, _POSES))
    if not landmarks:
        raise ReenactError(
            f"{folder}: holds neither {_LANDMARKS}.txt and {_POSES}.txt nor {_LANDMARKS}/<n>.txt and "
            f"{_POSES}/<n>.txt"
        )
    alone = sorted(landmarks.keys() ^ poses.keys())
    if alone:
        raise ReenactError(
            f"{folder}: number {alone[0]} has only one of {_LANDMARKS} and {_POSES}; add the other"
        )
    return [Fit(read_landmarks(landmarks[n]), read_head_pose(poses[n])) for n in sorted(landmarks)]


def reenact_fits(
    source: Path,
    source_fit: Path,
    driving_fit: Path,
    output: Path,
    settings: SystemSettings,
    *,
    fps: float = 25.0,
    codec: str | None = None,
    crf: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> StreamStats:
    """Write the source photo as each of the driving's fits moves it, a picture of the bundle's size each.

    The photo is a square around the head and is resized as a whole. Raises ReenactError for fits, MediaError for the
    photo and the output, BundleError and BackendError for the networks.
    """
    fits, still = read_fits(driving_fit), read_fits(source_fit)
    if len(still) != 1:
        raise ReenactError(f"{source_fit}: holds {len(still)} fits; the source has one")
    image = read_image(source)
    if image.shape[0] != image.shape[1]:
        raise ReenactError(
            f"{source}: {image.shape[1]}x{image.shape[0]} pixels; fits are of a square picture around the head"
        )
    rate = Fraction(fps).limit_denominator(1000)
    system = FaceToFaceRho(settings)
    try:
        smaller = system.size < image.shape[0]
        square = cv2.resize(
            image, (system.size, system.size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        )
        features = system.encode(np.asarray(square, np.uint8), still[0].keypoints, still[0].head_pose)

        def numbered() -> Iterator[tuple[int, Fit]]:
            yield from enumerate(fits)

        def animate(item: tuple[int, Fit]) -> Frame:
            index, fit = item
            return Frame(system.decode(features, fit.keypoints, fit.head_pose), index, 1 / rate)

        sink = open_writer(output, width=system.size, height=system.size, fps=rate, codec=codec, crf=crf)
        told = None if progress is None else lambda written: progress(written, len(fits))
        stats = run_stream(
            numbered(), [Stage("animate", animate)], sink, names=("read", "encode"), progress=told
        )
        return replace(stats, output=str(output))
    finally:
        system.close()


def _numbered(folder: Path) -> dict[int, Path]:
    """Number to file; other names are left alone."""
    if not folder.is_dir():
        return {}
    return {
        int(path.stem): path
        for path in folder.iterdir()
        if path.suffix == ".txt" and path.stem.isascii() and path.stem.isdecimal()
    }
