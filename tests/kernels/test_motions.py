"""Keypoint motions: the kernels, compiled for the CPU, against their twins and against torch written out."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reenact.kernels.launch import Launcher
from reenact.kernels.motions import (
    Keypoints,
    combine_motions,
    combine_motions_reference,
    sparse_motions,
    sparse_motions_reference,
)

SIZES = [(1, 10, 64, 64), (2, 3, 5, 9), (1, 1, 1, 1), (1, 4, 33, 2)]  # batch, keypoints, height, width


def keypoints(batch: int, count: int, *, turned: bool = True) -> Keypoints:
    random = np.random.default_rng(count)
    places = random.uniform(-0.9, 0.9, (2, batch, count, 2)).astype(np.float32)
    jacobians = (np.eye(2) + random.normal(scale=0.3, size=(batch, count, 2, 2))).astype(np.float32)
    return Keypoints(places[0], places[1], jacobians if turned else None)


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("dtype", "near"), [("float32", 2e-4), ("float16", 6e-3)])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize(("batch", "count", "height", "width"), SIZES)
def test_heats_and_deformed_sources_agree_with_the_twin(
    launcher: Launcher, batch: int, count: int, height: int, width: int, turned: bool, dtype: str, near: float
) -> None:
    points = keypoints(batch, count, turned=turned)
    source = normal(batch, 3, height, width).astype(dtype)
    out = np.full((batch, 4 * count + 4, height, width), np.nan, dtype)
    sparse_motions(launcher, source, points, out)
    expected = sparse_motions_reference(source, points)
    wrong = np.abs(out.astype(np.float64) - expected) > near
    assert np.isfinite(out).all()
    assert (
        wrong.mean() < 0.001
    )  # a place that falls just inside in one arithmetic falls just outside in the other


def test_the_twin_is_what_the_sheet_says() -> None:
    points, source = keypoints(1, 2), normal(1, 3, 8, 8)
    made = sparse_motions_reference(source, points)
    axis = torch.linspace(-1, 1, 8)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    for k in (0, 1, 2):
        motion, heat = grid, torch.zeros(8, 8)
        if k:
            start, end = (torch.from_numpy(p)[0, k - 1] for p in (points.source, points.driving))
            heat = torch.exp(-0.5 * ((grid - end) ** 2).sum(-1) / 0.01)
            heat = heat - torch.exp(-0.5 * ((grid - start) ** 2).sum(-1) / 0.01)
            motion = (torch.from_numpy(points.jacobians)[0, k - 1] @ (grid - end)[..., None])[..., 0] + start
        deformed = torch.nn.functional.grid_sample(
            torch.from_numpy(source), motion[None], align_corners=False
        )
        np.testing.assert_allclose(made[0, 4 * k], heat.numpy(), atol=1e-6)
        np.testing.assert_allclose(made[0, 4 * k + 1 : 4 * k + 4], deformed[0].numpy(), atol=1e-5)


def test_channels_beside_the_groups_stay_as_they_are(launcher: Launcher) -> None:
    points, source = keypoints(1, 2), normal(1, 3, 6, 6)
    out = np.full((1, 20, 6, 6), 5, np.float32)
    sparse_motions(launcher, source, points, out, offset=4)
    assert (out[:, :4] == 5).all()
    assert (out[:, 16:] == 5).all()
    assert not (out[:, 4:16] == 5).any()


@pytest.mark.parametrize(("dtype", "near"), [("float32", 2e-5), ("float16", 2e-5)])
@pytest.mark.parametrize("beyond", [0, 1, 3])
@pytest.mark.parametrize(("batch", "count", "height", "width"), SIZES)
def test_combined_fields_agree_with_the_twin(
    launcher: Launcher, batch: int, count: int, height: int, width: int, beyond: int, dtype: str, near: float
) -> None:
    points = keypoints(batch, count)
    logits = (30 * normal(batch, count + 1 + beyond, height, width)).astype(dtype)
    others = normal(batch, beyond, height, width, 2) if beyond else None
    out = np.full((batch, height, width, 2), np.nan, np.float32)
    combine_motions(launcher, logits, points, out, others=others)
    np.testing.assert_allclose(out, combine_motions_reference(logits, points, others), atol=near)


def test_a_mask_that_stands_alone_gives_its_own_motion(launcher: Launcher) -> None:
    points = keypoints(1, 2)
    logits = np.full((1, 3, 4, 4), -1e4, np.float32)
    logits[:, 0] = 1e4
    out = np.full((1, 4, 4, 2), np.nan, np.float32)
    combine_motions(launcher, logits, points, out)
    np.testing.assert_allclose(out[0, 1, :, 0], np.linspace(-1, 1, 4), atol=1e-6)


POINTS = keypoints(1, 2)


@pytest.mark.parametrize(
    ("source", "points", "out", "named"),
    [
        (normal(1, 3, 4), POINTS, normal(1, 12, 4, 4), "source"),
        (normal(1, 3, 4, 4), POINTS, normal(1, 11, 4, 4), "at least 12"),
        (normal(1, 3, 4, 4), POINTS, normal(1, 12, 4, 5), "out"),
        (normal(1, 3, 4, 4).astype(np.float16), POINTS, normal(1, 12, 4, 4), "same dtype"),
        (normal(2, 3, 4, 4), POINTS, normal(2, 12, 4, 4), "keypoints.source"),
        (normal(1, 3, 4, 4), Keypoints(POINTS.source, POINTS.driving[:, :1]), normal(1, 12, 4, 4), "driving"),
        (
            normal(1, 3, 4, 4),
            Keypoints(normal(1, 0, 2), normal(1, 0, 2)),
            normal(1, 12, 4, 4),
            "at least one",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    launcher: Launcher, source: Any, points: Keypoints, out: Any, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        sparse_motions(launcher, source, points, out)


def test_masks_without_a_motion_are_named(launcher: Launcher) -> None:
    out = np.zeros((1, 4, 4, 2), np.float32)
    with pytest.raises(ValueError, match="others"):
        combine_motions(launcher, normal(1, 5, 4, 4), POINTS, out)
    with pytest.raises(ValueError, match="out: "):
        combine_motions(launcher, normal(1, 3, 4, 4), POINTS, out[:, :2])
    with pytest.raises(ValueError, match="variance"):
        sparse_motions(launcher, normal(1, 3, 4, 4), POINTS, normal(1, 12, 4, 4), variance=0)
