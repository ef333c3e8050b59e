"""A head made by rule, for tests and for running everything without the licensed model: its fields, no numbers of it.

Same counts and shapes, a plain face: the jaw opens the mouth, the first shapes and expressions do what their names here
say, and the landmarks lie where they belong. It is nobody's head and no statistics of heads.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..kernels.raster import interpolate, rasterize
from .flame import PARENTS, FlameModel
from .head_template import UV_SIDE, HeadTemplate
from .stand_in_landmarks import stand_in_landmarks
from .stand_in_mesh import EYE_COLUMNS, EYE_RINGS, RINGS, eye_vertex, mesh, ring_start
from .stand_in_surface import EYES, LIDS, LIPS, fade, over_eye, surface

__all__ = ["EXPRESSIONS", "SHAPES", "stand_in_landmarks", "stand_in_model", "stand_in_template"]

SHAPES = (
    *("width", "height", "depth", "jaw width", "chin length", "nose length", "nose width"),
    *("nose bridge", "eye distance", "brow ridge", "cheeks", "mouth width", "forehead", "neck width"),
)
EXPRESSIONS = (
    *("lips apart", "smile", "brows up", "frown", "lids closed", "left lid closed", "pucker", "corners down"),
    *("upper lip up", "lower lip down", "cheeks puffed", "nose wrinkled", "jaw to the left", "jaw forward"),
    *("mouth to the left", "chin up", "left corner up"),
)
_SHAPE_COLUMNS, _EXPRESSION_COLUMNS = 300, 100

Doubles = NDArray[np.float64]
_JOINTS = ((0, -0.16, -0.03), (0, -0.10, -0.03), (0, -0.025, 0.005), EYES[1], EYES[0])
_REGRESSED = ((57, 61), (50, 57), (24, 46))  # rings that the first three joints are means of
_FACE = (0.0, -0.02, 0.080)
_CORNER, _BROW = (0.026, -0.058, 0.080), (0.030, 0.044, 0.085)  # at the left; the others mirror them
_CHEEK, _NOSE = (0.045, -0.02, 0.06), (0.0, -0.012, 0.1)


@cache
def stand_in_model() -> FlameModel:
    """The model, its arrays read-only: float32 but for the integers."""
    template = surface()
    jaw = _jaw_share()
    directions = np.concatenate([_shape_columns(template), _expression_columns(template, jaw)], 2)
    made = FlameModel(
        f=mesh().triangles,
        v_template=template.astype(np.float32),
        shapedirs=directions,
        posedirs=_pose_columns(template),
        J_regressor=_regressor(template).astype(np.float32),
        kintree_table=np.array([PARENTS, range(len(PARENTS))], np.int64),
        weights=_weights(jaw).astype(np.float32),
    )
    for values in vars(made).values():
        values.flags.writeable = False
    return made


@cache
def stand_in_template() -> HeadTemplate:
    """How its skin is spread out, and where the face is on it; there are no fixed wrinkles."""
    flat, place = mesh(), surface()
    x, y = 2 * flat.uvs[:, 0] - 1, 1 - 2 * flat.uvs[:, 1]
    corners = np.stack([x, y, np.zeros_like(x), np.ones_like(x)], 1).astype(np.float32)
    triangles = flat.uv_triangles.astype(np.int32)
    ball = np.arange(len(place)) >= eye_vertex(0)
    oval = (place[:, 0] / 0.075) ** 2 + ((place[:, 1] + 0.012) / 0.095) ** 2
    face = np.where(ball | (place[:, 2] < 0), -1, 1 - oval)
    seen = np.empty((len(corners), 2), np.float32)
    seen[flat.uv_triangles] = np.stack([face, np.where(ball, 1, face)], 1)[flat.triangles]
    masks = interpolate(seen, rasterize(corners, triangles, UV_SIDE, UV_SIDE), triangles) > 0
    return HeadTemplate(
        triangles=flat.triangles,
        uvs=flat.uvs.astype(np.float32),
        uv_triangles=flat.uv_triangles,
        face_mask=masks[..., 0] * np.uint8(255),
        face_eye_mask=masks[..., 1] * np.uint8(255),
        fixed_displacement=np.zeros((UV_SIDE, UV_SIDE), np.float32),
    )


def _rings() -> Doubles:
    """(V,) the ring of each vertex, -1 for the crown and the eyeballs."""
    of_rings = np.repeat(np.arange(len(RINGS)), RINGS)
    return np.concatenate([[-1.0], of_rings, np.full(len(surface()) - 1 - len(of_rings), -1.0)])


def _jaw_share() -> Doubles:
    """(V,) how much each vertex goes with the jaw: all or nothing at the lips, gradually in cheeks and throat."""
    ring, place = _rings(), surface()
    middle = (LIPS.upper + LIPS.lower) / 2
    # Towards the corners the lips go together, and further on more and more of the cheeks.
    across = np.abs(place[:, 0]) / LIPS.half
    soft = 0.5 + 6 * np.minimum(across, 1) ** 3 + 5 * fade(across - 1, 1)
    below = fade(ring - middle + soft, 2 * soft)
    return np.asarray(below * fade(place[:, 2] + 0.02, 0.06) * (1 - fade(ring - 50.5, 5)))


def _weights(jaw: Doubles) -> Doubles:
    """(V, 5) of root, neck, jaw and the two eyes."""
    root = fade(_rings() - 53, 7) * (1 - jaw)
    weights = np.stack([root, 1 - root - jaw, jaw, 0 * jaw, 0 * jaw], 1)
    for eye, joint in ((1, 3), (0, 4)):
        weights[_ball(eye)] = np.eye(len(PARENTS))[joint]
    return weights


def _regressor(place: Doubles) -> Doubles:
    """(5, V): as means of rings, or of an eyeball, that give the joints exactly."""
    made = np.zeros((len(PARENTS), len(place)))
    parts = [slice(ring_start(first), ring_start(last)) for first, last in _REGRESSED]
    for row, part, joint in zip(made, [*parts, _ball(1), _ball(0)], _JOINTS, strict=True):
        conditions = np.concatenate([place[part], np.ones((len(place[part]), 1))], 1).T
        # The face has more vertices than the back of the head; then as little is changed as gives the joint.
        rough = np.exp(-place[part, 2] / 0.05)
        scale = np.sqrt(rough / rough.sum())
        missing = np.append(joint, 1) - conditions @ scale**2
        row[part] = scale**2 + scale * np.linalg.lstsq(conditions * scale, missing, rcond=None)[0]
    return made


def _ball(eye: int) -> slice:
    return slice(eye_vertex(eye), eye_vertex(eye) + 2 + EYE_COLUMNS * EYE_RINGS)


def _near(place: Doubles, centre: tuple[float, float, float], radius: float, *, both: bool = True) -> Doubles:
    """(N,) from 1 at a place, and at its mirror image, to 0 far away."""
    mirrored = np.array(centre) * (-1, 1, 1)
    centres = np.array([centre, mirrored] if both and centre[0] else [centre])
    return np.asarray(np.exp(-((place - centres[:, None]) ** 2).sum(2) / radius**2).sum(0))


def _along(amount: Doubles, x: Doubles | float, y: Doubles | float, z: Doubles | float) -> Doubles:
    return np.stack([amount * x, amount * y, amount * z], 1)


def _side(x: Doubles) -> Doubles:
    """From -1 on the one cheek to 1 on the other."""
    return np.tanh(x / 0.008)


def _shape_columns(place: Doubles) -> NDArray[np.float32]:
    """(V, 3, 300) metres a unit: those named above, then slow waves that get smaller."""
    columns = np.zeros((len(place), 3, _SHAPE_COLUMNS), np.float32)
    for axis in range(3):
        columns[:, axis, axis] = 0.035 * place[:, axis]
    held = _held(place)
    x, y, z = held.T
    ahead, side = fade(z, 0.05), _side(x)
    low = fade(-0.02 - y, 0.05) * (1 - fade(-0.10 - y, 0.05))
    local = {
        "jaw width": _along(low, 0.07 * x, 0, 0),
        "chin length": _along(fade(-0.06 - y, 0.04) * ahead, 0, -0.004, 0.001),
        "nose length": _along(_near(held, _NOSE, 0.02), 0, -0.001, 0.003),
        "nose width": _along(_near(held, _NOSE, 0.018), 0.2 * x, 0, 0),
        "nose bridge": _along(_near(held, (0, 0.012, 0.095), 0.015), 0, 0, 0.003),
        "eye distance": _along(_near(held, EYES[1], 0.022), 0.002 * side, 0, 0),
        "brow ridge": _along(_near(held, _BROW, 0.014), 0, 0, 0.002),
        "cheeks": _along(_near(held, _CHEEK, 0.028), 0.003 * side, 0, 0.0015),
        "mouth width": _along(_near(held, _CORNER, 0.018), 0.002 * side, 0, 0),
        "forehead": _along(fade(y - 0.045, 0.08) * ahead, 0, 0, -0.008),
        "neck width": _along(fade(-0.10 - y, 0.04), 0.10 * x, 0, 0.10 * (z + 0.03)),
    }
    columns[..., 3 : len(SHAPES)] = np.stack([local[name] for name in SHAPES[3:]], 2)
    columns[..., len(SHAPES) :] = _waves(held, _SHAPE_COLUMNS - len(SHAPES), 0.0006, (12, 40))
    return columns


def _expression_columns(place: Doubles, jaw: Doubles) -> NDArray[np.float32]:
    """(V, 3, 100) metres a unit: those named above, then waves in the face that get smaller."""
    columns = np.zeros((len(place), 3, _EXPRESSION_COLUMNS), np.float32)
    skin = np.arange(len(place)) < eye_vertex(0)
    x = place[:, 0]
    side = _side(x)
    corner, lips = _near(place, _CORNER, 0.016), _near(place, (0, -0.058, 0.092), 0.026)
    below = (_rings() > (LIPS.upper + LIPS.lower) / 2) * skin
    brow = _near(place, _BROW, 0.017) * skin
    cheek = _near(place, _CHEEK, 0.024) * skin
    moves = {
        "lips apart": _along(jaw, 0, -0.008, -0.002),
        "smile": _along(corner, 0.006 * side, 0.006, -0.002) + _along(cheek, 0.001 * side, 0.003, 0.002),
        "brows up": _along(brow, 0, 0.006, 0.001),
        "frown": _along(_near(place, (0.014, 0.043, 0.09), 0.014) * skin, -0.003 * side, -0.004, 0.001),
        "lids closed": _lids(place, 0) + _lids(place, 1),
        "left lid closed": _lids(place, 1),
        "pucker": _along(lips, -0.45 * x, 0, 0.006),
        "corners down": _along(corner, 0.001 * side, -0.005, 0),
        "upper lip up": _along(lips * (1 - below), 0, 0.005, 0.001),
        "lower lip down": _along(lips * below, 0, -0.005, 0.001),
        "cheeks puffed": _along(cheek, 0.006 * side, 0, 0.004),
        "nose wrinkled": _along(_near(place, (0.012, -0.012, 0.1), 0.014), 0.001 * side, 0.004, 0),
        "jaw to the left": _along(jaw, 0.006, 0, 0),
        "jaw forward": _along(jaw, 0, 0, 0.005),
        "mouth to the left": _along(lips, 0.006, 0, 0),
        "chin up": _along(_near(place, (0, -0.082, 0.09), 0.018), 0, 0.004, 0.002),
        "left corner up": _along(_near(place, _CORNER, 0.016, both=False), 0.004, 0.006, -0.002),
    }
    columns[..., : len(EXPRESSIONS)] = np.stack([moves[name] for name in EXPRESSIONS], 2)
    waves = _waves(place, _EXPRESSION_COLUMNS - len(EXPRESSIONS), 0.0008, (20, 60))
    columns[..., len(EXPRESSIONS) :] = waves * (_near(place, _FACE, 0.06) * skin)[:, None, None]
    return columns


def _pose_columns(place: Doubles) -> NDArray[np.float32]:
    """(V, 3, 36): an open jaw narrows the cheeks and fills the throat, and the lids follow the eyes."""
    columns = np.zeros((len(place), 3, 36), np.float32)
    sine = 7  # of a joint's nine numbers, that of turning about x
    side = _side(place[:, 0])
    cheek = _along(_near(place, (0.048, -0.05, 0.04), 0.022), -0.006 * side, 0, 0)
    columns[..., 9 + sine] = cheek + _along(_near(place, (0, -0.108, 0.04), 0.022), 0, -0.005, 0)
    for eye, joint in ((1, 3), (0, 4)):
        columns[..., 9 * (joint - 1) + sine] = 0.6 * _lids(place, eye)
    return columns


def _lids(place: Doubles, eye: int) -> Doubles:
    """(V, 3): the upper lid down to the lower one, and what is above it follows a little."""
    ring, centre = _rings(), EYES[eye]
    across = (place[:, 0] - centre[0]) / LIDS.half
    bow = np.clip(1 - across**2, 0, 1) * (place[:, 2] > 0.04)
    above = np.clip(1 - (LIDS.upper - ring) / 5, 0, 1) * (ring >= 0) * (ring <= LIDS.upper)
    behind = (ring > LIDS.upper) * (ring < LIDS.lower) * (LIDS.lower - ring) / (LIDS.lower - LIDS.upper)
    down = -(LIDS.rise + LIDS.fall) * bow * (fade(above, 1) + behind)
    moved = place + np.stack([0 * down, down, 0.0005 * (down < 0)], 1)
    moved[:, 2] = np.where(down < 0, over_eye(moved, centre), place[:, 2])
    return moved - place


def _waves(place: Doubles, count: int, height: float, slowness: tuple[float, float]) -> Doubles:
    """(N, 3, count): slow waves across the head, each smaller than the one before; radians a metre from and to."""
    number = np.arange(count)
    golden = np.pi * (3 - np.sqrt(5))
    up = 1 - 2 * (number + 0.5) / count
    around = golden * number
    level = np.sqrt(1 - up**2)
    fronts = np.stack([level * np.cos(around), up, level * np.sin(around)])
    speed = slowness[0] + (slowness[1] - slowness[0]) * number / count
    phase = place @ (fronts * speed) + 2 * number
    ways = np.stack([np.cos(7 * around), np.sin(5 * around), np.cos(3 * around + 1)])
    return np.sin(phase)[:, None] * (ways * height / (1 + number / 15))


def _held(place: Doubles) -> Doubles:
    """The places, those of each eyeball all in its centre, so that it stays a ball."""
    held = place.copy()
    for eye, centre in enumerate(EYES):
        held[_ball(eye)] = centre
    return held
