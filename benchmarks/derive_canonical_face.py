"""Derives `runtime/assets/canonical_face.npz`: where the 468 Face Mesh points lie on an average head.

The Face Mesh network looks at renderings of the ICT Face Model with known pose. Each landmark gets the one
place on the model's surface that, over all heads and views, projects closest to where the network put it;
left and right share their evidence. The places then carry the model's expression shapes to the 468 points.

    python -m reenact.benchmarks.derive_canonical_face HEADS_FOLDER face_landmark.tflite -o canonical_face.npz
"""

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..runtime.tracking.canonical import RIGHT_EYE
from ..runtime.tracking.face import rotation_matrix
from .place_landmarks import Surface, View, place
from .render_heads import PIVOT, HeadAssets, Look, load_assets, render_head
from .triangulate_face import triangulate_face

__all__ = ["FaceMesh", "derive", "observe"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Image = NDArray[np.uint8]

LID_GAP = 0.03  # of the open eye, left by a whole blink
# How far the model's head, which has its chin up, is bent down to be level: people who face a camera hold
# theirs so in the median of 32 portraits and clips.
LEVEL_PITCH_DEGREES = 4.5
DROPPED = ("PupilDilate_L", "PupilDilate_R")

SIDE = 192  # pixels of the network's input
SCALE = 14.0  # pixels per centimetre of the pictures
MARGIN = 1.5  # side of the crop over the longer side of the face's box
OUTER_EYE_CORNERS = (33, 263)
HAIR = (None, None, "short01", "short02", "ponytail01", None)


class FaceMesh:
    """The Face Mesh network, run by OpenVINO straight from its .tflite file."""

    def __init__(self, path: Path) -> None:
        import openvino

        self._model: Any = openvino.Core().compile_model(
            str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )

    def __call__(self, image: Image, box: Floats, rounds: int = 3) -> tuple[Floats, float]:
        """Landmarks (468, 3) in pixels of `image` and the presence score 0..1.

        `box` (x0, y0, x1, y1) around the face starts the search; each round crops around the last landmarks,
        so that the eyes' outer corners are level.
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


def observe(assets: HeadAssets, network: FaceMesh, heads: int, views: int, seed: int) -> list[View]:
    """Renders `heads` random people in `views` random poses each and lets the network look at them.

    The first view is level, every third shows an expression. Raises ValueError where no face is seen.
    """
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
            expression = _random_expression(random) if view % 3 == 2 else {}
            drawn = render_head(assets, look, rotation, identity=identity, expression=expression, scale=SCALE)
            points = drawn.vertices_px[assets.landmark68, :2]
            landmarks, score = network(drawn.image, np.concatenate([points.min(axis=0), points.max(axis=0)]))
            if score < 0.5:
                raise ValueError(f"the network sees no face in head {head}, view {view} (score {score:.2f})")
            found.append(View(rotation, landmarks, drawn.vertices_px, SCALE, neutral=not expression))
    return found


def _random_expression(random: np.random.Generator) -> dict[str, float]:
    """Shape weights of a face that is doing something, alike on both sides."""
    one = str(random.choice(["", "mouthSmile", "mouthPucker", "mouthFunnel", "mouthUpperUp", "mouthStretch"]))
    weights = {"jawOpen": float(random.uniform(0.1, 0.7))}
    for name in filter(None, (one, str(random.choice(["eyeBlink", "eyeWide", "browDown", "browOuterUp"])))):
        both = (name,) if name in ("mouthPucker", "mouthFunnel") else (f"{name}_L", f"{name}_R")
        weights |= dict.fromkeys(both, float(random.uniform(0.4, 0.9)))
    return weights


def derive(assets: HeadAssets, views: list[View]) -> dict[str, NDArray[Any]]:
    """Everything that `canonical_face.npz` holds, from the views of `observe`."""
    places = place(Surface(assets, views))
    mirror = places.mirror
    reflect = np.array([-1, 1, 1], np.float32)
    level = rotation_matrix(0.0, np.radians(LEVEL_PITCH_DEGREES), 0.0).T
    placed = places.take(assets.neutral)
    neutral: Floats = np.asarray((placed + placed[mirror] * reflect) / 2, np.float32)
    names = [name for name in assets.expression_names if name not in DROPPED]
    raw = {name: places.take(assets.expressions[assets.expression_names.index(name)]) for name in names}
    shapes: dict[str, Floats] = {
        name: np.asarray((raw[name] + raw[_other_side(name)][mirror] * reflect) / 2, np.float32)
        for name in names
    }
    shapes["eyeBlink_R"] = _close(neutral, shapes["eyeBlink_R"])
    shapes["eyeBlink_L"] = shapes["eyeBlink_R"][mirror] * reflect
    rigidity = _rigidity(neutral, np.stack(list(shapes.values())), views, mirror)
    origin = (rigidity / rigidity.sum()) @ neutral * np.array([0, 1, 1], np.float32)
    neutral = (neutral - origin) @ level
    triangles, eye_triangles, mouth_triangles = triangulate_face(neutral, mirror.astype(np.int16))
    return {
        "neutral": neutral.astype(np.float32),
        "triangles": triangles,
        "eye_triangles": eye_triangles,
        "mouth_triangles": mouth_triangles,
        "mirror": mirror.astype(np.int16),
        "rigidity": rigidity.astype(np.float32),
        "turning_point": ((PIVOT - origin) @ level).astype(np.float32),
        "shape_names": np.array(names),
        "shapes": (np.stack([shapes[name] for name in names]) @ level).astype(np.float16),
    }


def _other_side(name: str) -> str:
    swap = {"_L": "_R", "_R": "_L"}
    if name[-2:] in swap:
        return name[:-2] + swap[name[-2:]]
    return {
        "jawLeft": "jawRight",
        "jawRight": "jawLeft",
        "mouthLeft": "mouthRight",
        "mouthRight": "mouthLeft",
    }.get(name, name)


def _close(neutral: Floats, blink: Floats) -> Floats:
    """The person's right blink, scaled so that the lids meet and finished point by point on the upper lid.

    The model's own blink leaves a slit and relies on eyelashes to hide it.
    """
    lower, upper = list(RIGHT_EYE[:9]), list(RIGHT_EYE[9:])

    def gap(points: Floats) -> Floats:
        floor = np.interp(points[upper, 0], points[lower, 0], points[lower, 1])
        return np.asarray(floor - points[upper, 1], np.float32)

    opened = gap(neutral)
    closing = opened - gap(neutral + blink)
    blink = blink * float(np.clip((1 - LID_GAP) * opened.sum() / closing.sum(), 1, 1.6))
    blink[upper, 1] += gap(neutral + blink) - LID_GAP * opened
    return blink


def _rigidity(neutral: Floats, shapes: Floats, views: list[View], mirror: Ints) -> Floats:
    """(468,) 0..1, falling with how far expressions move a point and how unsurely the network places it."""
    moved = np.sqrt(np.square(shapes).sum(axis=(0, 2)))
    centred = neutral - neutral.mean(axis=0)
    error = np.zeros(468)
    neutral_views = [view for view in views if view.neutral]
    for view in neutral_views:
        head = view.landmarks_px @ view.rotation
        head -= head.mean(axis=0)
        head *= (head * centred).sum() / np.square(head).sum()
        error += np.square(head - centred).sum(axis=1) / len(neutral_views)
    weight = 1 / ((1 + np.square(moved / 0.5)) * (1 + error / 0.4**2))
    weight = (weight + weight[mirror]) / 2
    return np.asarray(weight / weight.max(), np.float32)


def main() -> None:
    """Command line: see the top of this file."""
    parser = argparse.ArgumentParser(description="Derives canonical_face.npz from the ICT Face Model.")
    parser.add_argument("heads", type=Path, help="folder with ict_facekit.npz, skins/ and parts/")
    parser.add_argument("network", type=Path, help="face_landmark.tflite")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=42, help="random heads to look at")
    parser.add_argument("--views", type=int, default=6, help="poses of each head")
    options = parser.parse_args()
    assets = load_assets(options.heads)
    views = observe(assets, FaceMesh(options.network), options.faces, options.views, seed=1)
    arrays: dict[str, Any] = derive(assets, views)
    np.savez_compressed(options.output, **arrays)
    print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB from {len(views)} views")


if __name__ == "__main__":
    main()
