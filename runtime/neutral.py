"""Which frame of a driving shows its person at rest: the face that all its motion is counted from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import FaceNotFoundError
from .media.frame import Frame
from .tracking.face import Face

__all__ = ["Reference", "find_reference", "rest_costs", "rest_index"]

SEARCH_SECONDS = 5.0  # from the first face on
SEARCH_FRAMES = 150

# How much of each departure from rest weighs as much as one of the others.
_TURN = 0.3  # radians
_MOUTH = 0.12  # openness
_LIDS = 0.25  # of the person's usual openness
_GAZE = 0.12  # eye widths
_GRIMACE = 0.6  # cm, root mean square over the face


@dataclass(frozen=True, eq=False)
class Reference:
    """The neutral face and what was found in all frames up to where the search ended."""

    neutral: Face
    index: int  # of the neutral frame
    faces: Sequence[Face | None]  # one a frame, from the first frame on


def find_reference(
    frames: Iterable[Frame],
    track: Callable[[Frame], Face | None],
    choice: Literal["auto"] | int,
    *,
    name: str,
) -> Reference:
    """Track `frames` until the neutral one is known; `choice` is its number or "auto".

    "auto" looks at the five seconds, at most 150 frames, that follow the first face. Raises
    FaceNotFoundError, naming the driving by `name`, where there is no face.
    """
    if choice != "auto" and choice < 0:
        raise FaceNotFoundError(f"--reference-frame {choice} is no frame; count from 0, or use auto")
    faces: list[Face | None] = []
    first: Frame | None = None
    searched = 0
    for frame in frames:
        face = track(frame)
        faces.append(face)
        if choice != "auto":
            if len(faces) > choice:
                break
            continue
        if first is None and face is not None:
            first = frame
        if first is not None:
            searched += 1
            if searched >= SEARCH_FRAMES or frame.time - first.time >= SEARCH_SECONDS:
                break
    if choice == "auto":
        index = rest_index(faces)
    else:
        index = choice
        if index >= len(faces):
            raise FaceNotFoundError(
                f"{name}: --reference-frame {choice}, but there are only {len(faces)} frames"
            )
    neutral = faces[index] if index is not None else None
    if index is None:
        raise FaceNotFoundError(
            f"{name}: no face in any of {len(faces)} frames; use a video that shows a face"
        )
    if neutral is None:
        raise FaceNotFoundError(
            f"{name}: no face in frame {index}; choose another --reference-frame, or auto"
        )
    return Reference(neutral, index, faces)


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
