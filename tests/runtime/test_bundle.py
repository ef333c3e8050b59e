"""Bundles: written whole, opened only when hashes, names and shapes agree, never leaving their folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from reenact.errors import BackendError, BundleError
from reenact.runtime.bundle import Bundle, Weights, write_bundle

Graphs = Callable[..., onnx.ModelProto]


def _write(folder: Path, graphs: dict[str, Any], resolution: int = 256, whole: Any = ()) -> Bundle:
    return write_bundle(
        folder,
        system="made_up",
        resolution=resolution,
        graphs=graphs,
        preprocessing={"mean": [0.5, 0.5, 0.5], "colour": "rgb", "scale": 2.0},
        precision="fp32",
        weights=Weights(origin="made for this test", licence="CC0-1.0"),
        whole=whole,
    )


@pytest.fixture
def bundle(tmp_path: Path, scaling_graph: Graphs) -> Path:
    folder = tmp_path / "bundle"
    _write(folder, {"source": scaling_graph(2.0), "frame": scaling_graph(5.0, (1, 4), functional=True)})
    return folder


def _edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_written_bundle_opens_and_runs_by_graph_name(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert opened.manifest.system == "made_up"
    assert opened.manifest.graphs["frame"].inputs["x"].shape == [1, 4]
    assert opened.manifest.graphs["source"].inputs["x"].shape == [None, 3]
    assert opened.manifest.preprocessing == {"mean": [0.5, 0.5, 0.5], "colour": "rgb", "scale": 2.0}
    assert opened.manifest.weights.licence == "CC0-1.0"
    with opened.engine("frame", backend="cpu") as engine:
        assert engine.run({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[5, 5, 5, 5]]
    with pytest.raises(BundleError, match="'mouth'; the bundle has source, frame"):
        opened.engine("mouth")


def test_a_whole_graph_is_computed_in_float32_whatever_is_asked(
    tmp_path: Path, scaling_graph: Graphs
) -> None:
    folder = tmp_path / "bundle"
    _write(folder, {"source": scaling_graph(2.0), "frame": scaling_graph(5.0)}, whole={"source"})
    opened = Bundle.open(folder)
    assert {name: entry.whole for name, entry in opened.manifest.graphs.items()} == {
        "source": True,
        "frame": False,
    }
    with opened.engine("source", backend="cpu", precision="bf16") as engine:
        assert engine.precision == "fp32"
    with pytest.raises(BackendError, match="precision bf16: the cpu backend has fp32 only"):
        opened.engine("frame", backend="cpu", precision="bf16")


def test_a_bundle_from_before_graphs_were_marked_opens_and_has_none_that_is_whole(bundle: Path) -> None:
    _edit(bundle, lambda manifest: [graph.pop("whole") for graph in manifest["graphs"].values()])
    assert not any(entry.whole for entry in Bundle.open(bundle).manifest.graphs.values())


def test_weights_beside_a_graph_are_taken_into_the_bundle(tmp_path: Path, scaling_graph: Graphs) -> None:
    origin = tmp_path / "export"
    origin.mkdir()
    onnx.save_model(
        scaling_graph(7.0),
        origin / "frame.onnx",
        save_as_external_data=True,
        location="frame.data",
        size_threshold=0,
    )
    assert (origin / "frame.data").is_file()
    made = _write(tmp_path / "bundle", {"frame": origin / "frame.onnx"})
    assert sorted(path.name for path in made.folder.iterdir()) == ["frame.onnx", "manifest.json"]
    with made.engine("frame", backend="cpu") as engine:
        assert engine.run({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[7, 7, 7]]


def test_writing_again_replaces_the_whole_bundle(bundle: Path, scaling_graph: Graphs) -> None:
    _write(bundle, {"frame": scaling_graph(1.0)}, resolution=512)
    assert Bundle.open(bundle).manifest.resolution == 512
    assert sorted(path.name for path in bundle.iterdir()) == ["frame.onnx", "manifest.json"]
    assert list(bundle.parent.iterdir()) == [bundle]


def test_a_failed_write_leaves_the_old_bundle(bundle: Path, scaling_graph: Graphs) -> None:
    with pytest.raises(BundleError, match="Not-A-Name"):
        _write(bundle, {"Not-A-Name": scaling_graph()})
    with pytest.raises(BundleError, match="damaged"):
        _write(bundle, {"frame": b"noise" * 99})
    assert set(Bundle.open(bundle).manifest.graphs) == {"source", "frame"}
    assert list(bundle.parent.iterdir()) == [bundle]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path, scaling_graph: Graphs) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.jpg").write_bytes(b"precious")
    with pytest.raises(BundleError, match="is not a bundle"):
        _write(tmp_path / "photos", {"frame": scaling_graph()})
    assert (tmp_path / "photos/holiday.jpg").read_bytes() == b"precious"


def test_a_changed_graph_is_refused_with_both_hashes(bundle: Path, scaling_graph: Graphs) -> None:
    expected = json.loads((bundle / "manifest.json").read_text())["files"]["frame.onnx"]
    (bundle / "frame.onnx").write_bytes(scaling_graph(6.0, (1, 4)).SerializeToString())
    with pytest.raises(BundleError, match=rf"frame\.onnx: its sha256 is .*, the manifest says {expected}"):
        Bundle.open(bundle)


def test_a_missing_graph_is_named(bundle: Path) -> None:
    (bundle / "source.onnx").unlink()
    with pytest.raises(BundleError, match=r"source\.onnx: missing"):
        Bundle.open(bundle)


def test_a_shape_that_disagrees_is_refused_with_both(bundle: Path) -> None:
    _edit(bundle, lambda m: m["graphs"]["frame"]["outputs"]["y"].update(shape=[1, 3, 8, 8]))
    expected = r"frame\.onnx: output y is \(1, 4\) float32, the manifest says \(1, 3, 8, 8\) float32"
    with pytest.raises(BundleError, match=expected):
        Bundle.open(bundle)


def test_a_name_that_disagrees_is_refused_with_both(bundle: Path) -> None:
    _edit(
        bundle, lambda m: m["graphs"]["source"].update(inputs={"image": m["graphs"]["source"]["inputs"]["x"]})
    )
    with pytest.raises(BundleError, match=r"source\.onnx: has the inputs x, the manifest says image"):
        Bundle.open(bundle)


@pytest.mark.parametrize("path", ["../out.onnx", "/etc/hostname", "a/../../b", "..\\out", "C:/x", "./y.onnx"])
def test_a_path_that_leaves_the_folder_is_refused(path: str, bundle: Path) -> None:
    _edit(bundle, lambda m: m["files"].update({path: "0" * 64}))
    with pytest.raises(BundleError, match="leaves the bundle's folder"):
        Bundle.open(bundle)


def test_a_link_that_leaves_the_folder_is_refused(bundle: Path) -> None:
    (bundle / "frame.onnx").rename(bundle.parent / "frame.onnx")
    (bundle / "frame.onnx").symlink_to(bundle.parent / "frame.onnx")
    with pytest.raises(BundleError, match=r"frame\.onnx: missing from the bundle"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.update(format=2), "format: Input should be 1, given 2"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m.pop("weights"), "weights: Field required"),
        (lambda m: m.update(resolution="256"), "resolution"),
        (lambda m: m.update(graphs={}), "graphs"),
        (
            lambda m: m["graphs"]["frame"].update(file="other.onnx"),
            "'other.onnx', which `files` does not list",
        ),
        (lambda m: m["files"].update({"frame.onnx": "abc"}), r"files\.frame\.onnx"),
    ],
)
def test_a_manifest_that_is_not_one_says_which_field(
    change: Callable[[dict[str, Any]], Any], complaint: str, bundle: Path
) -> None:
    _edit(bundle, change)
    with pytest.raises(BundleError, match=complaint) as caught:
        Bundle.open(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "null", '"text"', "\ud800"])
def test_a_manifest_that_is_no_json_is_refused(content: str, bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Bundle.open(bundle)


def test_a_folder_without_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: cannot be read.*expected a bundle's folder"):
        Bundle.open(tmp_path)
