"""From the built-in tracker to what Face2Face-rho's networks take: 72 keypoints and a head pose of six numbers.

The published networks were trained with a private fitter whose numbers are known for six example pictures only. The
table of mesh points, the head's tilt and its size below were chosen on those six; they take the place of a FLAME fit.

Zero motion gives the source's own keypoints and head pose; any other motion moves the source's own shape, so that
the driving gives movement and the source its identity.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ...tracking.canonical import LEFT_EYE, RIGHT_EYE
from ...tracking.face import Face, HeadPose, Motion
from ...tracking.lids import LidPairs, close_lips
from ...tracking.relative import proportions
from .fitting import SHIFT_SCALE, PoseTransform
from .landmarks import NOSE_TIP

__all__ = ["MESH_POINTS", "Crop", "SourceShape", "head_pose_of", "keypoints_of"]

Floats = NDArray[np.float32]

# Keypoint k lies half way between these two points of the Face Mesh, or on one that is named twice. The picture's left
# is the person's right. Sides mirror each other.
# fmt: off
_CONTOUR_LEFT = ((34, 127), (227, 234), (93, 147), (132, 213), (138, 138), (136, 136), (149, 150), (148, 176))
_CHIN = ((152, 152),)
_CONTOUR_RIGHT = ((264, 356), (447, 454), (323, 376), (361, 433), (367, 367), (365, 365), (378, 379), (377, 400))
_LEFT_BROW = ((53, 63), (63, 105), (66, 105), (66, 107), (55, 107))
_RIGHT_BROW = ((285, 336), (296, 336), (296, 334), (293, 334), (283, 293))
_NOSE_BRIDGE = ((168, 168), (6, 197), (5, 195), (4, 4))
_NOSE_BASE = ((60, 98), (97, 97), (2, 2), (326, 326), (290, 327))
_LEFT_EYE = ((33, 33), (160, 160), (158, 159), (157, 157), (133, 133), (153, 153), (144, 145), (144, 163))
_RIGHT_EYE = ((362, 362), (384, 384), (385, 386), (387, 387), (263, 263), (373, 390), (373, 374), (380, 380))
_MOUTH = (
    (76, 76), (37, 37), (39, 40), (78, 78), (80, 81), (306, 306), (267, 267), (269, 270), (308, 308), (310, 311),
    (0, 0), (13, 13), (402, 402), (321, 405), (314, 314), (178, 178), (91, 181), (84, 84), (14, 14), (17, 17),
)
# fmt: on
MESH_POINTS: NDArray[np.intp] = np.array(
    _CONTOUR_LEFT
    + _CHIN
    + _CONTOUR_RIGHT
    + _LEFT_BROW
    + _RIGHT_BROW
    + _NOSE_BRIDGE
    + _NOSE_BASE
    + _LEFT_EYE
    + _RIGHT_EYE
    + _MOUTH
)  # (72, 2)
MESH_POINTS.setflags(write=False)

# To the fitter an upright canonical face is bent down by TILT (radians) and MODEL_SIZE times as large, and its nose tip
# lies in the middle at NOSE_HEIGHT (metres, up) of the mesh's origin, which is inside the head. Means over the six
# pictures; the single values are 0.07..0.16, 0.965..0.992 and -0.0044..-0.0033.
TILT = 0.123
MODEL_SIZE = 0.975
NOSE_HEIGHT = -0.0039
_CM_PER_METRE = 100.0

_TRANSFORM = PoseTransform()
# From camera axes (y down, z away) to FLAME's (y up, z to the viewer).
_TO_FLAME = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Crop:
    """The square of a picture that the networks see: its upper left corner and side, in pixels of the picture."""

    left: float
    top: float
    side: float

    def __post_init__(self) -> None:
        if not (self.side > 0 and np.isfinite([self.left, self.top, self.side]).all()):
            raise ValueError(f"a crop needs a place and a side above 0, not {self}")


def keypoints_of(landmarks_px: Floats, crop: Crop) -> Floats:
    """(72, 2) float32 keypoints in [-1, 1] over the crop, of (>=468, 2 or 3) Face Mesh points in pixels."""
    middle = landmarks_px[MESH_POINTS, :2].mean(axis=1)
    return _normalised(middle, crop)


def head_pose_of(pose: HeadPose, keypoints: Floats, crop: Crop) -> Floats:
    """(6,) float32 head pose of a tracked pose and its 72 keypoints: axis-angle, shift x, y, scale.

    In FLAME's axes (x right, y up, z to the viewer) and the units of the published networks, as
    `fitting.head_pose` gives them: the camera's shift plus the nose tip's by the rotation is where the nose
    tip is seen, less where an unturned head in the middle of the crop would show it.
    """
    tilt = cv2.Rodrigues(np.array([TILT, 0.0, 0.0]))[0]
    turn = cv2.Rodrigues(_TO_FLAME @ pose.rotation.astype(np.float64) @ _TO_FLAME @ tilt)[0][:, 0]
    scale = pose.scale * _CM_PER_METRE / MODEL_SIZE * 2 / crop.side
    x, y = keypoints[NOSE_TIP].astype(np.float64)
    shift_x = _TRANSFORM.shift_x + SHIFT_SCALE * x
    shift_y = _TRANSFORM.shift_y - SHIFT_SCALE * (y + scale * NOSE_HEIGHT)
    return np.array([*turn, shift_x, shift_y, scale / _TRANSFORM.scale], np.float32)


class SourceShape:
    """The source's own three-dimensional face, seen in its crop; built once, moved each frame."""

    def __init__(self, face: Face, crop: Crop) -> None:
        """`face`: the source's, in pixels of the picture that `crop` is a part of."""
        self._pose = face.pose
        self._crop = crop
        self._head = face.pose.unproject(face.landmarks_px[:468])
        self._proportions = proportions(self._head)
        self._lids = [LidPairs(contour, self._head) for contour in (RIGHT_EYE, LEFT_EYE)]
        self._seen = keypoints_of(face.landmarks_px, crop)
        self._still = self._placed(Motion.still())[0]

    @property
    def still(self) -> tuple[Floats, Floats]:
        """(72, 2) keypoints and (6,) head pose, float32, of the source as it is."""
        return self._seen, head_pose_of(self._pose, self._seen, self._crop)

    def moved(self, motion: Motion) -> tuple[Floats, Floats]:
        """(72, 2) keypoints and (6,) head pose, float32, of the source's face after `motion`.

        The head turns, shifts and grows as meshwarp's does, but freely: what lies behind is the networks' to show.
        """
        placed, pose = self._placed(motion)
        keypoints = self._seen + (placed - self._still)
        return keypoints, head_pose_of(pose, keypoints, self._crop)

    def _placed(self, motion: Motion) -> tuple[Floats, HeadPose]:
        """Keypoints of the modelled head after `motion`, and its pose in pixels of the picture."""
        pose = HeadPose(
            motion.rotation @ self._pose.rotation,
            self._pose.scale * motion.scale,
            self._pose.translation
            + np.float32(self._pose.scale) * np.append(motion.translation, np.float32(0)),
        )
        head = self._head + motion.expression * self._proportions
        for pairs, ratio in zip(self._lids, motion.lids, strict=True):
            pairs.apply(head, float(ratio))
        close_lips(head, self._head)
        points_px = pose.project(head[MESH_POINTS].mean(axis=1))
        return _normalised(points_px[:, :2], self._crop), pose


def _normalised(points_px: Floats, crop: Crop) -> Floats:
    """(N, 2) pixels of the picture to float32 in [-1, 1] over the crop."""
    corner = np.array([crop.left, crop.top], np.float32)
    return np.asarray((points_px - corner) * np.float32(2 / crop.side) - np.float32(1), np.float32)
