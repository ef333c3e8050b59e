"""Photos of subjects are drawn, cropped and marked as their files say; what is wrong with a file is said first."""

import cv2
import numpy as np
import pytest
import torch
from reenact.errors import MediaError, ReenactError
from reenact.reference.training.deca_data import Crops, SubjectPhotos, read_photo_set
from reenact.reference.training.order import Draw

from . import faces

FIXED = Crops(1.5, 1.5)
BOX = (40.0, 30.0, 100.0, 110.0)  # of the landmarks: left, top, right, bottom


def points():
    left, top, right, bottom = BOX
    random = np.random.default_rng(3)
    inside = random.uniform((left, top), (right, bottom), (68, 2))
    inside[0], inside[1] = (left, top), (right, bottom)
    return inside


def shot(colour=120):
    picture = np.full((160, 140, 3), colour, np.uint8)
    picture[60:64, 70:74] = (250, 10, 40)
    mask = np.zeros((160, 140), np.float32)
    mask[:, 70:] = 1
    return picture, points(), mask


@pytest.fixture
def folder(tmp_path):
    """Three subjects of two photos."""
    table = [[f"{person}/{number}" for number in range(2)] for person in "abc"]
    for row in table:
        for name in row:
            faces.write_photo(tmp_path, name, shot())
    np.save(tmp_path / "list.npy", np.array(table))
    return tmp_path


def samples(folder, photos=2, crops=FIXED, **options):
    return SubjectPhotos([read_photo_set(folder, photos)], photos=photos, crops=crops, repeats=1, **options)


def test_a_sample_has_photos_landmarks_and_masks_of_one_crop(folder):
    item = samples(folder)[Draw(0, 1)]
    assert {name: tuple(value.shape) for name, value in item.items()} == {
        "images": (2, 3, 224, 224),
        "landmarks": (2, 68, 3),
        "masks": (2, 1, 224, 224),
    }
    left, top, right, bottom = BOX
    size = int((right - left + bottom - top) / 2 * 1.5)
    factor = 223 / size
    corner = np.array([(left + right) / 2 - size / 2, (top + bottom) / 2 - size / 2])
    expected = 2 * (points() - corner) * factor / 224 - 1
    assert torch.allclose(item["landmarks"][0, :, :2], torch.from_numpy(expected).float(), atol=1e-6)
    assert (item["landmarks"][..., 2] == 1).all()
    x, y = ((np.array([71.5, 61.5]) - corner) * factor).round().astype(int)
    assert torch.allclose(item["images"][0, :, y, x], torch.tensor([250, 10, 40]) / 255, atol=1e-5)
    assert item["masks"][0, 0, y, x] == 1
    edge = (70 - corner[0]) * factor
    assert item["masks"][0, 0, y, int(edge) - 3] == 0


def test_crops_differ_within_their_play_and_depend_on_the_draw_alone(folder):
    drawn = samples(folder, crops=Crops(1.4, 1.8, 0.1))
    widths = []
    for epoch in range(10):
        for item in drawn[Draw(epoch, 0)]["landmarks"]:
            widths.append(np.ptp(item[:, 0].numpy()) * 112)
    expected = [60 * 223 / (70 * scale) for scale in (1.8, 1.4)]
    assert min(widths) >= expected[0] * 0.98
    assert max(widths) <= expected[1] * 1.02
    assert np.ptp(widths) > 10
    again = samples(folder, crops=Crops(1.4, 1.8, 0.1))[Draw(4, 0)]
    assert torch.equal(again["landmarks"], drawn[Draw(4, 0)]["landmarks"])
    other = samples(folder, crops=Crops(1.4, 1.8, 0.1), seed=1)[Draw(4, 0)]
    assert not torch.equal(again["landmarks"], other["landmarks"])


def test_a_table_gives_the_first_five_photos_each_once(folder):
    np.save(folder / "list.npy", np.array([[f"a/{number}" for number in range(7)]]))
    (names,) = read_photo_set(folder, 3).subjects
    assert names == tuple(f"a/{number}" for number in range(5))
    assert not read_photo_set(folder, 3).again
    assert len(read_photo_set(folder, 6).subjects[0]) == 6


def test_a_plain_list_has_persons_whose_frames_may_come_twice(folder):
    np.save(folder / "list.npy", np.array(["a/v/0", "b/v/1", "a/w/2"]))
    found = read_photo_set(folder, 5)
    assert found.subjects == (("a/v/0", "a/w/2"), ("b/v/1",))
    assert found.again


def test_photos_without_a_mask_are_skin_all_over_and_counted(folder):
    (folder / "masks/a/0.npy").unlink()
    (folder / "masks/a/1.npy").unlink()
    drawn = samples(folder)
    assert drawn.unmarked() == (2, 6)
    drawn.check()
    masks = drawn[Draw(0, 0)]["masks"]
    assert (masks[:, :, 60:160, 60:160] == 1).all()


def test_a_jpeg_goes_before_a_png(folder):
    cv2.imwrite(str(folder / "images/a/0.jpg"), np.full((160, 140, 3), 255, np.uint8))
    photo_set = read_photo_set(folder, 2)
    assert photo_set.photo("a/0").name == "0.jpg"
    assert photo_set.photo("a/1").name == "1.png"


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (
            "landmarks/a/1.npy",
            np.zeros((67, 2)),
            r"landmarks/a/1\.npy: is \(67, 2\) of float64; expected \(68, 2",
        ),
        ("landmarks/a/1.npy", np.full((68, 2), np.nan), r"a/1\.npy: its landmarks are no 68 finite points"),
        ("landmarks/a/1.npy", np.full((68, 2), 5.0), r"a/1\.npy: its landmarks are no 68 finite points"),
        (
            "landmarks/b/0.npy",
            np.array([{}], object),
            r"b/0\.npy: holds objects, which only executing a pickle",
        ),
        ("landmarks/b/0.npy", b"\x93NUMPY", r"b/0\.npy: is cut short, or no NumPy file"),
        ("landmarks/b/0.npy", None, r"b/0\.npy: cannot be read \(No such file"),
        (
            "masks/a/0.npy",
            np.zeros((160, 139)),
            r"masks/a/0\.npy: is \(160, 139\); expected \(160, 140\) as its photo",
        ),
        ("masks/a/1.npy", np.zeros((3, 160, 140)), r"masks/a/1\.npy: is \(3, 160, 140\) .*expected \(H, W\)"),
        ("images/a/1.png", b"no picture", r"images/a/1\.png: is no png picture"),
        ("images/c/0.png", b"\x89PNG\r\n\x1a\n....", r"images/c/0\.png: cannot be (decoded|read)"),
    ],
)
def test_wrong_files_are_named_before_training(folder, path, change, message):
    if change is None:
        (folder / path).unlink()
    elif isinstance(change, bytes):
        (folder / path).write_bytes(change)
    else:
        np.save(folder / path, change)
    with pytest.raises(ReenactError, match=rf"1 of the training files are wrong: .*{message}.*list\.npy"):
        samples(folder).check()


def test_a_mask_that_is_found_too_small_later_is_named(folder):
    np.save(folder / "masks/a/1.npy", np.zeros((10, 10)))
    drawn = samples(folder)
    drawn.check()
    with pytest.raises(MediaError, match=r"masks/a/1\.npy: is \(10, 10\); expected \(160, 140\)"):
        drawn[Draw(0, 0)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            np.array([["a/0", "a/1"]], object),
            r"list\.npy: holds objects, .*numpy\.save\(path, table\.astype\(str\)\)",
        ),
        (np.zeros((3, 2)), r"list\.npy: is \(3, 2\) of float64; expected names as plain texts"),
        (np.array([["a/0"]]), r"has 1 photos of each subject; num_images 2 needs as many"),
        (np.array([["a/0", "../x"]]), r"'\.\./x' is not the name of a photo below"),
        (np.array([["a/0", "/etc/x"]]), "is not the name of a photo below"),
        (np.array(["a0", "a1"]), "'a0' does not say whose it is"),
        (np.array([], str), r"list\.npy: is \(0,\)"),
    ],
)
def test_a_list_that_cannot_be_used_is_said(folder, table, message):
    np.save(folder / "list.npy", table)
    with pytest.raises(ReenactError, match=message):
        read_photo_set(folder, 2)


def test_a_folder_without_a_list_is_said(tmp_path):
    with pytest.raises(ReenactError, match=r"list\.npy: cannot be read .*a folder of data has such a file"):
        read_photo_set(tmp_path, 2)


def test_names_in_bytes_are_names(folder):
    np.save(folder / "list.npy", np.array([[b"a/0", b"a/1"]]))
    assert read_photo_set(folder, 2).subjects == (("a/0", "a/1"),)
