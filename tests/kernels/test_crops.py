"""Crops into networks and pictures back into photos: the kernels against their twins, OpenCV and the CPU's blend."""

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from reenact.kernels.composite import blend
from reenact.kernels.crops import (
    Border,
    Normalisation,
    Sampling,
    box_map,
    crop,
    crop_reference,
    paste,
    paste_reference,
)
from reenact.kernels.launch import Launcher

LEVELS = Normalisation((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
UNEVEN = Normalisation((1 / 58.4, 1 / 57.1, 1 / 57.4), (-2.1, -2.0, -1.8), reversed_channels=True)
# A float32 place of a hundred pixels is off by 1e-5, which is 0.003 of 255 levels; a float16 of more than 128 levels
# by up to 1/16.
NEAR = {("float32", LEVELS): 5e-3, ("float16", LEVELS): 0.068}
NEAR |= {("float32", UNEVEN): 1e-4, ("float16", UNEVEN): 1.1e-3}


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def turned(
    angle: float, zoom: float, shift: tuple[float, float], mirrored: bool = False
) -> NDArray[np.float32]:
    """(2, 3) map of a turn in radians, a zoom (picture pixels per crop pixel) and a shift."""
    across = np.array([np.cos(angle), np.sin(angle)]) * zoom * (-1 if mirrored else 1)
    down = np.array([-np.sin(angle), np.cos(angle)]) * zoom
    return np.column_stack([across, down, shift]).astype(np.float32)


def random_map(random: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    shift = random.uniform(-0.5, 1.2, 2) * (width, height)
    return turned(
        random.uniform(0, 7), np.exp(random.uniform(-1.5, 1.8)), tuple(shift), random.random() < 0.5
    )


def cropped(launcher: Launcher, picture: Any, maps: Any, size: tuple[int, int], **how: Any) -> NDArray[Any]:
    out = np.full((len(maps), 3, *size), np.nan, how.pop("dtype", "float32"))
    crop(launcher, picture, maps, out, **{"normalisation": LEVELS, **how})
    return out


@pytest.mark.parametrize("normalisation", [LEVELS, UNEVEN])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("sampling", ["bilinear", "area"])
@pytest.mark.parametrize("border", ["replicate", "zeros"])
def test_random_crops_agree_with_the_twin(
    launcher: Launcher, border: Border, sampling: Sampling, dtype: str, normalisation: Normalisation
) -> None:
    random = np.random.default_rng(1)
    how: dict[str, Any] = {"normalisation": normalisation, "sampling": sampling, "border": border}
    sizes = [(1, 1, 1, 1), (1, 9, 5, 1), (40, 1, 3, 17), (90, 71, 31, 33)]
    values = different = 0
    for height, width, out_height, out_width in [*sizes, *random.integers(1, 50, (12, 4)).tolist()]:
        picture = noise(height, width, int(random.integers(3, 5)), seed=height)
        maps = np.stack([random_map(random, height, width) for _ in range(int(random.integers(1, 4)))])
        found = cropped(launcher, picture, maps, (out_height, out_width), dtype=dtype, **how)
        expected = crop_reference(picture, maps, out_height, out_width, **how)
        np.testing.assert_allclose(found, expected, atol=NEAR[dtype, normalisation])
        nearest = expected.astype(dtype)
        equal = (
            found == nearest
            if dtype == "float16"
            else abs(found - nearest) < 0.1 * NEAR[dtype, normalisation]
        )
        values, different = values + equal.size, different + int(np.count_nonzero(~equal))
    assert values > 10000
    assert different / values < 0.01


@pytest.mark.parametrize(
    ("border", "of_opencv"), [("replicate", cv2.BORDER_REPLICATE), ("zeros", cv2.BORDER_CONSTANT)]
)
def test_bilinear_crops_are_those_of_opencv(launcher: Launcher, border: Border, of_opencv: int) -> None:
    picture = noise(61, 83, 3)
    random = np.random.default_rng(2)
    for _ in range(8):
        # OpenCV before 5.0 knows places to 1/32 pixel.
        whole = (random.integers(-48, 48, (2, 3)) / 32).astype(np.float32)
        whole[:, 2] += random.integers(-5, 60, 2)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        expected = cv2.warpAffine(
            picture.astype(np.float32), whole.astype(float), (40, 30), flags=flags, borderMode=of_opencv
        )
        found = cropped(launcher, picture, whole[None], (30, 40), border=border)
        np.testing.assert_allclose(found[0].transpose(1, 2, 0), expected, atol=1e-3)


@pytest.mark.parametrize("size", [(24, 32), (8, 8), (96, 128), (4, 2), (32, 64)])
def test_area_crops_are_those_of_opencv_for_whole_factors(launcher: Launcher, size: tuple[int, int]) -> None:
    picture = noise(104, 140, 4)
    found = cropped(launcher, picture, box_map(7, 5, 128, 96, size[1], size[0])[None], size, sampling="area")
    expected = cv2.resize(
        picture[5:101, 7:135, :3].astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA
    )
    np.testing.assert_allclose(found[0].transpose(1, 2, 0), expected, atol=1e-4)


def test_a_right_angle_turns_area_crops_exactly(launcher: Launcher) -> None:
    picture = noise(40, 40, 3)
    straight = cropped(launcher, picture, box_map(0, 0, 40, 40, 16, 16)[None], (16, 16), sampling="area")
    turn = np.array([[[0, -2.5, 38.25], [2.5, 0, 0.75]]], np.float32)
    found = cropped(launcher, picture, turn, (16, 16), sampling="area")
    np.testing.assert_allclose(found, np.rot90(straight, axes=(2, 3)), atol=1e-3)


def test_area_removes_what_would_alias(launcher: Launcher) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    shrunk = box_map(0, 0, 64, 64, 8, 8)[None]
    np.testing.assert_allclose(cropped(launcher, stripes, shrunk, (8, 8), sampling="area"), 127.5, atol=1e-3)
    slanted = turned(0.4, 8.0, (30, 2))[None]
    smooth = cropped(launcher, stripes, slanted, (4, 4), sampling="area")
    assert np.ptp(smooth) < 40
    assert np.ptp(cropped(launcher, stripes, slanted, (4, 4))) > 120


def test_where_nothing_shrinks_area_is_bilinear(launcher: Launcher) -> None:
    picture, maps = noise(20, 30, 3), turned(0.3, 0.6, (4.2, 3.1))[None]
    area = cropped(launcher, picture, maps, (25, 25), sampling="area")
    np.testing.assert_allclose(area, cropped(launcher, picture, maps, (25, 25)), atol=2e-3)


def test_levels_channels_and_pixels_of_a_plain_crop_are_exact(launcher: Launcher) -> None:
    picture = noise(9, 12, 3)
    there = box_map(2, 1, 5, 6, 5, 6)[None]
    plain = cropped(launcher, picture, there, (6, 5))
    np.testing.assert_array_equal(plain[0].transpose(1, 2, 0), picture[1:7, 2:7])
    halves = Normalisation((0.5, 0.25, 0.125), (-1, 0, 1), reversed_channels=True)
    scaled = cropped(launcher, picture, there, (6, 5), normalisation=halves)[0]
    for c, (scale, offset) in enumerate(((0.5, -1), (0.25, 0), (0.125, 1))):
        np.testing.assert_array_equal(scaled[c], picture[1:7, 2:7, 2 - c] * scale + offset)


@pytest.mark.parametrize("sampling", ["bilinear", "area"])
def test_maps_that_lead_nowhere_read_nothing_beyond_the_picture(
    launcher: Launcher, sampling: Sampling
) -> None:
    wild = np.array([np.nan, np.inf, -np.inf, 1e38, -1e38, 1e9], np.float32)
    maps = np.zeros((7, 2, 3), np.float32)
    maps[:6] = wild[:, None, None]
    maps[6] = [[1e6, 0, -5e6], [0, 1e6, 3]]
    picture = noise(3, 4, 3)
    beyond = cropped(launcher, picture, maps[1:6, :, :], (2, 2), sampling=sampling, border="zeros")
    assert np.isfinite(beyond).all()
    nowhere = cropped(launcher, picture, maps[:1], (2, 2), sampling=sampling, border="zeros")
    assert not nowhere.any()
    edges = cropped(launcher, picture, maps, (2, 2), sampling=sampling)
    assert (edges[0] == picture[0, 0, :, None, None]).all()
    assert ((edges >= 0) & (edges <= 255)).all()


def random_paste(random: np.random.Generator, dtype: str) -> tuple[Any, ...]:
    """Crops of levels, maps, mask and photo."""
    height, width, side_y, side_x = random.integers(1, 60, 4).tolist()
    batch = int(random.integers(1, 4))
    levels = random.uniform(-20, 275, (batch, 3, side_y, side_x))
    maps = np.stack([random_map(random, height, width) for _ in range(batch)])
    maps[..., :2] *= np.exp(random.uniform(-1, 1)) * np.hypot(height, width) / (side_x + side_y)
    shape = (batch, side_y, side_x)[int(random.integers(2)) :]
    mask = noise(*shape) if random.integers(2) else random.uniform(0, 1, shape).astype(np.float32)
    return levels.astype(dtype), maps, mask, noise(height, width, 3)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("sampling", ["bilinear", "area"])
def test_random_pastes_agree_with_the_twin(
    launcher: Launcher, sampling: Sampling, dtype: str, reverse: bool
) -> None:
    random = np.random.default_rng(3)
    pixels = different = 0
    how: dict[str, Any] = {"normalisation": Normalisation((1.0, 0.5, 2.0), (3.0, 2.0, 1.0), reverse)}
    for _ in range(30):
        crops, maps, mask, photo = random_paste(random, dtype)
        out = noise(*photo.shape, seed=9)
        paste(launcher, crops, maps, mask, photo, out, sampling=sampling, **how)
        expected = paste_reference(crops, maps, mask, photo, sampling=sampling, **how)
        distance = np.abs(out.astype(int) - expected).max(axis=2)
        pixels += distance.size
        different += int(np.count_nonzero(distance))
        assert distance.max() <= 1  # next to a half float32 rounds to the other side
    assert pixels > 15000
    assert different / pixels < 3e-4


def blended(photo: Any, crops: Any, mask: Any, left: int, top: int) -> NDArray[np.uint8]:
    expected: NDArray[np.uint8] = photo.copy()
    blend(expected, crops[0].transpose(1, 2, 0).astype(np.uint8), mask, left, top)
    return expected


@pytest.mark.parametrize("size", [(48, 64), (33, 47), (7, 16), (16, 5), (1, 1)])
@pytest.mark.parametrize("place", [(0, 0), (5, 3), (-4, -2), (30, 20), (300, 0)])
def test_a_paste_on_whole_pixels_is_the_cpus_blend(
    launcher: Launcher, size: tuple[int, int], place: tuple[int, int]
) -> None:
    photo, crops, mask = (
        noise(*size, 3),
        noise(1, 3, 19, 23, seed=1).astype(np.float16),
        noise(19, 23, seed=2),
    )
    maps = box_map(*place, 23, 19, 23, 19)[None]
    out = noise(*photo.shape, seed=9)
    paste(launcher, crops, maps, mask, photo, out, normalisation=LEVELS)
    expected = blended(photo, crops, mask, *place)
    np.testing.assert_array_equal(out, expected)
    paste(launcher, crops, maps, mask, photo, photo, normalisation=LEVELS)
    np.testing.assert_array_equal(photo, expected)


@pytest.mark.parametrize("shift", [0, 1, 3, 16])
def test_photos_that_begin_anywhere_are_copied(launcher: Launcher, shift: int) -> None:
    memory, written = noise(40 * 64 * 3 + 64), np.full(40 * 64 * 3 + 64, 7, np.uint8)
    start, end = -memory.ctypes.data % 16 + shift, -written.ctypes.data % 16
    photo = memory[start : start + 40 * 64 * 3].reshape(40, 64, 3)
    out = written[end : end + 40 * 64 * 3].reshape(40, 64, 3)
    crops, mask = noise(1, 3, 8, 8).astype(np.float32), noise(8, 8)
    paste(launcher, crops, box_map(30, 9, 8, 8, 8, 8)[None], mask, photo, out, normalisation=LEVELS)
    np.testing.assert_array_equal(out, blended(photo, crops, mask, 30, 9))
    assert (written[:end] == 7).all()
    assert (written[end + 40 * 64 * 3 :] == 7).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_was_cropped_is_pasted_back_unchanged(launcher: Launcher, dtype: str) -> None:
    photo = cv2.GaussianBlur(noise(90, 120, 3), (0, 0), 6)
    maps = turned(0.5, 0.9, (50, 5))[None]
    crops = cropped(launcher, photo, maps, (60, 70), dtype=dtype, normalisation=UNEVEN)
    assert np.abs(crops).max() < 4
    out = noise(*photo.shape, seed=9)
    paste(launcher, crops, maps, np.ones((60, 70), np.float32), photo, out, normalisation=UNEVEN)
    assert np.abs(out.astype(int) - photo).max() <= 1
    assert (out != photo).any()


def test_the_upper_of_two_pastes_is_the_later(launcher: Launcher) -> None:
    crops = np.zeros((2, 3, 4, 4), np.float32)
    crops[0], crops[1] = 50, 200
    maps = np.stack([box_map(0, 0, 4, 4, 4, 4), box_map(2, 0, 4, 4, 4, 4)])
    out = np.zeros((4, 8, 3), np.uint8)
    paste(launcher, crops, maps, np.full((4, 4), 255, np.uint8), out, out, normalisation=LEVELS)
    assert out[1, :, 0].tolist() == [50, 50, 200, 200, 200, 200, 0, 0]


def test_a_map_without_an_inverse_and_numbers_that_are_none_change_nothing(launcher: Launcher) -> None:
    photo = noise(17, 32, 3)
    maps = np.zeros((3, 2, 3), np.float32)
    maps[1] = np.nan
    maps[2] = [[1, 2, 3], [2, 4, 6]]
    crops, mask = noise(3, 3, 8, 8).astype(np.float32), np.full((8, 8), 255, np.uint8)
    out = noise(*photo.shape, seed=9)
    paste(launcher, crops, maps, mask, photo, out, normalisation=LEVELS)
    np.testing.assert_array_equal(out, photo)
    there = box_map(0, 0, 8, 8, 8, 8)[None]
    paste(launcher, crops[:1], there, np.full((8, 8), np.nan, np.float32), photo, out, normalisation=LEVELS)
    np.testing.assert_array_equal(out, photo)
    paste(launcher, crops[:1] * np.nan, there, mask, photo, out, normalisation=LEVELS)
    assert not out[:8, :8].any()


PICTURE, MAPS, OUT = noise(6, 7, 3), np.zeros((2, 2, 3), np.float32), np.zeros((2, 3, 4, 5), np.float32)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"picture": PICTURE[..., :2].copy()}, r"picture: .* expected \(H, W, 3\) or \(H, W, 4\) uint8"),
        ({"picture": PICTURE[:0]}, "picture: .* not empty"),
        ({"picture": PICTURE.astype(np.float32)}, "picture: .* uint8"),
        ({"picture": PICTURE[:, ::2]}, "picture: .* contiguous"),
        ({"maps": MAPS[:1]}, r"maps: .* expected \(2, 2, 3\) float32"),
        ({"maps": MAPS.astype(np.float64)}, "maps: .* float32"),
        ({"out": OUT.astype(np.float64)}, "out: .* float32 or float16"),
        ({"out": np.zeros((2, 4, 4, 5), np.float32)}, r"out: .* expected \(B, 3, h, w\)"),
        ({"out": OUT[..., :0].copy()}, "out: .* not empty"),
        ({"border": "reflect"}, "border is 'reflect'; expected replicate or zeros"),
        ({"sampling": "cubic"}, "sampling is 'cubic'; expected bilinear or area"),
    ],
)
def test_crops_that_do_not_fit_are_named(launcher: Launcher, changed: dict[str, Any], named: str) -> None:
    given = {"picture": PICTURE, "maps": MAPS, "out": OUT.copy(), "normalisation": LEVELS, **changed}
    with pytest.raises(ValueError, match=named):
        crop(launcher, **given)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"crops": OUT.astype(np.uint8)}, "crops: .* float32 or float16"),
        ({"crops": OUT[:, :1].copy()}, r"crops: .* \(B, 3, h, w\)"),
        ({"maps": MAPS[:1]}, r"maps: .* expected \(2, 2, 3\) float32"),
        ({"mask": np.zeros((5, 4), np.uint8)}, r"mask: .* expected \(4, 5\) or \(2, 4, 5\)"),
        ({"mask": np.zeros((1, 4, 5), np.uint8)}, r"mask: .* expected \(4, 5\) or \(2, 4, 5\)"),
        ({"mask": np.zeros((4, 5), np.float16)}, "mask: .* uint8 or float32"),
        ({"photo": noise(6, 7, 4)}, r"photo: .* expected \(H, W, 3\) uint8"),
        ({"out": noise(7, 6, 3)}, r"out: .* expected \(6, 7, 3\) uint8"),
        ({"out": PICTURE.astype(np.int8)}, r"out: .* expected \(6, 7, 3\) uint8"),
        ({"sampling": "nearest"}, "sampling is 'nearest'"),
    ],
)
def test_pastes_that_do_not_fit_are_named(launcher: Launcher, changed: dict[str, Any], named: str) -> None:
    mask, out = np.zeros((4, 5), np.uint8), PICTURE.copy()
    given = {"crops": OUT, "maps": MAPS, "mask": mask, "photo": PICTURE, "out": out, **changed}
    with pytest.raises(ValueError, match=named):
        paste(launcher, **given, normalisation=LEVELS)
    np.testing.assert_array_equal(out, PICTURE)


def test_read_only_memory_and_other_devices_are_refused(launcher: Launcher) -> None:
    class OnGpu:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return {"shape": (2, 2, 3), "typestr": "<f4", "data": (4096, False), "version": 3}

    fixed, photo = OUT.copy(), PICTURE.copy()
    fixed.flags.writeable = photo.flags.writeable = False
    with pytest.raises(ValueError, match="out: is read-only"):
        crop(launcher, PICTURE, MAPS, fixed, normalisation=LEVELS)
    with pytest.raises(ValueError, match=r"out: .* can be written"):
        paste(launcher, OUT, MAPS, np.zeros((4, 5), np.uint8), PICTURE, photo, normalisation=LEVELS)
    with pytest.raises(ValueError, match="maps: lies on cuda:0; these kernels run on cpu"):
        crop(launcher, PICTURE, OnGpu(), OUT.copy(), normalisation=LEVELS)
