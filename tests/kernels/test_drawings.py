"""Strokes drawn by the kernel: every pixel that of the plain twin, of OpenCV, and of Face2Face-rho's drawings."""

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from reenact.kernels.drawings import MOST_PICTURES, Drawing, draw, draw_reference
from reenact.kernels.launch import Launcher
from reenact.kernels.lines import DOT, draw_strokes
from reenact.runtime.systems.face2face_rho import landmarks


def random_drawing(random: np.random.Generator, reach: float, *, channels: int = 3) -> Drawing:
    """A small picture of noise and strokes between points up to `reach` of its sides outside."""
    height, width = random.integers(1, 40, 2).tolist()
    sides = np.array([width, height])
    return Drawing(
        random.integers(0, 256, (height, width, channels), dtype=np.uint8),
        np.floor(random.uniform(-reach * sides, (1 + reach) * sides, (8, 2))).astype(np.int32),
        np.stack([random.integers(0, 8, 6), random.integers(DOT, 8, 6)], axis=1).astype(np.int32),
        random.integers(1, 256, (6, channels), dtype=np.uint8),
        over=bool(random.integers(2)),
    )


def by_opencv(drawing: Drawing) -> NDArray[np.uint8]:
    image: NDArray[np.uint8] = drawing.out.copy() if drawing.over else np.zeros_like(drawing.out)
    points = drawing.points.tolist()
    for (i, j), colour in zip(drawing.strokes.tolist(), drawing.colours.tolist(), strict=True):
        if j == DOT:
            cv2.circle(image, points[i], 1, colour, cv2.FILLED, cv2.LINE_4)
        else:
            cv2.line(image, points[i], points[j], colour, 1, cv2.LINE_4)
    return image


@pytest.mark.parametrize("reach", [0.0, 0.5, 4.0, 1000.0])
def test_random_strokes_are_the_same_in_kernel_twin_and_opencv(launcher: Launcher, reach: float) -> None:
    random = np.random.default_rng(int(reach * 2))
    for _ in range(100):
        drawings = [random_drawing(random, reach) for _ in range(random.integers(1, MOST_PICTURES + 1))]
        expected = [draw_reference(drawing) for drawing in drawings]
        for drawing, image in zip(drawings, expected, strict=True):
            np.testing.assert_array_equal(image, by_opencv(drawing))
        draw(launcher, drawings)
        for drawing, image in zip(drawings, expected, strict=True):
            np.testing.assert_array_equal(drawing.out, image, str(drawing))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_may_have_any_number_of_channels(launcher: Launcher, channels: int) -> None:
    drawing = random_drawing(np.random.default_rng(channels), 0.1, channels=channels)
    expected = draw_reference(drawing)
    draw(launcher, [drawing])
    np.testing.assert_array_equal(drawing.out, expected)


@pytest.mark.parametrize("size", [(2, 3000), (3000, 2), (700, 900)])
def test_large_pictures_do_not_overflow(launcher: Launcher, size: tuple[int, int]) -> None:
    random = np.random.default_rng(7)
    points = (random.uniform(-0.2, 1.2, (6, 2)) * size[::-1]).astype(np.int32)
    strokes = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]], np.int32)
    drawing = Drawing(np.full((*size, 3), 9, np.uint8), points, strokes, np.full((5, 3), 200, np.uint8))
    draw(launcher, [drawing])
    expected = draw_strokes(np.zeros((*size, 3), np.uint8), points, strokes, drawing.colours)
    assert expected.any()
    np.testing.assert_array_equal(drawing.out, expected)


def test_the_farthest_points_neither_overflow_nor_hang(launcher: Launcher) -> None:
    far = np.iinfo(np.int32)
    points = [[far.min, far.min], [far.max, far.max], [far.min, 3], [far.max, 4], [far.max, far.min]]
    strokes = np.array([[0, 1], [2, 3], [4, 0], [4, DOT], [0, DOT], [1, DOT], [3, 0]], np.int32)
    colours = np.arange(1, 22, dtype=np.uint8).reshape(7, 3)
    drawing = Drawing(np.full((8, 9, 3), 99, np.uint8), np.array(points, np.int32), strokes, colours)
    expected = draw_reference(drawing)
    assert expected.any()
    draw(launcher, [drawing])
    np.testing.assert_array_equal(drawing.out, expected)


def rho_drawings(keypoints: NDArray[np.float32], size: int) -> list[Drawing]:
    return [
        Drawing(np.full((size // scale, size // scale, 3), 77, np.uint8), keypoints, *table)
        for scale, table in zip(landmarks.SCALES, landmarks._tables(), strict=True)
    ]


@pytest.mark.parametrize("size", [16, 97, 512])
@pytest.mark.parametrize("reach", [0.9, 3.0])
def test_keypoints_become_the_pictures_of_face2face_rho(launcher: Launcher, reach: float, size: int) -> None:
    random = np.random.default_rng(size)
    for _ in range(4):
        keypoints = random.uniform(-reach, reach, (landmarks.POINTS, 2)).astype(np.float32)
        drawings = rho_drawings(keypoints, size)
        draw(launcher, drawings)
        expected = landmarks.draw_landmark_images(keypoints, size)
        for drawing, image in zip(drawings, expected, strict=True):
            np.testing.assert_array_equal(drawing.out, image)


def test_keypoints_on_the_edge_of_a_pixel_fall_to_the_same_side(launcher: Launcher) -> None:
    side = 33
    exact = np.linspace(-1, 1, side).astype(np.float32)
    near = np.concatenate([np.nextafter(exact, np.float32(way)) for way in (-2, 2)] + [exact])
    points = np.stack([near, near[::-1]], axis=1)
    strokes = np.stack([np.arange(len(points)), np.full(len(points), DOT)], axis=1).astype(np.int32)
    for first in range(0, len(points), 9):
        some = strokes[first : first + 9]
        drawing = Drawing(
            np.full((side, side, 1), 7, np.uint8), points, some, np.full((len(some), 1), 255, np.uint8)
        )
        expected = draw_reference(drawing)
        draw(launcher, [drawing])
        np.testing.assert_array_equal(drawing.out, expected)


def test_strokes_without_a_place_are_left_out(launcher: Launcher) -> None:
    places = [[-1, -1], [1, 1], [np.nan, 0], [0, np.inf], [1, -1], [-1e30, 0], [1e30, 0.5], [-1, 1]]
    points = np.array(places, np.float32)[:7]  # what follows in memory is a place too, but no point
    there, nowhere = (
        [[0, 1], [5, 6]],
        [[4, 2], [3, 0], [2, DOT], [4, 7], [7, DOT], [-1, 4], [-1, DOT], [4, -2]],
    )
    strokes = np.array(there + nowhere, np.int32)
    colours = np.arange(1, 31, dtype=np.uint8).reshape(10, 3)
    drawing = Drawing(np.full((9, 9, 3), 5, np.uint8), points, strokes, colours)
    draw(launcher, [drawing])
    assert set(drawing.out[..., 0].ravel()) == {0, 1, 4}
    np.testing.assert_array_equal(drawing.out, draw_reference(drawing))


@pytest.mark.parametrize("over", [False, True])
def test_without_strokes_a_picture_is_black_or_as_it_was(launcher: Launcher, over: bool) -> None:
    nothing = np.zeros((0, 2), np.int32)
    out = np.full((5, 300, 3), 8, np.uint8)
    draw(launcher, [Drawing(out, nothing, nothing, np.zeros((0, 3), np.uint8), over=over)])
    assert (out == (8 if over else 0)).all()


GIVEN: dict[str, Any] = {
    "out": np.zeros((4, 5, 3), np.uint8),
    "points": np.zeros((2, 2), np.int32),
    "strokes": np.zeros((3, 2), np.int32),
    "colours": np.zeros((3, 3), np.uint8),
}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"out": np.zeros((4, 5), np.uint8)}, r"out 1: .* expected \(H, W, C\) uint8"),
        ({"out": np.zeros((4, 5, 3), np.float32)}, "out 1: .* uint8"),
        ({"out": np.zeros((4, 0, 3), np.uint8)}, "out 1: .* not empty"),
        ({"points": np.zeros((2, 2), np.float64)}, r"points 1: .* expected \(N, 2\) int32 or float32"),
        ({"points": np.zeros((2, 3), np.float32)}, r"points 1: .* expected \(N, 2\)"),
        ({"strokes": np.zeros((3, 2), np.int64)}, r"strokes 1: .* expected \(M, 2\) int32"),
        ({"colours": np.zeros((2, 3), np.uint8)}, r"colours 1: .* expected \(3, 3\) uint8"),
        ({"colours": np.zeros((3, 1), np.uint8)}, r"colours 1: .* expected \(3, 3\) uint8"),
        ({"out": np.zeros((4, 10, 3), np.uint8)[:, ::2]}, "out 1: .* contiguous"),
    ],
)
def test_arrays_that_do_not_fit_are_named(launcher: Launcher, changed: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        draw(launcher, [Drawing(**GIVEN), Drawing(**{**GIVEN, **changed})])


def test_too_many_drawings_read_only_memory_and_other_devices_are_refused(launcher: Launcher) -> None:
    class OnGpu:
        @property
        def __cuda_array_interface__(self) -> dict[str, Any]:
            return {"shape": (2, 2), "typestr": "<f4", "data": (4096, False), "version": 3}

    for number in (0, MOST_PICTURES + 1):
        with pytest.raises(ValueError, match=f"{number} drawings; one launch takes 1 to {MOST_PICTURES}"):
            draw(launcher, [Drawing(**GIVEN)] * number)
    fixed = GIVEN["out"].copy()
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match=r"out 0: .* can be written"):
        draw(launcher, [Drawing(**{**GIVEN, "out": fixed})])
    with pytest.raises(ValueError, match="points 0: lies on cuda:0"):
        draw(launcher, [Drawing(**{**GIVEN, "points": OnGpu()})])
