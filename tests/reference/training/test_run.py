"""`train` goes from an ini file to checkpoints and says beforehand what is missing."""

import sys
from importlib import import_module

import pytest
import torch
from reenact.errors import BackendError, ModelError, ReenactError
from reenact.reference.checkpoints import load_state
from reenact.reference.training import train


def unheard(line):
    pass


@pytest.fixture(scope="session")
def vgg_file(filled_vgg, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg19-dcbb9e9d.pth"
    torch.save(filled_vgg.state_dict(), path)
    return path


@pytest.fixture
def config(official_ini, dataset, small, tmp_path):
    """The official settings for small networks, two drawn persons and one epoch of two steps."""
    changes = {
        **{
            name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
            for name, value in small.networks.items()
        },
        "gpu_ids": "-1",
        "checkpoints_dir": str(tmp_path),
        "dataroot": str(dataset),
        "output_size": "64",
        "loss_scales": "1,0.5",
        "num_repeats": "2",
        "batch_size": "2",
        "num_threads": "0",
        "niter": "0",
        "niter_decay": "0",
    }
    lines = []
    for line in official_ini.splitlines():
        key = line.partition(" =")[0]
        lines.append(f"{key} = {changes.pop(key)}" if key in changes else line)
    assert not changes
    path = tmp_path / "train.ini"
    path.write_text("\n".join(lines))
    return path


def test_a_training_is_logged_stopped_and_resumed_to_its_end(config, vgg_file, tmp_path):
    said: list[str] = []
    done = train("face2face_rho", config, vgg=vgg_file, steps=1, say=said.append)
    folder = tmp_path / "voxceleb"
    assert (done.step, done.epoch, done.folder) == (1, 0, folder)
    assert f"reenact train face2face_rho --config {config} --resume" in said[-1]
    assert any(path.name.startswith("events.out") for path in (folder / "tensorboard").iterdir())
    done = train("face2face_rho", config, vgg=vgg_file, resume=True, tensorboard=False, say=said.append)
    assert (done.step, done.epoch) == (2, 1)
    assert "--resume" not in said[-1]
    assert load_state(folder / "0_rendering_net.pth")


def test_an_earlier_training_is_not_overwritten(config, vgg_file, tmp_path):
    (tmp_path / "voxceleb").mkdir()
    (tmp_path / "voxceleb/latest_state.pth").touch()
    with pytest.raises(
        ReenactError, match=r"latest_state\.pth: is of an earlier training; go on with --resume"
    ):
        train("face2face_rho", config, vgg=vgg_file, tensorboard=False, say=unheard)


def test_workers_and_pictures_reach_tensorboard(config, vgg_file, tmp_path):
    reading = import_module("tensorboard.backend.event_processing.event_accumulator")
    config.write_text(config.read_text().replace("num_threads = 0", "num_threads = 1"))
    train("face2face_rho", config, vgg=vgg_file, steps=1, say=unheard)
    events = reading.EventAccumulator(str(tmp_path / "voxceleb/tensorboard"))
    events.Reload()
    assert "loss/reconstruction" in events.Tags()["scalars"]
    assert "samples_per_second" in events.Tags()["scalars"]
    picture = events.Images("pictures")[0]
    assert (picture.width, picture.height) == (3 * 64, 2 * 64)


def test_absent_tensorboard_is_said_before_anything_else(config, vgg_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ReenactError, match="pip install tensorboard, or train with --no-tensorboard"):
        train("face2face_rho", config, vgg=vgg_file, say=unheard)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"system": "meshwarp"},
            ReenactError,
            "no training is known for 'meshwarp'; there is one for face2face_rho",
        ),
        ({"steps": 0}, ReenactError, "steps is 0"),
        ({"precision": "fp16"}, ReenactError, "precision is fp16; expected one of fp32, amp"),
        ({"resume": True}, ModelError, "nothing to resume"),
        ({"device": "tpu"}, BackendError, "not on 'tpu'"),
    ],
)
def test_what_cannot_be_done_is_an_error(config, vgg_file, change, error, message):
    given = {"system": "face2face_rho", "vgg": vgg_file, "tensorboard": False, "say": unheard} | change
    with pytest.raises(error, match=message):
        train(given.pop("system"), config, **given)


def test_without_vgg_the_way_to_it_is_said(config, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(ModelError, match=r"download\.pytorch\.org/models/vgg19-dcbb9e9d\.pth"):
        train("face2face_rho", config, tensorboard=False, say=unheard)


def test_every_training_file_is_looked_at_first(config, vgg_file, dataset):
    next(dataset.glob("*/headpose/12.txt")).unlink()
    with pytest.raises(ReenactError, match=r"1 of the training files are wrong: .*headpose/12\.txt"):
        train("face2face_rho", config, vgg=vgg_file, tensorboard=False, say=unheard)
