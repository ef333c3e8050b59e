"""Draws synthetic heads of the ICT Face Model with known pose, expression and surface, to measure against.

Coordinates are those of `runtime/tracking/face.py`: centimetres, x right in the picture, y down, z away from
the viewer. The assets (a folder with `ict_facekit.npz`, `skins/`, `parts/`) are not part of this repository.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "HeadAssets",
    "Look",
    "Part",
    "Rendering",
    "load_assets",
    "normals",
    "pose_vertices",
    "render_head",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Image = NDArray[np.uint8]

FLIP = np.array([1, -1, -1], np.float32)  # ICT: y up, z towards the viewer
SKIN_CORNER = np.array(
    [0.62, 0.17], np.float32
)  # what of the whole skin picture is stored, from its top left
SKIN_EXTENT = np.array([0.38, 0.70], np.float32)
PIVOT = np.array([0.0, -1.5, -2.5], np.float32)  # about which heads turn: between the ears
HIDDEN = ("M_EyeBlend", "M_EyeOcclusion", "M_LacrimalFluid", "M_EyeLashes")
IRIS_CM, PUPIL_CM = 0.60, 0.22


@dataclass(frozen=True, eq=False)
class Part:
    """Hair or eyebrows: a textured mesh that follows the skin."""

    rest: Floats  # (N, 3) cm
    follow: Ints  # (N, 6) skin vertices
    weight: Floats  # (N, 6)
    triangles: Ints  # (T, 3)
    corner_uv: Floats  # (T, 3, 2) 0..1, v from the top
    picture: Floats  # (H, W, 4) RGBA 0..1


@dataclass(frozen=True, eq=False)
class HeadAssets:
    """The ICT Face Model in this project's axes, with the folder that its skins and parts come from."""

    folder: Path
    neutral: Floats  # (V, 3) cm
    triangles: Ints  # (T, 3)
    material: NDArray[np.int8]  # (T,)
    materials: tuple[str, ...]
    expression_names: tuple[str, ...]
    expressions: Floats  # (57, V, 3) cm
    identities: Floats  # (100, V, 3) cm
    landmark68: Ints  # (68,) vertices
    skin_uv: Floats  # (11248, 2) 0..1 in the stored part of a skin, v from the top

    @property
    def skins(self) -> list[str]:
        """Names of the skins, sorted."""
        return sorted(path.stem for path in (self.folder / "skins").glob("*.jpg"))

    @property
    def parts(self) -> list[str]:
        """Names of eyebrows and hair styles, sorted."""
        return sorted(path.stem for path in (self.folder / "parts").glob("*.npz"))

    @cached_property
    def drawn(self) -> Ints:
        """Indices of the triangles that are drawn: all but transparent covers of the eye and lashes."""
        hidden = [self.materials.index(name) for name in HIDDEN]
        return np.flatnonzero(~np.isin(self.material, hidden)).astype(np.int32)

    def shape(self, identity: Floats | None, expression: Mapping[str, float]) -> Floats:
        """(V, 3) cm vertices for (<=100,) identity coefficients and named expression weights."""
        vertices = self.neutral.copy()
        if identity is not None:
            vertices += np.tensordot(identity, self.identities[: len(identity)], 1)
        for name, weight in expression.items():
            vertices += weight * self.expressions[self.expression_names.index(name)]
        return vertices

    def skin(self, name: str) -> Floats:
        """(H, W, 3) float32 RGB 0..1."""
        return _picture(self.folder / "skins" / f"{name}.jpg")[..., :3]

    def part(self, name: str) -> Part:
        """Reads hair or eyebrows."""
        with np.load(self.folder / "parts" / f"{name}.npz", allow_pickle=False) as data:
            uv = data["uv"].astype(np.float32) * [1, -1] + [0, 1]
            return Part(
                rest=data["rest"].astype(np.float32) * FLIP,
                follow=data["follow"].astype(np.int32),
                weight=data["weight"].astype(np.float32),
                triangles=data["tri"],
                corner_uv=np.ascontiguousarray(uv[data["tri_uv"]], np.float32),
                picture=_picture(self.folder / "parts" / f"{name}.png"),
            )


@dataclass(frozen=True, eq=False)
class Look:
    """What a head wears and how it is lit."""

    skin: str
    brows: str | None = None
    hair: str | None = None
    hair_colour: tuple[float, float, float] = (0.8, 0.7, 0.6)  # multiplies the picture of hair and brows
    iris_colour: tuple[float, float, float] = (0.30, 0.20, 0.13)
    light: tuple[float, float, float] = (-0.3, -0.5, -0.8)  # towards the light
    background: tuple[float, float, float] = (0.62, 0.66, 0.70)


@dataclass(frozen=True, eq=False)
class Rendering:
    """A picture and what is seen in each of its pixels."""

    image: Image  # (H, W, 3) uint8 RGB
    triangle: Ints  # (H, W) triangle of the head (hair and brows left out), -1: none
    barycentric: Floats  # (H, W, 3) of that triangle's corners
    vertices_px: Floats  # (V, 3) pixels, z in the same unit


def load_assets(folder: Path) -> HeadAssets:
    """Reads the model; raises OSError where the folder lacks it."""
    with np.load(folder / "ict_facekit.npz", allow_pickle=False) as data:

        def modes(name: str) -> Floats:
            scaled = data[name].astype(np.float32) * data[f"{name}_scale"][:, None, None]
            return np.ascontiguousarray(scaled.transpose(0, 2, 1) * FLIP)

        uv = data["makehuman_uv_of_first_11248"] * [1, -1] + [0, 1]
        return HeadAssets(
            folder=folder,
            neutral=data["neutral"] * FLIP,
            triangles=data["tri"],
            material=data["tri_material"],
            materials=tuple(str(name) for name in data["materials"]),
            expression_names=tuple(str(name) for name in data["expression_names"]),
            expressions=modes("expression"),
            identities=modes("identity"),
            landmark68=data["landmark68"],
            skin_uv=((uv - SKIN_CORNER) / SKIN_EXTENT).astype(np.float32),
        )


def pose_vertices(
    vertices: Floats, rotation: Floats, size: int, scale: float, distance_cm: float | None
) -> Floats:
    """(V, 3) cm to (V, 3) pixels of a square picture; the pivot comes to its middle.

    `scale` is in pixels per centimetre at the pivot; `distance_cm` None is a camera at infinity.
    """
    camera = (vertices - PIVOT) @ rotation.T
    if distance_cm is not None:
        camera[:, :2] *= (distance_cm / (distance_cm + camera[:, 2]))[:, None]
    return np.asarray(camera * scale + np.array([size / 2, size / 2, 0]), np.float32)


def render_head(
    assets: HeadAssets,
    look: Look,
    rotation: Floats,
    *,
    identity: Floats | None = None,
    expression: Mapping[str, float] | None = None,
    size: int = 384,
    scale: float = 14.0,
    distance_cm: float | None = 90.0,
) -> Rendering:
    """Draws one head; `rotation` (3, 3) as in `HeadPose`, `scale` in pixels per centimetre."""
    vertices = assets.shape(identity, expression or {})
    fine = pose_vertices(vertices, rotation, 2 * size, 2 * scale, distance_cm)
    drawn = assets.drawn
    depth = np.full((2 * size, 2 * size), np.inf, np.float32)
    seen, weights = _blank(2 * size)
    corner_uv, opaque = np.zeros((len(drawn), 3, 2), np.float32), np.ones((1, 1), np.float32)
    _rasterise(fine, assets.triangles[drawn], corner_uv, opaque, np.float32(0), depth, seen, weights)
    facing = normals(vertices, assets.triangles[drawn]) @ rotation.T
    colours = np.empty((2 * size, 2 * size, 3), np.float32)
    colours[:] = look.background
    hit = seen >= 0
    which = drawn[seen[hit]]
    colours[hit] = _head_colours(assets, look, which, weights[hit], facing)
    for name, lift in ((look.brows, 0.4), (look.hair, 0.0)):
        if name is not None:
            part = assets.part(name)
            _draw_part(
                part, look, assets.neutral, vertices, rotation, scale, distance_cm, lift, depth, colours
            )
    small = cv2.resize(colours, (size, size), interpolation=cv2.INTER_AREA)
    triangle, barycentric = seen[::2, ::2].copy(), weights[::2, ::2].copy()
    triangle[triangle >= 0] = drawn[triangle[triangle >= 0]]
    return Rendering(
        image=(np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8),
        triangle=triangle,
        barycentric=barycentric,
        vertices_px=np.asarray(fine / 2, np.float32),
    )


def _head_colours(assets: HeadAssets, look: Look, which: Ints, weights: Floats, normals: Floats) -> Floats:
    """(P, 3) lit colours of P pixels that show triangles `which` at `weights`."""
    corners = assets.triangles[which]
    names = np.array(assets.materials)[assets.material[which]]
    colours = np.full((len(which), 3), (0.35, 0.12, 0.10), np.float32)  # inside of the mouth
    skin = (corners < len(assets.skin_uv)).all(axis=1) & np.isin(names, ("M_Face", "M_BackHead"))
    corner_uv = assets.skin_uv[corners[skin]]
    seam = np.ptp(corner_uv, axis=1).max(axis=1) > 0.1
    corner_uv[seam] = corner_uv[seam, :1]
    uv = np.einsum("pk,pkc->pc", weights[skin], corner_uv)
    colours[skin] = _sample(assets.skin(look.skin), uv)
    colours[names == "M_Teeth"] = (0.85, 0.82, 0.76)
    rest = np.einsum("pk,pkc->pc", weights, assets.neutral[corners])
    for side in ("Left", "Right"):
        eye = np.isin(names, (f"M_Iris{side}", f"M_Sclera{side}"))
        ball = np.unique(assets.triangles[assets.material == assets.materials.index(f"M_Sclera{side}")])
        centre = (assets.neutral[ball].min(axis=0) + assets.neutral[ball].max(axis=0)) / 2
        radius = np.linalg.norm(rest[eye, :2] - centre[:2], axis=1)[:, None]
        iris = np.asarray(look.iris_colour) * (1.3 - 0.5 * np.abs(radius / IRIS_CM - 0.6))
        white = np.clip(1 - 0.35 * (radius - IRIS_CM), 0, 1) * np.array([0.80, 0.77, 0.75])
        edge = np.clip((radius - IRIS_CM) / 0.08 + 0.5, 0, 1)
        core = np.clip((radius - PUPIL_CM) / 0.04 + 0.5, 0, 1)
        colours[eye] = (iris * core) * (1 - edge) + white * edge
    normal = np.einsum("pk,pkc->pc", weights, normals[corners])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    light = np.asarray(look.light) / np.linalg.norm(look.light)
    lit = 0.45 + 0.65 * np.clip((normal @ light + 0.25) / 1.25, 0, 1)
    inside = np.isin(names, ("M_Teeth", "M_GumsTongue")) | ~(skin | np.char.startswith(names, "M_Iris"))
    lit[inside & ~np.char.startswith(names, "M_Sclera")] *= 0.6
    return np.asarray(colours * lit[:, None], np.float32)


def _draw_part(
    part: Part,
    look: Look,
    neutral: Floats,
    vertices: Floats,
    rotation: Floats,
    scale: float,
    distance_cm: float | None,
    lift_cm: float,
    depth: Floats,
    colours: Floats,
) -> None:
    """Draws hair or brows into the doubled picture `colours`, in front of `depth` by at least -lift_cm."""
    size = len(depth)
    moved = part.rest + np.einsum("nk,nkc->nc", part.weight, (vertices - neutral)[part.follow])
    pixels = pose_vertices(moved, rotation, size, 2 * scale, distance_cm)
    pixels[:, 2] -= lift_cm * 2 * scale
    alpha = np.ascontiguousarray(part.picture[..., 3])
    for threshold in (0.02, 0.5):  # soft fringes first, then the body
        seen, weights = _blank(size)
        nearest = depth.copy()
        _rasterise(
            pixels, part.triangles, part.corner_uv, alpha, np.float32(threshold), nearest, seen, weights
        )
        hit = seen >= 0
        uv = np.einsum("pk,pkc->pc", weights[hit], part.corner_uv[seen[hit]])
        sampled = _sample(part.picture, uv)
        tinted = sampled[:, :3] * np.asarray(look.hair_colour, np.float32)
        colours[hit] += sampled[:, 3:] * (tinted - colours[hit])


def _picture(path: Path) -> Floats:
    """(H, W, 3 or 4) float32 RGB(A) 0..1."""
    raw: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise FileNotFoundError(f"{path}: no such picture; give the folder of the head assets")
    raw = raw.astype(np.float32) / 255
    return np.ascontiguousarray(np.concatenate([raw[..., 2::-1], raw[..., 3:]], axis=2))


def _sample(picture: Floats, uv: Floats) -> Floats:
    """(P, C) bilinear samples at (P, 2) coordinates 0..1."""
    if not len(uv):
        return np.empty((0, picture.shape[2]), np.float32)
    x = uv[:, :1] * picture.shape[1] - 0.5
    y = uv[:, 1:] * picture.shape[0] - 0.5
    rows = -(-len(uv) // 16384)
    grid = np.zeros((rows * 16384, 2), np.float32)  # in rows, since OpenCV limits the length of one
    grid[: len(uv)] = np.concatenate([x, y], axis=1)
    out = cv2.remap(
        picture, grid.reshape(rows, 16384, 2), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(out.reshape(-1, picture.shape[2])[: len(uv)], np.float32)


def normals(vertices: Floats, triangles: Ints) -> Floats:
    """(V, 3) unit normals that point outwards, towards -z on the face of a head that looks at the viewer."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    mean = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(mean, triangles[:, k], face)
    return np.asarray(mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9), np.float32)


def _blank(size: int) -> tuple[Ints, Floats]:
    return np.full((size, size), -1, np.int32), np.zeros((size, size, 3), np.float32)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _rasterise(
    points: Floats,
    triangles: Ints,
    corner_uv: Floats,
    alpha: Floats,
    threshold: float,
    depth: Floats,
    seen: Ints,
    weights: Floats,
) -> None:
    """Nearest triangle of each pixel, both sides drawn; where alpha is below the threshold it has a hole.

    Such holes are why this is not `kernels/raster.py`, where a whole triangle is seen or not.
    """
    height, width = depth.shape
    rows, columns = alpha.shape
    for t in range(len(triangles)):
        a, b, c = points[triangles[t, 0]], points[triangles[t, 1]], points[triangles[t, 2]]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if abs(area) < 1e-9:
            continue
        x0, x1 = max(0, int(min(a[0], b[0], c[0]))), min(width - 1, int(max(a[0], b[0], c[0])) + 1)
        y0, y1 = max(0, int(min(a[1], b[1], c[1]))), min(height - 1, int(max(a[1], b[1], c[1])) + 1)
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                px, py = x + 0.5, y + 0.5
                wb = ((px - a[0]) * (c[1] - a[1]) - (py - a[1]) * (c[0] - a[0])) / area
                wc = ((b[0] - a[0]) * (py - a[1]) - (b[1] - a[1]) * (px - a[0])) / area
                wa = 1 - wb - wc
                if wa < 0 or wb < 0 or wc < 0:
                    continue
                z = wa * a[2] + wb * b[2] + wc * c[2]
                if z >= depth[y, x]:
                    continue
                u = wa * corner_uv[t, 0, 0] + wb * corner_uv[t, 1, 0] + wc * corner_uv[t, 2, 0]
                v = wa * corner_uv[t, 0, 1] + wb * corner_uv[t, 1, 1] + wc * corner_uv[t, 2, 1]
                column = min(max(int(u * columns), 0), columns - 1)
                row = min(max(int(v * rows), 0), rows - 1)
                if alpha[row, column] >= threshold:
                    depth[y, x] = z
                    seen[y, x] = t
                    weights[y, x, 0], weights[y, x, 1], weights[y, x, 2] = wa, wb, wc
