"""Sampling kernels, compiled for the CPU, against their NumPy twin and against torch."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reenact.kernels.launch import Launcher
from reenact.kernels.warp import Field, Layout, Padding, Target, warp, warp_pyramid, warp_reference

PADDINGS: tuple[Padding, ...] = ("zeros", "border", "reflection")
LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC")
NARROW = {"float32": 1e-5, "float16": 4e-3}  # of features around 1, by their dtype


def poisoned(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """An array in which whatever a kernel forgets to write shows."""
    return np.full(shape, np.nan, dtype)


def shaped(batch: int, channels: int, height: int, width: int, layout: Layout) -> tuple[int, ...]:
    return (batch, channels, height, width) if layout == "NCHW" else (batch, height, width, channels)


def torch_sampled(
    features: NDArray[Any], grid: NDArray[Any], padding: str, align_corners: bool
) -> NDArray[Any]:
    found = torch.nn.functional.grid_sample(
        torch.from_numpy(features), torch.from_numpy(grid), "bilinear", padding, align_corners
    )
    return found.numpy()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
def test_one_map_is_sampled_as_torch_samples_it(
    launcher: Launcher, padding: Padding, align_corners: bool
) -> None:
    random = np.random.default_rng(1)
    for batch, channels, size, out_size in (
        (1, 3, (16, 16), (16, 16)),
        (2, 37, (5, 9), (11, 3)),
        (1, 1, (1, 1), (4, 4)),
        (1, 2, (7, 1), (1, 1)),
        (1, 40, (33, 31), (65, 17)),
    ):
        features = random.normal(size=(batch, channels, *size)).astype(np.float32)
        grid = random.uniform(-1.6, 1.6, (batch, *out_size, 2)).astype(np.float32)
        out = poisoned((batch, channels, *out_size), "float32")
        warp(launcher, features, Field(grid), out, padding=padding, align_corners=align_corners)
        expected = torch_sampled(features, grid, padding, align_corners)
        np.testing.assert_allclose(out, expected, atol=2e-5)
        twin = warp_reference(features, Field(grid), *out_size, padding=padding, align_corners=align_corners)
        np.testing.assert_allclose(twin, expected, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_random_maps_agree_with_the_twin(
    launcher: Launcher, padding: Padding, layout: Layout, dtype: str
) -> None:
    random = np.random.default_rng(2)
    for _ in range(12):
        batch, channels = int(random.integers(1, 3)), int(random.choice([1, 3, 8, 16, 33, 64]))
        height, width, out_height, out_width = random.integers(1, 40, 4).tolist()
        h, w = random.integers(1, 40, 2).tolist()
        features = random.normal(size=shaped(batch, channels, height, width, layout)).astype(dtype)
        planar = bool(random.integers(2))
        places = random.uniform(-1.5, 1.5, (batch, 2, h, w) if planar else (batch, h, w, 2))
        field = Field(
            places.astype(np.float32),
            planar=planar,
            resize="bilinear" if random.integers(2) else "nearest",
            relative=bool(random.integers(2)),
            scale=(0.7, 1.2),
        )
        occlusion = random.uniform(0, 1, (batch, 1, h, w)).astype(np.float32) if random.integers(2) else None
        align_corners = bool(random.integers(2))
        expected = warp_reference(
            features,
            field,
            out_height,
            out_width,
            layout=layout,
            padding=padding,
            align_corners=align_corners,
            occlusion=occlusion,
        )
        out = poisoned(shaped(batch, channels, out_height, out_width, layout), dtype)
        warp(
            launcher,
            features,
            field,
            out,
            layout=layout,
            padding=padding,
            align_corners=align_corners,
            occlusion=occlusion,
        )
        wrong = np.abs(out.astype(np.float64) - expected) > 8 * NARROW[dtype]
        # Places are float32 in the kernel: one that falls on a border or on a step may fall on its other side.
        assert np.isfinite(out).all()
        assert wrong.mean() <= 0.002, (wrong.mean(), field, features.shape, out.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pyramid_equals_its_maps_one_by_one(launcher: Launcher, layout: Layout) -> None:
    random = np.random.default_rng(3)
    sizes = ((28, 32), (72, 16), (140, 8), (280, 8))
    maps = [random.normal(size=shaped(1, c, s, s, layout)).astype(np.float16) for c, s in sizes]
    field = Field(random.uniform(-1.2, 1.2, (1, 32, 32, 2)).astype(np.float32))
    together = [poisoned(m.shape, "float16") for m in maps]
    warp_pyramid(
        launcher, [Target(m, out) for m, out in zip(maps, together, strict=True)], field, layout=layout
    )
    for features, out in zip(maps, together, strict=True):
        alone = poisoned(features.shape, "float16")
        warp(launcher, features, field, alone, layout=layout)
        np.testing.assert_array_equal(out, alone)
        side = out.shape[2]
        expected = warp_reference(features, field, side, side, layout=layout)
        np.testing.assert_allclose(out, expected, atol=6e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("channels", "offset", "all_channels"), [(16, 8, 32), (5, 3, 9), (8, 4, 16)])
def test_only_the_named_slice_of_a_concatenation_is_written(
    launcher: Launcher, layout: Layout, dtype: str, channels: int, offset: int, all_channels: int
) -> None:
    random = np.random.default_rng(4)
    features = random.normal(size=shaped(2, channels, 6, 7, layout)).astype(dtype)
    field = Field(random.uniform(-1, 1, (2, 6, 7, 2)).astype(np.float32))
    out = np.full(shaped(2, all_channels, 6, 7, layout), 77, dtype)
    warp(launcher, features, field, out, layout=layout, offset=offset)
    planes = out if layout == "NCHW" else out.transpose(0, 3, 1, 2)
    alone = poisoned(features.shape, dtype)
    warp(launcher, features, field, alone, layout=layout)
    expected = alone if layout == "NCHW" else alone.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(planes[:, offset : offset + channels], expected)
    assert (planes[:, :offset] == 77).all()
    assert (planes[:, offset + channels :] == 77).all()


def test_places_that_are_no_numbers_sample_nothing(launcher: Launcher) -> None:
    places = np.zeros((1, 2, 3, 2), np.float32)
    places[0, 0] = [[np.nan, 0], [np.inf, 0], [-np.inf, -1e30]]
    out = poisoned((1, 1, 2, 3), "float32")
    warp(launcher, np.ones((1, 1, 4, 4), np.float32), Field(places), out)
    np.testing.assert_array_equal(out[0, 0], [[0, 0, 0], [1, 1, 1]])


def test_a_place_in_float16_would_be_off_by_much_more_than_features_in_float16(launcher: Launcher) -> None:
    random = np.random.default_rng(5)
    features = random.normal(size=(1, 4, 256, 256)).astype(np.float32)
    grid = random.uniform(-1, 1, (1, 64, 64, 2)).astype(np.float32)
    exact = warp_reference(features, Field(grid), 64, 64)
    out = poisoned((1, 4, 64, 64), "float16")
    warp(launcher, features.astype(np.float16), Field(grid), out)
    coarse = warp_reference(features, Field(grid.astype(np.float16)), 64, 64)
    assert np.abs(out - exact).max() < 4e-3
    assert np.abs(coarse - exact).max() > 20 * np.abs(out - exact).max()


FEATURES = np.zeros((1, 3, 4, 4), np.float32)
PLACES = np.zeros((1, 4, 4, 2), np.float32)


@pytest.mark.parametrize(
    ("features", "places", "out", "named"),
    [
        (FEATURES, PLACES[..., :1], FEATURES.copy(), "field"),
        (FEATURES, PLACES.astype(np.float16), FEATURES.copy(), "field"),
        (FEATURES, PLACES, np.zeros((2, 3, 4, 4), np.float32), "B = 1"),
        (FEATURES, PLACES, np.zeros((1, 2, 4, 4), np.float32), "room"),
        (FEATURES, PLACES, np.zeros((1, 3, 4, 4), np.float16), "both float32"),
        (FEATURES.astype(np.float64), PLACES, np.zeros((1, 3, 4, 4)), "both float32"),
        (FEATURES[:, :, :0], PLACES, FEATURES.copy(), "not empty"),
        (FEATURES[:, :, ::2], PLACES, FEATURES.copy(), "contiguous"),
        (FEATURES[0], PLACES, FEATURES.copy(), "four axes"),
    ],
)
def test_arrays_that_do_not_fit_are_named(
    launcher: Launcher, features: NDArray[Any], places: NDArray[Any], out: NDArray[Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        warp(launcher, features, Field(places), out)


def test_what_is_no_array_is_named(launcher: Launcher) -> None:
    with pytest.raises(TypeError, match="field: list is no array"):
        warp(launcher, FEATURES, Field([[0.0]]), FEATURES.copy())


def test_an_array_on_another_device_is_refused(launcher: Launcher) -> None:
    class OnGpu:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return {"shape": (1, 4, 4, 2), "typestr": "<f4", "data": (4096, False), "version": 3}

    with pytest.raises(ValueError, match="field: lies on cuda:0; these kernels run on cpu"):
        warp(launcher, FEATURES, Field(OnGpu()), FEATURES.copy())


def test_read_only_memory_is_not_written(launcher: Launcher) -> None:
    out = FEATURES.copy()
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out 0"):
        warp(launcher, FEATURES, Field(PLACES), out)
    with pytest.raises(ValueError, match="9 maps"):
        warp_pyramid(launcher, [Target(FEATURES, FEATURES.copy())] * 9, Field(PLACES))
