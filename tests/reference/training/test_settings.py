"""A training's settings come from the official ini file, and what cannot work is said by its key."""

from pathlib import Path

import pytest
from reenact.errors import ReenactError
from reenact.reference.training.settings import LossWeights, Settings, read_training_settings


@pytest.fixture
def read(rho_training_ini, tmp_path):
    def make(*changes):
        text = rho_training_ini
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        path = tmp_path / "train.ini"
        path.write_text(text)
        return read_training_settings(path)

    return make


def test_the_official_settings_are_the_defaults(read):
    settings = read()
    plain = Settings(folder=Path("checkpoints/voxceleb"), data=Path("faces"), networks=settings.networks)
    assert settings == plain
    assert settings.epochs == range(106)
    assert settings.weights == LossWeights()


def test_continuing_begins_with_the_iteration_or_else_the_epoch(read):
    assert read().start is None
    go_on = ("continue_train = False", "continue_train = True")
    assert read(go_on).start == "latest"
    assert read(go_on, ("load_iter = 0", "load_iter = 20000")).start == "iter_20000"


def test_switches_of_the_file_are_followed(read):
    settings = read(
        ("gpu_ids = 0,1", "gpu_ids = -1"),
        ("serial_batches = False", "serial_batches = True"),
        ("emphasize_face_area = True", "emphasize_face_area = False"),
    )
    assert (settings.device, settings.shuffle, settings.weights.face_area) == ("cpu", False, 1.0)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("isTrain = True", "isTrain = False", "isTrain is not True"),
        ("init_type = none", "init_type = xavier", "init_type is xavier; only none"),
        ("output_size = 512", "output_size = 1440", "output_size is 1440; expected a multiple of 64"),
        ("lr_policy = lambda", "lr_policy = warm", "lr_policy is warm; expected one of lambda, linear, step"),
        ("batch_size = 6", "batch_size = 0", "batch_size is 0; expected 1 or more"),
        ("lr = 0.0002", "lr = 0", "lr is 0.0; expected above 0"),
        ("loss_scales = 1,0.5", "loss_scales = 1,0.3", "loss_scales is .* expected 1 over whole numbers"),
        ("output_size = 512", "output_size = 64", "output_size 64 has 8 pixels; VGG19 needs 16"),
        (
            "epoch_count = 0",
            "epoch_count = 106",
            r"epoch_count is 106; expected at most niter \+ niter_decay",
        ),
        ("niter = 90\n", "", "lacks niter"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_its_file(read, before, after, message):
    with pytest.raises(ReenactError, match=rf"train\.ini: .*{message}"):
        read((before, after))
