"""DECA's published files, brought by the user: checked, kept as plain numbers for the user alone."""

from pathlib import Path

from ..reference.deca_files import DECA_CHECKPOINT, read_deca_model
from ..reference.flame import FlameLandmarks, FlameModel
from ..reference.flame_files import DECA_SITE, FLAME_SITE, Albedo, read_albedo, read_landmark_embedding
from ..reference.head_template import TEMPLATE_FILES, HeadTemplate, read_head_template
from ..reference.kept import kept_file, pack
from .checkpoints import Added, keep, origin_of, packed

__all__ = ["ADD_OPTIONS", "add_checkpoint"]

ADD_OPTIONS: frozenset[str] = frozenset()
_EMBEDDING = "landmark_embedding.npy"
_ALBEDOS = (
    "FLAME_albedo_from_BFM.npz",
    "FLAME_texture.npz",
)  # the first is the one that DECA's settings name
_LICENCE = f"DECA's licence: no passing on; non-commercial research, see {DECA_SITE}"
_ALBEDO_LICENCE = f"licence of the skin model that the file was made from; no passing on, see {FLAME_SITE}"


def add_checkpoint(path: Path) -> Added:
    """Check the published folder, named itself or by its `deca_model.tar`, and keep networks, landmarks and template.

    Skin colours are kept where the folder has some. Raises ModelError that names the file at fault and says where to
    get the right one.
    """
    file, folder = (path / DECA_CHECKPOINT, path) if path.is_dir() else (path, path.parent)
    files = packed(read_deca_model(file), origin_of(file), {})
    landmarks, template = read_landmark_embedding(folder / _EMBEDDING), read_head_template(folder)
    template_origin = ", ".join(origin_of(folder / name) for name in TEMPLATE_FILES)
    files |= {
        kept_file(FlameLandmarks).name: pack(landmarks, origin_of(folder / _EMBEDDING), _LICENCE),
        kept_file(HeadTemplate).name: pack(template, template_origin, _LICENCE),
    }
    albedo = next((folder / name for name in _ALBEDOS if (folder / name).exists()), None)
    if albedo is not None:
        files[kept_file(Albedo).name] = pack(read_albedo(albedo), origin_of(albedo), _ALBEDO_LICENCE)
    kept = keep("deca", files)
    flame = f"reenact models add flame generic_model.pkl, a file of {FLAME_SITE}"
    return Added(kept, None if kept_file(FlameModel).is_file() else flame)
