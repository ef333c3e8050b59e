"""nvdiffrast, where it is installed, in the place of our own rasteriser: the same arrays in and out."""

from functools import cache
from typing import Any

import numpy as np

from ....errors import BackendError
from ....kernels.raster import Floats, Ints, Raster

__all__ = ["missing", "rasterize"]


def missing() -> str | None:
    """Why nvdiffrast cannot be used here; None where it can."""
    try:
        import torch
        from nvdiffrast import torch as dr  # noqa: F401
    except (ImportError, OSError) as error:
        return f"nvdiffrast cannot be imported ({error}); it is installed from its makers' repository, beside torch"
    return None if torch.cuda.is_available() else "nvdiffrast needs a GPU, and torch finds none"


def rasterize(vertices: Floats, triangles: Ints, height: int, width: int) -> Raster:
    """As `kernels.raster.rasterize`: clip space (V, 4) float32 and triangles (T, 3) int32 to weights and ids.

    Raises BackendError where nvdiffrast or a GPU is absent.
    """
    reason = missing()
    if reason:
        raise BackendError(f"--rasterizer nvdiffrast: {reason}")
    import torch
    from nvdiffrast import torch as dr

    there = torch.from_numpy(np.ascontiguousarray(vertices, np.float32)).cuda()
    corners = torch.from_numpy(np.ascontiguousarray(triangles, np.int32)).cuda()
    found, _ = dr.rasterize(_context(), there[None], corners, (height, width))
    seen = found[0].cpu().numpy()
    return Raster(uvz=np.ascontiguousarray(seen[..., :3]), ids=seen[..., 3].astype(np.int32))


@cache
def _context() -> Any:
    """Its working memory, made once: making it takes longer than a frame."""
    from nvdiffrast import torch as dr

    return dr.RasterizeCudaContext()
