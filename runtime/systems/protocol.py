"""What every system offers to the runtime, and what it is given for each frame."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from ..media.frame import Image
from ..tracking.face import Face, Motion

__all__ = ["Animator", "Observation", "Portrait"]


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
