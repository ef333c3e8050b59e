"""Reenactment from fits in text files, as the published scripts do it: no tracker, the source photo as it is.

A folder of fits holds `landmark.txt` and `headpose.txt`, or `landmark/<n>.txt` and `headpose/<n>.txt` for a sequence.
Fits of source and driving must come from one fitter, those of the driving in the source's shape.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....errors import ReenactError
from ...media.frame import Frame
from ...media.images import read_image
from ...media.limits import DEFAULT_LIMITS, Limits
from ...media.writer import open_writer
from ...rate import rate_of
from ...running import Progress, check_not_an_input, run_to_file
from ...stream import Stage, StreamStats
from ..protocol import SystemSettings
from .animator import FaceToFaceRho, resized
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
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    mark: bool = True,
) -> StreamStats:
    """Write the source photo as each of the driving's fits moves it, a picture of the bundle's size each.

    The photo is a square around the head. Where it is not of the bundle's size it is resized by area, the published
    script's filter differs from that by half a level on average. With `mark` off the result is not marked as
    AI-generated. Raises ReenactError for fits, MediaError for the photo and the output, BundleError and BackendError
    for the networks.
    """
    fits, still = read_fits(driving_fit), read_fits(source_fit)
    if len(still) != 1:
        raise ReenactError(f"{source_fit}: holds {len(still)} fits; the source has one")
    image = read_image(source, limits=limits)
    if image.shape[0] != image.shape[1]:
        raise ReenactError(
            f"{source}: {image.shape[1]}x{image.shape[0]} pixels; fits are of a square picture around the head"
        )
    check_not_an_input(output, source)
    rate = rate_of(fps)
    system = FaceToFaceRho(settings)
    try:
        features = system.encode(resized(image, system.size), still[0].keypoints, still[0].head_pose)

        def animate(item: tuple[int, Fit]) -> Frame:
            index, fit = item
            return Frame(system.decode(features, fit.keypoints, fit.head_pose), index, 1 / rate)

        return run_to_file(
            enumerate(fits),
            [Stage("animate", animate)],
            open_writer(
                output,
                width=system.size,
                height=system.size,
                fps=rate,
                codec=codec,
                crf=crf,
                system=system.name,
                mark=mark,
            ),
            lambda stats: replace(stats, output=str(output)),
            progress,
            len(fits),
            first_stage="read",
        )
    finally:
        system.close()


def _numbered(folder: Path) -> dict[int, Path]:
    """Number to file; other names are left alone. ReenactError where two files have one number."""
    if not folder.is_dir():
        return {}
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".txt" and path.stem.isascii() and path.stem.isdecimal():
            other = found.setdefault(int(path.stem), path)
            if other is not path:
                raise ReenactError(f"{path}: has the number of {other.name}; keep one of the two")
    return found
