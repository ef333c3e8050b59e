"""Landmarks of one face in a known region, with MediaPipe's Face Mesh and Iris networks.

Face Mesh: Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019.
"""

from copy import copy

import numpy as np
from numpy.typing import NDArray

from ..engine import Precision, load
from ..media.frame import Image
from ..models import model_path
from .eyes import EyeNetwork
from .region import Region, crop, place

__all__ = ["LandmarkNetwork"]

Floats = NDArray[np.float32]


class LandmarkNetwork:
    """Face Mesh and Iris together: 478 points of the face in a region; `close` frees both networks."""

    SIDE = 192

    def __init__(self, *, backend: str, precision: Precision, threads: int | None) -> None:
        """Load both networks."""
        path = model_path("face_landmark")
        self._mesh = load(path, backend=backend, precision=precision, threads=threads)
        self._input = next(iter(self._mesh.inputs))
        self._eyes = EyeNetwork(backend=backend, precision=precision, threads=threads)

    def forget(self) -> None:
        """The next region shows another face than the last one."""
        self._eyes.forget()

    def sibling(self) -> "LandmarkNetwork":
        """The same networks for another face; only one of the two is to be closed."""
        other = copy(self)
        other._eyes = self._eyes.sibling()
        return other

    def locate(self, image: Image, region: Region, *, min_score: float) -> tuple[Floats, float] | None:
        """Landmarks (478, 3) in pixels of the picture and the network's score 0..1 that a face is there.

        z has the scale of x and y and is smaller nearer the viewer; its zero lies near the middle of the head.
        None where the score is below `min_score`.
        """
        outputs = self._mesh.run({self._input: crop(image, region, self.SIDE)[None]})
        points, logit = sorted(outputs.values(), key=lambda array: -array.size)
        score = float(1.0 / (1.0 + np.exp(-np.clip(logit.reshape(-1)[0], -80.0, 80.0))))
        landmarks = np.empty((478, 3), np.float32)
        landmarks[:468] = place(points.reshape(468, 3), region, self.SIDE)
        if score < min_score or not np.isfinite(landmarks[:468]).all():
            return None
        self._eyes.refine(image, landmarks, region.angle)
        return landmarks, score

    def close(self) -> None:
        """Free both networks."""
        self._mesh.close()
        self._eyes.close()
