"""From landmarks to a face: metric head pose, expression in the head's own frame, openness of eyes and mouth, gaze."""

import numpy as np
from numpy.typing import NDArray

from .canonical import load
from .eyes import LEFT_IRIS, RIGHT_IRIS
from .face import Face, HeadPose

__all__ = ["describe", "fit_pose", "measure", "mouth_openness"]

Floats = NDArray[np.float32]

# Each eye: outer corner, inner corner, then upper and lower lid points that face each other.
_EYES = (
    (33, 133, ((160, 144), (159, 145), (158, 153))),
    (263, 362, ((387, 373), (386, 374), (385, 380))),
)
_INNER_LIPS = (78, 308, ((82, 87), (13, 14), (312, 317)))


def fit_pose(landmarks_px: Floats) -> HeadPose:
    """Weak-perspective pose of (>=468, 3) landmarks in pixels: weighted Procrustes against the canonical face.

    Horn 1987 / Umeyama 1991: the least-squares similarity between two point sets, here weighted by how rigid
    each point is under expression.
    """
    face = load()
    weights = (face.rigidity / face.rigidity.sum()).astype(np.float64)
    model = face.neutral.astype(np.float64)
    seen = landmarks_px[:468].astype(np.float64)
    model_centre, seen_centre = weights @ model, weights @ seen
    model, seen = model - model_centre, seen - seen_centre
    covariance = (seen * weights[:, None]).T @ model
    u, singular, vt = np.linalg.svd(covariance)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    scale = float((singular * sign).sum() / (weights @ (model**2).sum(axis=1)))
    translation = seen_centre - scale * (rotation @ model_centre)
    return HeadPose(rotation.astype(np.float32), scale, translation.astype(np.float32))


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
