"""Who finds the square around a face for DECA: the built-in tracker, or the package face-alignment.

DECA was trained with boxes of face-alignment's landmarks; of these only the outermost matter, and the built-in tracker
finds them as well.
"""

from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError, ModelError, ReenactError
from ..engine import Precision
from ..media.frame import Image
from .face import Face
from .flame_crop import FaceSquare
from .flame_fit import face_square
from .tracker import Tracker

__all__ = ["TRACKERS", "BuiltIn", "FaceAlignment", "FaceSquares", "find_squares"]

TRACKERS = ("built-in", "face-alignment")


class FaceSquares(Protocol):
    """Looks for one face."""

    def still(self, image: Image) -> FaceSquare | None:
        """Around the face of a picture (H, W, 3) uint8 RGB; None where there is none."""

    def follow(self, image: Image, time: float) -> FaceSquare | None:
        """The same in a frame at `time` seconds, where faces are expected to have moved little."""

    def reset(self) -> None:
        """Forget the face that was followed."""

    def close(self) -> None:
        """Free the networks."""


def find_squares(name: str, *, backend: str, face: int, smooth: bool) -> FaceSquares:
    """The tracker of that name; ReenactError where there is none, and as the trackers."""
    if name == "built-in":
        return BuiltIn(backend=backend, face=face, smooth=smooth)
    if name == "face-alignment":
        return FaceAlignment(face=face)
    raise ReenactError(f"no tracker is called {name!r}; known are {', '.join(TRACKERS)}")


class BuiltIn:
    """The tracker that comes with reenact."""

    def __init__(self, *, backend: str, face: int, smooth: bool, precision: Precision = "auto") -> None:
        """`face`: which one, 0 the largest; errors as `Tracker`."""
        self._face = face
        self._tracker = Tracker(backend=backend, precision=precision, face=face or None, smooth=smooth)

    def still(self, image: Image) -> FaceSquare | None:
        """See `FaceSquares`."""
        faces = self._tracker.find_faces(image)
        return face_square(faces[self._face]) if len(faces) > self._face else None

    def follow(self, image: Image, time: float) -> FaceSquare | None:
        """See `FaceSquares`."""
        face: Face | None = self._tracker.track(image, time)
        return None if face is None else face_square(face)

    def reset(self) -> None:
        """See `FaceSquares`."""
        self._tracker.reset()

    def close(self) -> None:
        """See `FaceSquares`."""
        self._tracker.close()


class FaceAlignment:
    """The package that DECA's authors use, with its own networks; every frame is searched anew."""

    def __init__(self, *, face: int, device: str = "cpu") -> None:
        """`face`: which of those it finds, 0 the one whose landmarks span the largest box.

        Raises BackendError where the package is not installed, ModelError where its networks cannot be had.
        """
        try:
            package: Any = import_module("face_alignment")
        except ImportError as error:
            raise BackendError(
                f"--tracker face-alignment: the package cannot be imported ({error}); install it with `pip install "
                "face-alignment`, or use --tracker built-in"
            ) from error
        kinds = package.LandmarksType
        kind = getattr(kinds, "TWO_D", None) or kinds._2D  # versions before 1.4 have another name
        self._face = face
        try:
            self._network = package.FaceAlignment(kind, flip_input=False, device=device)
        except Exception as error:  # it hands on whatever its downloader raises
            raise ModelError(
                f"--tracker face-alignment: its networks cannot be had ({error}); they are fetched from "
                "www.adrianbulat.com into torch's cache (TORCH_HOME/hub/checkpoints). Put them there, or use "
                "--tracker built-in"
            ) from error

    def still(self, image: Image) -> FaceSquare | None:
        """See `FaceSquares`."""
        found = self._network.get_landmarks_from_image(image)
        if found is None or len(found) <= self._face:
            return None
        largest_first = sorted((np.asarray(landmarks) for landmarks in found), key=_area, reverse=True)
        return FaceSquare.of_landmarks(largest_first[self._face])

    def follow(self, image: Image, _time: float) -> FaceSquare | None:
        """See `FaceSquares`."""
        return self.still(image)

    def reset(self) -> None:
        """See `FaceSquares`."""

    def close(self) -> None:
        """See `FaceSquares`."""


def _area(landmarks_px: NDArray[Any]) -> float:
    """Square pixels of the box around (N, 2) landmarks."""
    return float(np.ptp(landmarks_px[:, :2], axis=0).prod())
