"""The files of FLAME that users bring, read without executing what is in them: model, landmarks, skin colours.

None of them may be passed on. What is wrong with a file is told with where the right one is to be had.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from ..runtime.files import read_small_file
from .flame import FlameLandmarks, FlameModel
from .npy_files import npz_rows, read_npy_header
from .pickles import ARRAYS, PickleRefusedError, dense, item_of, read_pickle
from .tensor_pickles import TENSORS

__all__ = [
    "ALBEDO_SIDE",
    "DECA_SITE",
    "FLAME_SITE",
    "TRIANGLES",
    "VERTICES",
    "WITHOUT_FLAME",
    "Albedo",
    "read_albedo",
    "read_generic_model",
    "read_landmark_embedding",
]

FLAME_SITE = "https://flame.is.tue.mpg.de"
DECA_SITE = "https://github.com/yfeng95/DECA"
WITHOUT_FLAME = "meshwarp and face2face_rho, with the built-in tracker, work without it"

VERTICES, TRIANGLES = 5023, 9976
ALBEDO_SIDE = 512
_ALBEDO_COLUMNS = 50  # as many as the networks use

_MODEL = f"FLAME 2020's generic_model.pkl, which {FLAME_SITE} gives to those who accept its licence ({WITHOUT_FLAME})"
_EMBEDDING = f"DECA's landmark_embedding.npy, of the folder data in {DECA_SITE}"
_ALBEDO = (
    f"FLAME's skin colours, FLAME_texture.npz of {FLAME_SITE} or FLAME_albedo_from_BFM.npz as {DECA_SITE} "
    "says how to make (DECA works without them)"
)

_MODEL_FIELDS = {
    "f": (TRIANGLES, 3),
    "v_template": (VERTICES, 3),
    "shapedirs": (VERTICES, 3, 400),
    "posedirs": (VERTICES, 3, 36),
    "J_regressor": (5, VERTICES),
    "kintree_table": (2, 5),
    "weights": (VERTICES, 5),
}
_EMBEDDING_FIELDS = {
    f"{kind}_lmk_{what}": (*shape, *last)
    for kind, shape in (("static", (51,)), ("dynamic", (79, 17)), ("full", (1, 68)))
    for what, last in (("faces_idx", ()), ("bary_coords", (3,)))
}
# Where an albedo's two arrays are, how many columns there are and what brings them to 0..1.
_ALBEDO_KINDS = {"MU": ("PC", 199, 1.0), "mean": ("tex_dir", 200, 1 / 255)}

_MOST_MODEL, _MOST_EMBEDDING = (
    256 << 20,
    1 << 20,
)  # bytes; the published files have 53 million and 31 thousand

Record = TypeVar("Record")


@dataclass(frozen=True, eq=False)
class Albedo:
    """Skin colours as a mean and its main variations, of 512 x 512 pixels whose channels are blue, green and red."""

    mean: NDArray[np.float32]  # (786432,) in [0, 1], pixel after pixel
    basis: NDArray[np.float32]  # (786432, 50) a unit of the code

    def __post_init__(self) -> None:
        numbers = 3 * ALBEDO_SIDE**2
        for name, shape in (("mean", (numbers,)), ("basis", (numbers, _ALBEDO_COLUMNS))):
            values = getattr(self, name)
            if values.shape != shape or values.dtype != np.float32 or not np.isfinite(values).all():
                raise ModelError(f"the skin colours' {name} is not {shape} finite float32 numbers")


def read_generic_model(path: Path) -> FlameModel:
    """The published `generic_model.pkl`, with all 400 shape columns, in float32 and int64.

    Reads what Python 2 and chumpy wrote and what was saved again without them. Raises ModelError that names the
    file, and the field at fault, where it cannot be read, is not FLAME's or holds anything but arrays.
    """
    content = read_small_file(path, _MOST_MODEL, _MODEL, ModelError)
    try:
        pickled = read_pickle(content, ARRAYS)
    except PickleRefusedError as error:
        raise _refused(path, error, _MODEL) from error
    fields = _fields(path, pickled, _MODEL_FIELDS, _MODEL)
    fields["kintree_table"] = fields["kintree_table"].copy()
    fields["kintree_table"][0, 0] = -1  # the root has no parent; files say -1 or 4294967295
    return _made(path, FlameModel, fields)


def read_landmark_embedding(path: Path) -> FlameLandmarks:
    """The published `landmark_embedding.npy`, in float32 and int64; ModelError as for the model."""
    content = read_small_file(path, _MOST_EMBEDDING, _EMBEDDING, ModelError)
    file = io.BytesIO(content)
    try:
        header = read_npy_header(file)
    except ValueError as error:
        raise ModelError(f"{path}: {error}; take {_EMBEDDING}") from error
    if header.shape != () or header.dtype != object:
        raise ModelError(f"{path}: is an array {header.shape} of {header.dtype}; take {_EMBEDDING}")
    try:
        pickled = item_of(read_pickle(content[file.tell() :], TENSORS))
    except PickleRefusedError as error:
        raise _refused(path, error, _EMBEDDING) from error
    fields = _fields(path, pickled, _EMBEDDING_FIELDS, _EMBEDDING)
    landmarks = _made(path, FlameLandmarks, fields)
    for name in (name for name in fields if name.endswith("faces_idx")):
        if not (fields[name].min() >= 0 and fields[name].max() < TRIANGLES):
            raise ModelError(f"{path}: {name} names triangles outside 0..{TRIANGLES - 1}; take {_EMBEDDING}")
    return landmarks


def read_albedo(path: Path) -> Albedo:
    """The first 50 columns of FLAME's skin colours, of either published file.

    The file may have a gigabyte; it is read in blocks. Raises ModelError that names it where it is another.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            there = {name.removesuffix(".npy") for name in archive.namelist()}
            name = next((name for name in _ALBEDO_KINDS if name in there), None)
            if name is None:
                expected = " or ".join(f"{mean} and {kind[0]}" for mean, kind in _ALBEDO_KINDS.items())
                raise ModelError(f"{path}: has no arrays {expected}; take {_ALBEDO}")
            return _albedo(archive, name)
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}); name {_ALBEDO}") from error
    except Exception as error:  # a damaged archive may raise anything from inside zipfile
        reason = error if isinstance(error, ValueError) else f"is damaged ({error})"
        raise ModelError(f"{path}: {reason}; take {_ALBEDO}") from error


def _albedo(archive: zipfile.ZipFile, name: str) -> Albedo:
    numbers = 3 * ALBEDO_SIDE**2
    other, columns, scale = _ALBEDO_KINDS[name]
    mean, basis = np.empty((numbers, 1), np.float32), np.empty((numbers, _ALBEDO_COLUMNS), np.float32)
    for made, kept, width in ((mean, name, 1), (basis, other, columns)):
        at = 0
        for block in npz_rows(archive, kept, numbers, width):
            made[at : at + len(block)] = block[:, : made.shape[1]] * scale
            at += len(block)
    return Albedo(mean[:, 0], basis)


def _refused(path: Path, error: PickleRefusedError, expected: str) -> ModelError:
    return ModelError(f"{path}: {error}; nothing in it was executed. Take {expected}")


def _fields(
    path: Path, pickled: object, shapes: Mapping[str, tuple[int, ...]], expected: str
) -> dict[str, NDArray[Any]]:
    """The arrays under these names and of these shapes; floats as float32, integers as int64."""
    if not isinstance(pickled, dict):
        raise ModelError(f"{path}: holds a {type(pickled).__name__}, not fields under names; take {expected}")
    missing = [name for name in shapes if name not in pickled]
    if missing:
        raise ModelError(f"{path}: has no {', '.join(missing)}; take {expected}")
    fields = {}
    for name, shape in shapes.items():
        try:
            fields[name] = _converted(dense(pickled[name], shape))
        except PickleRefusedError as error:
            raise ModelError(f"{path}: {name} {error}; take {expected}") from error
    return fields


def _converted(values: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite and is refused as such
        return values.astype(np.float32 if values.dtype.kind == "f" else np.int64)


def _made(path: Path, kind: type[Record], fields: Mapping[str, NDArray[Any]]) -> Record:
    try:
        return kind(**fields)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
