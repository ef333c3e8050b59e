"""From a reference network and a checkpoint to a bundle of ONNX graphs; needs the extra `export`.

Each system has a module of its name with the same three functions.
"""

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from ..errors import ReenactError
from ..runtime.bundle import Bundle
from .checkpoints import Checkpoint
from .onnx import Checked

__all__ = ["SYSTEMS", "Exporter", "exporter"]

SYSTEMS = ("face2face_rho",)


class Exporter(Protocol):
    """What the module of a system offers."""

    def read_checkpoint(
        self, folder: Path | None, *, suffix: str | None = None, config: Path | None = None
    ) -> Checkpoint:
        """The checkpoint in a folder of the published layout, or the one that was added."""

    def add_checkpoint(self, folder: Path, *, suffix: str | None = None, config: Path | None = None) -> Path:
        """Check a checkpoint and keep it for later exports; where it is kept."""

    def export(
        self, checkpoint: Checkpoint, size: int, folder: Path, licence: str
    ) -> tuple[Bundle, list[Checked]]:
        """Write a bundle and say how far its graphs are from the reference."""


def exporter(system: str) -> Exporter:
    """The exporter of a system; ReenactError that names those there are."""
    if system not in SYSTEMS:
        raise ReenactError(f"{system!r} cannot be exported; there is {', '.join(SYSTEMS)}")
    return cast(Exporter, import_module(f".{system}", __name__))
