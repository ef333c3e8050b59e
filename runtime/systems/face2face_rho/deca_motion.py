"""Face2Face-rho's keypoints and head pose from DECA's coefficients, as its authors get them, in the tracker's place.

Taken where a bundle of DECA is there that has the 72 keypoints. Expression and jaw are the driving's as DECA sees them,
in the source's shape; where the head goes, how it turns and when a lost face eases back is the tracker's motion, so
that relative motion and the strength of the pose work as ever.
"""

import logging
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ....errors import BundleError
from ...files import bundle_home, checkpoint_home
from ...media.frame import Image
from ...tracking.face import Face, Motion
from ...tracking.flame_fit import FitSmoother, FlameFit, face_square, view_of
from ..deca.model import Deca, Person
from ..protocol import Observation, SystemSettings
from .fitting import (
    Camera,
    PoseTransform,
    camera_in_picture,
    head_pose,
    keypoints,
    load_pose_transform,
)
from .points import Crop, SourceShape

__all__ = ["DecaMotion", "FittedShape", "deca_motion"]

_log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Fit = tuple[Floats, Floats]  # keypoints (72, 2) in [-1, 1] over the square, head pose (6,)

_TRANSFORM_FILE = "pose_transform_config.json"
_TO_FLAME = np.diag([1.0, -1.0, -1.0])  # from camera axes (y down, z away) to FLAME's
_FPS = 30.0  # frames a second, as far as calming the coefficients goes


def deca_motion(settings: SystemSettings) -> "DecaMotion | None":
    """DECA from its usual place, on the same backend; None where the tracker is to do without it.

    With `motion_source` auto that is so where it is not there or knows no keypoints. Raises BundleError where it is
    damaged, or asked for by its name and not there.
    """
    asked = settings.motion_source
    if asked == "tracker" or (asked == "auto" and not bundle_home("deca").exists()):
        return None
    deca = Deca(replace(settings, bundle=None))
    if deca.has_keypoints:
        _log.info("expressions come from DECA, whose bundle is in %s", bundle_home("deca"))
        return DecaMotion(deca)
    deca.close()
    reason = (
        "its bundle has no keypoints; add landmark_embedding.json with `reenact models add face2face_rho FOLDER`, then "
        "`reenact export deca`"
    )
    if asked == "deca":
        raise BundleError(f"--motion-source deca: {reason}")
    _log.info("DECA is not used: %s", reason)
    return None


class DecaMotion:
    """Fits sources and what drives them."""

    def __init__(self, deca: Deca) -> None:
        """Takes DECA over; the user's own constants of the pose are used where they were added."""
        self._deca = deca
        file = checkpoint_home("face2face_rho") / _TRANSFORM_FILE
        self._transform = load_pose_transform(file) if file.is_file() else PoseTransform()

    def shape(self, image: Image, face: Face, crop: Crop) -> "FittedShape":
        """A source in a photo (H, W, 3) uint8 RGB, seen in its square."""
        return FittedShape(self._deca, self._transform, self._fit(image, face), face, crop)

    def driving(self, observation: Observation) -> FlameFit | None:
        """What DECA sees in a frame; None where there is no face or no picture."""
        if observation.face is None or observation.image is None:
            return None
        return self._fit(observation.image, observation.face)

    def close(self) -> None:
        """Free the networks."""
        self._deca.close()

    def _fit(self, image: Image, face: Face) -> FlameFit:
        return self._deca.fit([view_of(image, face_square(face))])[0]


class FittedShape:
    """A source's head as DECA sees it, in its square; remembers the last expression of one driving."""

    def __init__(self, deca: Deca, transform: PoseTransform, fit: FlameFit, face: Face, crop: Crop) -> None:
        """`fit`: of the face in the photo that `crop` is a part of."""
        self._deca, self._transform, self._fit = deca, transform, fit
        self._person: Person = deca.person(fit.shape)
        self._tracked = SourceShape(face, crop)
        shift = np.array([[1, 0, crop.left], [0, 1, crop.top], [0, 0, 1]])
        self._camera = camera_in_picture(fit.cam.astype(np.float64), fit.to_crop @ shift, crop.side)
        self._turn = cv2.Rodrigues(fit.pose[:3].astype(np.float64))[0]
        self.still: Fit = self._posed(fit.exp, fit.pose[3:], self._turn, self._camera)
        self._tracked_still = self._tracked.still
        self._smoother = FitSmoother()
        self._frames = 0
        self._last: tuple[FlameFit, float] | None = None  # and how far the tracker's face was from rest then

    def moved(self, motion: Motion, driving: FlameFit | None) -> Fit:
        """Keypoints and head pose, float32, of the source after `motion` with the driving's expression and jaw.

        Where the driving is lost its last expression eases as the motion does; where there never was one, as with a
        motion preset, the tracker's points say how the source's move.
        """
        if driving is not None:
            calm = self._smoother(driving, self._frames / _FPS)
            self._frames += 1
            self._last = calm, float(np.linalg.norm(motion.expression))
        if self._last is None:
            moved, there = self._tracked.moved(motion), self._tracked_still
            first, second = (
                still + now - then for still, now, then in zip(self.still, moved, there, strict=True)
            )
            return first, second
        seen, strength = self._last
        share = 1.0 if driving is not None else _share(motion, strength)
        exp, jaw = (
            own + np.float32(share) * (other - own)
            for own, other in ((self._fit.exp, seen.exp), (self._fit.pose[3:], seen.pose[3:]))
        )
        turn = _TO_FLAME @ motion.rotation.astype(np.float64) @ _TO_FLAME @ self._turn
        return self._posed(exp, jaw, turn, self._placed(motion, turn))

    def _placed(self, motion: Motion, turn: Doubles) -> Camera:
        """The camera after a motion: the middle of the keypoints goes where the tracker's goes.

        FLAME turns about the neck and the tracker's head about its middle.
        """
        rigid = replace(
            Motion.still(), rotation=motion.rotation, scale=motion.scale, translation=motion.translation
        )
        wanted = (self._tracked.moved(rigid)[0] - self._tracked_still[0]).mean(axis=0)
        camera = replace(self._camera, scale=self._camera.scale * motion.scale)
        gone = self._posed(self._fit.exp, self._fit.pose[3:], turn, camera)[0]
        x, y = (wanted - (gone - self.still[0]).mean(axis=0)).tolist()
        return replace(camera, shift_x=camera.shift_x + x, shift_y=camera.shift_y + y)

    def _posed(self, exp: Floats, jaw: Floats, turn: Doubles, camera: Camera) -> Fit:
        rotation = cv2.Rodrigues(turn)[0][:, 0]
        points = self._deca.points(self._person, exp, np.concatenate([rotation, jaw]).astype(np.float32))
        assert points.keypoints is not None
        assert points.keypoints_unturned is not None
        turned, unturned = (np.asarray(k, np.float64) for k in (points.keypoints, points.keypoints_unturned))
        pose = head_pose(rotation, turned, unturned, camera, self._transform)
        return keypoints(turned, camera), pose


def _share(motion: Motion, strength: float) -> float:
    """How much is left of a motion of this strength that eases back."""
    return min(1.0, float(np.linalg.norm(motion.expression)) / max(strength, 1e-6))
