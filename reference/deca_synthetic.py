"""The skin of the helix head, made by rule as the head itself: DECA's golden numbers stand on both."""

import numpy as np
import torch

from .deca_skin import UV_SIDE, HeadSkin, head_skin
from .fill import image
from .synthetic import helix_model

__all__ = ["helix_skin", "helix_texture"]

_VERTICES, _TURN = 5023, 34
_TURNS = 147  # with a corner at the right border, beside the one at the left


def helix_skin() -> HeadSkin:
    """Rows of 34 vertices from the picture's bottom to its top."""
    triangles = helix_model().f
    number = np.arange(_VERTICES)
    seam = np.arange(1, _TURNS + 1)
    places = np.concatenate([number, _TURN * seam])
    x = np.concatenate([0.02 + 0.96 * (number % _TURN) / _TURN, np.full(_TURNS, 0.98)])
    uvs = np.stack([x, 0.02 + 0.96 * places / (_VERTICES - 1)], 1).astype(np.float32)
    last = (np.arange(len(triangles)) // 2 % _TURN == _TURN - 1)[:, None] & (triangles % _TURN == 0)
    uv_triangles = np.where(last, _VERTICES + triangles // _TURN - 1, triangles)
    side = (1, 1, UV_SIDE, UV_SIDE)
    wrinkled = image("uv_face_eye_mask", side, -0.5, 1.5)[0, 0].clip(0, 1)
    return head_skin(
        triangles, uvs, uv_triangles, wrinkled, image("fixed_uv_dis", side, -0.0013, 0.0016)[0, 0]
    )


def helix_texture(columns: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The state of `FlameTex`: mean (1, 1, 786432), basis (1, 786432, count) with so many columns that are not 0."""
    side = (1, 3, 512, 512)

    def flat(name: str, low: float, high: float) -> torch.Tensor:
        return torch.from_numpy(image(name, side, low, high)[0].transpose(1, 2, 0).reshape(-1).copy())

    mean = flat("tex_mean", 0.1, 0.9)
    basis = torch.zeros(len(mean), count)
    for column in range(columns):
        basis[:, column] = flat(f"tex_basis_{column}", -0.05, 0.05)
    return mean[None, None], basis[None]
