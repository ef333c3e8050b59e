"""reenact: a deployment runtime for face animation.

>>> from reenact import Reenactor
>>> Reenactor("photo.jpg").run("driving.mp4", "out.mp4")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from .errors import ReenactError

if TYPE_CHECKING:
    from .runtime.reenactor import Reenactor

__all__ = ["ReenactError", "Reenactor"]


def __getattr__(name: str) -> Any:
    """Import the heavy parts only when they are asked for, so that `import reenact` stays quick."""
    if name == "Reenactor":
        from .runtime.reenactor import Reenactor

        return Reenactor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
