"""A settings file of DECA's says a stage; where it is silent the published numbers hold, and nothing wrong passes."""

from pathlib import Path

import pytest
from reenact.errors import ReenactError
from reenact.reference.training.deca_data import Crops
from reenact.reference.training.deca_settings import CoarseWeights, DetailWeights, read_deca_settings

NEEDED = {"checkpoints_dir": "checkpoints", "name": "faces", "dataroot": "vgg, vox"}


@pytest.fixture
def read(tmp_path):
    """Reads settings of these keys."""

    def write(**keys):
        path = tmp_path / "deca.ini"
        lines = [f"{key} = {value}\n" for key, value in (NEEDED | keys).items() if value is not None]
        path.write_text("[deca]\n" + "".join(lines))
        return read_deca_settings(path)

    return write


@pytest.mark.parametrize(
    ("stage", "batch_size", "photos", "steps", "weights"),
    [
        ("pretrain", 64, 1, 100_000, CoarseWeights(1, 1, 0.5, 0, 0, 1e-4, 1e-4, 0, 0)),
        ("coarse", 8, 2, 200_000, CoarseWeights(1, 1, 0.5, 2, 0.2, 1e-4, 1e-4, 1e-4, 1)),
        ("detail", 2, 4, 1_000_000, DetailWeights(2, 0.1, 0.005, 0.005, 0.005)),
    ],
)
def test_a_silent_file_means_the_published_numbers(read, stage, batch_size, photos, steps, weights):
    settings = read(stage=stage, start="first.tar")
    assert (settings.batch_size, settings.photos, settings.steps) == (batch_size, photos, steps)
    assert settings.weights == weights
    assert (settings.learning_rate, settings.epochs, settings.crops) == (1e-4, 10, Crops(1.4, 1.8, 0.0))
    assert settings.data == (Path("vgg"), Path("vox"))
    assert settings.folder == Path("checkpoints/faces")
    assert settings.start == Path("first.tar")
    assert settings.consistency
    assert settings.shuffle
    assert settings.device == "cuda"


def test_what_a_file_says_holds(read):
    settings = read(
        stage="coarse", batch_size=3, num_images=4, max_steps=7, max_epochs=2, num_repeats=5, num_threads=0, lr=0.5,
        serial_batches="True", consistency="False", device="cpu", scale_min=1.1, scale_max=1.2, trans_scale=0.3,
        photo_weight=0, identity_weight=0, resnet_path="resnet.pth", fr_model_path="face.pkl",
    )  # fmt: skip
    assert (settings.batch_size, settings.photos, settings.steps, settings.epochs) == (3, 4, 7, 2)
    assert (settings.repeats, settings.workers, settings.learning_rate) == (5, 0, 0.5)
    assert not settings.shuffle
    assert not settings.consistency
    assert settings.device == "cpu"
    assert settings.crops == Crops(1.1, 1.2, 0.3)
    assert settings.weights == CoarseWeights(photo=0, identity=0)
    assert (settings.resnet, settings.recognition) == (Path("resnet.pth"), Path("face.pkl"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, r"deca\.ini: \[deca\] lacks stage"),
        ({"stage": "fine"}, "stage is 'fine'; expected one of pretrain, coarse, detail"),
        ({"stage": "coarse", "dataroot": None}, "lacks dataroot"),
        ({"stage": "coarse", "dataroot": " , "}, "dataroot is empty"),
        ({"stage": "coarse", "mrf_weight": 1}, "unknown key mrf_weight"),
        ({"stage": "detail", "start": "a", "photo_wieght": 1}, "did you mean photo_weight"),
        ({"stage": "coarse", "batch_size": 0}, r"deca\.ini: batch_size is 0; expected 1 or more"),
        ({"stage": "coarse", "batch_size": "x"}, "batch_size is 'x'; expected an integer"),
        ({"stage": "coarse", "scale_min": 2}, "scale_min is 2.0; expected above 0, at most scale_max"),
        ({"stage": "coarse", "eye_weight": -1}, "eye_weight is -1.0; expected 0 or more"),
        ({"stage": "coarse", "device": "tpu"}, "device is tpu; expected cpu or cuda"),
        ({"stage": "coarse", "start": "a", "resnet_path": "b"}, "leave out one of the two"),
        ({"stage": "detail"}, "start is missing; expected weights with a trained E_flame"),
    ],
)
def test_a_wrong_setting_is_named(read, keys, message):
    with pytest.raises(ReenactError, match=message):
        read(**keys)
