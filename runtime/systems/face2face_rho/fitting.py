"""Face2Face-rho's own numbers from a FLAME fit: the camera in the whole picture, 72 keypoints and the head pose.

FLAME's mesh comes in as vertices in metres (x to the picture's right, y up, z to the viewer); what makes them is not
known here. Both files that belong to the published model are the user's and are read here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ....errors import ModelError
from ...files import read_small_file
from .landmarks import NOSE_TIP, POINTS

__all__ = [
    "SHIFT_SCALE",
    "Camera",
    "LandmarkEmbedding",
    "PoseTransform",
    "camera_in_picture",
    "head_pose",
    "keypoints",
    "keypoints_3d",
    "load_landmark_embedding",
    "load_pose_transform",
]

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

CROP_SIDE = 224  # pixels of the crop that the fit was made in
TRIANGLES = 9976  # of FLAME's mesh
SHIFT_SCALE = 512 / 2000  # the published networks' pixels over the in-house model's units
_WEIGHTS_SUM = 1e-5  # how far three weights may sum up beside 1; the published ones by 1e-7
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Camera:
    """Weak perspective from metres to the picture in [-1, 1]: x = scale * X + shift_x, y = -scale * Y + shift_y."""

    scale: float
    shift_x: float
    shift_y: float

    def project(self, points: Doubles) -> Doubles:
        """(..., 3) points in metres to (..., 2) in [-1, 1], x right, y down."""
        return np.stack(
            [self.scale * points[..., 0] + self.shift_x, -self.scale * points[..., 1] + self.shift_y], axis=-1
        )


@dataclass(frozen=True, eq=False)
class LandmarkEmbedding:
    """Where the 72 keypoints lie on a mesh: each in one triangle, the same for every head pose."""

    triangles: Ints  # (72,) numbers of triangles
    weights: Doubles  # (72, 3) of the triangle's corners, together 1


@dataclass(frozen=True)
class PoseTransform:
    """From a FLAME fit to the units of the model that the published networks were trained with."""

    scale: float = 4122.399989645386
    shift_x: float = 0.2582781138863169
    shift_y: float = -0.26074984122168304


def camera_in_picture(camera: Doubles, crop_transform: Doubles, side: float) -> Camera:
    """A camera of the fit's crop, composed with the way back to the whole picture.

    camera          # (3,) scale and shift x, y as DECA regresses them, over the crop in [-1, 1]
    crop_transform  # (3, 3) similarity from the picture's pixels to the crop's
    side            # of the square picture in pixels

    The crop's corners are 223 pixels apart while its [-1, 1] spans 224: the published networks know it so. Raises
    ModelError for a transform that has no way back or a camera that is not finite.
    """
    scale, shift_x, shift_y = (float(value) for value in camera)
    half = CROP_SIDE / 2
    to_crop = np.array(
        [
            [scale * half, 0, (scale * shift_x + 1) * half],
            [0, -scale * half, (1 - scale * shift_y) * half],
            [0, 0, 1],
        ]
    )
    if not (np.isfinite(to_crop).all() and abs(np.linalg.det(crop_transform)) > 0):
        raise ModelError("a camera that is not finite, or a crop without size; fit the picture again")
    to_picture = np.linalg.inv(crop_transform.astype(np.float64)) @ to_crop
    to_unit = np.array([[2 / side, 0, -1], [0, 2 / side, -1], [0, 0, 1]])
    composed = to_unit @ to_picture
    return Camera(float(composed[0, 0]), float(composed[0, 2]), float(composed[1, 2]))


def keypoints_3d(vertices: Doubles, faces: Ints, embedding: LandmarkEmbedding) -> Doubles:
    """(72, 3) keypoints in metres on a mesh of vertices (V, 3) and faces (F, 3).

    Raises ValueError for a mesh with fewer triangles than the embedding names.
    """
    if embedding.triangles.max() >= len(faces):
        raise ValueError(
            f"the embedding names triangle {embedding.triangles.max()}, the mesh has {len(faces)}"
        )
    corners = vertices[faces[embedding.triangles]].astype(np.float64)
    return np.asarray((corners * embedding.weights[..., None]).sum(axis=1))


def keypoints(points: Doubles, camera: Camera) -> NDArray[np.float32]:
    """(72, 2) float32 keypoints in [-1, 1] over the picture of (72, 3) points in metres."""
    return camera.project(points).astype(np.float32)


def head_pose(
    rotation: Doubles,
    points: Doubles,
    points_unturned: Doubles,
    camera: Camera,
    transform: PoseTransform,
) -> NDArray[np.float32]:
    """(6,) float32 head pose: axis-angle, shift x, y and scale, as the published networks take it.

    rotation         # (3,) FLAME's global axis-angle in radians
    points           # (72, 3) metres, turned by it
    points_unturned  # (72, 3) metres, the same face with no global rotation

    The shift is that of the nose tip by the rotation, added to the camera's.
    """
    moved = camera.project(points[NOSE_TIP]) - camera.project(points_unturned[NOSE_TIP])
    x = transform.shift_x + SHIFT_SCALE * (camera.shift_x + moved[0])
    y = transform.shift_y - SHIFT_SCALE * (camera.shift_y + moved[1])
    return np.array([*rotation, x, y, camera.scale / transform.scale], np.float32)


def load_landmark_embedding(path: str | Path) -> LandmarkEmbedding:
    """The embedding of a `landmark_embedding.json`: `lmk_faces_idx` (72) and `lmk_bary_coords` (72 of 3).

    Raises ModelError, naming the file and the place in it, for anything else.
    """
    file = _load(Path(path), _EmbeddingFile)
    weights = np.array(file.lmk_bary_coords, np.float64)
    wrong = np.flatnonzero(np.abs(weights.sum(axis=1) - 1) > _WEIGHTS_SUM)
    if len(wrong):
        raise ModelError(
            f"{path}: lmk_bary_coords.{wrong[0]}: {weights[wrong[0]].tolist()} do not sum up to 1"
        )
    return LandmarkEmbedding(np.array(file.lmk_faces_idx, np.int64), weights)


def load_pose_transform(path: str | Path) -> PoseTransform:
    """The constants of a `pose_transform_config.json`: `scale_transform`, `tx_transform`, `ty_transform`.

    Raises ModelError, naming the file and the place in it, for anything else.
    """
    file = _load(Path(path), _TransformFile)
    return PoseTransform(file.scale_transform, file.tx_transform, file.ty_transform)


_Weight = Annotated[float, Field(ge=-1, le=2)]


class _EmbeddingFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    lmk_faces_idx: list[Annotated[int, Field(ge=0, lt=TRIANGLES)]] = Field(
        min_length=POINTS, max_length=POINTS
    )
    lmk_bary_coords: list[tuple[_Weight, _Weight, _Weight]] = Field(min_length=POINTS, max_length=POINTS)


class _TransformFile(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)

    scale_transform: float = Field(gt=0)
    tx_transform: float = Field(ge=-1e3, le=1e3)
    ty_transform: float = Field(ge=-1e3, le=1e3)


F = TypeVar("F", bound=BaseModel)


def _load(path: Path, kind: type[F]) -> F:
    content = read_small_file(path, _MAX_BYTES, "the file that belongs to Face2Face-rho", ModelError)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        where = f", at {place[:80]}" if place else ""
        raise ModelError(
            f"{path}{where}: {first['msg'][:200]}; use the file that belongs to Face2Face-rho"
        ) from error
