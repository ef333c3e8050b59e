"""nvdiffrast in the place of our rasteriser: compared where it is installed, and named where it is not."""

import sys
from functools import cache
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from reenact.errors import BackendError
from reenact.kernels import raster

torch = pytest.importorskip("torch", reason="nvdiffrast needs torch, which is not installed")
from reenact.runtime.backends.torch import nvdiffrast  # noqa: E402

CORNERS = np.array([[-0.8, -0.7, 0, 1], [0.9, -0.5, 0.2, 1], [0.1, 0.8, -0.3, 1]], np.float32)
TRIANGLES = np.array([[0, 1, 2]], np.int32)


def test_it_agrees_with_ours_where_it_is_installed():
    reason = nvdiffrast.missing()
    if reason:
        pytest.skip(reason)
    random = np.random.default_rng(1)
    vertices = np.concatenate([random.uniform(-1, 1, (300, 3)), np.ones((300, 1))], 1).astype(np.float32)
    triangles = random.integers(0, 300, (200, 3)).astype(np.int32)
    theirs, ours = (module.rasterize(vertices, triangles, 64, 96) for module in (nvdiffrast, raster))
    same = theirs.ids == ours.ids
    assert same.mean() > 0.99
    np.testing.assert_allclose(theirs.uvz[same], ours.uvz[same], atol=1e-4)


def test_where_it_is_absent_the_option_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    with pytest.raises(BackendError, match="--rasterizer nvdiffrast: nvdiffrast cannot be imported"):
        nvdiffrast.rasterize(CORNERS, TRIANGLES, 8, 8)


def test_its_result_becomes_weights_and_ids(monkeypatch):
    made = torch.zeros(1, 4, 6, 4)
    made[0, 1, 2] = torch.tensor([0.2, 0.3, -0.5, 1.0])
    calls, contexts = [], []

    def rasterize(context, vertices, triangles, size):
        contexts.append(context)
        calls.append((tuple(vertices.shape), triangles.dtype, size))
        return made, None

    package, inner = (
        ModuleType("nvdiffrast"),
        SimpleNamespace(rasterize=rasterize, RasterizeCudaContext=object),
    )
    package.torch = inner  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    monkeypatch.setattr(nvdiffrast, "_context", cache(nvdiffrast._context.__wrapped__))
    found = nvdiffrast.rasterize(CORNERS, TRIANGLES, 4, 6)
    assert calls == [((1, 3, 4), torch.int32, (4, 6))]
    nvdiffrast.rasterize(CORNERS, TRIANGLES, 4, 6)
    assert contexts[0] is contexts[1]  # its memory is made once
    assert found.ids.dtype == np.int32
    assert (found.ids[1, 2], found.ids.sum()) == (1, 1)
    np.testing.assert_allclose(found.uvz[1, 2], [0.2, 0.3, -0.5])
