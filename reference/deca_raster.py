"""Which triangle each pixel shows, by the two rules that DECA's pictures were made with.

Vertices are in image space: x to the right and y down, both from -1 to 1 between the picture's borders, smaller z
nearer and z above 0. Pixel (row r, column c) shows what lies at its centre, x = (2 c + 1) / W - 1 and
y = (2 r + 1) / H - 1. Both sides of a triangle are seen; weights are those in the picture's plane. What a picture shows
has no gradient, the weights have one.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Fragments", "Rasterizer", "interpolate", "rasterize_pytorch3d", "rasterize_standard"]

_AREA = 1e-8  # pytorch3d's: a triangle of less is not drawn, and to those drawn it is added
_PAIRS = 1 << 20  # of a triangle and a pixel that are looked at together


class Fragments(NamedTuple):
    """What each pixel of B pictures shows."""

    triangles: Tensor  # (B, H, W) int64, -1 where there is none
    weights: Tensor  # (B, H, W, 3) of its corners; 0 where there is none


Rasterizer = Callable[[Tensor, Tensor, int, int], Fragments]


class _Rule(NamedTuple):
    weigh: Callable[[Tensor, Tensor], Tensor]  # corners (..., 3, 3) and points (..., 2) to weights (..., 3)
    inside: Callable[[Tensor, Tensor], Tensor]  # corners and weights to booleans (...)
    depth: Callable[[Tensor, Tensor], Tensor]  # corners and weights to depths (...)


def rasterize_pytorch3d(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Fragments:
    """As pytorch3d does without blur and perspective: strictly inside, nearest wins, then the lower number.

    vertices   # (B, V, 3) image space
    triangles  # (F, 3) int64
    """
    # pytorch3d's plane has -1 to 1 along the shorter side and more along the other.
    shorter = min(height, width)
    stretch = vertices.new_tensor([width / shorter, height / shorter, 1.0])
    centres = [_numbers(count, vertices) * (2 / shorter) + (1 - count) / shorter for count in (width, height)]
    return _rasterize(vertices * stretch, triangles, centres[0], centres[1], _PYTORCH3D)


def rasterize_standard(vertices: Tensor, triangles: Tensor, height: int, width: int) -> Fragments:
    """As DECA's own kernel does, which its later versions use; arguments as above.

    Among equally near triangles the kernel leaves the choice to chance, this one takes the lower number. A triangle of
    no area shows its first corner all over its bounding box.
    """
    half = vertices.new_tensor([width / 2, height / 2, width / 2])
    shift = vertices.new_tensor([(width - 1) / 2, (height - 1) / 2, 0.0])
    centres = [_numbers(count, vertices) for count in (width, height)]
    return _rasterize(vertices * half + shift, triangles, centres[0], centres[1], _STANDARD)


def interpolate(fragments: Fragments, attributes: Tensor) -> Tensor:
    """(B, A, H, W): attributes (B, F, 3, A) of the triangles' corners in each pixel, 0 where there is no triangle."""
    count, height, width = fragments.triangles.shape
    attributes = attributes.expand(count, -1, -1, -1)
    numbers = fragments.triangles.clamp_min(0).reshape(count, -1, 1, 1)
    corners = attributes.gather(1, numbers.expand(-1, -1, *attributes.shape[2:]))
    values = (fragments.weights.reshape(count, -1, 3, 1) * corners).sum(2)
    return values.transpose(1, 2).reshape(count, -1, height, width)


def _rasterize(vertices: Tensor, triangles: Tensor, xs: Tensor, ys: Tensor, rule: _Rule) -> Fragments:
    """In any plane; xs (W,) and ys (H,) are the pixels' centres in it."""
    if vertices.ndim != 3 or vertices.shape[2] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(
            f"vertices must be (B, V, 3) and triangles (F, 3), not {tuple(vertices.shape)} and {tuple(triangles.shape)}"
        )
    if not len(triangles):
        raise ValueError("there must be a triangle or more to draw")
    corners = vertices[:, triangles]
    with torch.no_grad():
        shown = torch.stack([_shown(item, xs, ys, rule) for item in corners])
    number = shown.clamp_min(0).flatten(1)[..., None, None]
    seen = corners.gather(1, number.expand(-1, -1, 3, 3)).reshape(-1, len(ys), len(xs), 3, 3)
    centres = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)
    weights = rule.weigh(seen, centres.expand(*seen.shape[:3], 2))
    return Fragments(shown, torch.where(shown[..., None] >= 0, weights, 0.0))


def _shown(corners: Tensor, xs: Tensor, ys: Tensor, rule: _Rule) -> Tensor:
    """(H, W) numbers of the nearest of triangles with corners (F, 3, 3), or -1."""
    nearest = corners.new_full((len(ys) * len(xs),), torch.inf)
    shown = torch.full(nearest.shape, -1, device=nearest.device)
    for triangles, pixels in _pairs(corners, xs, ys):
        there = corners[triangles]
        weights = rule.weigh(there, torch.stack([xs[pixels % len(xs)], ys[pixels // len(xs)]], -1))
        inside = rule.inside(there, weights)
        triangles, pixels = triangles[inside], pixels[inside]
        depths = rule.depth(there[inside], weights[inside])
        closest = torch.full_like(nearest, torch.inf).scatter_reduce(0, pixels, depths, "amin")
        first = depths == closest[pixels]
        lowest = torch.full_like(shown, len(corners))
        lowest = lowest.scatter_reduce(0, pixels[first], triangles[first], "amin")
        # Lower numbers came in earlier rounds.
        shown = torch.where(closest < nearest, lowest, shown)
        nearest = torch.minimum(nearest, closest)
    return shown.reshape(len(ys), len(xs))


def _pairs(corners: Tensor, xs: Tensor, ys: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Triangles and the pixels whose centres lie in their bounding boxes, in rounds of rising triangles."""
    low, high = corners.amin(1), corners.amax(1)
    left, top = (torch.searchsorted(at, low[:, i].contiguous()) for i, at in enumerate((xs, ys)))
    right, bottom = (
        torch.searchsorted(at, high[:, i].contiguous(), right=True) for i, at in enumerate((xs, ys))
    )
    columns = right - left
    ends = (columns * (bottom - top)).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, _PAIRS):
        number = torch.arange(start, min(start + _PAIRS, total), device=corners.device)
        triangles = torch.searchsorted(ends, number, right=True)
        within = number - starts[triangles]
        rows = top[triangles] + within // columns[triangles]
        yield triangles, rows * len(xs) + left[triangles] + within % columns[triangles]


def _numbers(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=like.dtype, device=like.device)


def _edge(point: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Twice the signed area of point, start and end, (..., at least 2) each."""
    x, y = point[..., 0] - start[..., 0], point[..., 1] - start[..., 1]
    return x * (end[..., 1] - start[..., 1]) - y * (end[..., 0] - start[..., 0])


def _pytorch3d_weights(corners: Tensor, points: Tensor) -> Tensor:
    a, b, c = corners.unbind(-2)
    parts = torch.stack([_edge(points, b, c), _edge(points, c, a), _edge(points, a, b)], -1)
    return parts / (_edge(c, a, b) + _AREA)[..., None]


def _pytorch3d_inside(corners: Tensor, weights: Tensor) -> Tensor:
    a, b, c = corners.unbind(-2)
    return (_edge(c, a, b).abs() > _AREA) & (weights > 0).all(-1)


def _linear_depth(corners: Tensor, weights: Tensor) -> Tensor:
    return (weights * corners[..., 2]).sum(-1)


def _standard_weights(corners: Tensor, points: Tensor) -> Tensor:
    """By least squares, in which a triangle without area has its first corner everywhere."""
    a, b, c = corners[..., :2].unbind(-2)
    to_c, to_b, to_point = c - a, b - a, points - a
    cc, cb, bb = ((one * other).sum(-1) for one, other in ((to_c, to_c), (to_c, to_b), (to_b, to_b)))
    cp, bp = (to_c * to_point).sum(-1), (to_b * to_point).sum(-1)
    area = cc * bb - cb * cb
    inverse = torch.where(area == 0, 0.0, 1 / torch.where(area == 0, 1.0, area))
    third, second = (bb * cp - cb * bp) * inverse, (cc * bp - cb * cp) * inverse
    return torch.stack([1 - third - second, second, third], -1)


def _standard_inside(_corners: Tensor, weights: Tensor) -> Tensor:
    return (weights[..., 0] > 0) & (weights[..., 1] >= 0) & (weights[..., 2] >= 0)


def _reciprocal_depth(corners: Tensor, weights: Tensor) -> Tensor:
    return 1 / (weights / corners[..., 2]).sum(-1)


_PYTORCH3D = _Rule(_pytorch3d_weights, _pytorch3d_inside, _linear_depth)
_STANDARD = _Rule(_standard_weights, _standard_inside, _reciprocal_depth)
