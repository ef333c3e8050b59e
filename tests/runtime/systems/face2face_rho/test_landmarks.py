"""The landmark pictures of Face2Face-rho against golden ones, and its text files, whole and broken."""

import json
from pathlib import Path

import numpy as np
import pytest
from reenact.errors import ReenactError
from reenact.runtime.systems.face2face_rho.landmarks import (
    CONTOUR,
    LEFT_BROW,
    LEFT_EYE,
    MOUTH,
    NOSE,
    POINTS,
    RIGHT_BROW,
    RIGHT_EYE,
    draw_landmark_images,
    read_head_pose,
    read_landmarks,
    write_head_pose,
    write_landmarks,
)

TESTS = Path(__file__).resolve().parents[3]
FOLDERS = (TESTS / "goldens/face2face_rho", TESTS.parent / "../shared/goldens/face2face_rho")


@pytest.fixture(scope="module")
def golden():
    """Names of pictures and the arrays of the golden file."""
    for folder in FOLDERS:
        if (folder / "landmark_images.npz").is_file():
            names = json.loads((folder / "landmark_images.json").read_text())["outputs"]
            with np.load(folder / "landmark_images.npz", allow_pickle=False) as arrays:
                return names, dict(arrays)
    pytest.skip("the golden landmark_images is absent")


def _face(seed=0):
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (POINTS, 2)).astype(np.float32)


def test_every_golden_picture_is_drawn_pixel_by_pixel(golden):
    names, arrays = golden
    assert len(names) == 45
    for name in names:
        points, size, scale = name.rsplit("_", 2)
        image = draw_landmark_images(arrays[f"in:{points}"].astype(np.float32), int(size))[int(scale)]
        expected = np.rint((arrays[f"out:{name}"] + 1) * 255 / 2).astype(np.uint8)
        np.testing.assert_array_equal(image.transpose(2, 0, 1), expected, name)


def test_the_groups_of_points_are_all_72_once():
    groups = (CONTOUR, LEFT_BROW, RIGHT_BROW, NOSE, LEFT_EYE, RIGHT_EYE, MOUTH)
    assert [point for group in groups for point in group] == list(range(POINTS))


@pytest.mark.parametrize("size", [16, 64, 500, 512])
def test_three_pictures_of_a_sixteenth_an_eighth_and_a_quarter(size):
    images = draw_landmark_images(_face(), size)
    assert [image.shape for image in images] == [(size // n, size // n, 3) for n in (16, 8, 4)]
    for image in images:
        assert image.dtype == np.uint8
        assert image.any()


def test_pixels_are_truncated_towards_zero():
    points = np.full((POINTS, 2), -5, np.float32)
    points[30] = [-1.02, 1]  # pixel -0.31, 31 of 32: still column 0
    small = draw_landmark_images(points, 512)[0]
    assert small[31, 0].tolist() == [255, 0, 255]
    assert np.count_nonzero(small.any(axis=2)) == 3


def test_colours_and_order_of_the_parts():
    image = draw_landmark_images(np.zeros((POINTS, 2), np.float32), 512)[1]
    assert image[31, 31].tolist() == [125, 125, 125]  # the contour is drawn last
    points = np.full((POINTS, 2), -5, np.float32)
    points[17], points[21] = [-0.5, 0], [0.5, 0]
    assert draw_landmark_images(points, 512)[1][31, 31].tolist() == [0, 0, 255]


def test_point_49_is_never_drawn():
    points = _face()
    moved = points.copy()
    moved[49] = [0.95, 0.95]
    for image, other in zip(draw_landmark_images(points, 512), draw_landmark_images(moved, 512), strict=True):
        np.testing.assert_array_equal(image, other)


def test_points_far_outside_are_clipped():
    points = _face()
    points[:20] *= 1e30
    for image in draw_landmark_images(points, 512):
        assert image.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_refused_by_number(value):
    points = _face()
    points[41, 1] = value
    with pytest.raises(ReenactError, match="keypoint 41 "):
        draw_landmark_images(points, 512)


def test_another_shape_or_too_small_a_size_is_refused():
    with pytest.raises(ValueError, match="72"):
        draw_landmark_images(_face()[:68], 512)
    with pytest.raises(ValueError, match="16"):
        draw_landmark_images(_face(), 15)


def test_files_written_are_read_back_to_the_last_bit(tmp_path):
    points = _face()
    points[3] = [8.036196231842041e-05, -0.0]
    write_landmarks(tmp_path / "landmark.txt", points)
    np.testing.assert_array_equal(read_landmarks(tmp_path / "landmark.txt"), points)
    pose = np.array([0.1, -0.25, 1e-7, 0.27, -0.26, 0.00126695], np.float32)
    write_head_pose(tmp_path / "headpose.txt", pose)
    np.testing.assert_array_equal(read_head_pose(tmp_path / "headpose.txt"), pose)
    lines = (tmp_path / "headpose.txt").read_text().splitlines(keepends=True)
    assert lines[1] == "-0.25\n"
    assert len(lines) == 6
    assert sorted(file.name for file in tmp_path.iterdir()) == ["headpose.txt", "landmark.txt"]


def test_windows_line_ends_and_blank_lines_at_the_end_are_read(tmp_path):
    file = tmp_path / "headpose.txt"
    file.write_bytes(b"1\r\n2\r\n3\r\n4e-1\r\n5\r\n-6\r\n\r\n\n")
    assert read_head_pose(file).tolist() == np.array([1, 2, 3, 0.4, 5, -6], np.float32).tolist()


def test_real_files_are_read(shared_data):
    files = sorted((shared_data / "face2facerho").rglob("landmark*/*.txt"))
    files += sorted((shared_data / "face2facerho").rglob("landmark.txt"))
    assert len(files) == 8
    for file in files:
        assert (np.abs(read_landmarks(file)) < 1).all()
        pose = file.with_name("headpose.txt")
        pose = pose if pose.is_file() else file.parents[1] / "headpose" / file.name
        assert 0.001 < read_head_pose(pose)[5] < 0.002


GOOD = b"0.5 0.25\n" * POINTS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 lines"),
        (b"\n\n\n", "0 lines"),
        (GOOD[9:], "71 lines"),
        (GOOD + GOOD[:9], "73 lines"),
        (b"\n" + GOOD, "73 lines"),
        (GOOD[:18] + b"0.5\n" + GOOD[27:], "line 3.*72 lines of 2 numbers"),
        (GOOD[:18] + b"0.5 1 2\n" + GOOD[27:], "line 3"),
        (GOOD[:18] + b"\n" + GOOD[27:], "line 3"),
        (GOOD[:18] + b"0.5,0.25\n" + GOOD[27:], "line 3"),
        (GOOD[:18] + b"x y\n" + GOOD[27:], "line 3: 'x y'"),
        (GOOD[:18] + b"nan 0.5\n" + GOOD[27:], "line 3.*finite"),
        (GOOD[:18] + b"0.5 -inf\n" + GOOD[27:], "line 3.*finite"),
        (GOOD[:18] + b"1e300 0\n" + GOOD[27:], "line 3.*sensible"),
        (GOOD[:18] + b"\xff\xfe\x00\n" + GOOD[27:], "line 3.*plain text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "line 1.*plain text"),
        (b"0" * 200_000, "larger than"),
    ],
)
def test_broken_files_are_refused_with_file_and_line(tmp_path, content, words):
    file = tmp_path / "landmark.txt"
    file.write_bytes(content)
    with pytest.raises(ReenactError, match=rf"landmark\.txt.*{words}") as error:
        read_landmarks(file)
    assert len(str(error.value)) < len(str(file)) + 250


def test_a_head_pose_with_two_numbers_in_a_line_is_refused(tmp_path):
    file = tmp_path / "headpose.txt"
    file.write_text("1 2\n" * 6)
    with pytest.raises(ReenactError, match=r"line 1.*6 lines of 1 number$"):
        read_head_pose(file)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ReenactError, match=r"none\.txt: cannot be read"):
        read_landmarks(tmp_path / "none.txt")
    with pytest.raises(ReenactError, match="not a file"):
        read_head_pose(tmp_path)


def test_nothing_is_written_when_values_are_not_finite_or_the_folder_is_missing(tmp_path):
    points = _face()
    with pytest.raises(ReenactError, match="cannot be written"):
        write_landmarks(tmp_path / "none/landmark.txt", points)
    points[0, 0] = np.nan
    with pytest.raises(ReenactError, match="not finite"):
        write_landmarks(tmp_path / "landmark.txt", points)
    assert list(tmp_path.iterdir()) == []
