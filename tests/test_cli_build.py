"""The commands for those who bring checkpoints: what they keep and write, and one line for each error."""

import os
import pickle
import re
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="these commands need torch, which is not installed")
pytest.importorskip("onnxscript", reason="these commands need onnxscript, which is not installed")

import torch
from reenact import cli
from reenact.reference import build, settings_of
from reenact.reference.checkpoints import save_state
from reenact.reference.face2face_rho import read_config
from reenact.reference.fill import Rules, fill
from reenact.runtime.backends.reading import written_in
from reenact.runtime.bundle import Bundle
from reenact.runtime.graph import read_graph
from typer.testing import CliRunner

# Far narrower than the released networks, so that a checkpoint is small and quick to read.
SMALL = {
    "name": "small",
    "output_size": "64",
    "epoch": "3",
    "headpose_embedding_ngf": "2",
    "mobilev2_encoder_channels": "6,5,6,7,8,9,10,12",
    "mobilev2_decoder_channels": "6,5,6,7,8,9,10,12",
    "mobilev2_encoder_layers": "1,1,1,1,1,1,1",
    "mobilev2_decoder_layers": "1,1,1,1,1,1,1",
    "mobilev2_encoder_expansion_factor": "1,2,2,2,2,2,2",
    "mobilev2_decoder_expansion_factor": "1,2,2,2,2,2,2",
    "mn_ngf": "2",
    "mn_n_blocks_local": "1",
}


class Marker:
    """Unpickled, it would make a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # two would wait for each other on a busy machine
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ini(tmp_path, rho_ini):
    for key, value in SMALL.items():
        rho_ini, found = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", rho_ini)
        assert found == 1
    path = tmp_path / "small.ini"
    path.write_text(rho_ini)
    return path


@pytest.fixture
def published(tmp_path, ini):
    """A folder of the published layout with two small networks."""
    folder = tmp_path / "published"
    folder.mkdir()
    for name in ("rendering_net", "motion_net"):
        full = f"face2face_rho/{name}"
        network = build(full, **settings_of(full, read_config(ini)))
        fill(network, Rules())
        save_state(network, folder / f"3_{name}.pth")
    return folder


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def assert_fails(done, *said):
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    for text in said:
        assert text in done.stderr


def test_a_checkpoint_is_added_and_exported_without_naming_it_again(small_home, published, ini):
    added = call("models", "add", "face2face_rho", published, "--config", ini)
    assert added.exit_code == 0, added.output
    assert "face2face_rho: checked and kept in" in added.stdout
    assert "next: reenact export face2face_rho" in added.stdout
    kept = small_home / "checkpoints/face2face_rho"
    assert (kept / "latest_motion_net.safetensors").is_file()

    done = call("export", "face2face_rho", "--size", 64, "--licence", "mine alone")
    assert done.exit_code == 0, done.output
    lines = " ".join(done.stdout.split())
    for row in ("source", "frame", "portrait", "random", "x2_in", "image", "from the reference"):
        assert row in lines
    folder = small_home / "bundles/face2face_rho"
    assert "is ready; next: reenact run PHOTO VIDEO --system face2face_rho -o out.mp4" in lines
    manifest = Bundle.open(folder).manifest
    assert (manifest.system, manifest.resolution) == ("face2face_rho", 64)
    assert manifest.weights.licence == "mine alone"
    assert manifest.weights.origin.startswith("3_rendering_net.pth (sha256 ")
    assert [path.name for path in folder.parent.iterdir()] == ["face2face_rho"]


def test_where_the_bundle_goes_is_named_in_the_next_command(
    small_home, published, ini, tmp_path, monkeypatch
):
    from reenact.export import face2face_rho

    asked = []

    def made(checkpoint, size, folder, licence):
        asked.append((checkpoint.origin.split()[0], size, folder, licence))
        return SimpleNamespace(folder=folder), []

    monkeypatch.setattr(face2face_rho, "export", made)
    out = tmp_path / "here"
    save_state(build("face2face_rho/motion_net", mn_ngf=2), published / "9_motion_net.pth")
    done = call(
        *("export", "face2face_rho", "--checkpoint", published, "--config", ini, "--suffix", "3", "-o", out)
    )
    assert done.exit_code == 0, done.output
    assert asked == [("3_rendering_net.pth", 512, out, "not stated; see where the checkpoint came from")]
    assert f"--bundle {out}" in done.stdout.replace("\n", "")


@pytest.mark.parametrize(
    "command", [("export", "face2face_rho", "--checkpoint"), ("models", "add", "face2face_rho")]
)
class TestACheckpointThatCannotBeRead:
    def test_a_missing_folder(self, small_home, command):
        assert_fails(
            call(*command, "none"), "none: not a folder; expected one with files such as 105_rendering"
        )

    def test_an_empty_folder(self, small_home, tmp_path, command):
        assert_fails(call(*command, tmp_path), "there is no file *_rendering_net.pth")

    def test_a_suffix_that_is_not_there(self, small_home, published, command):
        assert_fails(call(*command, published, "--suffix", "7"), "has no 7 checkpoint", "3_rendering_net.pth")

    def test_networks_of_other_settings(self, small_home, published, command):
        assert_fails(call(*command, published), "3_rendering_net.pth: does not fit RenderingNet", "settings")

    def test_a_truncated_file(self, small_home, published, ini, command):
        path = published / "3_motion_net.pth"
        path.write_bytes(path.read_bytes()[:-100])
        assert_fails(call(*command, published, "--config", ini), "3_motion_net.pth: ")

    def test_a_hostile_file_is_not_executed(self, small_home, published, ini, tmp_path, command):
        evil = pickle.dumps(Marker(tmp_path / "marker"), protocol=2)
        (published / "3_motion_net.pth").write_bytes(evil)
        assert_fails(call(*command, published, "--config", ini), "3_motion_net.pth: ", "not executed")
        assert not (tmp_path / "marker").exists()
        assert not (small_home / "checkpoints").exists()

    def test_a_settings_file_that_is_wrong_or_missing(self, small_home, published, ini, command):
        assert_fails(call(*command, published, "--config", "none.ini"), "none.ini: cannot be read")
        ini.write_text(ini.read_text().replace("mn_ngf", "mn_nfg"))
        assert_fails(call(*command, published, "--config", ini), "small.ini", "mn_nfg")

    def test_the_package_that_is_missing_is_named(self, monkeypatch, published, command):
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        assert_fails(
            call(*command, published),
            "needs onnxscript, which cannot",
            'install it with `pip install ".[export]"`',
        )


def test_a_bundle_in_half_precision_says_what_that_costs(small_home, published, ini):
    arguments = ("--checkpoint", published, "--config", ini, "--size", 64, "--precision", "fp16")
    done = call("export", "face2face_rho", *arguments)
    assert done.exit_code == 0, done.output
    lines = " ".join(done.stdout.split())
    found = re.search(
        r"frame in fp16: image ([\d.]+) dB, at most \d+ levels off, from float32; (\d+) of (\d+)", lines
    )
    assert found is not None
    assert float(found[1]) >= 45
    assert 0 < int(found[2]) < int(found[3])
    bundle = Bundle.open(small_home / "bundles/face2face_rho")
    assert bundle.manifest.precision == "fp16"
    graphs = {name: read_graph(bundle.folder / f"{name}.onnx") for name in ("source", "frame")}
    assert {name: written_in(graph) for name, graph in graphs.items()} == {"source": "fp32", "frame": "fp16"}
    assert graphs["frame"].inputs["x2_in"] == graphs["source"].outputs["x2_in"]


def test_a_licensed_file_that_is_missing_is_told_with_where_to_get_it(small_home, tmp_path):
    assert_fails(
        call("models", "add", "flame", tmp_path),
        "generic_model.pkl: cannot be read (No such file",
        "https://flame.is.tue.mpg.de gives to those who accept its licence",
        "meshwarp and face2face_rho, with the built-in tracker, work without it",
    )
    done = call("models", "add", "deca", tmp_path / "deca_model.tar")
    assert_fails(done, "deca_model.tar: is missing", "https://github.com/yfeng95/DECA")
    assert not small_home.exists()


def test_a_hostile_licensed_file_is_not_executed(small_home, tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps({"f": Marker(tmp_path / "marker")}, protocol=2))
    assert_fails(
        call("models", "add", "flame", path), "generic_model.pkl: asks for", "nothing in it was executed"
    )
    (tmp_path / "deca_model.tar").write_bytes(path.read_bytes())
    assert_fails(call("models", "add", "deca", tmp_path), "deca_model.tar: holds more", "it was not executed")
    assert not (tmp_path / "marker").exists()


def test_an_option_of_another_system_is_refused(small_home, tmp_path, ini):
    for system, option, value in (("flame", "--suffix", "3"), ("deca", "--config", ini)):
        done = call("models", "add", system, tmp_path, option, value)
        assert_fails(done, f"{option} means nothing for {system}; leave it out")


def test_before_anything_is_added_export_says_how(small_home):
    assert_fails(call("export", "face2face_rho"), "reenact models add face2face_rho FOLDER", "--checkpoint")


def test_a_bad_size_names_good_ones(small_home, published, ini):
    done = call("export", "face2face_rho", "--checkpoint", published, "--config", ini, "--size", 100)
    assert_fails(done, "--size 100: must be a multiple of 16 from 64 to 4096, such as 96 or 112")


def test_a_folder_that_is_no_bundle_is_not_written_over(small_home, published, ini, monkeypatch, tmp_path):
    from reenact.export import face2face_rho
    from reenact.runtime.bundle import Weights, write_bundle

    def made(checkpoint, size, folder, licence):
        weights = Weights(origin="x", licence=licence)
        made = {"system": "face2face_rho", "resolution": size, "preprocessing": {}, "precision": "fp32"}
        return write_bundle(folder, graphs={}, weights=weights, **made), []

    monkeypatch.setattr(face2face_rho, "export", made)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    done = call(
        "export", "face2face_rho", "--checkpoint", published, "--config", ini, "-o", tmp_path / "mine"
    )
    assert_fails(done, "mine: exists and is not a bundle; choose another folder")
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("export", "gdpw"), "'gdpw' cannot be exported; there is deca, face2face_rho"),
        (("models", "add", "gdpw", "."), "'gdpw' cannot be added; there is deca, face2face_rho, flame"),
    ],
)
def test_a_system_that_is_not_there_is_told_with_those_that_are(small_home, command, words):
    assert_fails(call(*command), words)


@pytest.mark.parametrize(
    "arguments",
    [
        ("export",),
        ("export", "face2face_rho", "--size", "large"),
        ("export", "face2face_rho", "--sise", "64"),
        ("export", "face2face_rho", "checkpoints"),
        ("models", "add"),
        ("models", "add", "face2face_rho"),
    ],
)
def test_misuse_is_exit_code_2(small_home, arguments):
    done = call(*arguments)
    assert done.exit_code == 2
    assert not small_home.exists()


@pytest.mark.parametrize("command", ["export", "models add"])
def test_each_command_has_help_with_an_example(command):
    done = call(*command.split(), "--help")
    assert done.exit_code == 0
    assert f"Example: reenact {command}" in " ".join(done.stdout.split())


def test_debug_lets_the_traceback_through(small_home):
    done = call("export", "face2face_rho", "--debug")
    assert done.exit_code == 1
    assert type(done.exception).__name__ == "ModelError"
