"""Regions that fused kernels can compute become functions, and the graph computes what it did."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from reenact.export.onnx import export_graph
from reenact.export.regions import outline_warps
from reenact.runtime.backends.halves import cut_before_sampling
from reenact.runtime.engine import load
from reenact.runtime.graph import DOMAIN, read_graph
from torch import Tensor, nn
from torch.nn import functional


class Pyramid(nn.Module):
    """Maps under one field; the second is added to the first."""

    def __init__(self, *, chained: bool = False, **sampling: Any) -> None:
        super().__init__()
        self.chained = chained
        self.sampling = sampling

    def forward(self, large: Tensor, small: Tensor, field: Tensor) -> tuple[Tensor, Tensor]:
        planes = 2 * field  # (1, 2, 8, 8)
        first = functional.grid_sample(
            large,
            planes.permute(0, 2, 3, 1),
            align_corners=False,
            **self.sampling,
        )
        if self.chained:
            small = small + first[:, :, ::2, ::2]
        few = functional.interpolate(planes, size=(4, 4), mode="nearest").permute(0, 2, 3, 1)
        second = functional.grid_sample(small, few, align_corners=False)
        return torch.relu(first), second


def given() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    shapes = {"large": (1, 3, 8, 8), "small": (1, 3, 4, 4), "field": (1, 2, 8, 8)}
    return {name: torch.rand(shape, generator=random) - 0.5 for name, shape in shapes.items()}


def calls(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node if node.domain == DOMAIN]


def samplings(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "GridSample" for node in model.graph.node)


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_maps_under_one_field_become_one_call_that_computes_the_same(backend: str) -> None:
    module, inputs = Pyramid(), given()
    model = export_graph(module, inputs, ["first", "second"])
    onnx.checker.check_model(model)
    assert calls(model) == ["WarpPyramid2"]
    assert samplings(model) == 0
    assert "Resize" not in [node.op_type for node in model.graph.node]
    with load(model, backend=backend) as engine:
        found = engine.run({name: tensor.numpy() for name, tensor in inputs.items()})
    for name, expected in zip(("first", "second"), module(**inputs), strict=True):
        np.testing.assert_allclose(found[name], expected.numpy(), atol=1e-5)


def test_a_map_that_needs_another_warped_one_is_a_call_of_its_own() -> None:
    module, inputs = Pyramid(chained=True), given()
    model = export_graph(module, inputs, ["first", "second"])
    onnx.checker.check_model(model)
    assert calls(model) == ["WarpPyramid1", "WarpPyramid1_2"]
    with load(model, backend="cpu") as engine:
        found = engine.run({name: tensor.numpy() for name, tensor in inputs.items()})
    np.testing.assert_allclose(found["second"], module(**inputs)[1].numpy(), atol=1e-5)


@pytest.mark.parametrize("sampling", [{"mode": "nearest"}, {"padding_mode": "border"}])
def test_other_ways_of_sampling_stay_as_they_are(sampling: dict[str, Any]) -> None:
    model = export_graph(Pyramid(**sampling), given(), ["first", "second"])
    assert calls(model) == ["WarpPyramid1"]
    assert samplings(model) == 1


def test_a_graph_without_warps_is_left_alone() -> None:
    model = export_graph(nn.ReLU(), {"x": torch.zeros(1, 2)}, ["y"])
    assert not model.functions
    assert [entry.domain for entry in model.opset_import] == [""]
    assert outline_warps(model).SerializeToString() == model.SerializeToString()


def test_a_read_graph_has_both_forms() -> None:
    graph = read_graph(export_graph(Pyramid(), given(), ["first", "second"]))
    inlined, outlined = onnx.load_from_string(graph.content), onnx.load_from_string(graph.outlined)
    assert (calls(inlined), calls(outlined)) == ([], ["WarpPyramid2"])
    assert samplings(inlined) == 2
    assert cut_before_sampling(graph) is not None


def test_the_frame_graph_of_face2face_rho_has_one_call_for_its_four_maps(rho_bundle) -> None:
    model = onnx.load(rho_bundle / "frame.onnx")
    assert calls(model) == ["WarpPyramid4"]
    (function,) = model.functions
    assert len(function.input) == 5
    assert not any(
        helper.get_attribute_value(a) for n in function.node for a in n.attribute if a.name == "align_corners"
    )
