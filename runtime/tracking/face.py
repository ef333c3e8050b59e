"""What the tracker finds in a frame, and the motion between two such findings; no images, no engines.

Frames of reference. *Camera*: x right, y down, z away from the viewer, in pixels of the frame. *Head*: the same
axes fixed to the head, looking at the viewer when upright, in centimetres of the canonical face.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["Face", "HeadPose", "Motion", "euler_angles", "rotation_matrix"]

Floats = NDArray[np.float32]


def rotation_matrix(yaw: float, pitch: float, roll: float) -> Floats:
    """(3, 3) float32 rotation of head onto camera coordinates, angles in radians.

    Yaw is positive when the person looks towards the left side of the picture, pitch when the head is bent down,
    roll when the head is turned counter-clockwise in the picture. Applied in the order yaw, pitch, roll.
    """
    cy, sy = np.cos(yaw), np.sin(yaw)
    cp, sp = np.cos(pitch), np.sin(pitch)
    cr, sr = np.cos(roll), np.sin(roll)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ about_y, np.float32)


def euler_angles(rotation: Floats) -> tuple[float, float, float]:
    """(yaw, pitch, roll) in radians of a (3, 3) rotation; the inverse of `rotation_matrix` for |pitch| < 90 degrees."""
    pitch = np.arcsin(np.clip(rotation[2, 1], -1.0, 1.0))
    yaw = np.arctan2(-rotation[2, 0], rotation[2, 2])
    roll = np.arctan2(rotation[0, 1], rotation[1, 1])
    return float(yaw), float(pitch), float(roll)


@dataclass(frozen=True, eq=False)
class HeadPose:
    """Weak-perspective pose: camera_px = scale * rotation @ head_cm + translation."""

    rotation: Floats  # (3, 3) head to camera
    scale: float  # pixels per centimetre
    translation: Floats  # (3,) pixels: where the head frame's origin is

    def project(self, points_head: Floats) -> Floats:
        """(N, 3) head points in cm to (N, 3) camera points in pixels."""
        return np.asarray(self.scale * (points_head @ self.rotation.T) + self.translation, np.float32)

    def unproject(self, points_px: Floats) -> Floats:
        """(N, 3) camera points in pixels to (N, 3) head points in cm; the inverse of `project`."""
        return np.asarray(((points_px - self.translation) @ self.rotation) / self.scale, np.float32)

    @property
    def yaw_pitch_roll(self) -> tuple[float, float, float]:
        """Radians; signs as in `rotation_matrix`."""
        return euler_angles(self.rotation)


@dataclass(frozen=True, eq=False)
class Face:
    """One tracked face in one frame."""

    landmarks_px: (
        Floats  # (478, 3) camera pixels: 468 of the mesh, 5 of the right iris, 5 of the left (the person's)
    )
    pose: HeadPose
    expression: Floats  # (468, 3) cm in the head frame: where the points are minus the canonical neutral face
    eye_openness: Floats  # (2,) person's right, left: gap between the lids / width of the eye
    mouth_openness: float  # gap between the inner lips / width between the inner mouth corners
    gaze: Floats  # (2, 2) person's right, left: iris minus eye centre, head frame x and y, in eye widths
    score: float  # 0..1, the landmark network's own belief that this is a face

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) pixels around the 468 mesh points."""
        low = self.landmarks_px[:468, :2].min(axis=0)
        high = self.landmarks_px[:468, :2].max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def placed(self, *, scale: float, x: float, y: float) -> "Face":
        """The same face in a picture that was scaled and then shifted by (x, y) pixels."""
        shift = np.array([x, y, 0], np.float32)
        pose = HeadPose(
            self.pose.rotation, self.pose.scale * scale, self.pose.translation * np.float32(scale) + shift
        )
        return replace(self, landmarks_px=self.landmarks_px * np.float32(scale) + shift, pose=pose)


@dataclass(frozen=True, eq=False)
class Motion:
    """How a head moved and what its face did since its neutral frame; free of whose head it was."""

    rotation: Floats  # (3, 3) camera frame: rotation_now @ rotation_neutral.T
    translation: Floats  # (2,) cm: picture movement over the neutral scale
    scale: float  # scale now / scale neutral
    expression: Floats  # (468, 3) cm in the head frame, relative to the neutral frame
    lids: Floats  # (2,) person's right, left: eye openness now / in the neutral frame
    gaze: Floats  # (2, 2) person's right, left: gaze now minus gaze in the neutral frame, in eye widths

    @classmethod
    def still(cls) -> "Motion":
        """No motion at all: the source as it is."""
        return cls(
            rotation=np.eye(3, dtype=np.float32),
            translation=np.zeros(2, np.float32),
            scale=1.0,
            expression=np.zeros((468, 3), np.float32),
            lids=np.ones(2, np.float32),
            gaze=np.zeros((2, 2), np.float32),
        )
