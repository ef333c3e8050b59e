"""What a processor allows at most, and how many multiply-adds a graph has."""

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from reenact.benchmarks.ceiling import Ceiling, macs, measure_ceilings, rate, under
from reenact.export.onnx import export_graph
from torch import nn


class Layers(nn.Module):
    """A strided convolution, a grouped one, a transposed one and a product, whose work is easy to say."""

    def __init__(self):
        super().__init__()
        self.strided = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.wider = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.flat = nn.Linear(4, 10)

    def forward(self, picture):
        return self.flat(self.wider(self.grouped(self.strided(picture))).mean((2, 3)))


def test_multiply_adds_are_counted():
    made = export_graph(Layers().eval(), {"picture": torch.zeros(1, 3, 16, 12)}, ("y",))
    strided, grouped, wider = 8 * 6 * 8 * 27, 8 * 6 * 8 * 25, 8 * 6 * 8 * 4 * 4
    assert macs(made) == strided + grouped + wider + 40


def test_a_turned_product_is_counted_by_its_inner_axis():
    values = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("a", [7, 2]), ("b", [7, 3]))
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])
    node = helper.make_node("Gemm", ["a", "b"], ["y"], transA=1)
    graph = helper.make_graph([node], "product", values, [out])
    assert (
        macs(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", onnx.defs.onnx_opset_version())])
        )
        == 42
    )


def test_the_rate_of_this_processor_is_one_that_processors_have():
    assert 1e8 < rate("openvino", "fp32", 1) < 1e14


def test_a_ceiling_is_told_in_milliseconds_a_frame():
    assert "| 512 | fp32 | 6.50 | 100 | 65.0 |" in under([Ceiling(512, "fp32", 6_500_000_000, 1e11)])


def test_every_size_has_a_ceiling_in_float32():
    found = measure_ceilings({256: 10**9, 512: 4 * 10**9}, 1)
    small, large = (c for c in found if c.precision == "fp32")
    assert large.ms == pytest.approx(4 * small.ms)
