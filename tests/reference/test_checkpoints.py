"""Checkpoints are loaded whole and strictly, and nothing in them is ever executed."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from reenact.errors import ModelError
from reenact.reference import build
from reenact.reference.checkpoints import find_checkpoint, load_into, load_state, load_states, save_state
from torch import nn


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).eval()


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "105_rendering_net.pth"
    save_state(network(), path)
    return path


class Marker:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_what_is_saved_comes_back_in_the_published_layout(saved):
    state = torch.load(saved, weights_only=True)
    assert list(state) == list(network().state_dict())
    target = network()
    with torch.no_grad():
        target[0].weight.zero_()
    load_into(target, saved)
    for name, value in network().state_dict().items():
        assert torch.equal(target.state_dict()[name], value)


def test_safetensors_and_old_files_are_read_as_well(tmp_path):
    state = network().state_dict()
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "b.pth"):
        assert {k: v.shape for k, v in load_state(tmp_path / name).items()} == {
            k: v.shape for k, v in state.items()
        }


def test_a_real_network_goes_through_a_file(tmp_path):
    first, second = build("face2face_rho/motion_net", mn_ngf=4), build("face2face_rho/motion_net", mn_ngf=4)
    save_state(first, tmp_path / "latest_motion_net.pth")
    load_into(second, find_checkpoint(tmp_path, "motion_net", "latest"))
    assert torch.equal(first.state_dict()["f1_motion.weight"], second.state_dict()["f1_motion.weight"])


@pytest.mark.parametrize("form", ["zip", "legacy", "bare", "wrapped"])
def test_a_hostile_pickle_is_refused_unexecuted(tmp_path, form):
    path, marker = tmp_path / "evil.pth", tmp_path / "marker"
    content = {"weight": torch.zeros(2), "extra": Marker(marker)}
    if form == "bare":
        path.write_bytes(pickle.dumps(Marker(marker), protocol=2))
    elif form == "wrapped":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", pickle.dumps(Marker(marker), protocol=2))
            archive.writestr("evil/version", "3\n")
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ModelError, match=r"evil\.pth: .*not executed"):
        load_state(path)
    assert not marker.exists()
    with pytest.raises(ModelError):
        load_into(network(), path)
    assert not marker.exists()


def test_the_hostile_file_would_have_done_harm(tmp_path):
    pickle.loads(pickle.dumps(Marker(tmp_path / "marker")))  # noqa: S301
    assert (tmp_path / "marker").is_dir()


def test_the_shared_hostile_files_are_refused(shared_data):
    files = [
        path
        for path in sorted((shared_data / "hostile").iterdir())
        if path.suffix in {".pth", ".pkl", ".safetensors"}
    ]
    assert len(files) > 5
    for path in files:
        with pytest.raises(ModelError, match=path.name):
            load_state(path)


@pytest.mark.parametrize("name", ["a.pth", "b.pth", "c.safetensors"])
def test_a_truncated_file_is_an_error_wherever_it_ends(tmp_path, name):
    path, state = tmp_path / name, network().state_dict()
    if name == "c.safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "a.pth")
    content = path.read_bytes()
    for length in (*range(0, len(content) - 1, 97), len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match=name):
            load_state(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"none\.pth: cannot be read \(No such file"):
        load_state(tmp_path / "none.pth")
    with pytest.raises(ModelError, match=r"none\.safetensors: cannot be read"):
        load_state(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({"state_dict": {"a": torch.zeros(1)}}, "'state_dict' is a dict"),
        ({"epoch": 3}, "'epoch' is a int"),
        ({1: torch.zeros(1)}, "1 is a Tensor"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "a is stored sparse"),
        ({"a": torch.zeros(1).expand(1 << 40)}, "a claims 1099511627776 numbers"),
    ],
)
def test_what_is_no_plain_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ModelError, match=message):
        load_state(tmp_path / "x.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, value):
    broken = network()
    with torch.no_grad():
        broken[1].bias[1] = value
    torch.save(broken.state_dict(), tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"x\.pth: values are 1 not finite \(1\.bias\)"):
        load_state(tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"1\.bias"):
        save_state(broken, tmp_path / "y.pth")
    assert not (tmp_path / "y.pth").exists()


def test_a_foreign_file_is_named_with_what_differs_and_changes_nothing(tmp_path):
    state = network().state_dict()
    state["1.weigth"] = state.pop("1.weight")
    state["0.bias"] = torch.zeros(4)
    state["1.num_batches_tracked"] = torch.tensor(0.5)
    torch.save(state, tmp_path / "x.pth")
    target = network()
    with pytest.raises(ModelError) as caught:
        load_into(target, tmp_path / "x.pth")
    for said in (
        "x.pth: does not fit Sequential",
        "1 missing (1.weight)",
        "1 surplus (1.weigth)",
        "1 of a wrong shape (0.bias (4,) instead of (3,))",
        "1 of a wrong type (1.num_batches_tracked torch.float32 instead of torch.int64)",
    ):
        assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    for name, value in network().state_dict().items():
        assert torch.equal(target.state_dict()[name], value)


def test_long_lists_of_names_are_counted_and_cut(tmp_path):
    save_state(network(), tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"503 missing \(src_\S+, src_\S+, src_\S+, src_\S+, \.\.\.\)"):
        load_into(build("face2face_rho/rendering_net"), tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("suffix", "found"),
    [("latest", "latest"), ("105", "105"), ("iter_20000", "iter_20000"), ("highest", "105")],
)
def test_a_checkpoint_is_found_by_its_suffix(tmp_path, suffix, found):
    for name in ("latest", "9", "105", "20", "iter_20000", "iter_300000"):
        (tmp_path / f"{name}_motion_net.pth").touch()
    (tmp_path / "200_rendering_net.pth").touch()
    assert find_checkpoint(tmp_path, "motion_net", suffix) == tmp_path / f"{found}_motion_net.pth"


def test_an_absent_checkpoint_lists_those_there_are(tmp_path):
    with pytest.raises(ModelError, match=r"no latest checkpoint of motion_net; there is no file"):
        find_checkpoint(tmp_path, "motion_net", "latest")
    for name in ("20", "9", "latest"):
        (tmp_path / f"{name}_motion_net.pth").touch()
    with pytest.raises(
        ModelError, match=r"there is 9_motion_net\.pth, 20_motion_net\.pth, latest_motion_net\.pth"
    ):
        find_checkpoint(tmp_path, "motion_net", "105")
    with pytest.raises(ModelError, match="no numbered checkpoint of rendering_net"):
        find_checkpoint(tmp_path, "rendering_net", "highest")
    with pytest.raises(ModelError, match="cannot be read"):
        find_checkpoint(tmp_path / "none", "motion_net", "latest")


def test_two_files_of_one_suffix_are_not_chosen_between(tmp_path):
    for suffix in ("pth", "safetensors"):
        (tmp_path / f"105_motion_net.{suffix}").touch()
    with pytest.raises(ModelError, match="has both 105_motion_net"):
        find_checkpoint(tmp_path, "motion_net", "105")


def test_several_networks_may_share_a_file(tmp_path):
    first, second = network().state_dict(), nn.Linear(2, 1).state_dict()
    torch.save({"E": first, "D": second, "step": 7}, tmp_path / "x.tar")
    found = load_states(tmp_path / "x.tar", ("D", "E"))
    assert list(found) == ["D", "E"]
    for name, state in (("E", first), ("D", second)):
        assert found[name].keys() == state.keys()
        assert all(torch.equal(found[name][key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"E": {}}, r"expected the weights of D, E: 1 missing \(D\); 1 there \(E\)"),
        ([1], r"expected the weights of D, E: 2 missing \(D, E\)"),
        ({"D": {}, "E": 3}, "E: holds a int"),
        ({"D": {"a": torch.tensor(torch.inf)}, "E": {}}, r"D: values are 1 not finite \(a\)"),
    ],
)
def test_a_file_without_one_of_the_networks_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "x.tar")
    with pytest.raises(ModelError, match=rf"x\.tar: {message}"):
        load_states(tmp_path / "x.tar", ("D", "E"))


def test_an_archive_that_unpacks_to_more_than_it_has_is_not_unpacked(tmp_path):
    torch.save({"weight": torch.zeros(100_000)}, tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as good, zipfile.ZipFile(tmp_path / "x.pth", "w") as bad:
        for entry in good.infolist():
            bad.writestr(entry.filename, good.read(entry), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "x.pth").stat().st_size < 10_000
    assert "weight" in load_state(tmp_path / "good.pth")
    with pytest.raises(ModelError, match=r"x\.pth: .*it unpacks to 40\d{4} bytes"):
        load_state(tmp_path / "x.pth")


def test_saving_leaves_nothing_behind_when_it_fails(saved, monkeypatch):
    before = saved.read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ModelError, match="cannot be written"):
        save_state(network(), saved)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    assert saved.read_bytes() == before
    monkeypatch.undo()
    with pytest.raises(ModelError, match="cannot be written"):
        save_state(network(), saved.parent / "none" / "x.pth")
