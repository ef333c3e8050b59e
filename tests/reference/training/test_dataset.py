"""Pairs come out of the published folder layout as described, and a wrong file is named before training."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from reenact.errors import MediaError, ReenactError
from reenact.reference.training.dataset import FacePairs, read_videos
from reenact.reference.training.order import Draw
from reenact.runtime.systems.face2face_rho.landmarks import draw_landmark_images, read_landmarks


def pairs(root, size=64, repeats=3, seed=0):
    return FacePairs(read_videos(root), size=size, repeats=repeats, seed=seed)


def first_folder(root):
    return sorted(path for path in root.iterdir() if path.is_dir())[0]


def test_a_sample_has_two_frames_of_one_video_the_earlier_as_source(draw_dataset_at, tmp_path):
    root = draw_dataset_at(tmp_path / "set", persons=2, videos=2, frames=4)
    samples = pairs(root)
    assert len(samples) == 6
    seen = set()
    for epoch in range(40):
        video, source, driving = samples.choose(Draw(epoch, 1))
        assert video.person == "id10001"
        assert int(source) < int(driving)
        seen.add((video.folder.name, source, driving))
    assert len({name for name, *_ in seen}) == 2
    assert len({(source, driving) for _, source, driving in seen}) == 6


def test_the_same_draw_gives_the_same_sample(dataset):
    first, second = pairs(dataset), pairs(dataset)
    for name, value in first[Draw(3, 2)].items():
        assert torch.equal(value, second[Draw(3, 2)][name])


def test_a_samples_tensors_are_as_documented(dataset):
    sample = pairs(dataset)[Draw(0, 0)]
    shapes = {name: tuple(value.shape) for name, value in sample.items()}
    expected: dict[str, tuple[int, ...]] = {"mask": (1, 64, 64)}
    for role in ("source", "driving"):
        expected |= {role: (3, 64, 64), f"{role}_headpose": (6,)}
        expected |= {f"{role}_landmarks_{k}": (3, 64 // k, 64 // k) for k in (16, 8, 4)}
    assert shapes == expected
    assert {value.dtype for value in sample.values()} == {torch.float32}
    assert set(sample["mask"].unique().tolist()) == {0, 1}


def test_pictures_are_rgb_and_landmarks_are_the_drawn_ones(dataset):
    sample = pairs(dataset)[Draw(0, 0)]
    folder = first_folder(dataset)
    bgr = np.asarray(cv2.imread(str(folder / "img/9.jpg")))
    assert np.allclose(
        sample["source"].numpy(), bgr[:, :, ::-1].transpose(2, 0, 1) * (2 / 255) - 1, atol=1e-6
    )
    drawn = draw_landmark_images(read_landmarks(folder / "landmark/12.txt"), 64)[2]
    given = (sample["driving_landmarks_4"].numpy().transpose(1, 2, 0) + 1) / 2 * 255
    assert np.array_equal(given.round().astype(np.uint8), drawn)
    mask = cv2.imread(str(folder / "mask/12.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(sample["mask"][0].numpy() == 1, mask == 255)


def test_pictures_of_another_size_are_brought_to_it(draw_dataset_at, tmp_path):
    root = draw_dataset_at(tmp_path / "set", size=128)
    large, small = pairs(root, size=128)[Draw(0, 0)], pairs(root, size=64)[Draw(0, 0)]
    assert small["source"].shape == (3, 64, 64)
    averaged = torch.nn.functional.avg_pool2d(large["source"], 2)
    assert (small["source"] - averaged).abs().max() < 0.01
    assert set(small["mask"].unique().tolist()) == {0, 1}


def test_persons_are_told_apart_by_their_whole_name(draw_dataset_at, tmp_path):
    root = draw_dataset_at(tmp_path / "set", persons=1)
    shutil.copytree(root / "id10000#take0#0#2", root / "id1000#take0#0#2")
    (root / "list.txt").write_text("id10000#take0#0#2\nid1000#take0#0#2\n\n")
    samples = pairs(root, repeats=1)
    assert [samples.choose(Draw(0, i))[0].person for i in range(2)] == ["id1000", "id10000"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "list.txt").unlink(), r"list\.txt: cannot be read .* list\.txt that names"),
        (lambda root: (root / "list.txt").write_text(" \n"), r"list\.txt: is empty"),
        (lambda root: (root / "list.txt").write_text("../x#1\n"), "is not <person>#<video>"),
        (lambda root: (root / "list.txt").write_text("alone\n"), "'alone' is not <person>#<video>"),
        (lambda root: shutil.rmtree(first_folder(root) / "img"), "img cannot be read"),
        (lambda root: (first_folder(root) / "img/9.jpg").unlink(), "has 1 frames"),
        (lambda root: (first_folder(root) / "img/a.jpg").touch(), r"a\.jpg is not named by a number"),
        (lambda root: (first_folder(root) / "img/009.jpg").touch(), "two frames of one number"),
    ],
)
def test_a_list_or_folder_that_cannot_be_used_is_named(dataset, spoil, message):
    spoil(dataset)
    with pytest.raises(ReenactError, match=message):
        read_videos(dataset)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "landmark/12.txt").unlink(), r"landmark/12\.txt: cannot be read"),
        (lambda folder: (folder / "headpose/12.txt").write_text("1\n2\n"), r"headpose/12\.txt: 2 lines"),
        (lambda folder: (folder / "mask/12.png").unlink(), r"mask/12\.png: cannot be read"),
        (lambda folder: (folder / "img/12.jpg").write_bytes(b""), r"img/12\.jpg: is no jpg picture"),
        (
            lambda folder: (folder / "img/9.jpg").write_bytes(b"\xff\xd8\xff" + b"0" * 50),
            r"img/9\.jpg: cannot be decoded",
        ),
        (
            lambda folder: cv2.imwrite(str(folder / "mask/9.png"), np.zeros((8, 8), np.uint8)),
            r"mask/9\.png: is uint8 of \(8, 8\); expected one channel of 8 bits and \(64, 64\)",
        ),
        (
            lambda folder: cv2.imwrite(str(folder / "mask/9.png"), np.zeros((64, 64, 3), np.uint8)),
            r"mask/9\.png: is uint8 of \(64, 64, 3\)",
        ),
    ],
)
def test_a_missing_or_odd_file_is_named_before_training(dataset, spoil, message):
    spoil(first_folder(dataset))
    with pytest.raises(ReenactError, match=message):
        pairs(dataset).check()


def test_many_wrong_files_are_counted_and_the_first_ones_named(draw_dataset_at, tmp_path):
    root = draw_dataset_at(tmp_path / "set", frames=4)
    for path in root.glob("*/headpose/*.txt"):
        path.unlink()
    with pytest.raises(
        ReenactError, match=r"8 of the training files are wrong: .*; and 3 more\. Mend"
    ) as error:
        pairs(root).check()
    assert str(error.value).count("cannot be read") == 5


def test_a_picture_that_is_damaged_later_on_is_named_when_it_is_read(dataset):
    samples = pairs(dataset)
    (first_folder(dataset) / "img/12.jpg").write_bytes(b"\xff\xd8\xffnothing")
    with pytest.raises(MediaError, match=r"img/12\.jpg: cannot be decoded"):
        samples[Draw(0, 0)]


def test_the_published_samples_are_read(shared_data):
    root = shared_data / "face2facerho/trainingset/VoxCeleb"
    if not root.is_dir():
        pytest.skip("the published training samples are not in ../shared/data/face2facerho/trainingset")
    videos = read_videos(root)
    assert [(video.person, video.frames) for video in videos] == [
        ("id10001", ("54", "150")),
        ("id10009", ("82", "89")),
    ]
    samples = FacePairs(videos, size=512, repeats=60)
    samples.check()
    assert len(samples) == 120
    sample = samples[Draw(0, 1)]
    assert sample["source"].shape == (3, 512, 512)
    assert sample["source_headpose"].tolist() == pytest.approx(
        [0.0632977, -0.149218, 0.0846878, 0.245892, -0.229037, 0.00108858]
    )
    assert sample["mask"].mean().item() == pytest.approx(31406 / 512**2, rel=0.05)
