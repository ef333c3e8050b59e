"""The real encoder in half precision: what it sees stays far closer than half a float's last bit would bring it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from reenact.export.deca_bundle import _any_count, _portrait
from reenact.export.deca_graphs import EncodeGraph
from reenact.export.onnx import export_graph
from reenact.export.precision import convert
from reenact.reference import build
from reenact.reference.fill import fill
from reenact.reference.golden import read_golden
from reenact.runtime.backends.openvino import OpenVinoSession, session
from reenact.runtime.engine import load
from reenact.runtime.graph import read_graph

GOLDEN = Path(__file__).parents[1] / "goldens/deca/e2e.json"
# Of float32, in the coefficients' own units: the features' rounding is left, spread over a thousand of them. Rounding
# to 8 bits alone takes 1.6e-2 from a scale near 7, a third of a pixel at the edge of a head.
MOST = {"cam": 2e-3, "pose": 1e-3, "exp": 2e-3, "shape": 2e-3, "tex": 2e-3, "light": 2e-3}


@pytest.fixture(scope="module")
def encode():
    """The `encode` graph of the golden numbers' encoder, a ResNet-50."""
    network = build("deca/e_flame").eval().requires_grad_(False)
    fill(network, read_golden(GOLDEN).rules("E_flame"))
    return _any_count(
        export_graph(EncodeGraph(network), {"images": _portrait()}, EncodeGraph.outputs)  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def photos():
    photo = _portrait().numpy()
    return [photo, np.ascontiguousarray(photo[..., ::-1])]


@pytest.fixture(scope="module")
def exact(encode, photos):
    with load(encode, backend="cpu", precision="fp32", threads=1) as engine:
        return [engine.run({"images": photo}) for photo in photos]


def furthest(found, expected):
    """By output, the largest difference over all photos."""
    names = expected[0]
    return {
        name: max(float(np.abs(a[name] - b[name]).max()) for a, b in zip(found, expected, strict=True))
        for name in names
    }


def test_openvino_in_bfloat16_sees_what_float32_sees(encode, photos, exact):
    graph = read_graph(encode)
    whole = OpenVinoSession(graph, "bf16", 1)
    before = furthest([whole.run({"images": photo}) for photo in photos], exact)
    if before["cam"] < 1e-4:
        pytest.skip("OpenVINO does not even emulate bfloat16 on this CPU, it computes in float32")
    parts = session(graph, "bf16", 1)
    after = furthest([parts.run({"images": photo}) for photo in photos], exact)
    assert before["cam"] > 1e-2, before
    assert {name: off for name, off in after.items() if off > MOST[name]} == {}


@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_an_exported_half_keeps_its_last_layers(encode, photos, exact, half):
    made = convert(encode, dtype=half, calibration=[{"images": photo} for photo in photos])
    errors = {error.output: error.largest for error in made.report.errors}
    assert {name: off for name, off in errors.items() if off > MOST[name]} == {}
    gemms = [node.name for node in made.model.graph.node if node.op_type == "Gemm"]
    assert set(gemms) <= made.report.float32.keys()
    kinds = {tensor.name: tensor.data_type for tensor in made.model.graph.initializer}
    weights = [
        kinds[name] for node in made.model.graph.node if node.op_type == "Conv" for name in node.input[1:2]
    ]
    wanted = onnx.TensorProto.FLOAT16 if half == "fp16" else onnx.TensorProto.BFLOAT16
    assert set(weights) == {wanted}  # it is in half precision all the same


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_torch_backend_keeps_them_too(encode, photos, exact, precision):
    from reenact.runtime.backends.torch.session import TorchSession

    made = TorchSession(read_graph(encode), precision, "cpu")
    with torch.no_grad():
        found = [made.run({"images": photo}) for photo in photos[:1]]
    off = furthest(found, exact[:1])
    assert off["cam"] < 2e-3, off
    assert off["pose"] < 1e-3, off
