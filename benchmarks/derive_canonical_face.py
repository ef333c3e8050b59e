"""Derives `runtime/assets/canonical_face.npz`: where the 468 Face Mesh points lie on an average head.

The Face Mesh network looks at renderings of the ICT Face Model with known pose. Each landmark gets the one place on
the model's surface that, over all heads and views, projects closest to where the network put it; left and right
share their evidence. The places then carry the model's expression shapes over to the 468 points.

    python -m reenact.benchmarks.derive_canonical_face HEADS_FOLDER face_landmark.tflite -o canonical_face.npz
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..runtime.tracking.face import rotation_matrix
from .render_heads import HeadAssets, Look, Rendering, load_assets, render_head

__all__ = ["FaceMesh", "View", "observe"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Image = NDArray[np.uint8]

SIDE = 192  # pixels of the network's input
MARGIN = 1.5  # side of the crop over the longer side of the face's box
OUTER_EYE_CORNERS = (33, 263)
HAIR = (None, None, "short01", "short02", "ponytail01", None)


class FaceMesh:
    """The Face Mesh network, run by OpenVINO straight from its .tflite file."""

    def __init__(self, path: Path) -> None:
        import openvino

        self._model: Any = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def __call__(self, image: Image, box: Floats, rounds: int = 3) -> tuple[Floats, float]:
        """Landmarks (468, 3) in pixels of `image` and the presence score 0..1.

        `box` (x0, y0, x1, y1) around the face starts the search; each round crops around the last landmarks, so
        that the eyes' outer corners are level.
        """
        centre, side, roll = (box[:2] + box[2:]) / 2, MARGIN * float(max(box[2:] - box[:2])), 0.0
        score = 0.0
        landmarks = np.empty((468, 3))
        for _ in range(rounds):
            turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])  # crop to picture
            to_crop = turn.T * (SIDE / side)
            matrix = np.column_stack([to_crop, SIDE / 2 - to_crop @ centre])
            crop = cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
            points, logit = (
                value.ravel() for value in self._model(crop[None].astype(np.float32) / 255).values()
            )
            score = float(1 / (1 + np.exp(-logit[0])))
            landmarks = points.reshape(468, 3).astype(np.float64) * (side / SIDE)
            landmarks[:, :2] = (landmarks[:, :2] - side / 2) @ turn.T
            level = landmarks[:, :2] @ turn
            extent = np.ptp(level, axis=0)
            landmarks[:, :2] += centre
            centre = turn @ ((level.min(axis=0) + level.max(axis=0)) / 2) + centre
            side = MARGIN * float(extent.max())
            across = landmarks[OUTER_EYE_CORNERS[1], :2] - landmarks[OUTER_EYE_CORNERS[0], :2]
            roll = float(np.arctan2(across[1], across[0]))
        return np.asarray(landmarks, np.float32), score


@dataclass(frozen=True, eq=False)
class View:
    """One rendering and what the network saw in it."""

    rotation: Floats  # (3, 3) head to camera
    landmarks_px: Floats  # (468, 3)
    vertices_px: Floats  # (V, 3) of the head
    scale: float  # pixels per centimetre
    score: float
    image: Image


def observe(assets: HeadAssets, network: FaceMesh, heads: int, views: int, seed: int) -> list[View]:
    """Renders `heads` random neutral heads in `views` random poses each and lets the network look at them."""
    random = np.random.default_rng(seed)
    brows = [name for name in assets.parts if name.startswith("eyebrow")]
    found = []
    for head in range(heads):
        identity = random.normal(size=len(assets.identities)).astype(np.float32) * 0.8
        light = random.normal(size=3) * (0.5, 0.3, 0.1) + (0, -0.4, -0.9)
        look = Look(
            skin=assets.skins[head % len(assets.skins)],
            brows=brows[head % len(brows)],
            hair=HAIR[head % len(HAIR)],
            light=(float(light[0]), float(light[1]), float(light[2])),
        )
        for view in range(views):
            degrees = (0, 0, 0) if view == 0 else random.uniform((-28, -22, -12), (28, 22, 12))
            rotation = rotation_matrix(*np.radians(degrees))
            rendering = render_head(assets, look, rotation, identity=identity)
            found.append(_look_at(assets, network, rendering, rotation, scale=14.0))
    return found


def _look_at(
    assets: HeadAssets, network: FaceMesh, rendering: Rendering, rotation: Floats, scale: float
) -> View:
    points = rendering.vertices_px[assets.landmark68, :2]
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    landmarks, score = network(rendering.image, box)
    return View(rotation, landmarks, rendering.vertices_px, scale, score, rendering.image)
