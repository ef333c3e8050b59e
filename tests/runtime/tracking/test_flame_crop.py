"""The crop is where DECA's own code has it, to a thousandth of a pixel, and comes from there pixel by pixel."""

import numpy as np
import pytest
from reenact.errors import FaceNotFoundError
from reenact.runtime.tracking.flame_crop import SIDE, FaceSquare, crop, whole_picture_map


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


def ramps():
    """A picture whose first two channels say where they are."""
    y, x = np.mgrid[:240, :256]
    return np.stack([x, y, 0 * x], -1).astype(np.uint8)


def bilinear(image, to_crop, row, column):
    """One pixel of a crop, as scikit-image's `warp` of order 1 with a constant border has it."""
    x, y, _ = np.linalg.inv(to_crop) @ [column, row, 1]
    total = np.zeros(3)
    for j in (int(np.floor(y)), int(np.floor(y)) + 1):
        for i in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= i < image.shape[1] and 0 <= j < image.shape[0]:
                total += (1 - abs(x - i)) * (1 - abs(y - j)) * image[j, i]
    return total / 255


def test_landmarks_have_a_margin_of_three_eighths():
    landmarks = np.array([[100.0, 50.0, 7.0], [180.0, 80.0, -7.0], [140.0, 170.0, 0.0]])
    square = FaceSquare.of_landmarks(landmarks)
    assert (square.x, square.y) == (140, 110)
    assert square.size == int(1.375 * 100) == 137


def test_a_detectors_box_has_a_smaller_margin_and_sinks():
    square = FaceSquare.of_detection(100, 50, 180, 170)
    assert (square.x, square.y) == (140, 110 + 12)
    assert square.size == 125


def test_sizes_are_cut_off_and_not_rounded():
    assert FaceSquare.of_detection(0, 0, 79.9, 79.9).size == 99


def test_the_first_and_last_pixel_lie_on_the_squares_borders():
    to_crop = FaceSquare(140.25, 110.5, 137).to_crop()
    corners = np.array([[140.25 - 68.5, 110.5 - 68.5, 1], [140.25 + 68.5, 110.5 + 68.5, 1]])
    np.testing.assert_allclose(corners @ to_crop.T, [[0, 0, 1], [SIDE - 1, SIDE - 1, 1]], atol=1e-9)


@pytest.mark.parametrize(
    "to_crop",
    [
        FaceSquare(120.3, 110.7, 99).to_crop(),
        FaceSquare(100.15, 120.85, 173).to_crop(),
        whole_picture_map(256, 240),
    ],
)
def test_every_pixel_is_taken_from_where_the_map_says(to_crop):
    found = crop(ramps(), to_crop)[:2] * 255
    row, column = np.mgrid[:SIDE, :SIDE]
    expected = np.linalg.inv(to_crop) @ np.stack([column, row, 0 * row + 1]).reshape(3, -1)
    x, y = expected[:2].reshape(2, SIDE, SIDE)
    inside = (x >= 0) & (x <= 255) & (y >= 0) & (y <= 239)
    assert inside.mean() > 0.9
    assert np.abs(found - [x, y])[:, inside].max() < 1e-3


def test_pixels_are_mixed_as_written_out(picture):
    to_crop = FaceSquare(70.2, 8.4, 50).to_crop()  # over two borders
    found = crop(picture, to_crop)
    assert found.shape == (3, SIDE, SIDE)
    assert found.dtype == np.float32
    for row in (0, 50, 74, 75, 76, 100, 111, 223):
        for column in (0, 60, 151, 153, 155, 156, 157, 223):
            expected = bilinear(picture, to_crop, row, column)
            np.testing.assert_allclose(found[:, row, column], expected, atol=1e-6)


def test_the_border_fades_to_black_within_a_pixel():
    white = np.full((4, 4, 3), 255, np.uint8)
    found = crop(white, np.array([[8.0, 0, 16], [0, 8.0, 16], [0, 0, 1]]))
    np.testing.assert_allclose(found[0, 20, 8:18], [0, *np.arange(1, 8) / 8, 1, 1], atol=1e-6)
    assert found[0, 20, 48:].max() == 0
    assert found[:, 16:41, 16:41].min() == 1


def test_a_square_far_outside_or_enormous_is_black(picture):
    assert crop(picture, FaceSquare(1e19, -1e19, 100).to_crop()).max() == 0
    assert crop(picture, FaceSquare(30, 30, 10**15).to_crop()).max() <= 1


def test_a_square_picture_is_not_turned_and_others_are():
    np.testing.assert_allclose(whole_picture_map(447, 447), np.diag([0.5, 0.5, 1.0]), atol=1e-12)
    matrix = whole_picture_map(400, 300)
    turned = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    assert turned == pytest.approx(np.degrees(np.arctan((300 - 400) / (2 * (300 + 400 - 2)))), abs=1e-9)
    assert turned == pytest.approx(-4.1, abs=0.01)


@pytest.mark.parametrize(
    "landmarks", [np.full((68, 2), 5.0), np.array([[0, np.nan], [3, 4]]), np.array([[0, np.inf], [3, 4]])]
)
def test_landmarks_without_a_face_are_an_error(landmarks):
    with pytest.raises(FaceNotFoundError, match="cannot be cropped"):
        FaceSquare.of_landmarks(landmarks)


@pytest.mark.parametrize("landmarks", [np.zeros((0, 2)), np.zeros(68), np.zeros((68, 1))])
def test_landmarks_of_another_shape_are_an_error(landmarks):
    with pytest.raises(ValueError, match=r"landmarks must be \(N, 2 or more\)"):
        FaceSquare.of_landmarks(landmarks)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)],
)
def test_pictures_of_another_kind_are_an_error(image):
    with pytest.raises(ValueError, match=r"the picture must be \(H, W, 3\) uint8"):
        crop(image, np.eye(3))


@pytest.mark.parametrize("to_crop", [np.eye(2), np.zeros((3, 3)), np.full((3, 3), np.nan)])
def test_a_map_without_a_way_back_is_an_error(picture, to_crop):
    with pytest.raises(ValueError, match="invertible"):
        crop(picture, to_crop)


def test_a_picture_of_one_pixel_cannot_be_mapped():
    with pytest.raises(ValueError, match="1x300"):
        whole_picture_map(1, 300)
