"""Dense flow from a moving triangle mesh, and resampling of pictures by such a flow, on the CPU.

A flow here is absolute: `flow[y, x]` is the (x, y) place in the source picture, in pixels with pixel centres at whole
numbers, from which output pixel (x, y) is taken. Each fast function has a plain NumPy twin, `*_reference`, that is
the oracle of its tests.
"""

import math

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["identity_flow", "mesh_flow", "mesh_flow_reference", "resample", "resample_reference"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Image = NDArray[np.uint8]


def identity_flow(height: int, width: int) -> Floats:
    """(height, width, 2) float32: every pixel taken from its own place."""
    flow = np.empty((height, width, 2), np.float32)
    flow[..., 0] = np.arange(width, dtype=np.float32)
    flow[..., 1] = np.arange(height, dtype=np.float32)[:, None]
    return flow


def mesh_flow(targets: Floats, sources: Floats, triangles: Ints, flow: Floats) -> Floats:
    """Draw triangles into a flow: inside each, the flow maps its target corners onto its source corners.

    targets    # (N, 2) float32, x and y in the output picture
    sources    # (N, 2) float32, x and y in the source picture
    triangles  # (M, 3) int32, painted in this order, so later ones cover earlier ones
    flow       # (H, W, 2) float32, written in place where a triangle covers a pixel centre, and returned

    Triangles of no area are left out; either winding is drawn. Raises ValueError on shapes or dtypes that differ.
    """
    _check(targets, sources, triangles, flow)
    _paint(targets, sources, triangles, flow)
    return flow


def mesh_flow_reference(targets: Floats, sources: Floats, triangles: Ints, flow: Floats) -> Floats:
    """Twin of `mesh_flow`: barycentric coordinates over each triangle's bounding box, in float64."""
    _check(targets, sources, triangles, flow)
    height, width = flow.shape[:2]
    for triangle in triangles:
        corners = targets[triangle].astype(np.float64)
        edges = np.stack([corners[1] - corners[0], corners[2] - corners[0]], axis=1)
        if abs(np.linalg.det(edges)) < _NO_AREA:
            continue
        low = np.maximum(np.ceil(corners.min(axis=0) - _EDGE).astype(int), 0)
        high = np.minimum(np.floor(corners.max(axis=0) + _EDGE).astype(int), [width - 1, height - 1])
        xs, ys = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
        offsets = np.stack([xs - corners[0, 0], ys - corners[0, 1]], axis=-1)
        weights = offsets @ np.linalg.inv(edges).T
        weights = np.concatenate([1 - weights.sum(axis=-1, keepdims=True), weights], axis=-1)
        inside = (weights >= -1e-9).all(axis=-1)
        flow[ys[inside], xs[inside]] = weights[inside] @ sources[triangle]
    return flow


def resample(image: Image, flow: Floats) -> Image:
    """(H, W, 3) uint8 picture taken through a flow, bilinear, mirrored at the source's borders (OpenCV remap)."""
    return np.asarray(
        cv2.remap(image, flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101), np.uint8
    )


def resample_reference(image: Image, flow: Floats) -> Image:
    """Twin of `resample` in float64."""
    height, width = image.shape[:2]
    low = np.floor(flow).astype(int)
    fraction = (flow - low)[..., None]
    result = np.zeros((*flow.shape[:2], image.shape[2]))
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (fraction[..., 0, :] if dx else 1 - fraction[..., 0, :]) * (
                fraction[..., 1, :] if dy else 1 - fraction[..., 1, :]
            )
            rows, columns = _mirror(low[..., 1] + dy, height), _mirror(low[..., 0] + dx, width)
            result += weight * image[rows, columns]
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


_NO_AREA = 1e-7  # twice the area in pixels below which a triangle is not drawn
_EDGE = 1e-4  # pixels by which a pixel centre may lie outside and still count as on the edge


def _mirror(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Whole numbers reflected into 0 .. length - 1 without repeating the edge."""
    if length == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * length - 2)
    return np.where(index < length, index, 2 * length - 2 - index)


def _check(targets: Floats, sources: Floats, triangles: Ints, flow: Floats) -> None:
    if targets.shape != sources.shape or targets.ndim != 2 or targets.shape[1] != 2:
        raise ValueError(f"targets and sources must both be (N, 2), not {targets.shape} and {sources.shape}")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or triangles.dtype != np.int32:
        raise ValueError(f"triangles must be (M, 3) int32, not {triangles.shape} {triangles.dtype}")
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.dtype != np.float32:
        raise ValueError(f"flow must be (H, W, 2) float32, not {flow.shape} {flow.dtype}")
    if len(triangles) and not (triangles.min() >= 0 and triangles.max() < len(targets)):
        raise ValueError(f"triangles name vertices outside 0..{len(targets) - 1}")


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _paint(targets: Floats, sources: Floats, triangles: Ints, flow: Floats) -> None:
    height, width = flow.shape[0], flow.shape[1]
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, y0 = float(targets[i, 0]), float(targets[i, 1])
        x1, y1 = float(targets[j, 0]), float(targets[j, 1])
        x2, y2 = float(targets[k, 0]), float(targets[k, 1])
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if not abs(area) >= _NO_AREA:
            continue
        # The source place (u, v) is affine in x and y: its steps.
        du1, dv1 = sources[j, 0] - sources[i, 0], sources[j, 1] - sources[i, 1]
        du2, dv2 = sources[k, 0] - sources[i, 0], sources[k, 1] - sources[i, 1]
        ux = (du1 * (y2 - y0) - du2 * (y1 - y0)) / area
        uy = (du2 * (x1 - x0) - du1 * (x2 - x0)) / area
        vx = (dv1 * (y2 - y0) - dv2 * (y1 - y0)) / area
        vy = (dv2 * (x1 - x0) - dv1 * (x2 - x0)) / area
        top = max(0, math.ceil(min(y0, y1, y2) - _EDGE))
        bottom = min(height - 1, math.floor(max(y0, y1, y2) + _EDGE))
        for y in range(top, bottom + 1):
            left, right = 1e30, -1e30
            for edge in range(3):
                if edge == 0:
                    ax, ay, bx, by = x0, y0, x1, y1
                elif edge == 1:
                    ax, ay, bx, by = x1, y1, x2, y2
                else:
                    ax, ay, bx, by = x2, y2, x0, y0
                if min(ay, by) - _EDGE <= y <= max(ay, by) + _EDGE:
                    if abs(by - ay) <= _EDGE:
                        left, right = min(left, ax, bx), max(right, ax, bx)
                    else:
                        cut = ax + (bx - ax) * min(1.0, max(0.0, (y - ay) / (by - ay)))
                        left, right = min(left, cut), max(right, cut)
            first = max(0, math.ceil(max(left, -1e6) - _EDGE))
            last = min(width - 1, math.floor(min(right, 1e6) + _EDGE))
            # From the row's first pixel on in float32: short steps, so nothing is lost, and twice as fast.
            u = np.float32(sources[i, 0] + ux * (first - x0) + uy * (y - y0))
            v = np.float32(sources[i, 1] + vx * (first - x0) + vy * (y - y0))
            step_u, step_v = np.float32(ux), np.float32(vx)
            for x in range(last + 1 - first):
                flow[y, first + x, 0] = u + step_u * np.float32(x)
                flow[y, first + x, 1] = v + step_v * np.float32(x)
