"""Face2Face-rho's keypoints and head pose from DECA's coefficients, as its authors get them, in the tracker's place.

Taken where a bundle of DECA is there that has the 72 keypoints. Expression and jaw are the source's and what DECA sees
the driving's do since its neutral frame, in the source's shape; where the head goes and how it turns is the tracker's
motion. Edits of the expression move the keypoints as they would move the tracker's.
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
from ...tracking.holding import Holding
from ...tracking.look import Look
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
_EXP = 50  # of the face's numbers; the jaw's three follow
_ANEW_S = 2.0  # without a look at the driving for so long, what is seen next is not counted as going on


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
    _log.warning("DECA is not used: %s; --motion-source tracker does without and is silent", reason)
    return None


class DecaMotion:
    """Fits sources, which then fit what drives them."""

    def __init__(self, deca: Deca) -> None:
        """Takes DECA over; the user's own constants of the pose are used where they were added."""
        self._deca = deca
        file = checkpoint_home("face2face_rho") / _TRANSFORM_FILE
        self._transform = load_pose_transform(file) if file.is_file() else PoseTransform()

    def shape(self, image: Image, face: Face, crop: Crop) -> "FittedShape":
        """A source in a photo (H, W, 3) uint8 RGB, seen in its square."""
        (fit,) = self._deca.fit([view_of(image, face_square(face))])
        return FittedShape(self._deca, self._transform, fit, face, crop)

    def close(self) -> None:
        """Free the networks."""
        self._deca.close()


class FittedShape:
    """A source's head as DECA sees it, in its square; follows one driving."""

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
        self._driving = _Driving(deca)

    def moved(self, observation: Observation) -> Fit:
        """Keypoints and head pose, float32, of the source after what was observed.

        Where DECA has seen no driving, as with a motion preset, the tracker's points say how the source's move.
        """
        motion, face = observation.motion, self._driving.follow(observation)
        if face is None:
            moved, there = self._tracked.moved(motion), self._tracked_still
            first, second = (
                still + now - then for still, now, then in zip(self.still, moved, there, strict=True)
            )
            return first, second
        change = face * np.float32(observation.expression_strength)
        exp, jaw = self._fit.exp + change[:_EXP], self._fit.pose[3:] + change[_EXP:]
        turn = _TO_FLAME @ motion.rotation.astype(np.float64) @ _TO_FLAME @ self._turn
        points, pose = self._posed(exp, jaw, turn, self._placed(motion, turn))
        return (
            points if observation.edits is None else points + self._edited(motion, observation.edits)
        ), pose

    def _edited(self, motion: Motion, edits: Motion) -> Floats:
        """(72, 2) how far edits of the face move the tracker's keypoints, on a head that moves like this."""
        rigid = _rigid(motion)
        changed = replace(rigid, expression=edits.expression, lids=edits.lids, gaze=edits.gaze)
        return self._tracked.moved(changed)[0] - self._tracked.moved(rigid)[0]

    def _placed(self, motion: Motion, turn: Doubles) -> Camera:
        """The camera after a motion: the middle of the keypoints goes where the tracker's goes.

        FLAME turns about the neck and the tracker's head about its middle.
        """
        wanted = (self._tracked.moved(_rigid(motion))[0] - self._tracked_still[0]).mean(axis=0)
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


class _Driving:
    """What a driving's expression and jaw have done since its neutral frame, (53,), at no strength yet.

    Calmed; held and eased back where the face is lost or not known at rest, as the motion is.
    """

    def __init__(self, deca: Deca) -> None:
        self._deca = deca
        self._neutral: tuple[Look, FlameFit] | None = None
        self._smoothing, self._time, self._began = 0.0, 0.0, False
        self._begin(0.0)

    def follow(self, observation: Observation) -> Floats | None:
        """The change to show; None where nothing was ever seen of this driving."""
        time = observation.time
        preset = observation.image is None and observation.neutral is None
        if preset or not 0 <= time - self._time <= _ANEW_S:
            self._begin(time)
        self._time = time
        seen = self._seen(observation)
        self._began = self._began or seen is not None
        return self._holding.update(seen, time) if self._began else None

    def _begin(self, time: float) -> None:
        still = np.zeros(_EXP + 3, np.float32)
        self._holding = Holding(still, _times, _between)
        self._smoother: FitSmoother | None = None
        self._began, self._time = False, time

    def _seen(self, observation: Observation) -> Floats | None:
        face, image, neutral = observation.face, observation.image, observation.neutral
        if face is None or image is None or neutral is None:
            self._smoother = None
            return None
        rest = self._at_rest(neutral, observation.time)
        fit = self._calmed(self._fit(Look(image, face)), observation)
        return np.concatenate([fit.exp - rest.exp, fit.pose[3:] - rest.pose[3:]])

    def _at_rest(self, neutral: Look, time: float) -> FlameFit:
        """The neutral face, which is looked at once; another than before is blended over to."""
        if self._neutral is None or self._neutral[0] is not neutral:
            if self._began:
                self._holding.rebase(time)
            self._neutral = neutral, self._fit(neutral)
        return self._neutral[1]

    def _fit(self, look: Look) -> FlameFit:
        return self._deca.fit([view_of(look.image, face_square(look.face))])[0]

    def _calmed(self, fit: FlameFit, observation: Observation) -> FlameFit:
        amount = observation.smoothing
        if self._smoother is None or amount != self._smoothing:
            self._smoothing, self._smoother = amount, FitSmoother(amount) if amount > 0 else None
        return fit if self._smoother is None else self._smoother(fit, observation.time)


def _rigid(motion: Motion) -> Motion:
    """Where the head goes, without what the face does."""
    return replace(
        Motion.still(), rotation=motion.rotation, scale=motion.scale, translation=motion.translation
    )


def _times(change: Floats, amount: float) -> Floats:
    return change * np.float32(amount)


def _between(a: Floats, b: Floats, amount: float) -> Floats:
    return a + np.float32(amount) * (b - a)
