"""Every part with golden numbers agrees with them, and the tool that says so also says when one does not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reenact.errors import ReenactError
from reenact.reference import parity, parts
from reenact.reference.fill import fill
from reenact.reference.flame import Flame
from reenact.reference.golden import Bound, compare, read_golden
from reenact.reference.parts import NotCheckedError, deca
from typer.testing import CliRunner

HERE = [
    "face2face_rho/rendering_net",
    "face2face_rho/rendering_net_448",
    "face2face_rho/rendering_source",
    "face2face_rho/rendering_decode",
    "face2face_rho/motion_net",
    "face2face_rho/discriminator",
    "face2face_rho/landmark_images",
    "face2face_rho/reenact_rule",
    "deca/flame_helix",
    "deca/rotations",
]


@pytest.fixture
def copy(goldens, tmp_path):
    """Copies a golden into a folder of the system's name, its json changed by a function."""

    def make(part, change=lambda document: None):
        folder = tmp_path / "face2face_rho"
        folder.mkdir(exist_ok=True)
        document = json.loads((goldens / f"face2face_rho/{part}.json").read_text())
        change(document)
        (folder / f"{part}.json").write_text(json.dumps(document))
        shutil.copy(goldens / f"face2face_rho/{part}.npz", folder)
        return folder / f"{part}.json"

    return make


def run(*arguments):
    return CliRunner().invoke(parity.app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("part", HERE)
def test_the_part_agrees_with_its_golden(goldens, part):
    golden = read_golden(goldens / f"{part}.json")
    report = parity.check(golden)
    assert [output.name for output in report.outputs] == list(golden.outputs)
    assert {output.name: output.error for output in report.outputs if not output.passed} == {}


def test_landmark_images_agree_pixel_by_pixel(goldens):
    report = parity.check(read_golden(goldens / "face2face_rho/landmark_images.json"))
    assert len(report.outputs) == 45
    assert max(output.error for output in report.outputs) == 0


def test_the_published_example_agrees(licensed_goldens, shared_data):
    golden = read_golden(licensed_goldens / "face2face_rho/reenact_testcase.json")
    report = parity.check(golden, data=shared_data)
    errors = {output.name: output.error for output in report.outputs}
    assert report.passed, errors
    assert errors["src_img"] < 1e-6


def test_flame_agrees_to_a_micrometre(goldens):
    golden = read_golden(goldens / "deca/flame_helix.json")
    report = parity.check(golden)
    for output in report.outputs:
        if output.name.startswith(("v", "landmarks", "joints")):
            assert output.error * golden.outputs[output.name].absmax < 1e-6, output.name
        assert output.tolerance <= 1e-5
    rows = {output.name: output.error for output in report.outputs}
    assert rows["lut_row"] == rows["dynamic_faces"] == 0


def test_a_flame_with_another_state_is_a_failure(goldens, monkeypatch):
    class Longer(Flame):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.register_buffer("more", torch.zeros(1))

    monkeypatch.setattr(deca, "Flame", Longer)
    with pytest.raises(ReenactError, match="the state has 17 entries; the golden says 16"):
        parity.check(read_golden(goldens / "deca/flame_helix.json"))


def test_fits_of_flame_agree_at_the_users(licensed_goldens):
    report = parity.check(read_golden(licensed_goldens / "face2face_rho/fitting_pose.json"))
    assert {output.name: output.error for output in report.outputs if not output.passed} == {}
    assert len(report.outputs) == 13
    assert max(output.tolerance for output in report.outputs) <= 2e-6


def test_the_tool_prints_every_output_and_exits_0(goldens):
    done = run(
        goldens / "face2face_rho/discriminator.json",
        goldens / "face2face_rho/motion_net.json",
        "--threads",
        "1",
    )
    assert done.exit_code == 0, done.output
    assert "discriminator: agrees, 16 entries of the state agree" in done.output
    for name in ("feature_map_3", "prediction_map", "high_motion"):
        assert name in done.output


def test_the_tool_runs_as_a_module(goldens):
    done = subprocess.run(
        [sys.executable, "-m", "reenact.reference.parity", goldens / "face2face_rho/discriminator.json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "prediction_map" in done.stdout


def test_a_disturbed_weight_is_found(goldens, monkeypatch):
    def disturbed(network, rules):
        fill(network, rules)
        with torch.no_grad():
            network.get_parameter("model1_2.3.conv1.weight")[7, 7, 1, 1] += 0.5

    monkeypatch.setattr(parts, "fill", disturbed)
    done = run(goldens / "face2face_rho/motion_net.json")
    assert done.exit_code == 1
    rows = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines()[2:] if line.strip()}
    assert {name for name, verdict in rows.items() if verdict == "DIFFERS"} == {
        "model1_2",
        "middle_motion",
        "model2_2",
        "high_motion",
    }


def test_another_name_order_or_shape_in_the_state_is_a_failure(copy):
    def renamed(document):
        document["state"][5][0] = "f1_model.1.mean"

    def swapped(document):
        document["state"][3], document["state"][4] = document["state"][4], document["state"][3]

    def reshaped(document):
        document["state"][0][1] = [64, 9, 1, 1]

    def longer(document):
        document["state"].append(["more", [1], "filled"])

    for change, message in (
        (renamed, "f1_model.1.mean"),
        (swapped, "entry 3 of the state is f1_model.1.bias"),
        (reshaped, "(64, 9, 3, 3); the golden says f1_model.0.weight (64, 9, 1, 1)"),
        (longer, "the state has 179 entries; the golden says 180"),
    ):
        done = run(copy("motion_net", change))
        assert done.exit_code == 1
        assert message in done.stderr


def test_the_tolerance_can_be_chosen(copy):
    golden = copy("motion_net")
    with np.load(golden.with_suffix(".npz")) as archive:
        arrays = dict(archive)
    arrays["out:low_motion"] *= 1.001
    np.savez(golden.with_suffix(".npz"), **arrays)
    assert run(golden).exit_code == 1
    assert run(golden, "--tolerance", "1e-2").exit_code == 0


def test_a_part_that_needs_an_absent_picture_is_not_checked_and_no_failure(copy, tmp_path):
    def testcase(document):
        document["part"] = "reenact_testcase"
        document["inputs"]["src_img"] = {"file": "test_case/source/source.jpg", "sha256": "0" * 64}

    file = copy("reenact_rule", testcase)
    done = run(file)
    assert done.exit_code == 0
    assert "NOT CHECKED, needs test_case/source/source.jpg; name the folder that has it with --data" in (
        done.stdout
    )
    done = run(file, "--data", tmp_path)
    assert done.exit_code == 0
    assert "NOT CHECKED, needs test_case/source/source.jpg, which is not below" in done.stdout
    (tmp_path / "test_case/source").mkdir(parents=True)
    (tmp_path / "test_case/source/source.jpg").write_bytes(b"another")
    with pytest.raises(NotCheckedError, match="is not the picture that was used"):
        parity.check(read_golden(file), data=tmp_path)


def test_a_part_or_system_without_an_adapter_is_named(copy, tmp_path):
    def unknown(document):
        document["part"] = "hair"

    done = run(copy("discriminator", unknown))
    assert done.exit_code == 1
    assert "no adapter for the part 'hair' of face2face_rho; there are some for rendering_net" in done.stderr
    done = run(copy("discriminator"), "--system", "puppets")
    assert done.exit_code == 1
    assert "no adapters for the system 'puppets'" in done.stderr


def test_the_system_can_be_named_for_a_golden_from_elsewhere(goldens, tmp_path):
    for suffix in (".json", ".npz"):
        shutil.copy(goldens / f"face2face_rho/discriminator{suffix}", tmp_path)
    assert run(tmp_path / "discriminator.json").exit_code == 1
    assert run(tmp_path / "discriminator.json", "--system", "face2face_rho").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing.json"],
        ["--tolerance", "small", __file__],
        ["--frobnicate"],
        [str(Path(__file__).parent)],
    ],
)
def test_misuse_exits_with_2(arguments):
    assert run(*arguments).exit_code == 2


def test_damaged_goldens_are_errors_in_one_line(copy, tmp_path):
    file = copy("discriminator")
    whole = file.with_suffix(".npz").read_bytes()
    file.with_suffix(".npz").write_bytes(whole[:1000])
    cut = run(file)
    file.with_suffix(".npz").unlink()
    alone = run(file)
    file.with_suffix(".npz").write_bytes(whole)
    file.write_text("[1, 2]")
    foreign = run(file)
    file.write_text("{" * 100_000)
    deep = run(file)
    for done, message in ((cut, "damaged"), (alone, ".npz"), (foreign, "no golden"), (deep, "no golden")):
        assert done.exit_code == 1
        assert message in done.stderr
        assert "Traceback" not in done.output


def test_an_unforeseen_fault_shows_no_traceback_unless_asked(goldens, monkeypatch):
    def broken(golden, **options):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(parity, "check", broken)
    done = run(goldens / "face2face_rho/discriminator.json")
    assert done.exit_code == 1
    assert "RuntimeError: out of luck" in done.stderr
    assert "Traceback" not in done.output
    assert isinstance(run(goldens / "face2face_rho/discriminator.json", "--debug").exception, RuntimeError)


@pytest.fixture
def made(tmp_path):
    """A golden with outputs of every kind, as other systems have them, and the whole outputs."""
    random = np.random.default_rng(0)
    whole: dict[str, Any] = {
        "plain": random.standard_normal((2, 3, 8, 8)).astype(np.float32),
        "axes": random.standard_normal((4, 6, 3)).astype(np.float32),
        "single": np.array(3.0, np.float32),
        "stable": np.arange(64).reshape(8, 8) % 2,
        "nothing": np.zeros((1,), np.float32),
    }
    strides: dict[str, Any] = {"plain": 2, "axes": [2, 3, 1], "single": 1, "stable": 1, "nothing": 1}
    outputs: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for name, values in whole.items():
        step = strides[name]
        outputs[name] = {"shape": list(values.shape), "stride": 1, "absmax": float(np.abs(values).max())}
        if isinstance(step, list):
            outputs[name]["axis_strides"] = step
            arrays[f"out:{name}"] = values[::2, ::3]
        else:
            outputs[name]["stride"] = step
            arrays[f"out:{name}"] = values[..., ::step, ::step] if values.ndim > 1 else values
    outputs["plain"]["fp32_noise"] = 1e-3
    document = {
        "part": "x",
        "config": {},
        "salt": 0,
        "gain": {"one": {"a$": 2.0}, "two": {}},
        "offset": {"one": {"a": {"0": 1.0}}},
        "inputs": {},
        "outputs": outputs,
        "state": [["a", [1], "constant"]],
        "scalars": {"total": 2.0, "terms": {"gan": [1.0, 4.0]}},
    }
    (tmp_path / "x.json").write_text(json.dumps(document))
    np.savez(tmp_path / "x.npz", **arrays)
    return read_golden(tmp_path / "x.json", "some"), whole


def test_strides_of_each_axis_and_scalars_of_the_json_are_compared(made):
    golden, whole = made
    for name in ("axes", "single", "nothing"):
        assert compare(golden, name, whole[name], Bound()).error == 0
    off = whole["axes"].copy()
    off[1] += 9  # between the stored ones
    assert compare(golden, "axes", off, Bound()).passed
    off[2, 3, 1] += 9
    assert not compare(golden, "axes", off, Bound()).passed
    assert compare(golden, "total", np.array(2.0), Bound()).passed
    assert compare(golden, "terms/gan", np.array([1.0, 4.4]), Bound()).error == pytest.approx(0.1)


def test_a_measured_noise_floor_widens_the_tolerance(made):
    golden, whole = made
    scale = golden.outputs["plain"].absmax
    assert compare(golden, "plain", whole["plain"] + np.float32(3e-3 * scale), Bound()).passed
    assert not compare(golden, "plain", whole["plain"] + np.float32(5e-3 * scale), Bound()).passed


def test_a_mask_leaves_out_what_is_not_stable(made):
    golden, whole = made
    off = whole["plain"].copy()
    off[:, :, ::2, ::2] += 9  # where the mask is 0
    assert not compare(golden, "plain", off, Bound()).passed
    assert compare(golden, "plain", off, Bound(mask="stable")).passed
    with pytest.raises(ReenactError, match="does not lie over"):
        compare(golden, "axes", whole["axes"], Bound(mask="stable"))


def test_a_bounded_share_or_the_mean_may_be_asked_for(made):
    golden, whole = made
    off = whole["plain"].copy()
    off[0, 0, 0, 0] += 9
    found = compare(golden, "plain", off, Bound(share=0.02))
    assert found.passed
    assert found.beyond == pytest.approx(1 / 96)
    assert not compare(golden, "plain", off, Bound(share=0.005)).passed
    assert compare(golden, "plain", off, Bound(tolerance=0.1, measure="mean")).passed
    assert not compare(golden, "plain", off, Bound(measure="mean")).passed


def test_values_that_are_not_finite_never_pass(made):
    golden, whole = made
    off = whole["plain"].copy()
    off[0, 0, 0, 0] = np.nan
    for bound in (Bound(), Bound(tolerance=1e9), Bound(measure="mean")):
        assert not compare(golden, "plain", off, bound).passed


def test_another_shape_is_an_error(made):
    golden, whole = made
    with pytest.raises(ReenactError, match=r"plain has the shape \(3, 8, 8\); x.json says \(2, 3, 8, 8\)"):
        compare(golden, "plain", whole["plain"][0], Bound())


def test_rules_may_be_given_for_each_network(made):
    golden, _ = made
    assert golden.rules("one").gain == {"a$": 2.0}
    assert golden.rules("one").add == {"a": {"0": 1.0}}
    assert golden.rules("one").constant == {"a"}
    assert golden.rules("two").gain == {}
    assert golden.rules("two").add == {}
