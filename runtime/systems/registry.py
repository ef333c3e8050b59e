"""The systems that can be asked for by name; each is imported only when it is."""

from collections.abc import Callable
from typing import Any

from ...errors import ReenactError
from .protocol import Animator, SystemSettings

__all__ = ["create", "names"]


def names() -> list[str]:
    """All systems."""
    return sorted(_SYSTEMS)


def create(name: str, settings: SystemSettings | None = None) -> Animator[Any]:
    """A system, ready to register photos.

    Raises ReenactError for a name that is not known or a bundle given to a system that has none; BundleError and
    BackendError as the system's networks do.
    """
    if name not in _SYSTEMS:
        raise ReenactError(f"no system is called {name!r}; known are {', '.join(names())}")
    return _SYSTEMS[name](settings or SystemSettings())


def _meshwarp(settings: SystemSettings) -> Animator[Any]:
    from .meshwarp import MeshWarp

    if settings.bundle is not None:
        raise ReenactError(
            f"meshwarp has no networks and takes no bundle; leave out --bundle, or choose another --system: "
            f"{', '.join(name for name in names() if name != 'meshwarp')}"
        )
    if settings.motion_source == "deca":
        raise ReenactError(
            "meshwarp is driven by the tracker alone; leave out --motion-source, or use another --system"
        )
    return MeshWarp()


def _face2face_rho(settings: SystemSettings) -> Animator[Any]:
    from .face2face_rho.animator import FaceToFaceRho

    return FaceToFaceRho(settings)


_SYSTEMS: dict[str, Callable[[SystemSettings], Animator[Any]]] = {
    "face2face_rho": _face2face_rho,
    "meshwarp": _meshwarp,
}
