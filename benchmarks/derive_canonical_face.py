"""Derives `runtime/assets/canonical_face.npz`: where the 468 Face Mesh points lie on an average head.

The Face Mesh network looks at renderings of the ICT Face Model with known pose. Each landmark gets the one place on
the model's surface that, over all heads and views, projects closest to where the network put it; left and right
share their evidence. The places then carry the model's expression shapes over to the 468 points.

    python -m reenact.benchmarks.derive_canonical_face HEADS_FOLDER face_landmark.tflite -o canonical_face.npz
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..runtime.tracking.canonical import INNER_LIPS, LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE
from ..runtime.tracking.face import rotation_matrix
from .render_heads import PIVOT, HeadAssets, Look, load_assets, normals, render_head
from .triangulate_face import triangulate_face

__all__ = ["FaceMesh", "Places", "View", "derive", "observe", "place"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Image = NDArray[np.uint8]

SKIN_VERTICES = 9409  # the material M_Face: face, scalp, rims of lips and lids
LID_RING, LIP_RING = (
    2,
    7,
)  # edge of the lid, line where the lips meet: rings inwards to outwards from the skin's rim
TOLERANCE_CM = 0.15  # of the robust cost of a landmark that lies beside a place
LEAST_STEP_CM = 0.07  # between neighbours on the edge of a lid or lip
MOUTH_CORNER = (78, 62, 76, 61)  # from the inner lips outwards
LID_GAP = 0.03  # of the open eye, left by a whole blink
LEVEL_PITCH_DEGREES = (
    4.5  # of the model, bent down, where people hold their heads who face a camera: the median
)
# over 33 portraits and clips (the model's own neutral head has its chin up)
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
    neutral: bool  # whether the face shows no expression


def observe(assets: HeadAssets, network: FaceMesh, heads: int, views: int, seed: int) -> list[View]:
    """Renders `heads` random people in `views` random poses each and lets the network look at them.

    The first view is level, every third shows an expression. Raises ValueError where the network sees no face.
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


@dataclass(frozen=True, eq=False)
class Places:
    """Where on the model's surface each landmark lies."""

    corners: Ints  # (468, 3) vertices
    weights: Floats  # (468, 3)
    mirror: Ints  # (468,) each landmark's partner

    def take(self, vertices: Floats) -> Floats:
        """(..., V, 3) values at vertices to (..., 468, 3) at the landmarks."""
        return np.asarray(
            np.einsum("nk,...nkc->...nc", self.weights, vertices[..., self.corners, :]), np.float32
        )


class Surface:
    """The model's skin with the evidence of all views."""

    def __init__(self, assets: HeadAssets, views: list[View]) -> None:
        self.vertices = assets.neutral[:SKIN_VERTICES]
        self.triangles = assets.triangles[assets.material == assets.materials.index("M_Face")]
        self.views = views
        reflected = self.vertices * np.array([-1, 1, 1], np.float32)
        self.mirror = np.array(
            [np.square(self.vertices - p).sum(axis=1).argmin() for p in reflected], np.int32
        )
        self.pairs = pair_landmarks(views)

    @cached_property
    def rings(self) -> tuple[Ints, Ints]:
        """Steps from the skin's rim in the eye sockets and in the mouth to each vertex, (V,) each."""
        sides = np.concatenate([self.triangles[:, k] for k in ([0, 1], [1, 2], [2, 0])])
        known = set(map(tuple, sides.tolist()))
        rim = np.unique([side for side in known if side[::-1] not in known])
        x, y, z = self.vertices[rim].T
        eyes = (np.abs(x) < 5) & (np.abs(y + 3.6) < 1) & (z < -8)
        mouth = (np.abs(x) < 3) & (np.abs(y - 3.4) < 1) & (z < -9)
        return _steps(sides, rim[eyes], SKIN_VERTICES), _steps(sides, rim[mouth], SKIN_VERTICES)

    def cost(self, landmarks: Ints, corners: Ints, weights: Floats) -> Floats:
        """(N, S) mean robust picture distance 0..1 between N landmarks and S places, over views that show them.

        Both a place's own evidence and that of its mirror image for the partner landmark count. `corners` and
        `weights` are (S, 3).
        """
        total = np.zeros((len(landmarks), len(corners)), np.float32)
        for vertices, points in ((corners, landmarks), (self.mirror[corners], self.pairs[landmarks])):
            cost = np.zeros_like(total)
            seen = np.zeros(len(corners), np.float32)
            for view, facing in zip(self.views, self._facing, strict=True):
                at = np.einsum("sk,skc->sc", weights, view.vertices_px[vertices, :2])
                shown = np.clip(facing[vertices[:, 0]], 0, 1) + 0.02
                wanted = view.landmarks_px[points, :2]
                square = np.square(wanted[:, None] - at).sum(axis=2) / view.scale**2
                cost += shown * square / (square + TOLERANCE_CM**2)
                seen += shown
            total += cost / seen / 2
        return total

    @cached_property
    def _facing(self) -> list[Floats]:
        """(V,) cosine between each vertex's normal and the line to the viewer, for each view."""
        return [-normals(view.vertices_px[:SKIN_VERTICES], self.triangles)[:, 2] for view in self.views]


def pair_landmarks(views: list[View]) -> Ints:
    """(468,) mirror partner of each landmark: contours by their lists, the others from the mean of level faces."""
    heads = [
        (view.landmarks_px - view.landmarks_px.mean(axis=0)) @ view.rotation / view.scale for view in views
    ]
    mean = np.mean(heads, axis=0)
    distance = np.linalg.norm(mean[:, None] - mean * np.array([-1, 1, 1]), axis=2)
    distance += distance.T
    pairs = np.full(468, -1, np.int32)
    for right, left in zip(RIGHT_EYE + RIGHT_BROW, LEFT_EYE + LEFT_BROW, strict=True):
        pairs[right], pairs[left] = left, right
    for flat in np.argsort(distance, axis=None):
        a, b = divmod(int(flat), 468)
        if pairs[a] < 0 and pairs[b] < 0:
            pairs[a], pairs[b] = b, a
    return pairs


def place(surface: Surface) -> Places:
    """Finds the place of every landmark; contours of lids and lips are held on the edges of lids and lips."""
    every = np.arange(468, dtype=np.int32)
    eye_rings, lip_rings = surface.rings
    vertex = np.repeat(np.arange(SKIN_VERTICES, dtype=np.int32)[:, None], 3, axis=1)
    alone = np.tile(np.array([1, 0, 0], np.float32), (SKIN_VERTICES, 1))
    cost = surface.cost(every, vertex, alone)
    cost[:, (eye_rings <= LID_RING) | (lip_rings <= LIP_RING)] = np.inf
    middle = np.abs(surface.vertices[:, 0]) < 1e-3
    corners, weights = np.zeros((468, 3), np.int32), np.zeros((468, 3), np.float32)
    forbidden = (eye_rings < LID_RING) | (lip_rings < LIP_RING)
    for i in every:
        on_axis = surface.pairs[i] == i
        best = int(np.where(middle, cost[i], np.inf).argmin() if on_axis else cost[i].argmin())
        near = _around(surface.triangles, best, 2)
        near = near[~forbidden[near].any(axis=1)]
        spots, shares = _subdivide(near)
        if on_axis:
            level = np.abs(np.einsum("sk,sk->s", shares, surface.vertices[spots, 0])) < 1e-3
            spots, shares = spots[level], shares[level]
        pick = int(surface.cost(every[i : i + 1], spots, shares)[0].argmin())
        corners[i], weights[i] = spots[pick], shares[pick]
    eye = np.flatnonzero((eye_rings == LID_RING) & (surface.vertices[:, 0] < 0))
    lower, upper = _edges_of(surface, eye, surface.vertices[eye, 0].argmax())
    _hold(surface, RIGHT_EYE[2:7], lower, (), corners, weights)
    _hold(surface, RIGHT_EYE[10:15], upper[::-1], (), corners, weights)
    lips = np.flatnonzero(lip_rings == LIP_RING)
    lower, upper = _edges_of(surface, lips, surface.vertices[lips, 0].argmax())
    corner, bottom, top = INNER_LIPS[0], INNER_LIPS[5], INNER_LIPS[15]
    _hold(surface, INNER_LIPS[:6], lower[: len(lower) // 2 + 1], (corner, bottom), corners, weights)
    _hold(surface, (*INNER_LIPS[15:], corner), upper[len(upper) // 2 :: -1], (top, corner), corners, weights)
    crease = [_rightmost(surface, lip_rings == ring) for ring in range(LIP_RING, LIP_RING + 9)]
    _hold(surface, MOUTH_CORNER, crease, (corner,), corners, weights)
    right = (surface.vertices[corners, 0] * weights).sum(axis=1) < 0
    for i in every[right & (surface.pairs != every)]:
        corners[surface.pairs[i]], weights[surface.pairs[i]] = surface.mirror[corners[i]], weights[i]
    return Places(corners, weights, surface.pairs)


def _edges_of(surface: Surface, ring: NDArray[np.intp], end: np.intp) -> tuple[list[int], list[int]]:
    """The lower and the upper way along a closed ring of vertices from its rightmost (least x) to ring[end]."""
    members = set(ring.tolist())
    near: dict[int, set[int]] = {v: set() for v in members}
    for face in surface.triangles[np.isin(surface.triangles, ring).sum(axis=1) >= 2].tolist():
        inside = [v for v in face if v in members]
        for v in inside:
            near[v] |= set(inside) - {v}
    start, goal = int(ring[surface.vertices[ring, 0].argmin()]), int(ring[end])
    ways = []
    for first in near[start]:
        way = [start, first]
        while way[-1] != goal:
            way.append(next(v for v in sorted(near[way[-1]]) if v not in way))
        ways.append(way)
    ways.sort(key=lambda way: -float(surface.vertices[way, 1].mean()))
    return ways[0], ways[-1]


def _rightmost(surface: Surface, among: NDArray[np.bool_]) -> int:
    """The vertex of least x among some."""
    return int(np.where(among, surface.vertices[:, 0], np.inf).argmin())


def _hold(
    surface: Surface,
    chain: Sequence[int],
    way: Sequence[int],
    pinned: Sequence[int],
    corners: Ints,
    weights: Floats,
) -> None:
    """Moves a chain of landmarks to the cheapest places along a way of vertices, in order.

    Dynamic programming over places a ninth of a step apart; neighbours stay LEAST_STEP_CM or more from each
    other. Pinned ends of the chain lie on the same end of the way.
    """
    steps = 9
    share = np.arange(steps, dtype=np.float32) / steps
    starts, ends = np.asarray(way[:-1], np.int32), np.asarray(way[1:], np.int32)
    spots = np.stack([np.repeat(v, steps) for v in (starts, ends, ends)], axis=1)
    spots = np.concatenate([spots, [[way[-1]] * 3]]).astype(np.int32)
    shares = np.tile(np.stack([1 - share, share, 0 * share], axis=1), (len(starts), 1))
    shares = np.concatenate([shares, [[1, 0, 0]]]).astype(np.float32)
    at = np.einsum("sk,skc->sc", shares, surface.vertices[spots])
    along = np.concatenate([[0], np.linalg.norm(np.diff(at, axis=0), axis=1).cumsum()])
    cost = surface.cost(np.asarray(chain, np.int32), spots, shares).astype(np.float64)
    if chain[0] in pinned:
        cost[0, 1:] = np.inf
    if chain[-1] in pinned:
        cost[-1, :-1] = np.inf
    total, previous = cost[0], []
    allowed = along[:, None] - along >= LEAST_STEP_CM  # [here, before]
    for row in cost[1:]:
        reach = np.where(allowed, total, np.inf)
        previous.append(reach.argmin(axis=1))
        total = reach.min(axis=1) + row
    pick = int(total.argmin())
    for landmark, back in zip(chain[::-1], [*previous[::-1], None], strict=True):
        corners[landmark], weights[landmark] = spots[pick], shares[pick]
        if back is not None:
            pick = int(back[pick])


def _around(triangles: Ints, vertex: int, rings: int) -> Ints:
    """(T, 3) triangles within some rings of a vertex."""
    chosen = np.zeros(len(triangles), bool)
    vertices = np.array([vertex])
    for _ in range(rings):
        chosen = np.isin(triangles, vertices).any(axis=1)
        vertices = np.unique(triangles[chosen])
    return triangles[chosen]


def _subdivide(triangles: Ints) -> tuple[Ints, Floats]:
    """(S, 3) corners and (S, 3) weights of 21 evenly spread places a triangle."""
    grid = [(a, b, 5 - a - b) for a in range(6) for b in range(6 - a)]
    shares = np.tile(np.array(grid, np.float32) / 5, (len(triangles), 1))
    return np.repeat(triangles, len(grid), axis=0), shares


def _steps(sides: Ints, start: Ints, count: int) -> Ints:
    """(count,) number of edges from the nearest start vertex, at most 20."""
    steps = np.full(count, 20, np.int32)
    steps[start] = 0
    for step in range(1, 20):
        reached = np.concatenate(
            [sides[steps[sides[:, 0]] == step - 1, 1], sides[steps[sides[:, 1]] == step - 1, 0]]
        )
        steps[reached] = np.minimum(steps[reached], step)
    return steps


def derive(assets: HeadAssets, views: list[View]) -> dict[str, NDArray[Any]]:
    """Everything that `canonical_face.npz` holds, from the views of `observe`."""
    places = place(Surface(assets, views))
    mirror = places.mirror
    reflect = np.array([-1, 1, 1], np.float32)
    level = rotation_matrix(0.0, np.radians(LEVEL_PITCH_DEGREES), 0.0).T
    neutral = places.take(assets.neutral)
    neutral = (neutral + neutral[mirror] * reflect) / 2
    names = [name for name in assets.expression_names if name not in DROPPED]
    raw = {name: places.take(assets.expressions[assets.expression_names.index(name)]) for name in names}
    shapes = {name: (raw[name] + raw[_other_side(name)][mirror] * reflect) / 2 for name in names}
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
    """The person's right blink, scaled so that the lids meet, and finished point by point along the upper lid.

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
    """(468,) 0..1, falling with how far expressions move a point and with how unsurely the network places it."""
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
    parser.add_argument("--views", type=int, default=5, help="poses of each head")
    options = parser.parse_args()
    assets = load_assets(options.heads)
    views = observe(assets, FaceMesh(options.network), options.faces, options.views, seed=1)
    np.savez_compressed(options.output, **derive(assets, views))
    print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB from {len(views)} views")


if __name__ == "__main__":
    main()
