"""DECA's bundle: every graph is what the reference computes, and what cannot be exported is told."""

import dataclasses

import numpy as np
import pytest
import torch
from reenact.errors import BundleError, ModelError, ReenactError
from reenact.export import deca_bundle
from reenact.export.deca_graphs import DecodeGraph, EncodeGraph, IdentityGraph, PointsGraph, held_vertices
from reenact.export.onnx import Difference
from reenact.export.precision import write_halved
from reenact.reference import build, stand_in
from reenact.reference.deca import codes_of
from reenact.reference.fill import Rules, fill
from reenact.reference.flame import Flame
from reenact.runtime.bundle import Bundle


@pytest.fixture(scope="module")
def flame():
    return Flame(stand_in.stand_in_model(), stand_in.stand_in_landmarks()).requires_grad_(False)


def test_every_output_of_every_graph_was_compared_and_is_the_references(deca_export):
    compared = {
        check.graph: {d.output: d.largest for d in check.differences} for check in deca_export.checked
    }
    manifest = Bundle.open(deca_export.folder).manifest
    assert {name: set(graph.outputs) for name, graph in manifest.graphs.items()} == {
        name: set(outputs) for name, outputs in compared.items()
    }
    for name in ("identity", "decode", "points"):
        assert max(compared[name].values()) < 1e-6, name  # metres
    assert compared["detail"]["heights"] < 1e-7
    assert {check.inputs for check in deca_export.checked if check.graph == "encode"} == {
        "random",
        "portrait",
    }


def test_folding_does_not_change_what_the_encoder_sees():
    e_flame = build("deca/e_flame").eval()
    fill(e_flame, Rules(gain={r"bn3\.weight": 0.25}))
    photo = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, (shape, *_, light) = codes_of(e_flame(photo)), EncodeGraph(e_flame)(photo)  # type: ignore[arg-type]
    for given, there in ((shape, expected.shape), (light, expected.light)):
        assert (given - there).abs().max() < 1e-5 * there.abs().max()
    left = [module for module in EncodeGraph(e_flame).modules() if isinstance(module, torch.nn.BatchNorm2d)]  # type: ignore[arg-type]
    assert left == []


@pytest.mark.parametrize("yaw_degrees", [-80, -39.7, -38.2, -0.6, 0, 0.4, 12, 39.4, 75])
def test_a_turned_head_has_the_vertices_and_the_contour_of_the_reference(flame, yaw_degrees):
    generator = torch.Generator().manual_seed(3)
    shape, exp = (torch.randn(1, count, generator=generator) for count in (100, 50))
    pose = torch.tensor([[0.1, np.radians(yaw_degrees), -0.05, 0.3, 0.02, 0.01]], dtype=torch.float32)
    held = held_vertices(flame, None)
    rest, rest_points, joints = IdentityGraph(flame, held)(shape[0])
    vertices, contour, fixed = DecodeGraph(flame)(rest, joints, exp[0], pose[0])
    expected = flame(shape, exp, pose)
    assert (vertices - expected.vertices[0]).abs().max() < 1e-6
    assert (contour - flame.landmarks_2d(expected)[0]).abs().max() < 1e-6
    assert (fixed - flame.landmarks_3d(expected)[0]).abs().max() < 1e-6
    few = PointsGraph(flame, held, None)(rest_points, joints, exp[0], pose[0])
    assert len(rest_points) < 572
    for point, whole in zip(few, (contour, fixed), strict=True):
        assert (point - whole).abs().max() < 1e-7


def test_the_bundle_is_opened_and_its_arrays_are_the_template(deca_export):
    skin = Bundle.open(deca_export.folder).arrays("skin")
    template = stand_in.stand_in_template()
    assert (skin["triangles"] == template.triangles).all()
    assert (skin["uvs"] == template.uvs).all()
    assert (skin["face_eye_mask"] == template.face_eye_mask).all()
    assert 0.5 < (skin["pixel_triangles"] >= 0).mean() < 1


def test_half_precision_is_for_the_encoder_and_all_else_comes_along(deca_export, tmp_path):
    whole = Bundle.open(deca_export.folder)
    halved, reports = write_halved(whole, "fp16", tmp_path / "half")
    assert list(reports) == ["encode"]
    before, after = whole.manifest.files, halved.manifest.files
    assert {name for name in before if before[name] != after[name]} == {"encode.onnx"}
    marks = {name: entry.whole for name, entry in whole.manifest.graphs.items()}
    assert [name for name, kept in marks.items() if not kept] == ["encode"]
    assert {name: entry.whole for name, entry in halved.manifest.graphs.items()} == marks
    assert (halved.arrays("skin")["triangles"] == whole.arrays("skin")["triangles"]).all()
    with pytest.raises(BundleError, match=r"hair.npz: not in the bundle"):
        halved.arrays("hair")


def test_a_graph_that_is_apart_from_the_reference_is_not_written(deca_export, tmp_path, monkeypatch):
    def apart(graph, inputs, expected):
        return [Difference(name, 0.5) for name in expected]

    monkeypatch.setattr(deca_bundle, "compare", apart)
    with pytest.raises(
        ReenactError, match=r"graph encode: shape is 5.0e-01 from the reference.*nothing was written"
    ):
        deca_bundle.export_files(deca_export.checkpoint, deca_export.files, tmp_path / "b", "x")
    assert not (tmp_path / "b").exists()


def test_a_template_of_another_mesh_than_flames_is_refused(deca_export, tmp_path):
    files = deca_export.files
    turned = np.roll(files.template.triangles, 1, axis=1)
    wrong = dataclasses.replace(files, template=dataclasses.replace(files.template, triangles=turned))
    with pytest.raises(
        ModelError, match=r"head_template.obj and FLAME's generic_model.pkl are of different meshes"
    ):
        deca_bundle.export_files(deca_export.checkpoint, wrong, tmp_path / "b", "x")
    assert not (tmp_path / "b").exists()


def test_weights_that_are_not_whole_are_refused(flame):
    model = stand_in.stand_in_model()
    wrong = Flame(dataclasses.replace(model, weights=model.weights * 0.9), stand_in.stand_in_landmarks())
    with pytest.raises(ModelError, match="weights of a vertex sum up to"):
        DecodeGraph(wrong)


def test_what_means_nothing_for_deca_is_refused(deca_export, small_home, tmp_path):
    with pytest.raises(ReenactError, match="--size 512: DECA's networks look at 224 pixels"):
        deca_bundle.export(deca_export.checkpoint, 512, tmp_path / "b", "x")
    with pytest.raises(ReenactError, match="--checkpoint means nothing for deca"):
        deca_bundle.read_checkpoint(tmp_path)
    with pytest.raises(ModelError, match="no checkpoint of deca has been added"):
        deca_bundle.read_checkpoint(None)
    with pytest.raises(ModelError, match="flame has not been added"):
        deca_bundle.export(deca_export.checkpoint, 224, tmp_path / "b", "x")
