"""The moving mesh of one photo: 468 face points, and rings around them on which the movement fades away.

Inside the face the mesh follows pose and expression. The rings carry hair, ears and neck: they move rigidly with the
head near the face and not at all at the outermost ring, so that the head moves as a head and nothing tears.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...tracking.canonical import LEFT_EYE, OVAL, RIGHT_EYE, load
from ...tracking.face import Face, HeadPose, Motion, euler_angles, rotation_matrix
from ...tracking.lids import LidPairs, close_lips
from ...tracking.relative import proportions

__all__ = ["Borders", "HeadMesh", "Moved"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Borders = tuple[float, float, float, float]
"""x0, y0, x1, y1 pixels: where the photo ends."""

# Rings, as multiples of the distance from the middle of the face to its oval (1: the oval itself).
_RINGS = np.array([1, 1.08, 1.18, 1.3, 1.45, 1.62, 1.82, 2.05, 2.35, 2.7], np.float32)
_FINER = 2  # ring points per edge of the oval
# How far the head goes on beyond the oval, and where its movement has faded out: upwards, sideways, downwards.
_SOLID = (1.62, 1.3, 1.0)
_GONE = (2.7, 2.7, 2.5)
_SKIN_REACH = 0.2  # of the ring radius, over which the oval's own expression (the chin) fades outwards

# Past these angles (radians) a turn is more and more held back: a photo does not show what lies behind.
_FREE_TURN, _MOST_TURN = 0.5, 0.75
_MOST_SHIFT = 0.9  # of the face's height
_FREE_PART = 0.55  # of the farthest shift, up to which a shift is as asked for
_LEAST_ROOM = 0.12  # of the face's height, for a head that the photo's border cuts
_SCALE_RANGE = (0.7, 1.4)


@dataclass(frozen=True, eq=False)
class Moved:
    """Where the mesh is after a motion."""

    vertices: Floats  # (N, 2) pixels
    head: Floats  # (468, 3) cm, the face in its head frame
    face_px: Floats  # (468, 3) pixels, the face with depth
    rigid_px: Floats  # (468, 3) pixels, where it would be without any expression
    triangles: Ints  # (M, 3) painted from far to near
    scale: float  # pixels per centimetre


class HeadMesh:
    """The mesh of one photo; built once, moved each frame."""

    def __init__(self, face: Face, borders: Borders) -> None:
        """Build the mesh from the source's face, in pixels of the picture that will be warped."""
        canonical = load()
        self._pose = face.pose
        self.head = canonical.neutral + face.expression
        self.face_px = face.landmarks_px[:468]
        self._proportions = proportions(self.head)
        parts = (canonical.triangles, canonical.eye_triangles, canonical.mouth_triangles)
        self._triangles = np.concatenate(parts).astype(np.int32)
        self._lids = [LidPairs(contour, self.head) for contour in (RIGHT_EYE, LEFT_EYE)]

        oval = _finer(np.asarray(OVAL))
        self._oval = oval
        middle = self.face_px[list(OVAL), :].mean(axis=0)
        outline = self._on_oval(self.face_px)
        reach = _RINGS[:, None, None]
        rings_px = middle + reach * (outline - middle)
        # Hair and ears lie about as deep as the oval; only the flat part of the radius grows.
        rings_px[..., 2] = outline[:, 2]
        self._rings_px = rings_px[1:, :, :2].astype(np.float32)
        self._rings_head = face.pose.unproject(rings_px[1:].reshape(-1, 3))
        self._solid = _solidity(outline - middle, face.pose)[1:]
        self._skin = np.exp(-((_RINGS[1:] - 1) / _SKIN_REACH))[:, None].astype(np.float32)
        self._ring_triangles = _ring_triangles(oval.shape[1], len(_RINGS))
        self._room = _room(self._rings_px, self.face_px, borders)
        self.sources = self._vertices(self.face_px, self._rings_px)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) pixels: outside this box the picture never moves."""
        low, high = self.sources.min(axis=0), self.sources.max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def move(self, motion: Motion) -> Moved:
        """The mesh after `motion`."""
        pose = self._moved_pose(motion)
        head = self.head + motion.expression * self._proportions
        for pairs, ratio in zip(self._lids, motion.lids, strict=True):
            pairs.apply(head, float(ratio))
        close_lips(head, self.head)
        face_px, rigid_px = pose.project(head), pose.project(self.head)
        rings = self._moved_rings(pose, face_px, rigid_px)
        depth = face_px[self._triangles, 2].mean(axis=1)
        triangles = np.concatenate([self._ring_triangles, self._triangles[np.argsort(-depth)]])
        return Moved(self._vertices(face_px, rings), head, face_px, rigid_px, triangles, pose.scale)

    def _moved_pose(self, motion: Motion) -> HeadPose:
        yaw, pitch, roll = euler_angles(motion.rotation)
        held = rotation_matrix(_held(yaw, _FREE_TURN, _MOST_TURN), _held(pitch, _FREE_TURN, _MOST_TURN), roll)
        height_cm = float(np.ptp(self.head[:, 1]))
        shift = [
            _shifted(float(way) / height_cm, *room) * height_cm
            for way, room in zip(motion.translation, self._room, strict=True)
        ]
        scale = self._pose.scale * float(np.clip(motion.scale, *_SCALE_RANGE))
        translation = self._pose.translation + self._pose.scale * np.array([*shift, 0], np.float32)
        return HeadPose(held @ self._pose.rotation, scale, translation.astype(np.float32))

    def _moved_rings(self, pose: HeadPose, face_px: Floats, rigid_px: Floats) -> Floats:
        """(rings, points, 2) pixels: part of the head's rigid movement, plus what the skin at the oval drags along."""
        rigid = pose.project(self._rings_head)[:, :2].reshape(self._rings_px.shape)
        dragged = self._on_oval(face_px[:, :2] - rigid_px[:, :2])
        moved = self._rings_px + self._solid[..., None] * (rigid - self._rings_px)
        return np.asarray(moved + self._skin[..., None] * dragged, np.float32)

    def _on_oval(self, values: Floats) -> Floats:
        """(468, C) values at the mesh points to (points, C) at the finer points of the oval."""
        return np.asarray(values[self._oval[0]] * (1 - _PART) + values[self._oval[1]] * _PART, np.float32)

    def _vertices(self, face_px: Floats, rings: Floats) -> Floats:
        """Face points, then the oval's finer points, then the rings, (N, 2)."""
        face = face_px[:, :2]
        return np.concatenate([face, self._on_oval(face), rings.reshape(-1, 2)]).astype(np.float32)


_PART = (np.arange(36 * _FINER) % _FINER / _FINER).astype(np.float32)[:, None]


def _finer(oval: Ints) -> Ints:
    """(2, 36 * _FINER) mesh points at both ends of each finer point's edge."""
    first = np.repeat(oval, _FINER)
    return np.stack([first, np.repeat(np.roll(oval, -1), _FINER)])


def _ring_triangles(points: int, rings: int) -> Ints:
    """Two triangles for each field between neighbouring rings; outer rings first, so inner ones cover them."""
    around = np.arange(points)
    following = (around + 1) % points
    strips = []
    for ring in reversed(range(rings - 1)):
        inner, outer = 468 + ring * points, 468 + (ring + 1) * points
        strips.append(np.stack([inner + around, outer + around, outer + following], axis=1))
        strips.append(np.stack([inner + around, outer + following, inner + following], axis=1))
    return np.concatenate(strips).astype(np.int32)


def _solidity(directions: Floats, pose: HeadPose) -> Floats:
    """(rings, points) 0..1: how much of the head's rigid movement each ring point makes.

    directions # (points, 3) pixels from the middle of the face to its oval
    """
    upright = directions @ pose.rotation
    upright = upright[:, :2] / np.linalg.norm(upright[:, :2], axis=1, keepdims=True)
    up, down = np.clip(-upright[:, 1], 0, 1) ** 2, np.clip(upright[:, 1], 0, 1) ** 2
    mix = np.stack([up, 1 - up - down, down], axis=1)
    solid, gone = mix @ np.array(_SOLID), mix @ np.array(_GONE)
    part = np.clip((gone - _RINGS[:, None]) / (gone - solid), 0, 1)
    return np.asarray(part * part * (3 - 2 * part), np.float32)


def _room(rings_px: Floats, face_px: Floats, borders: Borders) -> tuple[tuple[float, float], ...]:
    """How far the head may shift (left, right), (up, down), as parts of the face's height.

    Where a border of the photo cuts the head there is nothing to show beyond it: it hardly moves away from there.
    """
    height = float(np.ptp(face_px[:, 1]))
    solid = (
        np.searchsorted(_RINGS, _SOLID) - 1
    )  # the rings that the head reaches upwards, sideways, downwards
    top, bottom = rings_px[solid[0], :, 1].min(), face_px[:, 1].max()
    left, right = rings_px[solid[1], :, 0].min(), rings_px[solid[1], :, 0].max()
    x0, y0, x1, y1 = borders
    beyond = ((x1 - right, left - x0), (y1 - bottom, top - y0))
    most = [[float(np.clip(gap / height, _LEAST_ROOM, _MOST_SHIFT)) for gap in side] for side in beyond]
    return tuple((low, high) for low, high in most)


def _shifted(way: float, back: float, forth: float) -> float:
    most = back if way < 0 else forth
    return _held(way, _FREE_PART * most, most)


def _held(value: float, free: float, most: float) -> float:
    """`value` as it is up to `free`, then approaching `most`."""
    size = abs(value)
    if size <= free:
        return value
    return float(np.sign(value) * (free + (most - free) * np.tanh((size - free) / (most - free))))
