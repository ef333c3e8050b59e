"""Which frame of a driving shows its person at rest: the face that all its motion is counted from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import FaceNotFoundError
from .media.frame import Frame
from .tracking.face import Face
from .tracking.look import Look, look_at

__all__ = ["Reference", "find_reference", "rest_costs", "rest_index"]

SEARCH_SECONDS = 5.0  # from the first face on
LOOK_EVERY = 0.12  # seconds
# After so many looks a face this near to rest is taken as it is, and the search ends.
ENOUGH_LOOKS = 8
AT_REST = 0.8

# How much of each departure from rest weighs as much as one of the others.
_TURN = 0.3  # radians
_MOUTH = 0.12  # openness
_LIDS = 0.25  # of the person's usual openness
_GAZE = 0.12  # eye widths
_GRIMACE = 0.6  # cm, root mean square over the face


@dataclass(frozen=True, eq=False)
class Reference:
    """The neutral face and the number of its frame, counted from 0."""

    neutral: Face
    index: int
    look: Look  # at that face


def find_reference(
    frames: Iterable[Frame],
    track: Callable[[Frame], Face | None],
    choice: Literal["auto"] | int,
    *,
    name: str,
) -> Reference:
    """The neutral face of a driving; `choice` is the number of its frame or "auto".

    "auto" looks at every frame until there is a face, then a few times a second, until there was one at rest but no
    longer than five seconds. Raises FaceNotFoundError, naming the driving by `name`, where there is no face.
    """
    if choice != "auto":
        return _chosen(frames, track, choice, name)
    found: list[Reference] = []
    looked = first = 0.0
    index = -1
    for index, frame in enumerate(frames):
        if found and frame.time - first > SEARCH_SECONDS:
            break
        if found and frame.time - looked < LOOK_EVERY:
            continue
        face = track(frame)
        if face is not None:
            first = first if found else frame.time
            found.append(Reference(face, index, look_at(frame.image, face)))
            if len(found) >= ENOUGH_LOOKS and rest_costs([seen.neutral for seen in found]).min() < AT_REST:
                break
        looked = frame.time
    if not found:
        raise FaceNotFoundError(
            f"{name}: no face in any of {index + 1} frames; use a video that shows a face"
        )
    best = rest_index([seen.neutral for seen in found])
    assert best is not None  # there is a face in the list
    return found[best]


def _chosen(
    frames: Iterable[Frame], track: Callable[[Frame], Face | None], choice: int, name: str
) -> Reference:
    if choice < 0:
        raise FaceNotFoundError(f"--reference-frame {choice} is no frame; count from 0, or use auto")
    count = 0
    for count, frame in enumerate(frames, 1):
        if count > choice:
            face = track(frame)
            if face is None:
                raise FaceNotFoundError(
                    f"{name}: no face in frame {choice}; choose another --reference-frame, or auto"
                )
            return Reference(face, choice, look_at(frame.image, face))
    raise FaceNotFoundError(f"{name}: --reference-frame {choice}, but there are only {count} frames")


def rest_index(faces: Sequence[Face | None]) -> int | None:
    """The face that looks straight ahead with its mouth closed, its eyes open and its usual expression.

    None where there is no face at all. Of equals it is the first.
    """
    costs = rest_costs(faces)
    return int(np.argmin(costs)) if np.isfinite(costs).any() else None


def rest_costs(faces: Sequence[Face | None]) -> NDArray[np.float64]:
    """How far from rest each face is, 0 and up; about 1 for one clear departure, infinite where there is no face."""
    costs = np.full(len(faces), np.inf)
    found = [(index, face) for index, face in enumerate(faces) if face is not None]
    if not found:
        return costs
    openness = np.array([face.eye_openness.mean() for _, face in found])
    usual_openness = max(float(np.percentile(openness, 80)), 1e-6)
    expressions = np.stack([face.expression for _, face in found])
    usual = np.median(expressions, axis=0)
    grimace = np.sqrt(np.square(expressions - usual).sum(axis=2).mean(axis=1))
    turned = np.array([face.pose.yaw_pitch_roll for _, face in found])
    mouth = np.array([max(face.mouth_openness, 0.0) for _, face in found])
    gaze = np.array([np.abs(face.gaze).mean() for _, face in found])
    shut = np.clip(1 - openness / usual_openness, 0, None)
    costs[[index for index, _ in found]] = (
        np.square(turned / _TURN).sum(axis=1)
        + np.square(mouth / _MOUTH)
        + np.square(shut / _LIDS)
        + np.square(gaze / _GAZE)
        + np.square(grimace / _GRIMACE)
    )
    return costs
