"""`reenact build` on a machine with an imaginary GPU: what it builds, what it says, one line for each error."""

import _thread
import threading
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from reenact import cli, cli_gpu, console
from reenact.runtime.bundle import Bundle, Weights, write_bundle
from reenact.runtime.graph import read_graph
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("torch", reason="engines are built by the export floor, which needs torch")

from reenact.export.calibration import bundle_inputs, graph_inputs


def _graph(
    nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], weights: Any = ()
) -> onnx.ModelProto:
    given, made = (
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in kinds.items()]
        for kinds in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "g", given, made, list(weights))
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle: `source` makes `features` of a picture, `frame` moves them by `pose` and makes a picture."""
    bytes_, floats = TensorProto.UINT8, TensorProto.FLOAT
    weight = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    source = _graph(
        [
            helper.make_node("Cast", ["image"], ["floats"], to=floats),
            helper.make_node("Transpose", ["floats"], ["planes"], perm=[2, 0, 1]),
            helper.make_node("Div", ["planes", "most"], ["features"]),
        ],
        {"image": (bytes_, [8, 8, 3])},
        {"features": (floats, [3, 8, 8])},
        [numpy_helper.from_array(np.array([255], np.float32), "most")],
    )
    frame = _graph(
        [
            helper.make_node("ReduceMean", ["pose"], ["turn"], keepdims=0),
            helper.make_node("Unsqueeze", ["features", "first"], ["batch"]),
            helper.make_node("Conv", ["batch", "w"], ["made"], name="layer"),
            helper.make_node("Add", ["made", "turn"], ["lit"]),
            helper.make_node("Mul", ["lit", "most"], ["levels"]),
            helper.make_node("Clip", ["levels", "least", "most"], ["clipped"]),
            helper.make_node("Cast", ["clipped"], ["rounded"], to=bytes_),
            helper.make_node("Squeeze", ["rounded", "first"], ["image"]),
        ],
        {"features": (floats, [3, 8, 8]), "pose": (floats, [6])},
        {"image": (bytes_, [3, 8, 8])},
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.array([0], np.int64), "first"),
            numpy_helper.from_array(np.array(0, np.float32), "least"),
            numpy_helper.from_array(np.array(255, np.float32), "most"),
        ],
    )
    made = tmp_path_factory.mktemp("bundles") / "small"
    write_bundle(
        made,
        system="small",
        resolution=8,
        graphs={"source": source, "frame": frame},
        preprocessing={},
        precision="fp32",
        weights=Weights(origin="here", licence="none"),
        whole={"source"},
    )
    return made


def call(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.app, ["build", *map(str, arguments)])


def assert_fails(done: Any, *said: str) -> None:
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for text in said:
        assert text in done.stderr


def test_a_bundle_is_built_and_then_runs(trt: Any, folder: Path) -> None:
    done = call(folder, "--backend", "tensorrt", "--precision", "fp16")
    assert done.exit_code == 0, done.output
    assert "source: ready in fp32 for NVIDIA Imaginary 4090, TensorRT 11.4.0.106" in done.stdout
    assert "frame: ready in fp16 for NVIDIA Imaginary 4090" in done.stdout
    assert "image: at most" in done.stdout
    assert " of 8 nodes stay in float32" in done.stdout
    assert "layers: " in done.stdout
    bundle = Bundle.open(folder)
    inputs = bundle_inputs(bundle, read_graph(folder / "source.onnx"))[0]
    with (
        bundle.engine("source", precision="fp32") as source,
        bundle.engine("frame") as frame,
        bundle.engine("frame", backend="cpu") as exact,
    ):
        assert (source.backend, frame.backend, frame.precision) == ("tensorrt", "tensorrt", "fp16")
        features = source.run(inputs)
        pose = {"pose": np.full(6, 0.2, np.float32)}
        picture = frame.run({**frame.hold(features), **pose})["image"]
        apart = picture.astype(int) - exact.run({**features, **pose})["image"]
    assert np.ptp(picture) > 50
    assert np.abs(apart).max() <= 1


def test_what_is_there_already_is_not_built_again_unless_asked_for(trt: Any, folder: Path) -> None:
    assert call(folder, "--precision", "fp32").exit_code == 0
    again = call(folder, "--precision", "fp32")
    assert again.stdout.count("is there already; --rebuild builds it again") == 2
    assert trt.builds == 2
    assert call(folder, "--precision", "fp32", "--rebuild").exit_code == 0
    assert trt.builds == 4


def test_one_graph_is_built_alone(trt: Any, folder: Path) -> None:
    done = call(folder, "--graph", "frame", "--precision", "fp16")
    assert done.exit_code == 0, done.output
    assert "frame: ready in fp16" in done.stdout
    assert "source" not in done.stdout


def test_a_graph_that_is_whole_is_built_in_float32_even_where_it_is_named(trt: Any, folder: Path) -> None:
    done = call(folder, "--graph", "source", "--precision", "fp16")
    assert done.exit_code == 0, done.output
    assert "source: ready in fp32" in done.stdout
    assert "source: the bundle marks it as whole, so it is built in fp32 and not in fp16" in done.stderr


def test_of_deca_the_encoder_alone_is_built_in_half_precision(deca_export: Any) -> None:
    works = cli_gpu._works(deca_export.folder, "fp16", [])
    assert {"encode": "fp16", "decode": "fp32", "points": "fp32", "detail": "fp32"}.items() <= {
        work.name: work.precision for work in works
    }.items()
    assert [work.name for work in works if work.precision != "fp32"] == ["encode"]


def test_one_file_with_free_axes_is_built_for_the_shapes_that_are_named(
    trt: Any, tmp_path: Path, scaling_graph: Any
) -> None:
    file = tmp_path / "network.onnx"
    file.write_bytes(scaling_graph().SerializeToString())
    assert_fails(call(file, "--precision", "fp32"), "--shape x=")
    done = call(file, "--precision", "fp32", "--shape", "x=1x3:2x3:4x3", "--level", 1, "--workspace", 32)
    assert done.exit_code == 0, done.output
    assert trt.configs[-1]._fake.pools == {"WORKSPACE": 32 << 20}
    assert trt.configs[-1]._fake.values["builder_optimization_level"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--graph", "other"], "--graph other: "),
        (
            ["--shape", "other=1x3"],
            "--shape other: no graph here has such an input; expected features, image, pose",
        ),
        (["--shape", "image=8"], "--shape says (8,) to (8,), the graph image (8, 8, 3) uint8"),
        (["--shape", "image"], "'image' is not NAME=1x3x256x256"),
    ],
)
def test_what_does_not_fit_is_named(trt: Any, folder: Path, arguments: list[str], said: str) -> None:
    assert_fails(call(folder, "--precision", "fp32", *arguments), said)


def test_a_folder_that_is_no_bundle_is_named(trt: Any, tmp_path: Path) -> None:
    assert_fails(call(tmp_path / "absent"), "absent", "expected a bundle's folder")


def test_without_a_gpu_the_command_says_so_in_one_line(trt: Any, cuda: Any, folder: Path) -> None:
    cuda.driver = 0
    assert_fails(call(folder), "TensorRT cannot be used: no NVIDIA driver is installed")


def test_another_backend_is_misuse(trt: Any, folder: Path) -> None:
    assert call(folder, "--backend", "openvino").exit_code == 2


def test_ctrl_c_keeps_what_was_ready_and_exits_with_130(trt: Any, folder: Path, small_home: Path) -> None:
    def on_step(step: int) -> None:
        if trt.builds == 1 and step == 0:
            trt.steps = 1000
            _thread.interrupt_main()

    trt.on_step = on_step
    done = call(folder, "--precision", "fp32")
    assert done.exit_code == 130, done.output
    assert "source: ready" in done.stdout
    assert "stopped by Ctrl-C; only what was said to be ready is kept" in done.stderr
    assert len(list((small_home / "tensorrt").rglob("*.plan"))) == 1
    assert not [path for path in small_home.rglob(".*") if path.is_file()]


def test_the_terminal_shows_a_bar_for_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    monkeypatch.setattr(console, "_console", lambda **_: Console(file=screen, force_terminal=True, width=100))

    def work(progress: Any) -> None:
        progress("Tactic Selection", 0, 4)
        progress("Tactic Selection", 3, 4)

    with console.phase_bars("frame fp16") as progress:
        assert progress is not None
        thread = threading.Thread(target=work, args=[progress])
        thread.start()
        thread.join()
        progress("Building Engine", 0, 2)
        progress("Building Engine", 2, 2)
        progress("Building Engine", 2, 2)
    assert "frame fp16: Tactic Selection" in screen.getvalue()
    assert "3/4" in screen.getvalue()


def test_calibration_feeds_the_frame_what_the_source_makes(folder: Path) -> None:
    bundle = Bundle.open(folder)
    sets = bundle_inputs(bundle, read_graph(folder / "frame.onnx"))
    photos = graph_inputs(read_graph(folder / "source.onnx"))
    assert len(sets) == len(photos) == 2
    for inputs, photo in zip(sets, photos, strict=True):
        assert photo["image"].shape == (8, 8, 3)
        assert np.ptp(photo["image"]) > 60
        np.testing.assert_allclose(inputs["features"], photo["image"].transpose(2, 0, 1) / np.float32(255))
        assert 0.05 < np.abs(inputs["pose"]).mean() < 0.6
    assert not np.array_equal(sets[0]["features"], sets[1]["features"])


def test_a_real_system_goes_through_the_parser_and_gives_the_same_picture(trt: Any, rho_bundle: Path) -> None:
    done = call(rho_bundle, "--graph", "frame", "--precision", "fp32")
    assert done.exit_code == 0, done.output
    bundle = Bundle.open(rho_bundle)
    inputs = bundle_inputs(bundle, read_graph(rho_bundle / "frame.onnx"))[0]
    with bundle.engine("frame", backend="tensorrt") as engine, bundle.engine("frame", backend="cpu") as exact:
        picture = exact.run(inputs)["image"]
        apart = engine.run(inputs)["image"].astype(int) - picture
    assert np.ptp(picture) > 20
    assert np.abs(apart).max() <= 1
