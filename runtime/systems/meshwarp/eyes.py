"""One eye of the photo: the eyeball stays with the skull and turns with the gaze, the lids move over it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from ....kernels.composite import blend
from ...media.frame import Image
from .head import HeadMesh, Moved
from .patch import affine_between, bounds, polygon_mask

__all__ = ["EyeLayer"]

Floats = NDArray[np.float32]

_LASHES_FROM, _LASHES_ONLY = 0.14, 0.05  # openness between which lashes take the eyeball's place
_MOST_GAZE = 0.22  # of the eye's width; further the iris would leave the eye


class EyeLayer:
    """The eyeball behind one pair of lids, with what the lids cover in the photo filled in."""

    def __init__(self, photo: Image, mesh: HeadMesh, contour: tuple[int, ...]) -> None:
        """`photo`: the picture that the mesh was built on; `contour`: the 16 mesh points around the eye."""
        self._contour = list(contour)
        self._source = mesh.face_px[self._contour, :2]
        corners = self._source[[0, 8]]
        self._width = float(np.linalg.norm(corners[1] - corners[0]))
        across = corners[np.argsort(corners[:, 0])]
        self._across = (across[1] - across[0]) / max(self._width, 1e-6)
        self._box = bounds(self._source, 0.5 * self._width, photo.shape)
        self._lash = _lash_colour(photo, self._source, self._width)
        if self._box is not None:
            self._plate = _fill_outside(photo, self._source, self._box, self._width)

    def draw(self, canvas: Image, moved: Moved, gaze: Floats) -> None:
        """Draw the eyeball between the moved lids, in place; `gaze` (2,) is its turn in eye widths."""
        lids = moved.face_px[self._contour, :2]
        box = bounds(lids, 2.0, canvas.shape)
        if self._box is None or box is None:
            return
        to_source = affine_between(moved.rigid_px[self._contour, :2], self._source)
        turn = np.clip(gaze, -_MOST_GAZE, _MOST_GAZE) * self._width
        down = np.array([-self._across[1], self._across[0]])
        to_source[:, 2] -= turn[0] * self._across + turn[1] * down
        to_source[:, 2] += to_source[:, :2] @ np.array(box[:2], np.float32) - self._box[:2]
        layer = cv2.warpAffine(
            self._plate,
            to_source,
            (box[2] - box[0], box[3] - box[1]),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        width = float(np.linalg.norm(lids[8] - lids[0]))
        opening = float((lids[1:8] - lids[15:8:-1]).mean(axis=0) @ _down(lids)) / max(width, 1e-6)
        shut = float(np.clip((_LASHES_FROM - opening) / (_LASHES_FROM - _LASHES_ONLY), 0, 1))
        if shut > 0:
            # Lids that meet show their lashes, not a squeezed eyeball.
            layer = layer + shut * (self._lash - layer)
        mask = polygon_mask(lids, box, soften=0.012 * self._width)
        blend(canvas, np.asarray(layer, np.uint8), mask, box[0], box[1])


def _down(lids: Floats) -> Floats:
    """(2,) unit vector from the upper to the lower lid, across the line between the eye's corners."""
    across = lids[8] - lids[0]
    across = across / max(float(np.linalg.norm(across)), 1e-6)
    down = np.array([-across[1], across[0]], np.float32)
    return down if down @ (lids[1:8] - lids[15:8:-1]).mean(axis=0) >= 0 else -down


def _lash_colour(photo: Image, contour: Floats, width: float) -> Floats:
    """(3,) RGB of the dark line along the upper lid."""
    side = max(2, round(0.08 * width))
    along = [cv2.getRectSubPix(photo, (side, side), (float(x), float(y))) for x, y in contour[10:15]]
    pixels = np.concatenate([patch.reshape(-1, 3) for patch in along]).astype(np.float32)
    darkest = pixels[pixels.sum(axis=1).argsort()[: max(1, len(pixels) // 4)]]
    return np.asarray(darkest.mean(axis=0), np.float32)


def _fill_outside(photo: Image, contour: Floats, box: tuple[int, int, int, int], width: float) -> Image:
    """The eye's patch of the photo with lids and skin replaced by continued eyeball (Telea 2004)."""
    x0, y0, x1, y1 = box
    patch = np.ascontiguousarray(photo[y0:y1, x0:x1])
    inside = polygon_mask(contour, box)
    shrink = max(1, round(0.02 * width))
    kept = cv2.erode(inside, np.ones((2 * shrink + 1, 2 * shrink + 1), np.uint8))
    if np.count_nonzero(kept > 127) < 12:
        return patch  # an eye that is shut in the photo: there is no eyeball to show
    filled = cv2.inpaint(patch, np.where(kept > 127, 0, 255).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    # Exactly the photo where the eye is open in it.
    part = (inside / 255.0)[..., None]
    return np.asarray(filled * (1 - part) + patch * part + 0.5, np.uint8)
