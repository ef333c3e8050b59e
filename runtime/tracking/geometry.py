"""From landmarks to a face: metric head pose, expression in the head's own frame, openness of eyes and mouth, gaze."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from .canonical import load
from .eyes import LEFT_IRIS, RIGHT_IRIS
from .face import Face, HeadPose

__all__ = ["describe", "fit_pose", "measure", "mouth_openness"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

DEPTH_WEIGHT = 0.15
_FIT_ROUNDS = 6

# Each eye: outer corner, inner corner, then upper and lower lid points that face each other.
_EYES = (
    (33, 133, ((160, 144), (159, 145), (158, 153))),
    (263, 362, ((387, 373), (386, 374), (385, 380))),
)
_INNER_LIPS = (78, 308, ((82, 87), (13, 14), (312, 317)))


def fit_pose(landmarks_px: Floats) -> HeadPose:
    """Weak-perspective pose of (>=468, 3) landmarks in pixels: weighted Procrustes against the canonical face.

    Horn 1987 / Umeyama 1991: the least-squares similarity between two point sets, here weighted by how rigid each
    point is under expression. Depth is the network's guess while x and y are seen, so depth counts DEPTH_WEIGHT:
    the rest of it is taken from the last fit, again and again (majorisation), until the fit stands.
    """
    model, spread, weights, model_centre = _rigid_model()
    seen_centre = weights @ landmarks_px[:468]
    correlation = (landmarks_px[:468] - seen_centre).T.astype(np.float64) @ model
    size = float(np.trace(spread))
    target = correlation
    for _ in range(_FIT_ROUNDS):
        u, singular, vt = np.linalg.svd(target)
        sign = np.array([1.0, 1.0, 1.0 if np.linalg.det(u @ vt) > 0 else -1.0])
        rotation = (u * sign) @ vt
        scale = float((singular * sign).sum()) / size
        target = correlation.copy()
        target[2] *= DEPTH_WEIGHT
        target[2] += (1 - DEPTH_WEIGHT) * scale * (rotation[2] @ spread)
    translation = seen_centre - scale * (rotation @ model_centre)
    return HeadPose(rotation.astype(np.float32), scale, translation.astype(np.float32))


@cache
def _rigid_model() -> tuple[Doubles, Doubles, Floats, Doubles]:
    """Centred and weighted canonical points (468, 3), their scatter (3, 3), the weights (468,), their centre (3,)."""
    face = load()
    weights = (face.rigidity / face.rigidity.sum()).astype(np.float64)
    neutral = face.neutral.astype(np.float64)
    centre = weights @ neutral
    weighted = (neutral - centre) * weights[:, None]
    return weighted, weighted.T @ (neutral - centre), weights.astype(np.float32), centre


def measure(landmarks_px: Floats, score: float) -> Face:
    """Everything that is derived from (478, 3) landmarks in pixels and the network's score."""
    return describe(landmarks_px, fit_pose(landmarks_px), score)


def describe(landmarks_px: Floats, pose: HeadPose, score: float) -> Face:
    """As `measure`, with a pose that is already known."""
    head = pose.unproject(landmarks_px)
    return Face(
        landmarks_px=landmarks_px,
        pose=pose,
        expression=head[:468] - load().neutral,
        eye_openness=np.array([_openness(head, *eye) for eye in _EYES], np.float32),
        mouth_openness=mouth_openness(head),
        gaze=np.stack([_gaze(head, RIGHT_IRIS, _EYES[0]), _gaze(head, LEFT_IRIS, _EYES[1])]),
        score=score,
    )


def mouth_openness(points: Floats) -> float:
    """Gap between the inner lips over the width between their corners, of (>=468, 2 or 3) points of any unit."""
    return _openness(points, *_INNER_LIPS)


def _openness(points: Floats, corner: int, other: int, pairs: tuple[tuple[int, int], ...]) -> float:
    width = float(np.linalg.norm(points[corner, :2] - points[other, :2]))
    gap = float(np.mean([points[low, 1] - points[high, 1] for high, low in pairs]))
    return gap / max(width, 1e-6)


def _gaze(head: Floats, iris: slice, eye: tuple[int, int, tuple[tuple[int, int], ...]]) -> Floats:
    """Iris centre minus the middle of the eye's corners, head frame x and y, in eye widths."""
    corners = head[list(eye[:2]), :2]
    width = np.linalg.norm(corners[0] - corners[1])
    return np.asarray(
        (head[iris, :2].mean(axis=0) - corners.mean(axis=0)) / max(float(width), 1e-6), np.float32
    )
