"""Lines and dots against their plain twin and against OpenCV, whose pixels they promise."""

import cv2
import numpy as np
import pytest
from reenact.kernels.lines import DOT, draw_strokes, draw_strokes_reference


def _drawn(draw, shape, points, strokes, colours):
    image = np.zeros((*shape, 3), np.uint8)
    points, strokes = np.array(points, np.int32).reshape(-1, 2), np.array(strokes, np.int32).reshape(-1, 2)
    assert draw(image, points, strokes, np.array(colours, np.uint8).reshape(-1, 3)) is image
    return image


def _by_opencv(shape, points, strokes, colours):
    image = np.zeros((*shape, 3), np.uint8)
    for (i, j), colour in zip(strokes.tolist(), colours.tolist(), strict=True):
        if j == DOT:
            cv2.circle(image, points[i].tolist(), 1, colour, cv2.FILLED, cv2.LINE_4)
        else:
            cv2.line(image, points[i].tolist(), points[j].tolist(), colour, 1, cv2.LINE_4)
    return image


def _case(rng, reach):
    """A small picture and strokes between points up to `reach` of its sides outside."""
    shape = tuple(int(side) for side in rng.integers(1, 40, 2))
    sides = np.array([shape[1], shape[0]])
    points = np.floor(rng.uniform(-reach * sides, (1 + reach) * sides, (8, 2))).astype(np.int32)
    strokes = np.stack([rng.integers(0, 8, 6), rng.integers(DOT, 8, 6)], axis=1).astype(np.int32)
    return shape, points, strokes, rng.integers(1, 256, (6, 3)).astype(np.uint8)


@pytest.mark.parametrize("reach", [0.0, 0.5, 4.0, 1000.0])
def test_random_strokes_are_the_same_in_kernel_twin_and_opencv(reach):
    rng = np.random.default_rng(int(reach * 2))
    for _ in range(2500):
        shape, points, strokes, colours = _case(rng, reach)
        fast = _drawn(draw_strokes, shape, points, strokes, colours)
        case = (shape, points.tolist(), strokes.tolist())
        np.testing.assert_array_equal(
            fast, _drawn(draw_strokes_reference, shape, points, strokes, colours), str(case)
        )
        np.testing.assert_array_equal(fast, _by_opencv(shape, points, strokes, colours), str(case))


@pytest.mark.parametrize("draw", [draw_strokes, draw_strokes_reference])
def test_a_line_never_steps_diagonally(draw):
    image = _drawn(draw, (5, 5), [[0, 0], [4, 4]], [[0, 1]], [[9, 9, 9]])
    assert np.count_nonzero(image[..., 0]) == 9
    assert (np.diff(np.argwhere(image[..., 0]).sum(axis=1)) <= 1).all()


@pytest.mark.parametrize("draw", [draw_strokes, draw_strokes_reference])
def test_a_dot_is_a_plus_that_borders_cut(draw):
    inside = _drawn(draw, (3, 3), [[1, 1]], [[0, DOT]], [[1, 2, 3]])
    assert inside.any(axis=2).astype(int).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    assert inside[1, 1].tolist() == [1, 2, 3]
    beside = _drawn(draw, (3, 3), [[-1, 0]], [[0, DOT]], [[1, 2, 3]])
    assert beside.any(axis=2).astype(int).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert not _drawn(draw, (3, 3), [[-2, 0]], [[0, DOT]], [[1, 2, 3]]).any()


@pytest.mark.parametrize("draw", [draw_strokes, draw_strokes_reference])
def test_the_order_of_a_lines_ends_makes_no_difference(draw):
    points = [[1, 7], [18, 2]]
    there = _drawn(draw, (10, 20), points, [[0, 1]], [[5, 5, 5]])
    back = _drawn(draw, (10, 20), points, [[1, 0]], [[5, 5, 5]])
    assert there.any()
    np.testing.assert_array_equal(there, back)


def test_later_strokes_cover_earlier_ones():
    points = [[0, 1], [4, 1], [2, 0], [2, 2]]
    image = _drawn(draw_strokes, (3, 5), points, [[0, 1], [2, 3]], [[1, 1, 1], [2, 2, 2]])
    assert image[1, :, 0].tolist() == [1, 1, 2, 1, 1]


@pytest.mark.parametrize("draw", [draw_strokes, draw_strokes_reference])
def test_the_farthest_points_neither_overflow_nor_hang(draw):
    far = np.iinfo(np.int32)
    points = [[far.min, far.min], [far.max, far.max], [far.min, 3], [far.max, 4], [far.max, far.min]]
    strokes = [[0, 1], [2, 3], [4, 0], [4, DOT], [0, DOT]]
    assert _drawn(draw, (8, 9), points, strokes, [[1, 1, 1]] * 5).any()


@pytest.mark.parametrize("draw", [draw_strokes, draw_strokes_reference])
@pytest.mark.parametrize(
    ("image", "points", "strokes", "colours"),
    [
        (np.zeros((4, 4), np.uint8), [[0, 0]], [[0, 0]], [[1, 1, 1]]),
        (np.zeros((4, 4, 3), np.float32), [[0, 0]], [[0, 0]], [[1, 1, 1]]),
        (np.zeros((0, 4, 3), np.uint8), [[0, 0]], [[0, 0]], [[1, 1, 1]]),
        (np.zeros((4, 4, 3), np.uint8), [[0, 0, 0]], [[0, 0]], [[1, 1, 1]]),
        (np.zeros((4, 4, 3), np.uint8), [[0, 0]], [[0, 1]], [[1, 1, 1]]),
        (np.zeros((4, 4, 3), np.uint8), [[0, 0]], [[DOT, 0]], [[1, 1, 1]]),
        (np.zeros((4, 4, 3), np.uint8), [[0, 0]], [[0, -2]], [[1, 1, 1]]),
        (np.zeros((4, 4, 3), np.uint8), [[0, 0]], [[0, 0]], [[1, 1]]),
        (np.zeros((4, 4, 3), np.uint8), [[0, 0]], [[0, 0]], [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_wrong_shapes_and_unknown_points_are_refused(draw, image, points, strokes, colours):
    before = image.copy()
    with pytest.raises(ValueError, match=r"must be|name points"):
        draw(image, np.array(points, np.int32), np.array(strokes, np.int32), np.array(colours, np.uint8))
    np.testing.assert_array_equal(image, before)


def test_no_stroke_leaves_the_picture_as_it_is():
    assert not _drawn(draw_strokes, (4, 4), [], [], []).any()
