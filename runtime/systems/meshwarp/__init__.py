"""The built-in system: the photo's own pixels, moved by a face mesh; it needs no weights but the tracker's."""

from .animator import MeshWarp

__all__ = ["MeshWarp"]
