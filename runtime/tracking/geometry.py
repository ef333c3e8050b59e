"""From landmarks to a face: metric head pose, expression in the head's own frame, openness of eyes and mouth, gaze."""

from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .canonical import load
from .eyes import RIGHT_IRIS
from .face import Face, HeadPose

__all__ = ["describe", "fit_pose", "measure", "mouth_openness"]

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

DEPTH_WEIGHT = 0.15
_FIT_ROUNDS = 8

# Openings: outer and inner corner, then three upper and the three lower points that face them.
_EYES = np.array([[33, 133, 160, 159, 158, 144, 145, 153], [263, 362, 387, 386, 385, 373, 374, 380]])
_MOUTH = np.array([[78, 308, 82, 13, 312, 87, 14, 317]])


def fit_pose(landmarks_px: Floats) -> HeadPose:
    """Weak-perspective pose of (>=468, 3) landmarks in pixels: weighted Procrustes against the canonical face.

    Horn 1987 / Umeyama 1991: the least-squares similarity between two point sets, here weighted by how rigid each
    point is under expression. Depth is the network's guess while x and y are seen, so depth counts DEPTH_WEIGHT:
    the rest of it is taken from the last fit, again and again (majorisation), until the fit stands.
    """
    model, spread, weights, model_centre = _rigid_model()
    seen_centre = weights @ landmarks_px[:468]
    correlation = (landmarks_px[:468] - seen_centre).T.astype(np.float64) @ model
    u, singular, vt = np.linalg.svd(correlation)
    sign = np.array([1.0, 1.0, 1.0 if np.linalg.det(u @ vt) > 0 else -1.0])
    scale = float((singular * sign).sum() / np.trace(spread))
    rotation, scale = _trust_depth_less(correlation, spread, (u * sign) @ vt, scale)
    translation = seen_centre - scale * (rotation @ model_centre)
    return HeadPose(rotation.astype(np.float32), scale, translation.astype(np.float32))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _trust_depth_less(
    correlation: Doubles, spread: Doubles, rotation: Doubles, scale: float
) -> tuple[Doubles, float]:
    """The rounds of `fit_pose` after its first; each rotation by Newton's iteration for the polar factor.

    Higham 1986. Depth taken from the last fit keeps the matrix far from singular and its determinant positive.
    """
    size = spread[0, 0] + spread[1, 1] + spread[2, 2]
    target = np.empty((3, 3))
    for _ in range(_FIT_ROUNDS):
        for column in range(3):
            depth = 0.0
            for k in range(3):
                depth += rotation[2, k] * spread[k, column]
            target[0, column] = correlation[0, column]
            target[1, column] = correlation[1, column]
            target[2, column] = DEPTH_WEIGHT * correlation[2, column] + (1 - DEPTH_WEIGHT) * scale * depth
        rotation = target / np.abs(target).max()
        for _newton in range(30):
            a, b, c = rotation[0], rotation[1], rotation[2]
            cofactors = np.empty((3, 3))
            for k in range(3):
                m, n = (k + 1) % 3, (k + 2) % 3
                cofactors[0, k] = b[m] * c[n] - b[n] * c[m]
                cofactors[1, k] = c[m] * a[n] - c[n] * a[m]
                cofactors[2, k] = a[m] * b[n] - a[n] * b[m]
            determinant = (a * cofactors[0]).sum()
            halfway = (rotation + cofactors / determinant) / 2
            change = np.abs(halfway - rotation).max()
            rotation = halfway
            if change < 1e-12:
                break
        scale = (rotation * target).sum() / size
    return rotation, scale


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
        eye_openness=_openness(head, _EYES),
        mouth_openness=mouth_openness(head),
        gaze=_gaze(head),
        score=score,
    )


def mouth_openness(points: Floats) -> float:
    """Gap between the inner lips over the width between their corners, of (>=468, 2 or 3) points of any unit."""
    return float(_openness(points, _MOUTH)[0])


def _openness(points: Floats, openings: NDArray[np.intp]) -> Floats:
    """(N,) mean gap over width of openings, (N, 8) indices: both corners, three upper points, three lower ones."""
    across = points[openings[:, 0], :2] - points[openings[:, 1], :2]
    gaps = (points[openings[:, 5:8], 1] - points[openings[:, 2:5], 1]).mean(axis=1)
    return np.asarray(gaps / np.maximum(np.hypot(across[:, 0], across[:, 1]), 1e-6), np.float32)


def _gaze(head: Floats) -> Floats:
    """(2, 2) iris centre minus the middle of the eye's corners, head frame x and y, in eye widths."""
    first, second = head[_EYES[:, 0], :2], head[_EYES[:, 1], :2]
    across = first - second
    width = np.maximum(np.hypot(across[:, 0], across[:, 1]), 1e-6)
    irises = head[RIGHT_IRIS.start :, :2].reshape(2, 5, 2).mean(axis=1)
    return np.asarray((irises - (first + second) / 2) / width[:, None], np.float32)
