"""`train` goes from an ini file to checkpoints and says beforehand what is missing."""

import shlex
import signal
import sys
import tempfile
from importlib import import_module

import pytest
import torch
import typer
from reenact import cli_build
from reenact.errors import BackendError, ModelError, ReenactError
from reenact.reference.checkpoints import load_state
from reenact.reference.training import Trained, train
from reenact.reference.training.dataset import FacePairs
from reenact.reference.training.loop import LATEST_STATE
from typer.testing import CliRunner


def unheard(line):
    pass


@pytest.fixture(scope="session")
def vgg_file(filled_vgg, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg19-dcbb9e9d.pth"
    torch.save(filled_vgg.state_dict(), path)
    return path


@pytest.fixture
def config(rho_training_ini, dataset, small, tmp_path):
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
    for line in rho_training_ini.splitlines():
        key = line.partition(" =")[0]
        lines.append(f"{key} = {changes.pop(key)}" if key in changes else line)
    assert not changes
    path = tmp_path / "train.ini"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def command_line():
    """Runs `reenact train` with these words."""
    pytest.importorskip("onnxscript", reason="the command needs onnxscript, which is not installed")
    app = typer.Typer()
    app.command()(cli_build.train)
    return lambda *words: CliRunner().invoke(app, list(words))


def test_a_training_is_logged_stopped_and_resumed_to_its_end(config, vgg_file, tmp_path):
    said: list[str] = []
    done = train("face2face_rho", config, vgg=vgg_file, steps=1, say=said.append)
    folder = tmp_path / "voxceleb"
    assert (done.step, done.epoch, done.folder) == (1, 0, folder)
    command = f"reenact train face2face_rho --config {config} --vgg {vgg_file} --resume"
    assert said[-1] == f"done at step 1, in epoch 0; saved in {folder}; go on with: {command}"
    assert any(path.name.startswith("events.out") for path in (folder / "tensorboard").iterdir())
    done = train("face2face_rho", config, vgg=vgg_file, resume=True, tensorboard=False, say=said.append)
    assert (done.step, done.epoch) == (2, 1)
    assert said[-1] == f"done at step 2, after epoch 0; saved in {folder}"
    assert load_state(folder / "0_rendering_net.pth")


def test_the_printed_command_goes_on_as_it_is_when_pasted(config, vgg_file, command_line):
    spaced = config.rename(config.with_name("train it.ini"))
    said: list[str] = []
    train(
        "face2face_rho",
        spaced,
        vgg=vgg_file,
        steps=1,
        device="cpu",
        precision="amp",
        tensorboard=False,
        say=said.append,
    )
    words = shlex.split(said[-1].partition("go on with: ")[2])
    paths = ["--config", str(spaced), "--vgg", str(vgg_file)]
    options = ["--device", "cpu", "--precision", "amp", "--no-tensorboard", "--resume"]
    assert words == ["reenact", "train", "face2face_rho", *paths, *options]
    done = command_line(*words[2:])
    assert done.exit_code == 0, done.output
    assert "step 2, after epoch 0" in done.stdout


def test_a_run_without_a_step_has_no_line_of_losses(command_line, monkeypatch, tmp_path):
    def ended(terms):
        return Trained(
            tmp_path, 1, 2, terms, interrupted=False, within_epoch=False, saved=True, complete=True
        )

    for terms, line in (({}, ""), ({"warp": 2.5}, f"{tmp_path}: step 2, after epoch 0; warp 2.5\n")):
        how = ended(terms)
        monkeypatch.setattr("reenact.reference.training.train", lambda *given, how=how, **options: how)
        done = command_line("face2face_rho", "--config", "any.ini")
        assert (done.exit_code, done.stdout) == (0, line)


@pytest.mark.parametrize("tensorboard", [True, False])
def test_a_folder_that_cannot_be_written_is_said_before_samples_are_checked(
    config, vgg_file, tmp_path, monkeypatch, tensorboard
):
    monkeypatch.setattr(FacePairs, "check", lambda samples: pytest.fail("samples were checked"))
    (tmp_path / "voxceleb").write_text("a file in the way")
    with pytest.raises(ReenactError, match=r"voxceleb: cannot be written .*choose another checkpoints_dir"):
        train("face2face_rho", config, vgg=vgg_file, tensorboard=tensorboard, say=unheard)


def test_a_folder_that_exists_but_takes_no_files_is_said_first(config, vgg_file, tmp_path, monkeypatch):
    def refused(*_given, dir=None, **_options):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(FacePairs, "check", lambda samples: pytest.fail("samples were checked"))
    with pytest.raises(ReenactError, match=r"voxceleb: cannot be written \(Permission denied\)"):
        train("face2face_rho", config, vgg=vgg_file, tensorboard=False, say=unheard)


def test_a_folder_of_tensorboard_that_cannot_be_written_is_said_alike(config, vgg_file, tmp_path):
    (tmp_path / "voxceleb").mkdir()
    (tmp_path / "voxceleb/tensorboard").write_text("a file in the way")
    with pytest.raises(
        ReenactError, match=r"tensorboard: cannot be written .*choose another checkpoints_dir"
    ):
        train("face2face_rho", config, vgg=vgg_file, say=unheard)


def test_the_probe_of_the_folder_leaves_nothing(config, vgg_file, dataset, tmp_path):
    next(dataset.glob("*/headpose/12.txt")).unlink()
    with pytest.raises(ReenactError, match="training files are wrong"):
        train("face2face_rho", config, vgg=vgg_file, tensorboard=False, say=unheard)
    assert list((tmp_path / "voxceleb").iterdir()) == []


@pytest.mark.parametrize("earlier", [True, False])
def test_a_second_ctrl_c_says_what_is_there(config, vgg_file, tmp_path, monkeypatch, command_line, earlier):
    folder = tmp_path / "voxceleb"
    if earlier:
        config.write_text(config.read_text().replace("num_repeats = 2", "num_repeats = 3"))
        train("face2face_rho", config, vgg=vgg_file, tensorboard=False, steps=1, say=unheard)
    drawn = FacePairs.__getitem__
    count = 0

    def interrupting(samples: FacePairs, draw):
        nonlocal count
        count += 1
        if count == 3:  # in the second step of two samples
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return drawn(samples, draw)

    monkeypatch.setattr(FacePairs, "__getitem__", interrupting)
    words = ["face2face_rho", "--config", str(config), "--vgg", str(vgg_file), "--no-tensorboard"]
    done = command_line(*words, *(["--resume"] if earlier else []))
    assert done.exit_code == 130
    assert "nothing was written" not in done.stderr
    last = done.stderr.splitlines()[-1]
    if earlier:
        go_on = shlex.join(["reenact", "train", *words, "--resume"])
        assert last == f"stopped at once; {folder} holds the state that was saved before; go on with: {go_on}"
    else:
        assert last == f"stopped at once; no state was saved in {folder} yet, so there is nothing to resume"
    assert (folder / LATEST_STATE).exists() == earlier


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
