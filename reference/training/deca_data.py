"""Photos of subjects for DECA: several of one subject a sample, cropped around its landmarks with some play.

A folder of data has `list.npy` with names of photos, and of each photo `images/<name>.jpg` or `.png`,
`landmarks/<name>.npy` (68 in pixels), and where there is one `masks/<name>.npy` (above 0.5 is skin).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import MediaError, ReenactError
from ...runtime.tracking.flame_crop import SIDE, FaceSquare, crop
from ..npy_files import NpyHeader, read_npy_header
from .files import Image, decoded, raise_for, require_signature
from .order import Draw, generator

__all__ = ["Crops", "PhotoSet", "SubjectPhotos", "read_photo_set"]

Array = NDArray[Any]

_LANDMARKS = 68
_FIRST = 5  # photos of a row of the table that are used, where K is not more; as published
_ELSE = "take them out of list.npy"
_LIST = (
    "names as plain texts, (subjects, photos of each), or (photos,) each <person>/<...>; "
    "numpy.save(path, table.astype(str)) writes them so"
)


class Crops(NamedTuple):
    """What is cut out around landmarks; the published numbers."""

    smallest: float = 1.4  # side, in the mean side of the landmarks' box
    largest: float = 1.8
    shift: float = 0.0  # of the centre at most, in the same


@dataclass(frozen=True)
class PhotoSet:
    """A folder of data."""

    folder: Path
    subjects: tuple[tuple[str, ...], ...]  # names of the photos of each
    again: bool  # whether a sample may have a photo more than once

    def landmarks(self, name: str) -> Path:
        """Where the landmarks of a photo lie."""
        return self.folder / "landmarks" / f"{name}.npy"

    def mask(self, name: str) -> Path:
        """Where its skin would be marked."""
        return self.folder / "masks" / f"{name}.npy"

    def photo(self, name: str) -> Path:
        """The `.jpg`, or where there is none the `.png`."""
        photo = self.folder / "images" / f"{name}.jpg"
        return photo if photo.exists() else photo.with_name(f"{photo.stem}.png")


class SubjectPhotos:
    """Samples of K photos of one subject each.

    Sample i is of subject i modulo their number; an epoch has each of them `repeats` times. What is chosen, and how it
    is cropped, depends on the seed and the draw only. A sample has

    images     (K, 3, 224, 224) RGB in [0, 1]
    landmarks  (K, 68, 3) x and y in [-1, 1] over the photo, and 1
    masks      (K, 1, 224, 224), 1 on skin, 0 elsewhere; 1 everywhere in a photo without a mask
    """

    def __init__(
        self, sets: Sequence[PhotoSet], *, photos: int, crops: Crops, repeats: int, seed: int = 0
    ) -> None:
        self._photos, self._crops, self._repeats, self._seed = photos, crops, repeats, seed
        self._subjects = [(photo_set, names) for photo_set in sets for names in photo_set.subjects]

    def check(self) -> None:
        """Look at every file once: pictures by how they begin, numbers wholly, masks by their headers.

        The first photo of each subject is decoded as well. Raises ReenactError that names the first wrong files.
        """
        wrong = [complaint for subject in self._subjects for complaint in _complaints(*subject)]
        if wrong:
            raise_for(self._subjects[0][0].folder, wrong, _ELSE)

    def unmarked(self) -> tuple[int, int]:
        """How many of the photos have no mask, and how many photos there are."""
        there = [photo_set.mask(name).exists() for photo_set, names in self._subjects for name in names]
        return len(there) - sum(there), len(there)

    def __len__(self) -> int:
        """Samples of an epoch."""
        return len(self._subjects) * self._repeats

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """The sample of a draw; ReenactError names the file that cannot be used."""
        random = generator(self._seed, *draw)
        photo_set, names = self._subjects[draw.number % len(self._subjects)]
        chosen = random.choice(len(names), self._photos, replace=photo_set.again)
        items = [self._item(photo_set, names[number], random) for number in chosen]
        return {key: torch.stack([item[key] for item in items]) for key in items[0]}

    def _item(self, photo_set: PhotoSet, name: str, random: np.random.Generator) -> dict[str, Tensor]:
        photo, landmarks_px = _photo(photo_set.photo(name)), _landmarks(photo_set.landmarks(name))
        skin = _mask(photo_set.mask(name), photo.shape[:2])
        to_crop = self._square(landmarks_px, random).to_crop()
        placed = landmarks_px @ to_crop[:2, :2].T + to_crop[:2, 2]
        landmarks = np.concatenate([2 * placed / SIDE - 1, np.ones((_LANDMARKS, 1))], 1)
        return {
            "images": torch.from_numpy(crop(photo, to_crop)),
            "landmarks": torch.from_numpy(landmarks.astype(np.float32)),
            "masks": torch.from_numpy(crop(skin, to_crop)[:1]),
        }

    def _square(self, landmarks_px: Array, random: np.random.Generator) -> FaceSquare:
        low, high = landmarks_px.min(0), landmarks_px.max(0)
        side = (high - low).mean()
        scale = random.uniform(self._crops.smallest, self._crops.largest)
        x, y = (low + high) / 2 + random.uniform(-1, 1, 2) * self._crops.shift * side
        return FaceSquare(float(x), float(y), int(side * scale))


def read_photo_set(folder: Path, photos: int) -> PhotoSet:
    """The subjects of `folder`/list.npy, for samples of so many photos each.

    A table (subjects, at least `photos`) has a subject a row; of each the first 5 photos are used, or the first
    `photos` where these are more, and a sample has each at most once. A plain list has frames of videos, as
    <person>/<video>/<clip>/<frame>: a subject is a person, and a sample may have a frame more than once. Raises
    ReenactError that names the list and what is wrong with it.
    """
    path = folder / "list.npy"
    table = _names(path)
    wrong = next((str(name) for name in table.flat if not _is_name(str(name))), None)
    if wrong is not None:
        raise ReenactError(f"{path}: {wrong[:80]!r} is not the name of a photo below {folder / 'images'}")
    if table.ndim == 2:
        if table.shape[1] < photos:
            raise ReenactError(
                f"{path}: has {table.shape[1]} photos of each subject; num_images {photos} needs as many. Lower "
                "num_images, or list more"
            )
        used = table[:, : max(_FIRST, photos)]
        return PhotoSet(folder, tuple(tuple(map(str, row)) for row in used), again=False)
    persons: dict[str, list[str]] = {}
    for name in dict.fromkeys(map(str, table)):
        person, mark, _ = name.partition("/")
        if not mark:
            raise ReenactError(f"{path}: {name[:80]!r} does not say whose it is; expected {_LIST}")
        persons.setdefault(person, []).append(name)
    return PhotoSet(folder, tuple(map(tuple, persons.values())), again=True)


def _names(path: Path) -> Array:
    try:
        _header(path)
        table = _load(path)
    except MediaError as error:
        raise ReenactError(f"{error}; a folder of data has such a file, of {_LIST}") from error
    if table.dtype.kind == "S":
        table = np.char.decode(table, "utf-8", "replace")
    if table.dtype.kind != "U" or table.ndim not in (1, 2) or not table.size:
        raise ReenactError(f"{path}: is {table.shape} of {table.dtype}; expected {_LIST}")
    return table


def _is_name(name: str) -> bool:
    """Whether this stays below the folder and is the same on all systems."""
    return not set(name) & set("\\\0:") and not {"", ".", ".."} & set(name.split("/"))


def _complaints(photo_set: PhotoSet, names: Sequence[str]) -> Iterator[str]:
    for place, name in enumerate(names):
        try:
            require_signature(photo_set.photo(name))
            _landmarks(photo_set.landmarks(name))
            mask = photo_set.mask(name)
            if place == 0:
                _mask(mask, _photo(photo_set.photo(name)).shape[:2])
            elif mask.exists():
                _require_mask(mask, _header(mask))
        except ReenactError as error:
            yield str(error)


def _photo(path: Path) -> Image:
    """(H, W, 3) uint8 RGB."""
    picture = decoded(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return np.ascontiguousarray(picture[:, :, ::-1])


def _landmarks(path: Path) -> NDArray[np.float64]:
    """(68, 2) pixels."""
    header = _header(path)
    if len(header.shape) != 2 or header.shape[0] != _LANDMARKS or header.dtype.kind not in "fiu":
        raise MediaError(
            f"{path}: is {header.shape} of {header.dtype}; expected ({_LANDMARKS}, 2 or more) numbers, landmarks in "
            "pixels of the photo"
        )
    points = np.asarray(_load(path)[:, :2], np.float64)
    if points.shape[1] != 2 or not np.isfinite(points).all() or not (np.ptp(points, axis=0) >= 1).all():
        raise MediaError(f"{path}: its landmarks are no {_LANDMARKS} finite points of a face, in pixels")
    return points


def _mask(path: Path, size: tuple[int, ...]) -> Image:
    """(H, W, 3) uint8, 255 on skin; MediaError where that is not its picture's `size`."""
    if not path.exists():
        return np.full((*size, 3), 255, np.uint8)
    header = _header(path)
    _require_mask(path, header)
    if header.shape != size:
        raise MediaError(f"{path}: is {header.shape}; expected {size} as its photo")
    skin = (_load(path) > 0.5).astype(np.uint8) * np.uint8(255)
    return np.repeat(skin[..., None], 3, 2)


def _require_mask(path: Path, header: NpyHeader) -> None:
    if len(header.shape) != 2 or header.dtype.kind not in "bfiu":
        raise MediaError(
            f"{path}: is {header.shape} of {header.dtype}; expected (H, W) numbers, above 0.5 on skin"
        )


def _header(path: Path) -> NpyHeader:
    try:
        with path.open("rb") as file:
            header = read_npy_header(file)
            there = path.stat().st_size - file.tell()
    except OSError as error:
        raise MediaError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise MediaError(f"{path}: {error}") from error
    if header.dtype.hasobject:
        raise MediaError(
            f"{path}: holds objects, which only executing a pickle could read; save plain arrays"
        )
    if there != int(np.prod(header.shape, dtype=np.int64)) * header.dtype.itemsize:
        raise MediaError(f"{path}: has {there} bytes for {header.shape} of {header.dtype}; write it again")
    return header


def _load(path: Path) -> Array:
    """What is in a file whose header was looked at."""
    try:
        loaded: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: cannot be read ({error})") from error
    return loaded
