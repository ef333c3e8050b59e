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
from ..tracking.look import Look

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

    `face` is None where it is lost, `image` as well where there is no picture (a motion preset); `motion` always holds,
    since a lost face is held and eased back before it gets here, with all strengths and edits in it. What else is here
    is for systems that look at the driving's picture themselves, and are to do with what they see what was asked.
    """

    motion: Motion
    face: Face | None = None
    image: Image | None = None
    time: float = 0.0  # seconds of the driving; another driving begins where it goes back
    neutral: Look | None = (
        None  # the face that motion is counted from; None while there is none (calibration)
    )
    smoothing: float = 1.0  # of what is seen: 0 none, 1 as usual
    expression_strength: float = 1.0  # 0 nothing, 1 as seen
    edits: Motion | None = None  # what of `motion` was asked for and not seen


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
