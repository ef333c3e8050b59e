"""Rotations as FLAME and its fits write them: axis-angles, Euler angles, quaternions w, x, y, z; all in radians."""

import torch
from torch import Tensor

__all__ = ["euler_to_quaternion", "quaternion_to_axis_angle", "rodrigues"]

_EPSILON = 1e-8  # added to each component before the norm; the published fits were made with it


def rodrigues(axis_angles: Tensor) -> Tensor:
    """(..., 3) axis-angles to (..., 3, 3) matrices; exactly the identity for zeros.

    The angle is that of the vector plus 1e-8 in each component, the axis the vector itself over it.
    """
    # A row and not a number: ONNX exporters take a number so small for 0 and leave it out, and 0 / 0 is left.
    angle = (axis_angles + axis_angles.new_full((3,), _EPSILON)).norm(dim=-1, keepdim=True)
    x, y, z = (axis_angles / angle).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*axis_angles.shape, 3)
    identity = torch.eye(3, dtype=angle.dtype, device=angle.device)
    sine, rest = angle.sin()[..., None], 1 - angle.cos()[..., None]
    matrices: Tensor = identity + sine * cross + rest * (cross @ cross)
    return matrices


def euler_to_quaternion(angles: Tensor) -> Tensor:
    """(..., 3) angles about x, y, z to (..., 4) quaternions of the matrix Rx Ry Rz."""
    cx, cy, cz = (angles / 2).cos().unbind(-1)
    sx, sy, sz = (angles / 2).sin().unbind(-1)
    return torch.stack(
        [
            cx * cy * cz - sx * sy * sz,
            cx * sy * sz + cy * cz * sx,
            cx * cz * sy - sx * cy * sz,
            cx * cy * sz + sx * cz * sy,
        ],
        -1,
    )


def quaternion_to_axis_angle(quaternions: Tensor) -> Tensor:
    """(..., 4) unit quaternions to (..., 3) axis-angles of at most pi."""
    w, v = quaternions[..., :1], quaternions[..., 1:]
    sine = v.norm(dim=-1, keepdim=True)
    sign = torch.where(w < 0, -1.0, 1.0).to(w.dtype)
    angle = 2 * torch.atan2(sign * sine, sign * w)
    still = sine == 0
    return v * torch.where(still, 2.0, angle / torch.where(still, 1.0, sine))
