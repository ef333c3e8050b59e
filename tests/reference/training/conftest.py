"""What the tests of training share: drawn faces in the published folder layout, small settings, a light VGG19."""

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from reenact.reference.fill import Rules, fill
from reenact.reference.training.distributed import Place
from reenact.reference.training.face2face_rho import make_job
from reenact.reference.training.loop import Options, Trainer
from reenact.reference.training.settings import LossWeights, Settings
from reenact.reference.training.vgg import Vgg19
from reenact.runtime.systems.face2face_rho.landmarks import write_head_pose, write_landmarks
from torch import nn
from torch.nn import functional

SIZE = 64
SMALL_NETWORKS = {
    "mobilev2_encoder_channels": [8, 8, 8, 12, 16, 16, 20, 24],
    "mobilev2_decoder_channels": [8, 8, 8, 12, 16, 16, 20, 24],
    "mobilev2_encoder_expansion_factor": [1, 2, 2, 2, 2, 2, 2],
    "mobilev2_decoder_expansion_factor": [1, 2, 2, 2, 2, 2, 2],
    "headpose_embedding_ngf": 2,
    "mn_ngf": 4,
    "mn_n_blocks_local": 1,
    "disc_block_expansion": 8,
}
SCALES = (1.0, 0.5, 0.25)


class LightVgg(nn.Module):
    """Random features of the right sizes, with a hundredth of VGG19's work."""

    def __init__(self):
        super().__init__()
        self.features = nn.ModuleList(nn.Conv2d(8 if i else 3, 8, 3, 1, 1) for i in range(5))
        fill(self, Rules())
        self.requires_grad_(False)

    def forward(self, picture):
        maps = []
        for i, layer in enumerate(self.features):
            picture = torch.relu(layer(functional.avg_pool2d(picture, 2) if i else picture))
            maps.append(picture)
        return tuple(maps)


def keypoints(x, y, turn):
    """(72, 2) of a schematic face around (x, y); `turn` shifts its inner parts."""
    points = np.zeros((72, 2), np.float32)
    left = np.linspace(np.pi, np.pi / 2, 9)
    points[0:9] = np.stack([np.cos(left) * 0.5, np.sin(left) * 0.65], 1)
    right = np.linspace(0, np.pi / 2, 9)[:8]
    points[9:17] = np.stack([np.cos(right) * 0.5, np.sin(right) * 0.65], 1)
    for first, count, centre, width, height in (
        (17, 5, (-0.22, -0.2), 0.12, 0.03),
        (22, 5, (0.22, -0.2), 0.12, 0.03),
        (27, 9, (0, 0.1), 0.08, 0.12),
        (36, 8, (-0.22, -0.08), 0.1, 0.05),
        (44, 8, (0.22, -0.08), 0.1, 0.05),
        (52, 20, (0, 0.35), 0.2, 0.08),
    ):
        angle = np.linspace(np.pi, 3 * np.pi, count, endpoint=False)
        points[first : first + count] = np.stack([np.cos(angle) * width, np.sin(angle) * height], 1) + centre
        points[first : first + count, 0] += turn
    return points + np.array([x, y], np.float32)


def draw_face(points, colour, size):
    """(size, size, 3) and its mask (size, size), uint8."""
    picture = np.full((size, size, 3), 60, np.uint8)
    picture[:, :: size // 8] = 90
    mask = np.zeros((size, size), np.uint8)
    pixels = np.round((points + 1) / 2 * (size - 1)).astype(np.int32)
    outline = np.concatenate([pixels[0:9], pixels[16:8:-1]])
    top = pixels[[9, 0]] - np.array([0, size // 6], np.int32)
    outline = np.concatenate([outline, top])
    cv2.fillPoly(picture, [outline], colour)
    cv2.fillPoly(mask, [outline], 255)
    for first, last in ((36, 44), (44, 52), (52, 72)):
        cv2.fillPoly(picture, [pixels[first:last]], (40, 30, 90))
    return picture, mask


def draw_dataset(root, *, persons=2, videos=1, frames=2, size=SIZE):
    """Writes a folder in the published layout."""
    names = []
    for person in range(persons):
        for video in range(videos):
            name = f"id1000{person}#take{video}#0#{frames}"
            names.append(name)
            folders = {kind: root / name / kind for kind in ("img", "landmark", "headpose", "mask")}
            for folder in folders.values():
                folder.mkdir(parents=True)
            for frame in range(frames):
                shift = 0.15 * frame
                points = keypoints(0.1 * person - shift, 0.05 * frame, 0.1 * frame - 0.05)
                picture, mask = draw_face(points, (150 + 40 * person, 180 - 30 * person, 210), size)
                stem = str(9 + 3 * frame)  # 9, 12, ...: by number, not by letters
                cv2.imwrite(str(folders["img"] / f"{stem}.jpg"), picture)
                cv2.imwrite(str(folders["mask"] / f"{stem}.png"), mask)
                write_landmarks(folders["landmark"] / f"{stem}.txt", points)
                pose = np.array([0.1, 0.2 * frame, 0, 0.25, -0.25, 0.0012], np.float32)
                write_head_pose(folders["headpose"] / f"{stem}.txt", pose)
    (root / "list.txt").write_text("".join(f"{name}\n" for name in names))
    return root


@pytest.fixture
def dataset(tmp_path):
    """Two persons, one video each of two frames, 64 x 64."""
    return draw_dataset(tmp_path / "faces")


@pytest.fixture(scope="session")
def filled_vgg():
    vgg = Vgg19()
    fill(vgg, Rules())
    return vgg


@pytest.fixture
def small(dataset, tmp_path):
    """Makes Face2Face-rho trainers of small networks: `small.trainer()`."""

    def settings(**changes):
        given = {
            "folder": tmp_path / "checkpoints",
            "data": dataset,
            "networks": SMALL_NETWORKS,
            "size": SIZE,
            "num_repeats": 2,
            "batch_size": 2,
            "workers": 0,
            "weights": LossWeights(scales=SCALES),
            "device": "cpu",
        }
        return Settings(**(given | changes))

    def trainer(options=None, **changes):
        vgg: Any = LightVgg()
        job = make_job(settings(**changes), vgg, say=said.append)
        return Trainer(job, Place(torch.device("cpu")), options or Options(), said.append)

    said: list[str] = []
    return SimpleNamespace(trainer=trainer, said=said, networks=SMALL_NETWORKS, scales=SCALES)


@pytest.fixture
def draw_dataset_at():
    """Draws a dataset into a folder: `draw_dataset_at(root, persons=..., videos=..., frames=..., size=...)`."""
    return draw_dataset
