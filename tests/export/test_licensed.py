"""FLAME's and DECA's files are checked, kept for their user alone, and read back; nothing half done stays."""

import os
import pickle
import re

import cv2
import numpy as np
import pytest
import safetensors
import torch
from reenact.errors import ModelError, ReenactError
from reenact.export import deca, flame, keeper
from reenact.reference import build, deca_files
from reenact.reference.flame_files import Albedo
from reenact.reference.head_template import TEMPLATE_FILES, HeadTemplate
from reenact.reference.kept import (
    kept_albedo,
    kept_file,
    kept_flame,
    kept_landmarks,
    kept_template,
    pack,
)
from reenact.reference.stand_in import stand_in_landmarks, stand_in_model, stand_in_template
from reenact.runtime.files import sha256
from torch import nn


class Marker:
    """Unpickled, it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def flame_pickle():
    """The stand-in as generic_model.pkl, saved again without chumpy and SciPy."""
    return pickle.dumps(vars(stand_in_model()), 4)


@pytest.fixture(scope="module")
def template_files():
    """The stand-in's template in the published formats."""
    template = stand_in_template()
    lines = ["v 0 0 0"] * 5023 + [f"vt {u:.9g} {v:.9g}" for u, v in template.uvs.tolist()]
    pairs = np.stack([template.triangles, template.uv_triangles], -1) + 1
    lines += ["f " + " ".join(f"{a}/{b}" for a, b in triangle) for triangle in pairs.tolist()]
    contents = {"head_template.obj": "\n".join(lines).encode()}
    for name in ("face_mask", "face_eye_mask"):
        contents[f"uv_{name}.png"] = cv2.imencode(".png", getattr(template, name))[1].tobytes()
    return contents


class Small(nn.Linear):
    """In an encoder's place."""

    def __init__(self):
        super().__init__(3, 2)


@pytest.fixture
def data(tmp_path, template_files, monkeypatch):
    """A folder of DECA's published files, with the real decoder and two small encoders."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, content in template_files.items():
        (folder / name).write_bytes(content)
    np.save(folder / "fixed_displacement_256.npy", stand_in_template().fixed_displacement)
    np.save(folder / "landmark_embedding.npy", np.array(vars(stand_in_landmarks())), allow_pickle=True)

    def small(name):
        return Small() if name in ("deca/e_flame", "deca/e_detail") else build(name)

    monkeypatch.setattr(deca_files, "build", small)
    torch.manual_seed(0)
    save(folder, **{name: small(f"deca/{name.lower()}").state_dict() for name in NAMES}, opt={"lr": 1e-4})
    return folder


NAMES = ("E_flame", "E_detail", "D_detail")


def save(folder, **content):
    torch.save(content, folder / "deca_model.tar")
    return content


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("named", ["file", "folder"])
def test_flame_is_kept_as_numbers_with_its_origin_and_licence(tmp_path, small_home, flame_pickle, named):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(flame_pickle)
    added = flame.add_checkpoint(path if named == "file" else tmp_path)
    assert added.folder == small_home / "checkpoints/flame"
    assert added.next is not None
    assert "reenact models add deca" in added.next
    assert [entry.name for entry in added.folder.iterdir()] == ["model.safetensors"]
    for name, values in vars(kept_flame()).items():
        there = getattr(stand_in_model(), name)
        np.testing.assert_array_equal(values, there)
        assert values.dtype == there.dtype
    with safetensors.safe_open(added.folder / "model.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert metadata["origin"] == f"generic_model.pkl (sha256 {sha256(flame_pickle)})"
    assert "FLAME model licence" in metadata["licence"]
    assert "\n" not in metadata["licence"]
    if os.name != "nt":
        assert added.folder.parent.stat().st_mode & 0o777 == 0o700


def test_before_they_are_added_each_is_told_with_where_to_get_it(small_home):
    with pytest.raises(ModelError, match=r"flame has not been added: reenact models add flame") as caught:
        kept_flame()
    assert "https://flame.is.tue.mpg.de" in str(caught.value)
    assert "meshwarp and face2face_rho, with the built-in tracker, work without it" in str(caught.value)
    for kept in (kept_landmarks, kept_template):
        with pytest.raises(ModelError, match=r"deca has not been added: .*https://github.com/yfeng95/DECA"):
            kept()


def test_a_damaged_kept_file_is_told(small_home, tmp_path, flame_pickle):
    (tmp_path / "generic_model.pkl").write_bytes(flame_pickle)
    flame.add_checkpoint(tmp_path)
    path = small_home / "checkpoints/flame/model.safetensors"
    good = path.read_bytes()
    for content in (good[:1000], b"", pickle.dumps(Marker(tmp_path / "marker"))):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.safetensors: damaged .*add it again"):
            kept_flame()
    assert not (tmp_path / "marker").exists()


def test_a_hostile_model_is_refused_and_what_was_there_stays(small_home, tmp_path, flame_pickle):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(flame_pickle)
    flame.add_checkpoint(path)
    before = tree(small_home)
    path.write_bytes(pickle.dumps(vars(stand_in_model()) | {"more": Marker(tmp_path / "marker")}, 2))
    with pytest.raises(ModelError, match=r"generic_model\.pkl: asks for .*mkdir.*nothing in it was executed"):
        flame.add_checkpoint(path)
    assert not (tmp_path / "marker").exists()
    assert tree(small_home) == before


@pytest.mark.parametrize("named", ["file", "folder"])
def test_decas_files_are_kept_together(data, small_home, named):
    added = deca.add_checkpoint(data / "deca_model.tar" if named == "file" else data)
    assert added.folder == small_home / "checkpoints/deca"
    assert added.next is not None
    assert "reenact models add flame" in added.next
    assert sorted(path.name for path in added.folder.iterdir()) == [
        "checkpoint.json",
        "landmarks.safetensors",
        "latest_d_detail.safetensors",
        "latest_e_detail.safetensors",
        "latest_e_flame.safetensors",
        "template.safetensors",
    ]
    for kept, there in ((kept_landmarks(), stand_in_landmarks()), (kept_template(), stand_in_template())):
        for name, values in vars(kept).items():
            np.testing.assert_array_equal(values, getattr(there, name))
            assert values.dtype == getattr(there, name).dtype
    assert kept_albedo() is None
    content = torch.load(data / "deca_model.tar", weights_only=True)
    for name in NAMES:
        found = safetensors.torch.load_file(added.folder / f"latest_{name.lower()}.safetensors")
        assert found.keys() == content[name].keys()
        assert all(torch.equal(found[key], value) for key, value in content[name].items())
    digest = sha256((data / "landmark_embedding.npy").read_bytes())
    with safetensors.safe_open(added.folder / "landmarks.safetensors", "numpy") as file:
        assert file.metadata()["origin"] == f"landmark_embedding.npy (sha256 {digest})"
    with safetensors.safe_open(added.folder / "template.safetensors", "numpy") as file:
        assert all(f"{name} (sha256 " in file.metadata()["origin"] for name in TEMPLATE_FILES)


def test_what_is_left_to_do_is_told_in_either_order(data, small_home, tmp_path, flame_pickle):
    (tmp_path / "generic_model.pkl").write_bytes(flame_pickle)
    assert deca.add_checkpoint(data).next is not None
    assert flame.add_checkpoint(tmp_path).next is None
    assert deca.add_checkpoint(data).next is None


def test_skin_colours_are_kept_where_there_are_some(data, small_home, monkeypatch):
    numbers = 3 * 512 * 512
    there = Albedo(np.full(numbers, 0.5, np.float32), np.zeros((numbers, 50), np.float32))
    (data / "FLAME_texture.npz").write_bytes(b"PK")
    with pytest.raises(ModelError, match=r"FLAME_texture\.npz: "):
        deca.add_checkpoint(data)
    assert not (small_home / "checkpoints").exists()
    monkeypatch.setattr(deca, "read_albedo", lambda path: there)
    deca.add_checkpoint(data)
    kept = kept_albedo()
    assert kept is not None
    np.testing.assert_array_equal(kept.mean, there.mean)
    with safetensors.safe_open(kept_file(Albedo), "numpy") as file:
        assert file.metadata()["origin"].startswith("FLAME_texture.npz (sha256 ")


def test_the_counters_of_batches_may_be_missing(data, small_home):
    content = torch.load(data / "deca_model.tar", weights_only=True)
    counters = [name for name in content["D_detail"] if name.endswith("num_batches_tracked")]
    assert len(counters) == 6
    for name in counters:
        del content["D_detail"][name]
    save(data, **content)
    folder = deca.add_checkpoint(data).folder
    found = safetensors.torch.load_file(folder / "latest_d_detail.safetensors")
    assert all(found[name].item() == 0 for name in counters)
    build("deca/d_detail").load_state_dict(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content.pop("E_detail"), r"1 missing \(E_detail\)"),
        (lambda content: content["D_detail"].pop("l1.0.bias"), r"D_detail: 1 missing \(l1\.0\.bias\)"),
        (lambda content: content["E_flame"].update(x=torch.ones(1)), r"E_flame: 1 surplus \(x\)"),
        (lambda content: content["E_flame"].update(bias=torch.ones(3)), r"wrong shape \(bias \(3,\)"),
        (lambda content: content["E_flame"].update(bias=torch.full((2,), torch.nan)), "not finite"),
        (lambda content: content.update(E_flame=[1]), "E_flame: holds a list"),
    ],
)
def test_weights_that_are_not_whole_are_named(data, small_home, change, words):
    content = torch.load(data / "deca_model.tar", weights_only=True)
    change(content)
    save(data, **content)
    with pytest.raises(ModelError, match=rf"deca_model\.tar: .*{words}"):
        deca.add_checkpoint(data)
    assert not (small_home / "checkpoints").exists()


def test_hostile_weights_are_refused_unexecuted(data, small_home, tmp_path):
    for content in ({"E_flame": Marker(tmp_path / "marker")}, Marker(tmp_path / "marker")):
        torch.save(content, data / "deca_model.tar")
        with pytest.raises(ModelError, match=r"deca_model\.tar: .*not executed"):
            deca.add_checkpoint(data)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "name", ["deca_model.tar", "landmark_embedding.npy", "head_template.obj", "uv_face_mask.png"]
)
def test_a_missing_file_is_named_with_where_to_get_it(data, small_home, name):
    (data / name).unlink()
    with pytest.raises(ModelError, match=rf"{re.escape(name)}: .*https://github.com/yfeng95/DECA"):
        deca.add_checkpoint(data)
    with pytest.raises(ModelError, match=r"none: is missing.*https://github.com/yfeng95/DECA"):
        deca.add_checkpoint(data / "none")


def test_a_full_disk_leaves_nothing_of_it(data, small_home, monkeypatch):
    deca.add_checkpoint(data)
    before = tree(small_home)
    write = type(data).write_bytes

    def full(self, content):
        if self.name == "template.safetensors":
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(type(data), "write_bytes", full)
    with pytest.raises(ReenactError, match=r"cannot be written \(No space left on device\)"):
        deca.add_checkpoint(data)
    assert tree(small_home) == before


def test_the_hostile_files_are_refused_as_either(data, small_home, shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    for path in sorted((shared_data / "hostile").iterdir()):
        if path.suffix not in {
            ".pkl",
            ".pth",
            ".npy",
            ".npz",
            ".zip",
            ".safetensors",
            ".obj",
            ".onnx",
            ".json",
        }:
            continue
        for module in (flame, deca):
            with pytest.raises(ModelError, match=re.escape(path.name)) as caught:
                module.add_checkpoint(path)
            assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_each_keeper_says_which_options_it_takes():
    assert keeper("flame").ADD_OPTIONS == keeper("deca").ADD_OPTIONS == frozenset()
    assert {"suffix", "config"} == keeper("face2face_rho").ADD_OPTIONS
    with pytest.raises(ReenactError, match=r"'safa' cannot be added; there is deca, face2face_rho, flame"):
        keeper("safa")


def test_a_record_goes_through_a_file_of_its_own_kind(small_home):
    template = stand_in_template()
    content = pack(template, "a", "b")
    assert safetensors.torch.load(content).keys() == vars(template).keys()
    assert kept_file(HeadTemplate).name == "template.safetensors"
