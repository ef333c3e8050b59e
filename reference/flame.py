"""FLAME (SIGGRAPH Asia 2017, doi 10.1145/3130800.3130813): a head mesh posed from shape, expression and rotations.

Buffers bear the published names. Coordinates are metres, x to the picture's right, y up, z to the viewer; rotations
are axis-angles in radians. Knows nothing of files, cameras and pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ModelError
from .rotations import rodrigues

__all__ = [
    "PARENTS",
    "Flame",
    "FlameLandmarks",
    "FlameMesh",
    "FlameModel",
    "PosedHead",
    "contour_rows",
    "contour_yaw",
    "points_on",
]

PARENTS = (-1, 0, 1, 1, 1)  # of the joints root, neck, jaw, left eye, right eye
_NECK_CHAIN = (1, 0)  # from the neck to the root: what turns the contour; part of the published state
_SHAPES, _EXPRESSIONS = 300, 100  # columns of `shapedirs`, expressions behind shapes
_POSE_FEATURES = 9 * (len(PARENTS) - 1)
_MOST_YAW = 39  # degrees; the contour has a row a degree to both sides and one for all beyond
_ROWS = 2 * _MOST_YAW + 1
_CONTOUR, _INNER = 17, 51  # landmarks on the contour and inside the face

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class FlameModel:
    """The fields of the published `generic_model.pkl`, dense, for V vertices and F triangles.

    Raises ModelError for a field of another shape or kind, a value that is not finite and a number of a vertex that
    does not exist.
    """

    f: Array  # (F, 3) integers, the triangles' corners
    v_template: Array  # (V, 3) metres
    shapedirs: Array  # (V, 3, 400) metres a unit, 300 of shape and 100 of expression
    posedirs: Array  # (V, 3, 36) metres a unit of what the matrices of joints 1 to 4 have beside the identity
    J_regressor: Array  # (5, V)
    kintree_table: Array  # (2, 5) integers; row 0 has the joints' parents, without meaning for the root
    weights: Array  # (V, 5), of each joint on a vertex

    def __post_init__(self) -> None:
        count, joints = _rows(self.v_template), len(PARENTS)
        _require_numbers("v_template", self.v_template, (count, 3))
        _require_numbers("shapedirs", self.shapedirs, (count, 3, _SHAPES + _EXPRESSIONS))
        _require_numbers("posedirs", self.posedirs, (count, 3, _POSE_FEATURES))
        _require_numbers("J_regressor", self.J_regressor, (joints, count))
        _require_numbers("weights", self.weights, (count, joints))
        _require_indices("f", self.f, (_rows(self.f), 3), count)
        _require_integers("kintree_table", self.kintree_table, (2, joints))
        parents = self.kintree_table[0].tolist()
        if parents[1:] != list(PARENTS[1:]):
            raise ModelError(
                f"FLAME's kintree_table names the parents {parents}; expected {list(PARENTS)}. This is another "
                "body model; take FLAME's"
            )


@dataclass(frozen=True, eq=False)
class FlameLandmarks:
    """The fields of the published `landmark_embedding.npy`: triangles and weights of their corners.

    Raises ModelError for a field of another shape or kind and for a weight that is not finite.
    """

    static_lmk_faces_idx: Array  # (51,) integers, inside the face
    static_lmk_bary_coords: Array  # (51, 3)
    dynamic_lmk_faces_idx: Array  # (79, 17) integers, the visible contour for each row of `contour_rows`
    dynamic_lmk_bary_coords: Array  # (79, 17, 3)
    full_lmk_faces_idx: Array  # (1, 68) integers, with a contour that stays with the skin
    full_lmk_bary_coords: Array  # (1, 68, 3)

    def __post_init__(self) -> None:
        shapes = {"static": (_INNER,), "dynamic": (_ROWS, _CONTOUR), "full": (1, _CONTOUR + _INNER)}
        for kind, shape in shapes.items():
            for name, required, there in (
                (f"{kind}_lmk_faces_idx", _require_integers, shape),
                (f"{kind}_lmk_bary_coords", _require_numbers, (*shape, 3)),
            ):
                required(name, getattr(self, name), there)


class PosedHead(NamedTuple):
    """A head and how it came about."""

    vertices: Tensor  # (B, V, 3) metres
    shaped: Tensor  # (B, V, 3) metres, shape and expression at rest
    rotations: Tensor  # (B, 5, 3, 3) of each joint against its parent
    joints_rest: Tensor  # (B, 5, 3) metres
    joints: Tensor  # (B, 5, 3) metres, where the rotations bring them
    transforms: Tensor  # (B, 5, 3, 4) from a vertex at rest to where each joint takes it


class FlameMesh(nn.Module):
    """The mesh alone, for those who have landmarks of their own.

    `n_shape` and `n_exp` are how many shape and expression components are used, of 300 and 100; ModelError for more.
    `eye_pose` and `neck_pose` belong to the published state, as zeros, and are never trained; the rest are buffers.
    `parents` is there for the state alone: what is computed with is `PARENTS`.
    """

    faces_tensor: Tensor  # (F, 3) int64
    v_template: Tensor  # (V, 3)
    shapedirs: Tensor  # (V, 3, n_shape + n_exp)
    posedirs: Tensor  # (36, 3 V), the column of an axis is vertex * 3 + axis
    J_regressor: Tensor  # (5, V)
    parents: Tensor  # (5,) int64
    lbs_weights: Tensor  # (V, 5)

    def __init__(self, model: FlameModel, *, n_shape: int = 100, n_exp: int = 50) -> None:
        super().__init__()
        if not (0 < n_shape <= _SHAPES and 0 < n_exp <= _EXPRESSIONS):
            raise ModelError(
                f"n_shape {n_shape} and n_exp {n_exp}: FLAME has 1 to {_SHAPES} shape and 1 to {_EXPRESSIONS} "
                "expression components"
            )
        used = np.r_[:n_shape, _SHAPES : _SHAPES + n_exp]
        pose_directions = model.posedirs.reshape(-1, _POSE_FEATURES).T
        self.eye_pose = nn.Parameter(torch.zeros(1, 6), requires_grad=False)
        self.neck_pose = nn.Parameter(torch.zeros(1, 3), requires_grad=False)
        self.register_buffer("faces_tensor", _integers(model.f))
        self.register_buffer("v_template", _numbers(model.v_template))
        self.register_buffer("shapedirs", _numbers(model.shapedirs[..., used]))
        self.register_buffer("posedirs", _numbers(pose_directions))
        self.register_buffer("J_regressor", _numbers(model.J_regressor))
        self.register_buffer("parents", torch.tensor(PARENTS))
        self.register_buffer("lbs_weights", _numbers(model.weights))

    def forward(
        self, shape: Tensor, expression: Tensor, pose: Tensor, eye_pose: Tensor | None = None
    ) -> PosedHead:
        """Shape a head and pose it.

        shape       # (B, n_shape)
        expression  # (B, n_exp)
        pose        # (B, 6) the whole head's rotation, then the jaw's
        eye_pose    # (B, 6) the left eye's rotation, then the right one's; in place of the model's own
        """
        count = shape.shape[0]
        neck = self.neck_pose.expand(count, -1)
        eyes = self.eye_pose.expand(count, -1) if eye_pose is None else eye_pose
        rotations = rodrigues(torch.cat([pose[:, :3], neck, pose[:, 3:], eyes], 1).reshape(count, -1, 3))

        components = torch.cat([shape, expression], 1)
        moved = functional.linear(components, self.shapedirs.flatten(0, 1))
        shaped = self.v_template + moved.reshape(count, -1, 3)
        joints_rest = self.J_regressor @ shaped

        bent = rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        at_rest = shaped + (bent.flatten(1) @ self.posedirs).reshape(count, -1, 3)

        joints, transforms = _chained(rotations, joints_rest)
        mixed = (self.lbs_weights @ transforms.flatten(2)).reshape(count, -1, 3, 4)
        vertices = (mixed[..., :3] * at_rest[:, :, None]).sum(-1) + mixed[..., 3]
        return PosedHead(vertices, shaped, rotations, joints_rest, joints, transforms)


class Flame(FlameMesh):
    """The mesh with the 68 published landmarks, in the order of the iBUG 300-W annotation.

    Raises ModelError as the mesh, and for landmarks in triangles that the model does not have.
    """

    lmk_faces_idx: Tensor  # (51,) int64
    lmk_bary_coords: Tensor  # (51, 3)
    dynamic_lmk_faces_idx: Tensor  # (79, 17) int64
    dynamic_lmk_bary_coords: Tensor  # (79, 17, 3)
    full_lmk_faces_idx: Tensor  # (1, 68) int64
    full_lmk_bary_coords: Tensor  # (1, 68, 3)
    neck_kin_chain: Tensor  # (2,) int64

    def __init__(
        self, model: FlameModel, landmarks: FlameLandmarks, *, n_shape: int = 100, n_exp: int = 50
    ) -> None:
        super().__init__(model, n_shape=n_shape, n_exp=n_exp)
        for kind, prefix in (("static", ""), ("dynamic", "dynamic_"), ("full", "full_")):
            triangles = getattr(landmarks, f"{kind}_lmk_faces_idx")
            _require_indices(f"{kind}_lmk_faces_idx", triangles, triangles.shape, len(model.f))
            weights = getattr(landmarks, f"{kind}_lmk_bary_coords")
            self.register_buffer(f"{prefix}lmk_faces_idx", _integers(triangles))
            self.register_buffer(f"{prefix}lmk_bary_coords", _numbers(weights))
        self.register_buffer("neck_kin_chain", torch.tensor(_NECK_CHAIN))

    def landmarks_2d(self, head: PosedHead) -> Tensor:
        """(B, 68, 3) metres: the contour where a viewer sees it, 17 points, then 51 that stay with the skin."""
        rows = contour_rows(contour_yaw(head.rotations))
        count = rows.shape[0]
        triangles = torch.cat([self.dynamic_lmk_faces_idx[rows], self.lmk_faces_idx.expand(count, -1)], 1)
        inner = self.lmk_bary_coords.expand(count, -1, -1)
        weights = torch.cat([self.dynamic_lmk_bary_coords[rows], inner], 1)
        return points_on(head.vertices, self.faces_tensor[triangles], weights)

    def landmarks_3d(self, head: PosedHead) -> Tensor:
        """(B, 68, 3) metres, all of which stay with the skin."""
        corners = self.faces_tensor[self.full_lmk_faces_idx]
        return points_on(head.vertices, corners, self.full_lmk_bary_coords)


def contour_yaw(rotations: Tensor) -> Tensor:
    """(B,) degrees in [-90, 90] that joints (B, 5, 3, 3) turn the face by, positive towards +x."""
    turn = rotations[:, 0] @ rotations[:, 1]
    across = (turn[:, 0, 0].square() + turn[:, 1, 0].square()).sqrt()
    return torch.atan2(-turn[:, 2, 0], across).rad2deg()


def contour_rows(yaw_degrees: Tensor) -> Tensor:
    """(B,) int64 rows of the dynamic contour: 0..39 for yaw 0..39, 40..77 for -1..-38, 78 for -39; beyond, the last.

    Halves are rounded to the even degree, so that -0.5 has row 0.
    """
    degrees = yaw_degrees.round().clamp(-_MOST_YAW, _MOST_YAW).to(torch.int64)
    return torch.where(degrees < 0, _MOST_YAW - degrees, degrees)


def points_on(vertices: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    """(B, L, 3) points on a mesh (B, V, 3), in triangles with these corners.

    corners  # (B, L, 3) int64 numbers of vertices, or (1, L, 3) for all
    weights  # (B, L, 3) of the corners, or (1, L, 3)
    """
    count = vertices.shape[0]
    flat = corners.flatten(1)[..., None].expand(count, -1, 3)
    return (vertices.gather(1, flat).reshape(count, -1, 3, 3) * weights[..., None]).sum(2)


def _chained(rotations: Tensor, joints_rest: Tensor) -> tuple[Tensor, Tensor]:
    """The joints as posed, (B, 5, 3), and what they do to a vertex at rest, (B, 5, 3, 4).

    The parents are constants of the code and nothing is written in place, so that graphs are free of scattering.
    """
    turns, places = [rotations[:, 0]], [joints_rest[:, 0]]
    for joint, parent in enumerate(PARENTS[1:], 1):
        bone = joints_rest[:, joint] - joints_rest[:, parent]
        places.append(_turned(turns[parent], bone) + places[parent])
        turns.append(turns[parent] @ rotations[:, joint])
    turned, joints = torch.stack(turns, 1), torch.stack(places, 1)
    shifts = joints - _turned(turned, joints_rest)
    return joints, torch.cat([turned, shifts[..., None]], -1)


def _turned(rotations: Tensor, vectors: Tensor) -> Tensor:
    """(..., 3) vectors turned by (..., 3, 3)."""
    return (rotations @ vectors[..., None])[..., 0]


def _numbers(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32).copy())


def _integers(values: Array) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


def _rows(values: Array) -> int:
    return values.shape[0] if values.ndim else 0


def _require_numbers(name: str, values: Array, shape: Sequence[int]) -> None:
    _require_shape(name, values, shape, "f", "floating-point numbers")
    if not np.isfinite(values).all():
        raise ModelError(f"FLAME's {name} has values that are not finite; fetch the file again")


def _require_integers(name: str, values: Array, shape: Sequence[int]) -> None:
    _require_shape(name, values, shape, "iu", "integers")


def _require_indices(name: str, values: Array, shape: Sequence[int], count: int) -> None:
    """Integers from 0 to below `count`."""
    _require_integers(name, values, shape)
    wrong = values[(values < 0) | (values >= count)]
    if wrong.size:
        raise ModelError(
            f"FLAME's {name} names number {wrong[0]}, but there are {count}; take files that belong together"
        )


def _require_shape(name: str, values: Array, shape: Sequence[int], kinds: str, what: str) -> None:
    if values.shape != tuple(shape) or values.dtype.kind not in kinds:
        raise ModelError(
            f"FLAME's {name} is {values.shape} of {values.dtype}; expected {tuple(shape)} {what}. Take the files of "
            "FLAME 2020"
        )
