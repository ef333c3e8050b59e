"""`train("deca", ...)` goes from settings and the files that users add to checkpoints; what is missing is said."""

import pytest
import torch
from reenact.errors import ModelError
from reenact.reference.kept import kept_file, pack
from reenact.reference.stand_in import stand_in_model, stand_in_template
from reenact.reference.stand_in_landmarks import stand_in_landmarks
from reenact.reference.training import deca, train
from reenact.reference.training.deca_settings import Settings

from . import faces


def unheard(line):
    pass


@pytest.fixture(scope="module")
def added(tmp_path_factory):
    """A home in which a made-up head was added, without skin colours."""
    home, patch = tmp_path_factory.mktemp("home"), pytest.MonkeyPatch()
    with patch.context() as changed:
        changed.setenv("REENACT_HOME", str(home))
        for record in (stand_in_model(), stand_in_landmarks(), stand_in_template()):
            path = kept_file(type(record))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pack(record, "made up", "free"))
    return home


@pytest.fixture
def config(added, tmp_path, monkeypatch):
    """Writes settings: `config(stage="pretrain")`."""
    monkeypatch.setenv("REENACT_HOME", str(added))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    faces.write_set(tmp_path / "photos", faces.stand_in_face(), {"anna": [{}, {}], "bert": [{}, {}]})

    def write(**keys):
        given = {
            "checkpoints_dir": tmp_path,
            "name": "out",
            "dataroot": tmp_path / "photos",
            "device": "cpu",
            "num_threads": 0,
            "batch_size": 2,
            "max_steps": 3,
        }
        path = tmp_path / "deca.ini"
        lines = [f"{key} = {value}\n" for key, value in (given | keys).items()]
        path.write_text("[deca]\n" + "".join(lines))
        return path

    return write


@pytest.fixture
def light(monkeypatch):
    monkeypatch.setattr(deca, "new_networks", lambda settings, *, say: faces.light_networks())


def test_a_stage_is_trained_stopped_and_resumed_to_its_last_step(config, light, tmp_path):
    said: list[str] = []
    path = config(stage="pretrain")
    done = train("deca", path, steps=2, tensorboard=False, say=said.append)
    assert (done.step, done.complete) == (2, False)
    assert said[-1].endswith(f"go on with: reenact train deca --config {path} --no-tensorboard --resume")
    assert any(line == f"{tmp_path / 'photos'}: 2 subjects, 4 photos" for line in said)
    said.clear()
    done = train("deca", path, resume=True, tensorboard=False, say=said.append)
    assert (done.step, done.complete) == (3, True)
    assert said[-1] == f"done at step 3, after epoch 2; saved in {tmp_path / 'out'}"
    written = torch.load(tmp_path / "out/deca_model.tar", weights_only=True)
    assert set(written) == {"E_flame", "E_detail", "D_detail"}
    assert (tmp_path / "out/0_deca_model.tar").is_file()


def test_colours_that_were_not_added_are_said_with_the_losses_that_need_them(config):
    with pytest.raises(
        ModelError, match=r"photo_weight and identity_weight ask .*set photo_weight = 0 and identity"
    ):
        train("deca", config(stage="coarse"), tensorboard=False, say=unheard)
    with pytest.raises(ModelError, match=r"photo_weight and mrf_weight ask .*FLAME_albedo_from_BFM\.npz"):
        train("deca", config(stage="detail", start="x"), tensorboard=False, say=unheard)


def test_without_pictures_coarse_needs_no_colours(config, light):
    path = config(stage="coarse", photo_weight=0, identity_weight=0, max_steps=1)
    assert "light" in train("deca", path, tensorboard=False, say=unheard).terms


def test_networks_that_are_missing_are_said_with_their_losses(config, monkeypatch, tmp_path):
    monkeypatch.setattr(deca, "kept_albedo", faces.albedo)
    path = config(stage="coarse")
    with pytest.raises(
        ModelError, match=r"identity loss .*fr_model_path in the settings, or set identity_weight = 0"
    ):
        train("deca", path, tensorboard=False, say=unheard)
    path = config(stage="coarse", fr_model_path=tmp_path / "none.pkl")
    with pytest.raises(
        ModelError, match=r"none\.pkl.* or set identity_weight = 0 to train without the identity loss"
    ):
        train("deca", path, tensorboard=False, say=unheard)
    path = config(stage="detail", start="x")
    with pytest.raises(ModelError, match=r"vgg19.*or set mrf_weight = 0 to train without the ID-MRF loss"):
        train("deca", path, tensorboard=False, say=unheard)


def test_the_head_that_was_not_added_is_said(config, monkeypatch, tmp_path):
    monkeypatch.setenv("REENACT_HOME", str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"flame has not been added: reenact models add flame"):
        train("deca", config(stage="pretrain"), tensorboard=False, say=unheard)


def test_encoders_begin_with_torchvisions_file(tmp_path):
    given = deca.new_networks(Settings.of_stage("pretrain", tmp_path, (tmp_path,)), say=unheard, seed=4)
    file = given["E_flame"].encoder.state_dict() | {  # type: ignore[union-attr]
        "fc.weight": torch.zeros(2, 2048),
        "fc.bias": torch.zeros(2),
    }
    torch.save(file, tmp_path / "resnet50.pth")
    settings = Settings.of_stage("pretrain", tmp_path, (tmp_path,), resnet=tmp_path / "resnet50.pth")
    said: list[str] = []
    begun = deca.new_networks(settings, say=said.append, seed=9)
    for name in ("E_flame", "E_detail"):
        assert torch.equal(begun[name].encoder.layer3[2].conv2.weight, file["layer3.2.conv2.weight"])  # type: ignore[index, union-attr]
    assert not torch.equal(begun["E_flame"].layers[0].weight, given["E_flame"].layers[0].weight)  # type: ignore[index, union-attr]
    assert said == [f"the encoders begin with {tmp_path / 'resnet50.pth'}, the other layers at random"]
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet50.pth")
    with pytest.raises(ModelError, match="does not fit torchvision's ResNet-50"):
        deca.new_networks(settings, say=unheard)
