"""From a reference network and a checkpoint to a bundle of ONNX graphs; needs the extra `export`.

What can be kept for later, a system's checkpoint or licensed files that several systems need, has a module of its name
that is a `Keeper`. A system that can be exported has a module that is an `Exporter`.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from ..errors import ReenactError
from ..runtime.bundle import Bundle
from .checkpoints import Added, Checkpoint
from .onnx import Checked

__all__ = ["KEPT", "SYSTEMS", "Exporter", "Keeper", "exporter", "keeper"]

SYSTEMS = {"deca": "deca_bundle", "face2face_rho": "face2face_rho"}  # and the modules that export them
KEPT = ("deca", "face2face_rho", "flame")


class Keeper(Protocol):
    """What the module of published files offers that can be kept."""

    ADD_OPTIONS: frozenset[str]  # the names of what `add_checkpoint` takes beside the path

    def add_checkpoint(self, path: Path, **options: Any) -> Added:
        """Check the files at a path without executing what is in them, and keep them for later."""


class Exporter(Protocol):
    """What the module of a system offers that can be exported."""

    DEFAULT_SIZE: int  # side in pixels of its networks' pictures
    NEXT: str  # the command that uses the bundle

    def read_checkpoint(
        self, folder: Path | None, *, suffix: str | None = None, config: Path | None = None
    ) -> Checkpoint:
        """The checkpoint in a folder of the published layout, or the one that was added."""

    def export(
        self, checkpoint: Checkpoint, size: int, folder: Path, licence: str
    ) -> tuple[Bundle, list[Checked]]:
        """Write a bundle, which says what graphs stay whole, and say how far they are from the reference."""


def exporter(system: str) -> Exporter:
    """The exporter of a system; ReenactError that names those there are."""
    if system not in SYSTEMS:
        raise ReenactError(f"{system!r} cannot be exported; there is {', '.join(SYSTEMS)}")
    return cast(Exporter, import_module(f".{SYSTEMS[system]}", __name__))


def keeper(name: str) -> Keeper:
    """The module that keeps these files; ReenactError that names those there are."""
    if name not in KEPT:
        raise ReenactError(f"{name!r} cannot be added; there is {', '.join(KEPT)}")
    return cast(Keeper, import_module(f".{name}", __name__))
