"""What was made of a user's licensed files: arrays in safetensors, with where they came from and under which licence.

`reenact models add` writes them to the user's private folder; nothing of them is ever passed on.
"""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import safetensors.numpy

from ..errors import ModelError
from ..runtime.files import checkpoint_home
from .flame import FlameLandmarks, FlameModel
from .flame_files import DECA_SITE, FLAME_SITE, WITHOUT_FLAME, Albedo
from .head_template import HeadTemplate

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "kept_albedo",
    "kept_file",
    "kept_flame",
    "kept_landmarks",
    "kept_template",
    "pack",
]

Record = TypeVar("Record", bound="DataclassInstance")

_PLACES: dict[type[Any], tuple[str, str]] = {
    FlameModel: ("flame", "model"),
    FlameLandmarks: ("deca", "landmarks"),
    HeadTemplate: ("deca", "template"),
    Albedo: ("deca", "albedo"),
}
_HOW = {
    "flame": f"PATH/generic_model.pkl. {FLAME_SITE} gives the file to those who accept its licence; {WITHOUT_FLAME}",
    "deca": f"FOLDER, with deca_model.tar and the files of the folder data in {DECA_SITE}",
}


def pack(record: "DataclassInstance", origin: str, licence: str) -> bytes:
    """A dataclass of arrays as the content of a safetensors file.

    `origin` names the files and their sha256, `licence` says in one line under what they were given.
    """
    arrays = {field.name: np.ascontiguousarray(getattr(record, field.name)) for field in fields(record)}
    return safetensors.numpy.save(arrays, {"origin": origin, "licence": licence})


def kept_file(kind: type[Any]) -> Path:
    """Where the file of this class is kept, whether it is there or not."""
    system, name = _PLACES[kind]
    return checkpoint_home(system) / f"{name}.safetensors"


def kept_flame() -> FlameModel:
    """The model that was added; ModelError that says where to get it where none was."""
    return _kept(FlameModel)


def kept_landmarks() -> FlameLandmarks:
    """The landmarks that were added with DECA; ModelError where none were."""
    return _kept(FlameLandmarks)


def kept_template() -> HeadTemplate:
    """UV layout, masks and fixed wrinkles that were added with DECA; ModelError where none were."""
    return _kept(HeadTemplate)


def kept_albedo() -> Albedo | None:
    """The skin colours that were added with DECA, None where it was added without them."""
    return _kept(Albedo) if kept_file(Albedo).exists() else None


def _kept(kind: type[Record]) -> Record:
    path, (system, _) = kept_file(kind), _PLACES[kind]
    again = f"reenact models add {system} {_HOW[system]}"
    if not path.is_file():
        raise ModelError(f"{system} has not been added: {again}")
    try:
        arrays = safetensors.numpy.load_file(path)
        return kind(**{field.name: arrays[field.name] for field in fields(kind)})
    except Exception as error:  # the reader's own error has no class that could be named
        raise ModelError(f"{path}: damaged ({error}); add it again: {again}") from error
