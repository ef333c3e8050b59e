"""Face2Face-rho as the runtime sees it: the networks of a bundle, fed from the built-in tracker or from fits.

Where a bundle of DECA is there, expressions come from it, see `deca_motion.py`. What the networks make is a square
around the head; it is put back into the photo through a soft border.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ....errors import BundleError, FaceNotFoundError, ReenactError
from ....kernels.composite import blend
from ...engine import Given, Held
from ...media.frame import Image
from ...tracking.face import Face
from ..protocol import Observation, SystemSettings
from .deca_motion import DecaMotion, FittedShape, deca_motion
from .landmarks import draw_landmark_images
from .points import MESH_POINTS, Crop, SourceShape

__all__ = ["FaceToFaceRho", "RhoPortrait", "resized"]

Floats = NDArray[np.float32]

NAME = "face2face_rho"
# The released networks learned from squares in which the 72 keypoints take up this part of the side, a little below
# the middle.
_FACE_PART, _FACE_BELOW = 0.36, 0.035
_SOFT = 0.06  # of the square's side: where its border fades into the photo


@dataclass(frozen=True, eq=False)
class RhoPortrait:
    """A registered photo: what the `source` graph made of it, and where its square lies."""

    image: Image  # (H, W, 3) uint8 RGB, the whole photo
    face: Face  # in the whole photo
    left: int  # of the square, pixels of the photo; may lie outside it
    top: int
    shape: SourceShape | FittedShape
    features: Mapping[str, Held]  # the `source` graph's outputs
    mask: Image  # (side, side) uint8 of the square: 255 shows the networks' picture


class FaceToFaceRho:
    """Runs a bundle of Face2Face-rho; a photo's features are computed once, a frame takes one graph."""

    name = NAME

    def __init__(self, settings: SystemSettings) -> None:
        """Load both graphs; BundleError where the bundle is missing or of another system, BackendError as `load`."""
        bundle = settings.open_bundle(NAME)
        self.size = bundle.manifest.resolution
        # Once a photo there is nothing to gain from half precision, and the motion's share of it would lose. Bundles
        # that were exported before manifests said so are held to it as well.
        self._deca: DecaMotion | None = None
        self._source = bundle.engine("source", backend=settings.backend, precision="fp32")
        try:
            self._frame = bundle.engine("frame", backend=settings.backend, precision=settings.precision)
        except BaseException:
            self._source.close()
            raise
        drawn = self._frame.inputs.get("driving_3")
        if drawn is None or len(drawn.shape) != 3 or drawn.shape[0] is None:
            self.close()
            raise BundleError(
                f"{bundle.folder}: graph frame takes {drawn or 'no driving_3'}, expected driving_3 of a fixed side; "
                "export the bundle again"
            )
        self._motion_size = 4 * drawn.shape[0]
        try:
            self._deca = deca_motion(settings)
        except BaseException:
            self.close()
            raise

    def register(self, image: Image, face: Face) -> RhoPortrait:
        """Encode a photo (H, W, 3) uint8 RGB; raises FaceNotFoundError when the face lies outside it."""
        left, top, side = _square(face, image.shape)
        crop = Crop(left, top, side)
        shape = SourceShape(face, crop) if self._deca is None else self._deca.shape(image, face, crop)
        keypoints, head_pose = shape.still
        square = _cut(image, left, top, side, self.size)
        return RhoPortrait(
            image=image,
            face=face,
            left=left,
            top=top,
            shape=shape,
            features=self.encode(square, keypoints, head_pose),
            mask=_soft_mask(image.shape, left, top, side),
        )

    def animate(self, portrait: RhoPortrait, observation: Observation) -> Image:
        """The whole photo with its square as the networks make it, (H, W, 3) uint8 RGB, a new array."""
        keypoints, head_pose = self._moved(portrait.shape, observation)
        square = self.decode(portrait.features, keypoints, head_pose)
        side = portrait.mask.shape[0]
        if side != self.size:
            square = resized(square, side)
        result = portrait.image.copy()
        blend(result, square, portrait.mask, portrait.left, portrait.top)
        return result

    def encode(self, square: Image, keypoints: Floats, head_pose: Floats) -> dict[str, Held]:
        """The source's features for `decode`.

        Of its square (size, size, 3) uint8 RGB and its fit: keypoints (72, 2) in [-1, 1] and head pose (6,).
        """
        landmarks = draw_landmark_images(keypoints, self._motion_size)
        _require_finite(head_pose)
        drawings = {f"landmarks_{i}": drawn for i, drawn in enumerate(landmarks, 1)}
        inputs: dict[str, Given] = {"image": square, "head_pose": head_pose.astype(np.float32), **drawings}
        return self._frame.hold(self._source.run(inputs))

    def decode(self, features: Mapping[str, Held], keypoints: Floats, head_pose: Floats) -> Image:
        """The square (size, size, 3) uint8 RGB for a fit of the driving, in the source's shape."""
        landmarks = draw_landmark_images(keypoints, self._motion_size)
        _require_finite(head_pose)
        driving = {f"driving_{i}": drawn for i, drawn in enumerate(landmarks, 1)}
        inputs: dict[str, Given] = {**features, **driving, "head_pose": head_pose.astype(np.float32)}
        return np.asarray(self._frame.run(inputs)["image"], np.uint8)

    def close(self) -> None:
        """Free both engines."""
        self._source.close()
        self._frame.close()
        if self._deca is not None:
            self._deca.close()

    def _moved(self, shape: SourceShape | FittedShape, observation: Observation) -> tuple[Floats, Floats]:
        if isinstance(shape, SourceShape):
            return shape.moved(observation.motion)
        return shape.moved(observation)


def _require_finite(head_pose: Floats) -> None:
    if not np.isfinite(head_pose).all():
        raise ReenactError(
            f"the head pose is {head_pose.tolist()}, no pose; look for it in the tracking or the fit"
        )


def _square(face: Face, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Left, top and side in pixels of the square around a face; FaceNotFoundError where it misses the photo."""
    points = face.landmarks_px[MESH_POINTS, :2].mean(axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    side = max(2, round(float((high - low).max()) / _FACE_PART))
    x, y = (low + high) / 2
    left, top = round(x - side / 2), round(y - (0.5 + _FACE_BELOW) * side)
    if x < 0 or y < 0 or x >= shape[1] or y >= shape[0]:
        raise FaceNotFoundError("the face lies outside the photo; use a photo that shows the whole face")
    return left, top, side


def _cut(image: Image, left: int, top: int, side: int, size: int) -> Image:
    """The square at `size` pixels; beyond the photo its border pixels go on."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    square = cv2.copyMakeBorder(
        image[y0:y1, x0:x1], y0 - top, top + side - y1, x0 - left, left + side - x1, cv2.BORDER_REPLICATE
    )
    return resized(square, size)


def resized(square: Image, side: int) -> Image:
    """(side, side, 3) uint8: by area where that is smaller, else bilinear."""
    smaller = side < square.shape[0]
    return np.asarray(
        cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR),
        np.uint8,
    )


def _soft_mask(shape: tuple[int, ...], left: int, top: int, side: int) -> Image:
    """(side, side) uint8: fades towards the square's borders, but not where they lie outside the photo."""
    rows = _ramp(side, top > 0, top + side < shape[0])
    columns = _ramp(side, left > 0, left + side < shape[1])
    return np.minimum(rows[:, None], columns[None, :])


def _ramp(side: int, fades_in: bool, fades_out: bool) -> NDArray[np.uint8]:
    """(side,) uint8, 255 but where a line of the square fades at its ends."""
    width = max(1.0, _SOFT * side)
    place = (np.arange(side) + 0.5) / width
    part = np.ones(side)
    if fades_in:
        part = np.minimum(part, place)
    if fades_out:
        part = np.minimum(part, place[::-1])
    return np.asarray(np.round(255 * part * part * (3 - 2 * part)), np.uint8)
