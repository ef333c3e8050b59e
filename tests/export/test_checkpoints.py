"""A published checkpoint is found, read strictly, and kept whole or not at all."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from reenact.errors import ModelError, ReenactError
from reenact.export.checkpoints import add, read
from reenact.reference import build
from reenact.reference.checkpoints import save_state
from reenact.reference.face2face_rho import MotionNet
from reenact.runtime.files import checkpoint_home, sha256
from torch import nn

SYSTEM, NAMES, SMALL = "face2face_rho", ("motion_net",), {"mn_ngf": 4}


class Marker:
    """Unpickled, it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def publish(folder, suffix="105", seed=0):
    """A small motion network in a folder of the published layout."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    network = build("face2face_rho/motion_net", **SMALL)
    save_state(network, folder / f"{suffix}_motion_net.pth")
    return network


def same(a, b):
    states = [network.state_dict() for network in (a, b)]
    return states[0].keys() == states[1].keys() and all(
        torch.equal(value, states[1][name]) for name, value in states[0].items()
    )


@pytest.fixture
def published(tmp_path):
    publish(tmp_path / "published")
    return tmp_path / "published"


def read_small(folder, **options):
    return read(SYSTEM, NAMES, folder, config=SMALL, **options)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_read_into_networks_in_eval_mode(tmp_path):
    network = publish(tmp_path / "x", seed=3)
    checkpoint = read_small(tmp_path / "x")
    found = checkpoint.network("motion_net", MotionNet)
    assert same(found, network)
    assert not any(module.training for module in found.modules())
    assert (checkpoint.system, checkpoint.folder, checkpoint.config) == (SYSTEM, tmp_path / "x", SMALL)


def test_the_origin_names_each_file_and_what_is_in_it(published):
    digest = sha256((published / "105_motion_net.pth").read_bytes())
    assert read_small(published).origin == f"105_motion_net.pth (sha256 {digest[:16]})"


@pytest.mark.parametrize(
    ("there", "asked", "taken"),
    [
        (("latest", "105", "iter_10000"), None, "latest"),
        (("9", "105", "20"), None, "105"),
        (("iter_10000",), None, "iter_10000"),
        (("latest", "105"), "105", "105"),
        (("latest", "iter_10000"), "iter_10000", "iter_10000"),
    ],
)
def test_the_suffix_is_latest_else_the_highest_else_the_only_one(tmp_path, there, asked, taken):
    networks = {suffix: publish(tmp_path / "x", suffix, seed) for seed, suffix in enumerate(there)}
    checkpoint = read_small(tmp_path / "x", suffix=asked)
    assert checkpoint.origin.startswith(f"{taken}_motion_net.pth ")
    assert same(checkpoint.networks["motion_net"], networks[taken])


def test_networks_of_different_suffixes_are_not_mixed(tmp_path):
    publish(tmp_path / "x", "105")
    (tmp_path / "x/20_rendering_net.pth").touch()
    with pytest.raises(ModelError, match=r"no latest checkpoint of rendering_net|highest|20_rendering_net"):
        read(SYSTEM, ("motion_net", "rendering_net"), tmp_path / "x", suffix="105", config=SMALL)


def test_several_without_a_number_need_a_choice(tmp_path):
    for suffix in ("iter_10000", "iter_20000"):
        publish(tmp_path / "x", suffix)
    with pytest.raises(ModelError, match=r"iter_10000_motion_net\.pth, iter_20000_motion_net\.pth"):
        read_small(tmp_path / "x")


def test_a_missing_folder_says_what_is_expected_in_it(tmp_path):
    with pytest.raises(ModelError, match=r"none: not a folder; .* such as 105_motion_net\.pth"):
        read_small(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="file: not a folder"):
        read_small(tmp_path / "file")


def test_an_empty_folder_says_which_file_is_missing(tmp_path):
    with pytest.raises(ModelError, match=r"there is no file \*_motion_net\.pth"):
        read_small(tmp_path)


def test_before_anything_is_added_the_error_says_how(small_home):
    with pytest.raises(
        ModelError, match=r"no checkpoint of face2face_rho has been added; .*reenact models add"
    ):
        read_small(None)


def test_a_file_of_another_network_is_named_with_what_differs(published):
    save_state(build("face2face_rho/motion_net", mn_ngf=8), published / "105_motion_net.pth")
    with pytest.raises(ModelError, match=r"105_motion_net\.pth: does not fit MotionNet: .* of a wrong shape"):
        read_small(published)
    save_state(nn.Conv2d(2, 3, 1), published / "105_motion_net.pth")
    with pytest.raises(
        ModelError, match=r"does not fit MotionNet: 179 missing .* 2 surplus \(weight, bias\)"
    ):
        read_small(published)


def test_a_truncated_file_is_named(published):
    path = published / "105_motion_net.pth"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"105_motion_net\.pth: (cannot be read|damaged)"):
        read_small(published)


def test_a_hostile_pickle_is_refused_unexecuted(published, tmp_path):
    (published / "105_motion_net.pth").write_bytes(pickle.dumps(Marker(tmp_path / "marker"), protocol=2))
    with pytest.raises(ModelError, match=r"105_motion_net\.pth: .*not executed"):
        read_small(published)
    assert not (tmp_path / "marker").exists()


def test_what_is_added_is_read_without_naming_its_folder(published, small_home):
    first = read_small(published)
    place = add(first, {"extra.json": b"{}"})
    assert place == checkpoint_home(SYSTEM) == small_home / "checkpoints/face2face_rho"
    assert sorted(tree(place)) == ["checkpoint.json", "extra.json", "latest_motion_net.safetensors"]
    assert (place / "extra.json").read_bytes() == b"{}"
    again = read_small(None)
    assert same(again.networks["motion_net"], first.networks["motion_net"])
    assert again.origin == first.origin
    if os.name != "nt":
        assert place.parent.stat().st_mode & 0o777 == 0o700


def test_adding_again_replaces_the_whole_folder(published, small_home, tmp_path):
    add(read_small(published), {"extra.json": b"{}"})
    other = publish(tmp_path / "other", seed=9)
    add(read_small(tmp_path / "other"), {})
    assert sorted(tree(checkpoint_home(SYSTEM))) == ["checkpoint.json", "latest_motion_net.safetensors"]
    assert same(read_small(None).networks["motion_net"], other)
    assert [path.name for path in checkpoint_home(SYSTEM).parent.iterdir()] == [SYSTEM]


@pytest.mark.parametrize("moment", ["while writing", "while moving"])
def test_a_failure_keeps_what_was_there(published, small_home, tmp_path, monkeypatch, moment):
    add(read_small(published), {"extra.json": b"{}"})
    before = tree(small_home)
    publish(tmp_path / "other", seed=9)
    checkpoint = read_small(tmp_path / "other")
    rename, write = Path.rename, Path.write_bytes

    def full(self, *arguments):
        if moment == "while writing" and self.name == "more.json":
            raise OSError(28, "No space left on device")
        return write(self, *arguments)

    def stuck(self, target):
        if moment == "while moving" and self.name == "new":
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "rename", stuck)
    with pytest.raises(ReenactError, match=r"face2face_rho: cannot be written .*set REENACT_HOME"):
        add(checkpoint, {"more.json": b"{}"})
    assert tree(small_home) == before


def test_a_home_that_cannot_be_written_is_an_error_of_one_line(published, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("REENACT_HOME", str(tmp_path / "file"))
    with pytest.raises(ReenactError, match="cannot be written") as caught:
        add(read_small(published), {})
    assert "\n" not in str(caught.value)


def test_nothing_but_the_two_published_kinds_of_file_is_looked_at(published):
    for name in ("7_motion_net.onnx", "latest_motion_net.txt", "latest_motion_net"):
        (published / name).touch()
    assert read_small(published).origin.startswith("105_motion_net.pth ")


def test_a_disk_that_fills_up_under_the_weights_is_told_as_such(published, small_home, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ReenactError, match=r"cannot be written \(No space left on device"):
        add(read_small(published), {})
    assert tree(small_home) == {}


def test_what_was_added_remembers_its_settings_and_where_it_came_from(published, small_home):
    first = read_small(published)
    add(first, {})
    again = read(SYSTEM, NAMES, None)
    assert again.origin == first.origin
    assert same(again.networks["motion_net"], first.networks["motion_net"])


def test_a_lost_record_is_told(published, small_home):
    (add(read_small(published), {}) / "checkpoint.json").write_text("{}")
    with pytest.raises(ModelError, match=r"checkpoint\.json: missing or damaged; add the checkpoint again"):
        read(SYSTEM, NAMES, None)
