"""Heads of FLAME's dimensions made by rule: golden numbers stand on them, as FLAME's own may not be passed on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .fill import tensor
from .flame import PARENTS, FlameLandmarks, FlameModel

__all__ = ["helix_landmarks", "helix_model", "strewn_model"]

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

_VERTICES, _TRIANGLES = 5023, 9976
_TREE = np.array([PARENTS, range(len(PARENTS))], np.int64)
_ANCHORS = ((0, -0.12, 0), (0, -0.06, -0.02), (0, -0.03, 0.02), (-0.03, 0.03, 0.06), (0.03, 0.03, 0.06))
_TURN = 34  # vertices once around the helix


def helix_model() -> FlameModel:
    """An egg of one long winding, 28 cm high, with joints and weights at places like FLAME's; DECA's goldens."""
    base = _helix()
    distances = ((base - np.array(_ANCHORS)[:, None]) ** 2).sum(-1)
    regressor = np.exp(-distances / (2 * 0.02**2)) * (0.5 + np.abs(_rule("J_regressor", (5, _VERTICES))))
    weights = (np.exp(-distances.T / (2 * 0.05**2)) + 1e-3) * (0.5 + np.abs(_rule("weights", (_VERTICES, 5))))
    first = np.arange(_TRIANGLES // 2)
    lower = np.stack([first, first + 1, first + _TURN], 1)
    upper = np.stack([first + 1, first + _TURN + 1, first + _TURN], 1)
    return FlameModel(
        f=np.stack([lower, upper], 1).reshape(-1, 3),
        v_template=base + 0.001 * _rule("v_template", (_VERTICES, 3)),
        shapedirs=0.02 * _rule("shapedirs", (_VERTICES, 3, 400)),
        posedirs=0.02 * _rule("posedirs", (_VERTICES, 3, 36)),
        J_regressor=_shares(regressor),
        kintree_table=_TREE,
        weights=_shares(weights),
    )


def helix_landmarks() -> FlameLandmarks:
    """68 points all over the helix, and a contour that jumps from row to row."""
    row, column = np.arange(79)[:, None], np.arange(17)
    triangles: Ints = (37 + 139 * np.arange(68)) % _TRIANGLES
    weights = _shares(np.abs(_rule("full_lmk_bary_coords", (68, 3))) + 0.1)
    contour = _shares(np.abs(_rule("dynamic_lmk_bary_coords", (79, 17, 3))) + 0.1)
    return FlameLandmarks(
        static_lmk_faces_idx=triangles[17:],
        static_lmk_bary_coords=weights[17:],
        dynamic_lmk_faces_idx=(101 + 211 * row + 577 * column) % _TRIANGLES,
        dynamic_lmk_bary_coords=contour,
        full_lmk_faces_idx=triangles[None],
        full_lmk_bary_coords=weights[None],
    )


def strewn_model() -> FlameModel:
    """Vertices strewn at random, with triangles across all of them; the golden of Face2Face-rho's fits."""
    return FlameModel(
        f=(7 * np.arange(_TRIANGLES)[:, None] + np.arange(3)) % _VERTICES,
        v_template=0.1 * _rule("flame.v_template", (_VERTICES, 3)),
        shapedirs=0.05 * _rule("flame.shapedirs", (_VERTICES, 3, 400)),
        posedirs=0.01 * _rule("flame.posedirs", (_VERTICES, 3, 36)),
        J_regressor=_rule("flame.J_regressor", (5, _VERTICES)),
        kintree_table=_TREE,
        weights=_shares(np.abs(_rule("flame.weights", (_VERTICES, 5)))),
    )


def _helix() -> Doubles:
    """(5023, 3) metres, from the chin up."""
    number = np.arange(_VERTICES)
    height = -0.14 + 0.28 * number / (_VERTICES - 1)
    narrowing = np.sqrt(1 - (height / 0.15) ** 2)
    angle = 2 * np.pi * number / _TURN
    return np.stack([0.075 * narrowing * np.sin(angle), height, 0.095 * narrowing * np.cos(angle)], 1)


def _rule(name: str, shape: Sequence[int]) -> Doubles:
    return tensor(name, shape).astype(np.float64)


def _shares(amounts: Doubles) -> Doubles:
    """Rows divided by their sums."""
    return np.asarray(amounts / amounts.sum(axis=-1, keepdims=True))
