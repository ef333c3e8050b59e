"""FLAME's model, brought by the user: read from the licensed pickle, kept as plain numbers for the user alone."""

from pathlib import Path

from ..reference.flame import FlameModel
from ..reference.flame_files import DECA_SITE, FLAME_SITE, read_generic_model
from ..reference.head_template import HeadTemplate
from ..reference.kept import kept_file, pack
from .checkpoints import Added, keep, origin_of

__all__ = ["ADD_OPTIONS", "add_checkpoint"]

ADD_OPTIONS: frozenset[str] = frozenset()
_FILE = "generic_model.pkl"
_LICENCE = f"FLAME model licence: no passing on; non-commercial research, see {FLAME_SITE}"


def add_checkpoint(path: Path) -> Added:
    """Check `generic_model.pkl`, named itself or by its folder, and keep its numbers.

    Raises ModelError that names the file and says what is wrong with it, where to get the right one, and what works
    without.
    """
    file = path / _FILE if path.is_dir() else path
    content = pack(read_generic_model(file), origin_of(file), _LICENCE)
    folder = keep("flame", {kept_file(FlameModel).name: content})
    deca = (
        f"reenact models add deca FOLDER, with deca_model.tar and the files of the folder data in {DECA_SITE}"
    )
    return Added(folder, None if kept_file(HeadTemplate).is_file() else deca)
