"""The converter from TFLite to ONNX, against OpenVINO reading the same file and against sums done by hand."""

import random
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from reenact.errors import ModelError
from reenact.runtime import models
from reenact.runtime.backends import openvino
from reenact.runtime.engine import load
from reenact.runtime.tflite import INPUT, convert, to_onnx

Floats = NDArray[np.float32]
Network = Callable[[list[Any], list[Any]], bytes]

CONV = {"StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1, "Padding": 0}
POOL = {"StrideH": 2, "StrideW": 2, "FilterHeight": 2, "FilterWidth": 2, "Padding": 0}
SAME, VALID = 0, 1
WINDOWS = [(1, 1, SAME), (2, 1, SAME), (3, 1, SAME), (1, 2, SAME), (2, 1, VALID)]


def _by_openvino(content: bytes, image: Floats) -> dict[str, Floats]:
    """What OpenVINO's own TFLite reader makes of the file, one row of the batch at a time."""
    core = openvino.core()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "network.tflite"
        file.write_bytes(content)
        compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rows = [compiled(row[None]) for row in image]
    return {port.any_name: np.concatenate([row[port] for row in rows]) for port in compiled.outputs}


def _converted(content: bytes, image: Floats, backend: str = "openvino") -> dict[str, Floats]:
    with load(to_onnx(content), backend=backend, precision="fp32", threads=2) as engine:
        return engine.run({INPUT: image})


def _weights(name: str, home: Path) -> bytes:
    return (home / "models" / f"{name}.tflite").read_bytes()


def _side(name: str) -> int:
    return {"face_detection_short_range": 128, "iris_landmark": 64}.get(name, 192)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_agrees_with_openvino_on_noise(name: str, models_home: Path) -> None:
    content = _weights(name, models_home)
    side = _side(name)
    image = np.random.default_rng(7).uniform(-1, 1, (2, side, side, 3)).astype(np.float32)
    expected, found = _by_openvino(content, image), _converted(content, image)
    assert found.keys() == expected.keys()
    for output, values in expected.items():
        assert found[output].shape == values.shape
        assert np.abs(values).max() > 0.1
        np.testing.assert_allclose(found[output], values, rtol=0, atol=1e-4)


@pytest.mark.parametrize("photo", ["astronaut.png", "grace_hopper.jpg", "lp_s1.jpg"])
@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_agrees_with_openvino_on_photos(
    name: str, photo: str, models_home: Path, shared_data: Path
) -> None:
    content = _weights(name, models_home)
    picture = cv2.imread(str(shared_data / "photos" / photo))
    assert picture is not None
    whole = cv2.resize(picture, (_side(name), _side(name)), interpolation=cv2.INTER_AREA)
    image = np.asarray(whole[None, :, :, ::-1] / 127.5 - 1, np.float32)
    expected, found = _by_openvino(content, image), _converted(content, image)
    for output, values in expected.items():
        np.testing.assert_allclose(found[output], values, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", models.MODELS)
def test_the_cpu_backend_agrees_but_for_rounding(name: str, models_home: Path) -> None:
    content = _weights(name, models_home)
    image = np.random.default_rng(8).uniform(-1, 1, (1, _side(name), _side(name), 3)).astype(np.float32)
    expected, found = _by_openvino(content, image), _converted(content, image, "cpu")
    for output, values in expected.items():
        np.testing.assert_allclose(found[output], values, rtol=0, atol=5e-6 * np.abs(values).max() + 1e-5)


def test_names_and_shapes_are_those_of_the_file_with_a_free_batch(models_home: Path) -> None:
    with load(to_onnx(_weights("iris_landmark", models_home)), backend="cpu") as engine:
        assert engine.inputs[INPUT].shape == (None, 64, 64, 3)
        assert {name: spec.shape for name, spec in engine.outputs.items()} == {
            "output_eyes_contours_and_brows": (None, 213),
            "output_iris": (None, 15),
        }


def test_a_converted_file_is_valid_onnx_of_a_common_opset(models_home: Path, tmp_path: Path) -> None:
    convert(models_home / "models" / "face_landmark.tflite", tmp_path / "mesh.onnx")
    model = onnx.load(tmp_path / "mesh.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert [node.op_type for node in model.graph.node].count("Transpose") <= 3


def test_same_padding_puts_the_odd_pixel_at_the_end(tflite_network: Network) -> None:
    """2x2 ones with stride 1 over 0..8: each sum reaches right and down, with nothing beyond the edge."""
    kernel = np.ones((1, 2, 2, 1), np.float32)
    content = tflite_network(
        [("x", (1, 3, 3, 1), None), ("k", kernel.shape, kernel), ("y", (1, 3, 3, 1), None)],
        [("CONV_2D", [0, 1], 2, "Conv2DOptions", CONV)],
    )
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    expected = [[8, 12, 7], [20, 24, 13], [13, 15, 8]]
    np.testing.assert_array_equal(_converted(content, image)["y"][0, :, :, 0], expected)


@pytest.mark.parametrize("height", [7, 8, 9])
@pytest.mark.parametrize(("stride", "dilation", "padding"), WINDOWS)
def test_convolutions_of_odd_sizes_agree_with_openvino(
    height: int, stride: int, dilation: int, padding: int, tflite_network: Network
) -> None:
    rng = np.random.default_rng(height * stride)
    width = height + 3
    kernel = rng.normal(size=(5, 3, 2, 4)).astype(np.float32)
    bias = rng.normal(size=5).astype(np.float32)
    depthwise = rng.normal(size=(1, 3, 3, 5)).astype(np.float32)
    reach = [(2 * dilation) + 1, dilation + 1]
    sizes = [
        -(-size // stride) if padding == SAME else (size - part) // stride + 1
        for size, part in zip((height, width), reach, strict=True)
    ]
    options = CONV | {
        "StrideH": stride,
        "StrideW": stride,
        "DilationHFactor": dilation,
        "DilationWFactor": dilation,
        "Padding": padding,
        "FusedActivationFunction": 1,
    }
    content = tflite_network(
        [
            ("x", (1, height, width, 4), None),
            ("kernel", kernel.shape, kernel),
            ("bias", bias.shape, bias),
            ("hidden", (1, *sizes, 5), None),
            ("depthwise", depthwise.shape, depthwise),
            ("y", (1, *sizes, 5), None),
        ],
        [
            ("CONV_2D", [0, 1, 2], 3, "Conv2DOptions", options),
            ("DEPTHWISE_CONV_2D", [3, 4, 2], 5, "DepthwiseConv2DOptions", CONV | {"DepthMultiplier": 1}),
        ],
    )
    image = rng.normal(size=(2, height, width, 4)).astype(np.float32)
    found = _converted(content, image)["y"]
    assert found.shape == (2, *sizes, 5)
    np.testing.assert_allclose(found, _by_openvino(content, image)["y"], rtol=0, atol=1e-4)


def test_pooling_padding_slopes_and_resizing_agree_with_openvino(tflite_network: Network) -> None:
    rng = np.random.default_rng(3)
    slopes = rng.uniform(-0.5, 0.5, (1, 1, 5)).astype(np.float32)
    content = tflite_network(
        [
            ("x", (1, 5, 7, 3), None),
            ("pads", (4, 2), np.array([[0, 0], [0, 0], [0, 0], [0, 2]], np.int32)),
            ("padded", (1, 5, 7, 5), None),
            ("slopes", slopes.shape, slopes),
            ("bent", (1, 5, 7, 5), None),
            ("pooled", (1, 3, 4, 5), None),
            ("size", (2,), np.array([6, 8], np.int32)),
            ("y", (1, 6, 8, 5), None),
        ],
        [
            ("PAD", [0, 1], 2, "", {}),
            ("PRELU", [2, 3], 4, "", {}),
            ("MAX_POOL_2D", [4], 5, "Pool2DOptions", POOL),
            ("RESIZE_BILINEAR", [5, 6], 7, "ResizeBilinearOptions", {"HalfPixelCenters": 1}),
        ],
    )
    image = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    expected = _by_openvino(content, image)["y"]
    np.testing.assert_allclose(_converted(content, image)["y"], expected, rtol=0, atol=1e-5)


def test_reshaping_keeps_the_order_of_height_width_channels(tflite_network: Network) -> None:
    content = tflite_network([("x", (1, 2, 3, 4), None), ("y", (1, 24), None)], [("RESHAPE", [0], 1, "", {})])
    image = np.arange(48, dtype=np.float32).reshape(2, 2, 3, 4)
    np.testing.assert_array_equal(_converted(content, image)["y"], image.reshape(2, 24))


def test_half_precision_weights_become_exact_float32(tflite_network: Network) -> None:
    kernel = np.array([0.1, -2.5], np.float16).reshape(1, 1, 1, 2)
    content = tflite_network(
        [
            ("x", (1, 2, 2, 2), None),
            ("half", kernel.shape, kernel),
            ("k", kernel.shape, None),
            ("y", (1, 2, 2, 1), None),
        ],
        [("DEQUANTIZE", [1], 2, "", {}), ("CONV_2D", [0, 2], 3, "Conv2DOptions", CONV)],
    )
    image = np.tile(np.array([1, 0], np.float32), (1, 2, 2, 1))
    assert _converted(content, image)["y"].flat[0] == np.float32(np.float16(0.1))


def test_an_operator_that_is_not_covered_is_named(tflite_network: Network) -> None:
    content = tflite_network(
        [("x", (1, 2, 2, 1), None), ("y", (1, 2, 2, 1), None)], [("TANH", [0], 1, "", {})]
    )
    with pytest.raises(ModelError, match="TANH"):
        to_onnx(content)


def test_a_tensor_used_before_it_is_computed_is_refused(tflite_network: Network) -> None:
    shapes = [(name, (1, 2, 2, 1), None) for name in "xay"]
    content = tflite_network(shapes, [("RELU", [2], 1, "", {}), ("RELU", [1], 2, "", {})])
    with pytest.raises(ModelError, match="before it is computed"):
        to_onnx(content)


def test_a_wrong_output_shape_is_refused(tflite_network: Network) -> None:
    content = tflite_network(
        [("x", (1, 2, 2, 1), None), ("y", (1, 3, 2, 1), None)], [("RELU", [0], 1, "", {})]
    )
    with pytest.raises(ModelError, match="contradicts itself"):
        to_onnx(content)


def test_a_huge_tensor_is_refused_without_being_made(tflite_network: Network) -> None:
    content = tflite_network(
        [("x", (1, 2**30, 2**30, 3), None), ("y", (1, 1), None)], [("RELU", [0], 1, "", {})]
    )
    with pytest.raises(ModelError, match="claims the shape"):
        to_onnx(content)


def test_a_file_of_another_kind_is_refused_by_its_name(tmp_path: Path) -> None:
    wrong = tmp_path / "page.tflite"
    wrong.write_text("<html>not found</html>" * 10)
    with pytest.raises(ModelError, match=r"page\.tflite.*not a TFLite file"):
        convert(wrong, tmp_path / "page.onnx")
    assert list(tmp_path.iterdir()) == [wrong]


def test_cut_and_flipped_bytes_are_refused_or_still_a_valid_graph(tflite_network: Network) -> None:
    kernel = np.ones((2, 3, 3, 3), np.float32)
    content = tflite_network(
        [
            ("x", (1, 8, 8, 3), None),
            ("k", kernel.shape, kernel),
            ("h", (1, 8, 8, 2), None),
            ("y", (1, 128), None),
        ],
        [("CONV_2D", [0, 1], 2, "Conv2DOptions", CONV), ("RESHAPE", [2], 3, "", {})],
    )
    chance = random.Random(5)
    damaged = [content[:length] for length in range(0, len(content), 7)]
    for _ in range(400):
        flipped = bytearray(content)
        for _ in range(chance.randrange(1, 6)):
            flipped[chance.randrange(8, len(flipped))] = chance.choice(
                [0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)]
            )
        damaged.append(bytes(flipped))
    refused = 0
    for attempt in damaged:
        try:
            onnx.checker.check_model(to_onnx(attempt))
        except ModelError:
            refused += 1
    assert refused > len(damaged) // 3
