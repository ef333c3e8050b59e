"""The systems that can be asked for by name; each is imported only when it is."""

from collections.abc import Callable
from typing import Any

from ...errors import ReenactError
from .protocol import Animator

__all__ = ["create", "names"]


def names() -> list[str]:
    """All systems."""
    return sorted(_SYSTEMS)


def create(name: str) -> Animator[Any]:
    """A system, ready to register photos; raises ReenactError for a name that is not known."""
    if name not in _SYSTEMS:
        raise ReenactError(f"no system is called {name!r}; known are {', '.join(names())}")
    return _SYSTEMS[name]()


def _meshwarp() -> Animator[Any]:
    from .meshwarp import MeshWarp

    return MeshWarp()


_SYSTEMS: dict[str, Callable[[], Animator[Any]]] = {"meshwarp": _meshwarp}
