"""What every system offers to the runtime, and what it is given for each frame."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from ...errors import BundleError
from ..bundle import Bundle
from ..engine import Precision
from ..files import bundle_home
from ..media.frame import Image
from ..tracking.face import Face, Motion

__all__ = ["Animator", "MotionSource", "Observation", "Portrait", "SystemSettings"]

MotionSource = Literal["auto", "tracker", "deca"]
"""Who sees the driving's expression: auto is DECA where its bundle is there and the system can use it."""


@dataclass(frozen=True)
class SystemSettings:
    """How a system is to run."""

    bundle: Path | None = None  # None: the one in `bundle_home`
    backend: str = "auto"
    precision: Precision = "auto"
    motion_source: MotionSource = "auto"

    def open_bundle(self, system: str) -> Bundle:
        """The bundle of `system`; BundleError where there is none, it is damaged or of another system."""
        folder = self.bundle or bundle_home(system)
        if self.bundle is None and not folder.exists():
            raise BundleError(
                f"{system} needs a bundle, and {folder} does not exist; make one with `reenact export {system}`, "
                "or name one with --bundle"
            )
        bundle = Bundle.open(folder)
        if bundle.manifest.system != system:
            raise BundleError(
                f"{folder}: a bundle of {bundle.manifest.system}, not of {system}; use --system "
                f"{bundle.manifest.system} or another --bundle"
            )
        return bundle


@dataclass(frozen=True, eq=False)
class Observation:
    """What is known of the driving at one moment.

    `face` and `image` are None where there is none (a motion preset) or where the face is lost; `motion` always
    holds, since a lost face is held and eased back before it gets here.
    """

    motion: Motion
    face: Face | None = None
    image: Image | None = None


class Portrait(Protocol):
    """A registered source; each system adds its own cached state."""

    @property
    def image(self) -> Image:
        """(H, W, 3) uint8 RGB: the photo as registered, the size of every animated result."""

    @property
    def face(self) -> Face:
        """The source's face in that photo."""


P = TypeVar("P", bound=Portrait)


class Animator(Protocol[P]):
    """One system: registers a photo once, then makes one picture a frame."""

    name: str

    def register(self, image: Image, face: Face) -> P:
        """Encode a photo (H, W, 3) uint8 RGB with its tracked face; may take a second."""

    def animate(self, portrait: P, observation: Observation) -> Image:
        """The portrait moved as observed: (H, W, 3) uint8 RGB of the photo's size, a new array."""

    def close(self) -> None:
        """Free what it holds; nothing can be registered or animated afterwards."""
