"""Follows one face through a video: the last landmarks are the next region, detection runs only after a loss."""

from copy import copy

import numpy as np
from numpy.typing import NDArray

from ..closing import Closing
from ..engine import Precision, require
from ..media.frame import Image
from .detector import Detection, Detector
from .face import Face
from .geometry import describe, fit_pose, measure
from .landmarks import LandmarkNetwork
from .region import Region
from .smoothing import FaceSmoother

__all__ = ["Tracker"]

Floats = NDArray[np.float32]


class Tracker(Closing):
    """Tracks one face; a context manager.

    Among several faces the largest is followed, or number `face` (0: the largest, 1: the next, ...); after a loss
    the face nearest to where it was last seen, for half a second none that is far from there. `smooth` applies the
    One-Euro filter to `track`'s results.
    """

    # Faces in view score above 0.99, dim, noisy or turned as they may be; of regions that show no face 6 % pass
    # 0.5 and half as many 0.96, and landmarks that slide along an edge which hides the eyes stay below it.
    MIN_SCORE = 0.96
    NEARBY = 1.25  # sizes of the face, as far as it may have moved while it was not seen
    PATIENCE_S = 0.5  # for that long after a loss a face further off is taken for somebody else's
    SEARCH_PAUSE_S = 0.2  # between two searches of a whole frame in tiles while there is no face

    searches: int
    """How many frames `track` has searched for a face because it knew of none."""

    def __init__(
        self,
        *,
        backend: str = "auto",
        precision: Precision = "auto",
        threads: int | None = None,
        face: int | None = None,
        smooth: bool = True,
    ) -> None:
        """Load the networks; `threads` is the number of CPU threads for each (None: the backend decides).

        `precision` "auto" and "fp16" are float32 whatever the machine prefers: half precision shows as jitter. Where a
        backend's engines are built ahead, "auto" chooses another for these small networks. Raises BackendError
        where what is asked for cannot be had here, even if these networks do without it.
        """
        if require(backend, precision).built_ahead:
            backend = "auto"
        precision = "fp32" if precision in ("auto", "fp16") else precision
        self._detector = Detector(backend=backend, precision=precision, threads=threads)
        self._network = LandmarkNetwork(backend=backend, precision=precision, threads=threads)
        self._smoother = FaceSmoother() if smooth else None
        self._number = face
        self.searches = 0
        self.reset()

    def reset(self) -> None:
        """Forget the face; the next frame is searched afresh."""
        self._last: Floats | None = None  # landmarks of the previous frame, None after a loss
        self._seen_at: tuple[float, float, float] | None = None  # x, y, size of the last face ever seen
        self._seen_time = -np.inf
        self._searched = -np.inf
        if self._smoother:
            self._smoother.reset()

    def rescale(self, scale: float) -> None:
        """The next frames show the same in `scale` times the size: the face is where it was."""

        def scaled(at: float) -> float:
            return (at + 0.5) * scale - 0.5

        if self._last is not None:
            self._last = self._last * np.float32(scale)
            self._last[:, :2] += np.float32((scale - 1) / 2)
        if self._seen_at is not None:
            x, y, size = self._seen_at
            self._seen_at = (scaled(x), scaled(y), scale * size)
        if self._smoother:
            self._smoother.reset()

    def sibling(self, *, smooth: bool) -> "Tracker":
        """A tracker of another driving that uses the networks of this one, by turns; only this one is to be closed."""
        other = copy(self)
        other._network = self._network.sibling()
        other._smoother = FaceSmoother() if smooth else None
        other.searches = 0
        other.reset()
        return other

    def track(self, image: Image, time: float) -> Face | None:
        """The followed face in the frame (H, W, 3) uint8 RGB at `time` seconds, or None where it is not seen."""
        located = self._follow(image)
        if located is None:
            located = self._search(image, time)
            if self._smoother:
                self._smoother.reset()
        if located is None:
            self._last = None
            return None
        landmarks, score = located
        self._last = landmarks
        region = Region.of_landmarks(landmarks)
        self._seen_at, self._seen_time = (region.x, region.y, region.side / 1.5), time
        pose = fit_pose(landmarks)
        if self._smoother:
            return self._smoother(landmarks, pose, score, time)
        return describe(landmarks, pose, score)

    def find_faces(self, image: Image) -> list[Face]:
        """All faces of a still picture (H, W, 3) uint8 RGB, largest first; slower and more thorough than `track`."""
        faces = []
        for detection in self._detector.find(image, tiles=4):
            located = self._locate(image, Region.of_detection(detection), rounds=3)
            if located is not None:
                faces.append(measure(*located))
        return sorted(_distinct(faces), key=lambda face: -_size(face))

    def close(self) -> None:
        """Free the networks."""
        self._detector.close()
        self._network.close()

    def _follow(self, image: Image) -> tuple[Floats, float] | None:
        if self._last is None:
            return None
        return self._locate(image, Region.of_landmarks(self._last), rounds=1)

    def _search(self, image: Image, time: float) -> tuple[Floats, float] | None:
        """Detect anew; small faces are looked for only now and then, since that takes many looks at the frame."""
        self.searches += 1
        thorough = not 0 <= time - self._searched < self.SEARCH_PAUSE_S
        detections = self._detector.find(image, tiles=3 if thorough else 1)
        if thorough:
            self._searched = time
        if not detections:
            return None
        if self._seen_at is not None:
            x, y, size = self._seen_at

            def away(face: Detection) -> float:
                x0, y0, x1, y1 = face.box
                return float(np.hypot((x0 + x1) / 2 - x, (y0 + y1) / 2 - y)) + abs(face.size - size)

            detections.sort(key=away)
            if 0 <= time - self._seen_time < self.PATIENCE_S:
                detections = [face for face in detections if away(face) < self.NEARBY * size]
        elif self._number is not None:
            # Until enough faces are in view the one asked for is not there yet.
            detections = detections[self._number : self._number + 1]
        for detection in detections:
            located = self._locate(image, Region.of_detection(detection), rounds=2)
            if located is not None:
                return located
        return None

    def _locate(self, image: Image, region: Region, *, rounds: int) -> tuple[Floats, float] | None:
        """Landmarks in a region, looked at again in the region they give; None where there is no face after all."""
        located = None
        for _ in range(rounds):
            if located is not None:
                region = Region.of_landmarks(located[0])
            if rounds > 1:
                self._network.forget()
            if not 4.0 <= region.side <= 8.0 * max(image.shape[:2]):
                return None
            located = self._network.locate(image, region, min_score=self.MIN_SCORE)
            if located is None:
                return None
        return located


def _size(face: Face) -> float:
    x0, y0, x1, y1 = face.box
    return max(x1 - x0, y1 - y0)


def _distinct(faces: list[Face]) -> list[Face]:
    """Without faces whose middle lies in a better one: two detections can end on one face."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        x, y = face.landmarks_px[:468, :2].mean(axis=0)
        inside = any(k.box[0] < x < k.box[2] and k.box[1] < y < k.box[3] for k in kept)
        if not inside:
            kept.append(face)
    return kept
