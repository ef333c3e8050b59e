"""Where the vertices of the stand-in head lie: a plain head by rule, nobody's.

Metres, x to the picture's right, y up, z to the viewer, as FLAME's; the chin is about 10 cm below the origin.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .stand_in_mesh import COLUMNS, EYE_COLUMNS, EYE_RINGS, RINGS

__all__ = ["EYES", "EYE_RADIUS", "LIDS", "LIPS", "Slit", "angles", "fade", "over_eye", "surface"]

Doubles = NDArray[np.float64]

EYES = ((-0.0315, 0.028, 0.0685), (0.0315, 0.028, 0.0685))  # centres of the eyeballs
EYE_RADIUS = 0.0125


class Slit(NamedTuple):
    """An opening between two rings, which meet in its corners; the rings between them lie behind it."""

    upper: int  # ring of its upper rim
    lower: int
    middle: float  # y of its corners
    half: float  # from its middle to a corner
    rise: float  # of the upper rim above the corners
    fall: float
    depth: float  # of what lies behind


LIDS = Slit(upper=17, lower=21, middle=0.0275, half=0.0150, rise=0.0052, fall=0.0042, depth=0.008)
LIPS = Slit(upper=39, lower=43, middle=-0.0575, half=0.0255, rise=0.0002, fall=0.0002, depth=0.022)
_LID = 0.0013  # thickness of the lids
_SOFT = 0.0008  # width of the fold where they begin

# Every ring is laid through a point in front (y, z), one at the side (y, x, z) and one behind (y, z).
_TOP = (0.137, -0.012)  # y and z of the crown
_WIDEST = 11  # ring up to which the skull is a dome
_SECTIONS = (
    # ring  front          side                   back
    (11, 0.0600, 0.0910, 0.0570, 0.0775, -0.012, 0.050, -0.106),
    (14, 0.0430, 0.0920, 0.0420, 0.0765, -0.012, 0.033, -0.105),
    (17, 0.0322, 0.0880, 0.0320, 0.0752, -0.012, 0.020, -0.1015),
    (21, 0.0236, 0.0865, 0.0245, 0.0742, -0.011, 0.012, -0.099),
    (24, 0.0120, 0.0875, 0.0150, 0.0732, -0.011, 0.001, -0.094),
    (28, -0.0060, 0.0890, -0.0010, 0.0710, -0.010, -0.015, -0.085),
    (32, -0.0240, 0.0900, -0.0160, 0.0680, -0.009, -0.032, -0.075),
    (35, -0.0390, 0.0895, -0.0290, 0.0655, -0.008, -0.045, -0.068),
    (39, -0.0545, 0.0885, -0.0410, 0.0625, -0.006, -0.056, -0.063),
    (43, -0.0605, 0.0880, -0.0460, 0.0615, -0.006, -0.061, -0.062),
    (46, -0.0705, 0.0868, -0.0530, 0.0600, -0.006, -0.070, -0.061),
    (50, -0.0970, 0.0800, -0.0630, 0.0575, -0.006, -0.085, -0.060),
    (51, -0.1025, 0.0720, -0.0670, 0.0560, -0.007, -0.090, -0.060),
    (53, -0.1080, 0.0480, -0.0790, 0.0525, -0.012, -0.101, -0.062),
    (55, -0.1230, 0.0280, -0.1050, 0.0510, -0.018, -0.120, -0.066),
    (60, -0.2000, 0.0260, -0.1950, 0.0620, -0.026, -0.195, -0.082),
)
_FRONT_SHARE = 0.38  # of the columns: 1 would space them evenly around the head, less brings more to the face

# What stands out of the plain face or lies in it: x, y, height along z, spread in x and in y. Both cheeks have it.
_BUMPS = (
    (0.0000, 0.0300, 0.0030, 0.0090, 0.0120),  # root of the nose
    (0.0000, 0.0060, 0.0120, 0.0090, 0.0150),
    (0.0000, -0.0135, 0.0170, 0.0105, 0.0085),  # its tip
    (0.0115, -0.0190, 0.0085, 0.0062, 0.0062),  # its wing
    (0.0000, -0.0240, 0.0060, 0.0060, 0.0050),
    (0.0280, 0.0450, 0.0030, 0.0180, 0.0070),  # brow
    (0.0315, 0.0280, -0.0085, 0.0170, 0.0110),  # socket
    (0.0440, 0.0000, 0.0040, 0.0170, 0.0180),  # cheekbone
    (0.0000, -0.0510, 0.0040, 0.0200, 0.0050),  # upper lip
    (0.0000, -0.0640, 0.0048, 0.0170, 0.0055),  # lower lip
    (0.0270, -0.0575, -0.0030, 0.0070, 0.0060),  # corner of the mouth
    (0.0000, -0.0400, -0.0015, 0.0040, 0.0060),
    (0.0000, -0.0740, -0.0020, 0.0160, 0.0045),
    (0.0000, -0.0900, 0.0060, 0.0150, 0.0110),  # chin
)


@cache
def surface() -> Doubles:
    """(5023, 3) metres, read-only."""
    sections = _sections()
    rings = [_plain(section, angles(count)) for section, count in zip(sections, RINGS, strict=True)]
    first = next(ring for ring, count in enumerate(RINGS) if count == COLUMNS)
    grid = np.array(rings[first:-1])  # those of the same number of vertices, where the face is
    for slit, at_x in ((LIDS, EYES[0][0]), (LIDS, EYES[1][0]), (LIPS, 0.0)):
        grid = _closed(grid, first, slit, at_x)
    for ring in (*rings[:first], *grid, rings[-1]):
        ahead = fade(ring[:, 2], 0.05)
        ring[:, 2] += ahead * _bumps(ring[:, 0], ring[:, 1])
        ring[:, 0] += np.sign(ring[:, 0]) * _ear(ring)
    for eye in EYES:
        grid[..., 2] = over_eye(grid, eye)
        _pocketed(grid, first, LIDS, eye[0])
    _pocketed(grid, first, LIPS, 0.0)
    made = np.concatenate([[(0.0, *_TOP)], *rings[:first], *grid, rings[-1], *map(_eyeball, EYES)])
    made.flags.writeable = False
    return made


def angles(count: int) -> Doubles:
    """Of a ring's vertices around the head, from -pi behind by 0 in front."""
    along = 2 * np.arange(count) / count - 1
    return np.asarray(np.pi * (_FRONT_SHARE * along + (1 - _FRONT_SHARE) * along**3))


def _plain(section: Doubles, angle: Doubles) -> Doubles:
    """A ring of the head without a face."""
    front_y, front_z, side_y, side_x, side_z, back_y, back_z = section
    ahead, aside = np.cos(angle), np.sin(angle)
    before = ahead > 0
    x = side_x * aside * (1 + 0.06 * ahead**2)
    y = side_y + np.where(before, front_y - side_y, back_y - side_y) * ahead**2
    z = side_z + np.where(before, front_z - side_z, side_z - back_z) * ahead * (1 + 0.1 * aside**2)
    return np.stack([x, y, z], 1)


def _sections() -> Doubles:
    """(61, 7) of each ring what `_SECTIONS` says, a dome above it, all made smooth."""
    table = np.array(_SECTIONS)
    rings = np.arange(len(RINGS))
    made = np.stack([np.interp(rings, table[:, 0], table[:, i]) for i in range(1, 8)], 1)
    # The quarter of an ellipse from the crown to the widest ring, along each of the three lines and across.
    turn = np.pi / 2 * (rings[:_WIDEST, None] + 1) / (_WIDEST + 1)
    rim, top = table[0, 1:], np.array([_TOP[0], _TOP[1], _TOP[0], 0, _TOP[1], _TOP[0], _TOP[1]])
    upright = np.array([True, False, True, False, False, True, False])  # the columns that are heights
    made[:_WIDEST] = np.where(upright, rim + (top - rim) * np.cos(turn), top + (rim - top) * np.sin(turn))
    for _ in range(3):
        made[_WIDEST + 1 : -1] = (made[_WIDEST:-2] + 2 * made[_WIDEST + 1 : -1] + made[_WIDEST + 2 :]) / 4
    return made


def _bumps(x: Doubles, y: Doubles) -> Doubles:
    """How far the face stands out along z."""
    height = np.zeros_like(x)
    for at_x, at_y, out, wide, high in _BUMPS:
        for side in (-1, 1) if at_x else (1,):
            height += out * np.exp(-(((x - side * at_x) / wide) ** 2) - ((y - at_y) / high) ** 2)
    return height


def _ear(place: Doubles) -> Doubles:
    """How far the sides stand out: a rim that is higher behind."""
    along, up = (place[:, 2] + 0.014 + 0.15 * (place[:, 1] - 0.01)) / 0.017, (place[:, 1] - 0.010) / 0.030
    far = along**2 + up**2
    rim = np.exp(-(((far**0.5 - 0.75) / 0.35) ** 2)) * (0.35 + 0.65 * fade(0.3 - along, 1.0))
    return 0.007 * np.where(np.abs(place[:, 0]) > 0.04, rim, 0)


def _closed(grid: Doubles, first: int, slit: Slit, at_x: float) -> Doubles:
    """The grid with the rings of a slit drawn together on the skin, so that its rims meet in the corners."""
    rings = np.arange(slit.upper, slit.lower + 1) - first
    made = grid.copy()
    for column in range(grid.shape[1]):
        x, y, z = grid[:, column].T
        if z[rings[0]] < 0:
            continue
        across = (x[rings].mean() - at_x) / slit.half
        within = float(fade(1.6 - np.abs(across), 0.6))
        down = np.linspace(0, 1, len(rings))
        rim = slit.middle + (slit.rise * (1 - down) - slit.fall * down) * max(0.0, 1 - across**2)
        height = y[rings] + within * (rim - y[rings])
        along = [np.interp(-height, -y, values) for values in (x, z)]
        made[rings, column] = np.stack([along[0], height, along[1]], 1)
    return made


def _pocketed(grid: Doubles, first: int, slit: Slit, at_x: float) -> None:
    """Push what lies between the rims of a slit behind them."""
    for ring in range(slit.upper + 1, slit.lower):
        place = grid[ring - first]
        down = (ring - slit.upper) / (slit.lower - slit.upper)
        bow = np.clip(1 - ((place[:, 0] - at_x) / slit.half) ** 2, 0, 1)
        place[:, 2] -= slit.depth * np.sin(np.pi * down) ** 3 * bow**0.5 * (place[:, 2] > 0)


def over_eye(place: Doubles, eye: tuple[float, float, float]) -> Doubles:
    """z of the skin where it covers an eyeball, its own elsewhere."""
    off = ((place[..., :2] - eye[:2]) ** 2).sum(-1)
    cover = eye[2] + np.sqrt(np.clip((EYE_RADIUS + _LID) ** 2 - off, 0, None))
    apart = (place[..., 2] - cover) / _SOFT
    higher = cover + _SOFT * np.logaddexp(0, np.clip(apart, -50, 50))
    return np.where((place[..., 2] > 0.03) & (off < (EYE_RADIUS + _LID) ** 2), higher, place[..., 2])


def fade(value: Doubles, width: Doubles | float) -> Doubles:
    """0 below 0, 1 above `width`, smooth between."""
    t = np.clip(value / width, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _eyeball(centre: tuple[float, float, float]) -> Doubles:
    tilt = np.repeat(np.pi * np.arange(1, EYE_RINGS + 1) / (EYE_RINGS + 1), EYE_COLUMNS)
    turn = np.tile(2 * np.pi * np.arange(EYE_COLUMNS) / EYE_COLUMNS, EYE_RINGS)
    rings = np.stack([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)], 1)
    return np.asarray(centre + EYE_RADIUS * np.concatenate([[(0, 0, 1)], rings, [(0, 0, -1)]]))
