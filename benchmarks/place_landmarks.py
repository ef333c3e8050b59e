"""Finds where on a head's skin the landmarks lie that a network saw in pictures of such heads.

Knows the skin of the ICT Face Model (its rings around eyes and mouth) and the contours; draws nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..runtime.tracking.canonical import INNER_LIPS, LEFT_BROW, LEFT_EYE, RIGHT_BROW, RIGHT_EYE
from .render_heads import HeadAssets, normals

__all__ = ["Places", "Surface", "View", "pair_landmarks", "place"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

SKIN_VERTICES = 9409  # the material M_Face: face, scalp, rims of lips and lids
LID_RING, LIP_RING = 2, 7  # edge of the lid, line where the lips meet: steps from the skin's inner rim
TOLERANCE_CM = 0.2  # of the robust cost of a landmark that lies beside a place
EXPECTED_WEIGHT, EXPECTED_CM = 0.2, 1.0  # of the cost of a place far from where the network's depth puts it
LEAST_STEP_CM = 0.07  # between any two landmarks, and along the edges of lids and lips
MOUTH_CORNER = (78, 62, 76, 61)  # from the inner lips outwards
UPPER_LIP = (185, 40, 39, 37, 0, 184, 74, 73, 72, 11, 183, 42, 41, 38, 12)  # the right half, without the edge
LOWER_LIP = (146, 91, 181, 84, 17, 77, 90, 180, 85, 16, 96, 89, 179, 86, 15)


@dataclass(frozen=True, eq=False)
class View:
    """One rendering and what the network saw in it."""

    rotation: Floats  # (3, 3) head to camera
    landmarks_px: Floats  # (468, 3)
    vertices_px: Floats  # (V, 3) of the head
    scale: float  # pixels per centimetre
    neutral: bool  # whether the face shows no expression


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
        self.jaw_drop = assets.expressions[assets.expression_names.index("jawOpen"), :SKIN_VERTICES, 1]

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
        """(N, S) mean robust distance 0..1 in the pictures between N landmarks and S places that are shown.

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

    def expected(self, rough: Ints) -> Floats:
        """(468, 3) cm: where the network's own three coordinates put the landmarks, mean over the heads.

        `rough` (468,) are vertices near the landmarks; they give the scale and the place of each head.
        """
        model = self.vertices[rough]
        centre = model.mean(axis=0)
        heads = []
        for view in self.views:
            if view.neutral:
                head = view.landmarks_px @ view.rotation
                head = head - head.mean(axis=0)
                heads.append(head * ((head * (model - centre)).sum() / np.square(head).sum()) + centre)
        mean = np.mean(heads, axis=0)
        return np.asarray((mean + mean[self.pairs] * np.array([-1, 1, 1])) / 2, np.float32)

    @cached_property
    def _facing(self) -> list[Floats]:
        """(V,) cosine between each vertex's normal and the line to the viewer, for each view."""
        return [-normals(view.vertices_px[:SKIN_VERTICES], self.triangles)[:, 2] for view in self.views]


def pair_landmarks(views: list[View]) -> Ints:
    """(468,) mirror partner of each landmark: contours by their lists, others from the mean level face."""
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
    expected = surface.expected(cost.argmin(axis=1).astype(np.int32))
    for i in every:
        cost[i] += _unexpected(surface.vertices, expected[i])
    allowed = np.tile((eye_rings > LID_RING) & (lip_rings > LIP_RING), (468, 1))
    corner_drop = surface.jaw_drop[_rightmost(surface, lip_rings == LIP_RING)]
    allowed[list(UPPER_LIP)] &= surface.jaw_drop < corner_drop
    allowed[list(LOWER_LIP)] &= surface.jaw_drop > corner_drop
    middle = np.abs(surface.vertices[:, 0]) < 1e-3
    allowed[surface.pairs == every] &= middle
    allowed[surface.pairs != every] &= surface.vertices[:, 0] * expected[surface.pairs != every, :1] > 0

    corners, weights = np.zeros((468, 3), np.int32), np.zeros((468, 3), np.float32)
    taken = [np.full(3, np.inf, np.float32)]
    for i in every[(expected[:, 0] < 0) | (surface.pairs == every)]:
        near = _around(surface.triangles, int(np.where(allowed[i], cost[i], np.inf).argmin()), 2)
        spots, shares = _subdivide(near)
        at = np.einsum("sk,skc->sc", shares, surface.vertices[spots])
        free = (allowed[i][spots] | (shares == 0)).all(axis=1)
        free &= (np.linalg.norm(at[:, None] - np.asarray(taken), axis=2) >= LEAST_STEP_CM).all(axis=1)
        at, spots, shares = at[free], spots[free], shares[free]
        pick = int((surface.cost(every[i : i + 1], spots, shares)[0] + _unexpected(at, expected[i])).argmin())
        corners[i], weights[i] = spots[pick], shares[pick]
        taken.append(at[pick])
    _hold_edges(surface, corners, weights)
    for i in every[(expected[:, 0] < 0) & (surface.pairs != every)]:
        corners[surface.pairs[i]], weights[surface.pairs[i]] = surface.mirror[corners[i]], weights[i]
    return Places(corners, weights, surface.pairs)


def _unexpected(at: Floats, expected: Floats) -> Floats:
    """(S,) cost of places (S, 3) for their distance from where the network's depth puts a landmark."""
    square = np.square(at - expected).sum(axis=1)
    return np.asarray(EXPECTED_WEIGHT * square / (square + EXPECTED_CM**2), np.float32)


def _hold_edges(surface: Surface, corners: Ints, weights: Floats) -> None:
    """Moves the right half's landmarks of lids, lips and mouth corner onto the model's own edges."""
    eye_rings, lip_rings = surface.rings
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


def _edges_of(surface: Surface, ring: NDArray[np.intp], end: np.intp) -> tuple[list[int], list[int]]:
    """The lower and the upper way along a closed ring of vertices from that of least x to ring[end]."""
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
    shares: Floats = np.tile(np.stack([1 - share, share, 0 * share], axis=1), (len(starts), 1))
    shares = np.asarray(np.concatenate([shares, [[1, 0, 0]]]), np.float32)
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
    near: Ints = triangles[(triangles == vertex).any(axis=1)]
    for _ in range(rings - 1):
        near = triangles[np.isin(triangles, near).any(axis=1)]
    return near


def _subdivide(triangles: Ints) -> tuple[Ints, Floats]:
    """(S, 3) corners and (S, 3) weights of 21 evenly spread places a triangle."""
    grid = [(a, b, 5 - a - b) for a in range(6) for b in range(6 - a)]
    shares = np.tile(np.array(grid) / 5, (len(triangles), 1))
    return np.repeat(triangles, len(grid), axis=0), np.asarray(shares, np.float32)


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
