"""The canonical face: where the 468 Face Mesh points lie on an average head, and how expressions move them.

Derived from the ICT Face Model by `benchmarks/derive_canonical_face.py`; loads no network and knows no image.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError

__all__ = [
    "INNER_LIPS",
    "LEFT_BROW",
    "LEFT_EYE",
    "OUTER_LIPS",
    "OVAL",
    "RIGHT_BROW",
    "RIGHT_EYE",
    "CanonicalFace",
    "load",
]

Floats = NDArray[np.float32]
Indices = NDArray[np.int16]

# Closed contours of the Face Mesh; right and left are the person's. Eyes run from the outer corner along the
# lower lid to the inner corner and back along the upper lid; lips from the right corner along the lower lip and
# back; the oval from the forehead's middle to the person's left. RIGHT_X[k] and LEFT_X[k] mirror each other.
# fmt: off
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
# fmt: on

_FILE = Path(__file__).parents[1] / "assets" / "canonical_face.npz"


@dataclass(frozen=True, eq=False)
class CanonicalFace:
    """An average face in the head frame of `face.py`: centimetres, x right in the picture, y down, z away.

    The origin is the centroid of `neutral` weighted by `rigidity`. Upright and looking at the viewer, the
    face has no rotation. Arrays are read-only.
    """

    neutral: Floats  # (468, 3) cm
    triangles: Indices  # (T, 3) skin without the openings of eyes and mouth, clockwise in the picture
    eye_triangles: Indices  # (E, 3) inside the eye contours
    mouth_triangles: Indices  # (M, 3) inside the inner lips
    mirror: Indices  # (468,) the point on the other side of the face, itself for the middle
    rigidity: Floats  # (468,) 0..1: how well a point tells the pose of the head
    turning_point: Floats  # (3,) cm: between the ears, about which heads turn
    shape_names: tuple[str, ...]  # as ARKit names them, `_L` and `_R` are the person's left and right
    shapes: Floats  # (K, 468, 3) cm: what each shape at weight 1 adds to `neutral`

    def shape(self, name: str) -> Floats:
        """(468, 3) cm displacement of a named shape; raises ModelError for an unknown name."""
        if name not in self.shape_names:
            raise ModelError(f"no face shape {name!r}; expected one of: {', '.join(self.shape_names)}")
        return np.asarray(self.shapes[self.shape_names.index(name)])


@cache
def load() -> CanonicalFace:
    """Reads the packaged face once; raises ModelError when the file is missing or damaged."""
    try:
        with np.load(_FILE, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        face = CanonicalFace(
            neutral=arrays["neutral"].astype(np.float32),
            triangles=arrays["triangles"].astype(np.int16),
            eye_triangles=arrays["eye_triangles"].astype(np.int16),
            mouth_triangles=arrays["mouth_triangles"].astype(np.int16),
            mirror=arrays["mirror"].astype(np.int16),
            rigidity=arrays["rigidity"].astype(np.float32),
            turning_point=arrays["turning_point"].astype(np.float32),
            shape_names=tuple(str(name) for name in arrays["shape_names"]),
            shapes=arrays["shapes"].astype(np.float32),
        )
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ModelError(
            f"{_FILE}: not the packaged canonical face ({error}); install reenact again"
        ) from error
    for value in vars(face).values():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return face
