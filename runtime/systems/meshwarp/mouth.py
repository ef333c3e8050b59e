"""What shows between the lips: the photo's own teeth where it has them, otherwise drawn ones, dark and shaded.

Upper teeth stay with the skull, lower teeth and tongue go with the jaw, the lips move over both.
"""

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from ....kernels.composite import blend
from ...media.frame import Image
from ...tracking.canonical import INNER_LIPS
from .head import HeadMesh, Moved
from .patch import affine_between, bounds, polygon_mask

__all__ = ["MouthLayer"]

Floats = NDArray[np.float32]

_CORNERS = (78, 308)
_UPPER, _LOWER = 13, 14
_JAW = [152, 148, 377, 175]
_AROUND = [1, 2, 98, 327, 205, 425]  # nose base and cheeks: fixed to the upper jaw
_CHIN_SLIDE = 0.35  # cm
_OVERLAP = 0.05  # cm of lip that the interior covers
# Opening beyond the photo's own, in mouth widths, over which the interior fades in.
_FADE = (0.015, 0.06)
_PHOTO_TEETH = 0.15  # openness above which the photo's own interior is worth showing


class MouthLayer:
    """The inside of one photo's mouth."""

    def __init__(self, photo: Image, mesh: HeadMesh) -> None:
        """`photo`: the picture that the mesh was built on."""
        self._lips = list(INNER_LIPS)
        self._head = mesh.head
        corners = mesh.head[list(_CORNERS)]
        self._half_width = float(abs(corners[1, 0] - corners[0, 0]) / 2)
        self._middle_x = float(corners[:, 0].mean())
        self._lip_y = float(mesh.head[_UPPER, 1])
        self._gap = float(max(mesh.head[_LOWER, 1] - mesh.head[_UPPER, 1], 0))
        self._source_px = mesh.face_px[:, :2]
        self._palette = _palette(photo, mesh.face_px)
        self._plate: Image | None = None
        self._plate_mask: Image | None = None
        source_lips = self._source_px[self._lips]
        self._box = bounds(source_lips, 3.0, photo.shape)
        if self._box is not None and self._gap > _PHOTO_TEETH * 2 * self._half_width:
            x0, y0, x1, y1 = self._box
            mask = polygon_mask(source_lips, self._box)
            soft = max(1.0, 0.02 * float(np.ptp(source_lips[:, 0])))
            kernel = np.ones((2 * round(soft) + 1,) * 2, np.uint8)
            self._plate = np.ascontiguousarray(photo[y0:y1, x0:x1])
            self._plate_mask = np.asarray(cv2.GaussianBlur(cv2.erode(mask, kernel), (0, 0), soft), np.uint8)

    def draw(self, canvas: Image, moved: Moved) -> None:
        """Draw the interior between the moved lips, in place, as far as they are more open than in the photo."""
        width = 2 * self._half_width
        opened = float(moved.head[_LOWER, 1] - moved.head[_UPPER, 1]) - self._gap
        amount = np.clip((opened / width - _FADE[0]) / (_FADE[1] - _FADE[0]), 0, 1)
        lips = moved.face_px[self._lips, :2]
        box = bounds(lips, 3.0 + 0.1 * moved.scale, canvas.shape)
        if amount <= 0 or box is None:
            return
        anchors = _AROUND + list(_CORNERS)
        to_head = affine_between(moved.rigid_px[anchors, :2], self._head[anchors, :2])
        # The chin's skin slides a little on a shut jaw.
        jaw = max(0.0, float((moved.head[_JAW, 1] - self._head[_JAW, 1]).mean()) - _CHIN_SLIDE)
        layer = np.empty((box[3] - box[1], box[2] - box[0], 3), np.uint8)
        _draw_interior(
            layer,
            to_head[:, :2],
            to_head[:, :2] @ np.array(box[:2], np.float32) + to_head[:, 2],
            self._palette,
            np.array(
                [
                    self._middle_x,
                    self._half_width,
                    self._lip_y,
                    moved.head[_UPPER, 1],
                    moved.head[_LOWER, 1],
                    self._lip_y + jaw,
                    1 / moved.scale,
                    0.0 if self._plate is None else 1.0,
                ],
                np.float32,
            ),
        )
        self._draw_photo_teeth(
            layer, box, affine_between(moved.rigid_px[anchors, :2], self._source_px[anchors])
        )
        # A little over the lips' edge, where the photo's own teeth or the shut mouth's line would peep out.
        wide = cv2.dilate(polygon_mask(lips, box), _disc(_OVERLAP * moved.scale))
        mask = np.asarray(cv2.GaussianBlur(wide, (0, 0), max(0.4, 0.03 * moved.scale)), np.uint8)
        _shade_edge(layer, polygon_mask(lips, box), 0.3 * moved.scale)
        if amount < 1:
            mask = np.asarray(mask * amount, np.uint8)
        blend(canvas, layer, mask, box[0], box[1])

    def _draw_photo_teeth(self, layer: Image, box: tuple[int, int, int, int], to_source: Floats) -> None:
        if self._plate is None or self._plate_mask is None or self._box is None:
            return
        to_plate = to_source.copy()
        to_plate[:, 2] += to_plate[:, :2] @ np.array(box[:2], np.float32) - self._box[:2]
        size = (box[2] - box[0], box[3] - box[1])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        teeth = cv2.warpAffine(self._plate, to_plate, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(self._plate_mask, to_plate, size, flags=flags)
        blend(layer, np.asarray(teeth, np.uint8), np.asarray(mask, np.uint8), 0, 0)


def _disc(radius: float) -> Image:
    """Structuring element of a radius in pixels."""
    side = 2 * round(radius) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _palette(photo: Image, face_px: Floats) -> Floats:
    """(3, 3) float32 RGB 0..255 of teeth, cavity and tongue, in the light and tint of the photo's own skin."""
    side = max(2, round(0.06 * float(np.ptp(face_px[:, 0]))))
    samples = [
        cv2.getRectSubPix(photo, (side, side), (float(x), float(y))).reshape(-1, 3)
        for x, y in face_px[[205, 425, 151, 9, 200], :2]
    ]
    skin = np.median(np.concatenate(samples).astype(np.float32), axis=0)
    light = float(skin.mean())
    # A grey photo has grey teeth and a grey tongue.
    colourful = float(np.clip(np.ptp(skin) / 25.0, 0, 1))
    tint = 0.3 * skin / max(light, 1.0) + 0.7
    brightness = float(np.clip(1.0 * light + 65, 70, 235))
    teeth = brightness * (1 + colourful * (np.array([1.0, 0.95, 0.86]) * tint - 1))
    cavity = light * (0.16 + colourful * (np.array([0.28, 0.1, 0.09]) - 0.16))
    tongue = light * (0.5 + colourful * (np.array([0.78, 0.4, 0.4]) - 0.5))
    return np.stack([teeth, cavity, tongue]).astype(np.float32)


def _shade_edge(layer: Image, mask: Image, reach: float) -> None:
    """Darken a layer towards the edge of its mask, in place: lips cast a shadow inwards; `reach` in pixels."""
    inner = cv2.GaussianBlur(mask, (0, 0), max(reach, 0.5)).astype(np.float32) / 255
    light = 0.7 + 0.3 * np.clip((inner - 0.4) / 0.5, 0, 1)
    layer[:] = (layer * light[..., None]).astype(np.uint8)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _step(low: float, high: float, value: float) -> float:
    """Smooth step from 0 at `low` to 1 at `high`."""
    part = min(1.0, max(0.0, (value - low) / (high - low)))
    return part * part * (3 - 2 * part)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _draw_interior(layer: Image, linear: Floats, origin: Floats, palette: Floats, mouth: Floats) -> None:
    """Paint cavity, tongue and teeth into (h, w, 3) uint8.

    linear, origin # (2, 2), (2,) affine map from layer pixels to the head frame's x and y in cm
    palette        # (3, 3) RGB 0..255: teeth, cavity, tongue
    mouth          # (8,) middle x, half width, lip line, upper lip, lower lip, lip line moved with the jaw: cm;
                   #      cm per pixel; 1 where the photo's own upper teeth will be drawn on top
    """
    middle, half, lip, upper, lower, jaw, pixel, own_teeth = mouth
    seams = (0.0, 0.85, 1.5, 2.2)
    for row in range(layer.shape[0]):
        for column in range(layer.shape[1]):
            x = linear[0, 0] * column + linear[0, 1] * row + origin[0] - middle
            y = linear[1, 0] * column + linear[1, 1] * row + origin[1]
            side = x / half
            bow = side * side
            light = max(0.15, 1.0 - 0.65 * bow)
            seam = 1.0
            for k in range(4):
                distance = (abs(x) - seams[k]) / (0.035 + 0.5 * pixel)
                seam -= 0.14 * np.exp(-distance * distance)
            # Upper teeth end a little below the upper lip at rest and curve up towards the corners.
            edge = lip + 0.48 - 0.4 * bow + 0.05 * abs(np.sin(3.6 * x))
            # The photo's own teeth lie over them, where it has some; a raised lip shows more.
            edge -= 0.3 * own_teeth
            above = 1 - _step(edge - 0.06 - pixel, edge + 0.03 + pixel, y)
            above *= 1 - _step(0.8, 1.0, abs(side))
            under_lip = 0.72 + 0.28 * _step(0.0, 0.3, y - upper)
            # Lower teeth meet the upper ones in a shut jaw and go down with it, behind the lower lip.
            shown = 0.28 + 0.5 * (1 - _step(0.1, 0.6, jaw - lip))
            rim = max(jaw + 0.52, lower - shown) + 0.1 * bow
            below = _step(rim - 0.05 - pixel, rim + 0.05 + pixel, y) * (1 - _step(0.55, 0.85, abs(side)))
            # The tongue lies in front of the throat and behind the lower teeth.
            crown = lower - 0.75 + 0.5 * bow
            tongue = _step(crown - 0.25, crown + 0.35, y) * (1 - _step(0.4, 0.85, abs(side))) * 0.85
            depth = 1.0 - 0.5 * _step(0.2, 1.2, min(y - upper, lower - y))
            for c in range(3):
                value = palette[1, c] * depth
                value += (palette[2, c] * 0.72 - value) * tongue
                value += (palette[0, c] * 0.78 * light * seam - value) * below
                value += (palette[0, c] * light * seam * under_lip - value) * above
                layer[row, column, c] = np.uint8(min(255.0, max(0.0, value)))
