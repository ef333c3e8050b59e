"""Finds faces anywhere in a picture with MediaPipe's BlazeFace networks; knows nothing of landmarks or of time.

BlazeFace: Bazarevsky et al., "Sub-millisecond Neural Face Detection on Mobile GPUs", 2019. The full-range network
looks first; where it finds nothing, the picture is searched again in overlapping tiles, for small faces.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine import Precision, load
from ..media.frame import Image
from ..models import model_path

__all__ = ["Detection", "Detector"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Detection:
    """One detected face in pixels of the picture."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1
    right_eye: tuple[float, float]  # the person's right
    left_eye: tuple[float, float]
    score: float  # 0..1

    @property
    def size(self) -> float:
        """Longer side of the box in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


class Detector:
    """The full-range BlazeFace network; `close` frees it."""

    NETWORK = "face_detection_full_range_sparse"
    SIDE = 192  # input pixels
    STRIDE = 4

    def __init__(
        self, *, backend: str, precision: Precision, threads: int | None, min_score: float = 0.5
    ) -> None:
        """Load the network; `min_score` (0..1) is where a candidate counts as a face."""
        self._engine = load(model_path(self.NETWORK), backend=backend, precision=precision, threads=threads)
        self._input = next(iter(self._engine.inputs))
        cells = self.SIDE // self.STRIDE
        ys, xs = np.mgrid[0:cells, 0:cells]
        self._anchors = ((np.stack([xs, ys], axis=-1).reshape(-1, 2) + 0.5) * self.STRIDE).astype(np.float32)
        self._min_score = min_score

    def find(self, image: Image, *, tiles: int = 1) -> list[Detection]:
        """Faces in (H, W, 3) uint8 RGB, largest first.

        With `tiles` > 1 a picture without a face is searched again in overlapping squares of 1/2 .. 1/`tiles` of
        its shorter side.
        """
        for parts in range(1, tiles + 1):
            found = [face for tile in _tiles(image, parts) for face in self._find_in(image, tile)]
            if found:
                return sorted(_merge(found), key=lambda face: -face.size)
        return []

    def close(self) -> None:
        """Free the network."""
        self._engine.close()

    def _find_in(self, image: Image, tile: tuple[int, int, int, int]) -> list[Detection]:
        x0, y0, x1, y1 = tile
        scale = self.SIDE / max(x1 - x0, y1 - y0)
        width, height = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
        small = cv2.resize(image[y0:y1, x0:x1], (width, height), interpolation=cv2.INTER_AREA)
        canvas = np.zeros((1, self.SIDE, self.SIDE, 3), np.float32)
        left, top = (self.SIDE - width) // 2, (self.SIDE - height) // 2
        canvas[0, top : top + height, left : left + width] = small
        canvas[0] /= 127.5
        canvas[0] -= 1.0
        outputs = self._engine.run({self._input: canvas})
        regressions, logits = sorted(outputs.values(), key=lambda array: -array.shape[-1])
        scores = 1.0 / (1.0 + np.exp(-np.clip(logits.reshape(-1), -80.0, 80.0)))
        keep = scores >= self._min_score
        raw = regressions.reshape(-1, 16)[keep]
        points = raw.reshape(-1, 8, 2).copy()  # centre, size, then six key points, in input pixels
        points[:, 0] += self._anchors[keep]
        points[:, 2:] += self._anchors[keep][:, None]
        points[:, [0, *range(2, 8)]] -= (left, top)
        points /= scale
        points[:, [0, *range(2, 8)]] += (x0, y0)
        return [_detection(row, float(score)) for row, score in zip(points, scores[keep], strict=True)]


def _detection(points: Floats, score: float) -> Detection:
    centre, size = points[0], points[1]
    x0, y0 = centre - size / 2
    x1, y1 = centre + size / 2
    return Detection(
        box=(float(x0), float(y0), float(x1), float(y1)),
        right_eye=(float(points[2, 0]), float(points[2, 1])),
        left_eye=(float(points[3, 0]), float(points[3, 1])),
        score=score,
    )


def _tiles(image: Image, parts: int) -> Iterator[tuple[int, int, int, int]]:
    """Half-overlapping squares of 1/parts of the shorter side's length (one part: the whole picture)."""
    height, width = image.shape[:2]
    if parts == 1:
        yield 0, 0, width, height
        return
    side = -(-min(height, width) * 2 // (parts + 1))
    # A picture of extreme proportions would need more tiles than a face is worth.
    rows = _starts(height, side)
    columns = _starts(width, side)
    if len(rows) * len(columns) > 60:
        return
    for y in rows:
        for x in columns:
            yield x, y, min(x + side, width), min(y + side, height)


def _starts(length: int, side: int) -> list[int]:
    count = max(1, -(-2 * (length - side) // side) + 1)
    return [round(i * (length - side) / max(1, count - 1)) for i in range(count)]


def _merge(candidates: list[Detection]) -> list[Detection]:
    """Weighted non-maximum suppression: overlapping candidates are averaged by score (BlazeFace, section 3.4)."""
    rest = sorted(candidates, key=lambda face: -face.score)
    merged = []
    while rest:
        group = [face for face in rest if _overlap(rest[0].box, face.box) > 0.3]
        rest = [face for face in rest if _overlap(group[0].box, face.box) <= 0.3]
        weights = np.array([face.score for face in group])
        box = np.average([face.box for face in group], axis=0, weights=weights)
        right = np.average([face.right_eye for face in group], axis=0, weights=weights)
        left = np.average([face.left_eye for face in group], axis=0, weights=weights)
        merged.append(
            Detection(
                box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                right_eye=(float(right[0]), float(right[1])),
                left_eye=(float(left[0]), float(left[1])),
                score=group[0].score,
            )
        )
    return merged


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over the smaller box: a face found in two tiles may be cut in one of them."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return float(width * height / max(smaller, 1e-6))
