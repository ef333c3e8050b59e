"""FLAME's coefficients for faces in pictures: the square around each, DECA's `encode` graph over all of them at once.

Knows the graph by its tensors only; what a head looks like for these coefficients is the system's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..engine import Given, Tensors
from ..media.frame import Image
from .face import Face
from .flame_crop import SIDE, FaceSquare, crop
from .smoothing import OneEuro

__all__ = ["FitSmoother", "FlameFit", "FlameFitter", "View", "face_square", "view_of"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

CODES = ("shape", "tex", "exp", "pose", "cam", "light")
# Of the Face Mesh, those that the usual 68 landmarks end at: contour from ear to ear by the chin, and the brows' tops.
_OUTERMOST = np.array(
    [
        *(127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152),
        *(377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356),
        *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    ]
)


class _Encode(Protocol):
    def run(self, inputs: dict[str, Given]) -> Tensors: ...


@dataclass(frozen=True, eq=False)
class View:
    """A face as the networks see it."""

    crop: Floats  # (3, 224, 224) RGB in [0, 1]
    to_crop: Doubles  # (3, 3) similarity from the picture's pixels to the crop's


@dataclass(frozen=True, eq=False)
class FlameFit:
    """What was seen in one face, float32; the names are the published ones."""

    shape: Floats  # (100,) identity
    tex: Floats  # (50,) skin colours
    exp: Floats  # (50,) expression
    pose: Floats  # (6,) axis-angles of the head and of the jaw, radians
    cam: Floats  # (3,) scale, shift x, shift y: weak perspective over the crop
    light: Floats  # (9, 3) spherical harmonics, a column a channel
    to_crop: Doubles  # (3, 3) similarity from the picture's pixels to the crop's


def face_square(face: Face) -> FaceSquare:
    """The square that the networks expect around a tracked face; errors as `FaceSquare.of_landmarks`."""
    return FaceSquare.of_landmarks(face.landmarks_px[_OUTERMOST])


def view_of(image: Image, square: FaceSquare) -> View:
    """The square of a picture (H, W, 3) uint8 RGB."""
    to_crop = square.to_crop()
    return View(crop(image, to_crop), to_crop)


class FlameFitter:
    """Fits faces with an engine of DECA's `encode` graph, which whoever made it closes."""

    def __init__(self, encode: _Encode) -> None:
        """Take the engine."""
        self._encode = encode

    def fit(self, views: Sequence[View]) -> list[FlameFit]:
        """The fits of views, all in one go: source and driving together, or one frame.

        Raises BackendError where the network gives numbers that are not finite.
        """
        if not views:
            return []
        seen = self._encode.run({"images": np.stack([view.crop for view in views])})
        for name in CODES:
            if not np.isfinite(seen[name]).all():
                raise BackendError(
                    f"the networks give {name} that are not finite; use --precision fp32 or another --backend"
                )
        return [
            FlameFit(**{name: seen[name][i] for name in CODES}, to_crop=view.to_crop)
            for i, view in enumerate(views)
        ]


class FitSmoother:
    """The One-Euro filter over one person's fits; `reset` when the face changes.

    Scale and place are filtered in the picture's pixels: from frame to frame the square jumps, and the camera over it.
    """

    def __init__(self, amount: float = 1.0) -> None:
        """`amount` above 0 divides all cut-off frequencies: 1 as usual, 2 twice as calm."""
        self._amount = amount
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        calm = 0.8 / self._amount
        self._codes = {
            "exp": OneEuro(min_cutoff=calm, beta=0.5 / self._amount),
            "pose": OneEuro(min_cutoff=calm, beta=32.0 / self._amount),
            # Who it is, and the light, do not change from frame to frame.
            **{name: OneEuro(min_cutoff=calm / 4, beta=0.0) for name in ("shape", "tex", "light")},
        }
        self._camera = OneEuro(min_cutoff=calm, beta=48.0 / self._amount)
        self._side: float | None = None

    def __call__(self, fit: FlameFit, time: float) -> FlameFit:
        """The fit at `time` seconds with noise removed; its square stays as it is."""
        codes = {name: calmed(getattr(fit, name), time) for name, calmed in self._codes.items()}
        across, start = fit.to_crop[0, 0], fit.to_crop[:2, 2]
        scale, x, y = fit.cam.astype(np.float64)
        half = SIDE / 2
        if self._side is None:
            self._side = SIDE / across
        middle = (half * np.array([scale * x + 1, 1 - scale * y]) - start) / across
        seen = np.array([half * scale / across, *middle]) / self._side
        size, *place = self._camera(seen.astype(np.float32), time).astype(np.float64) * self._side
        scale = size * across / half
        x, y = (np.array(place) * across + start) / half - 1
        cam = np.array([scale, x / scale, -y / scale], np.float32)
        return FlameFit(**codes, cam=cam, to_crop=fit.to_crop)
