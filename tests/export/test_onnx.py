"""Graphs come out with the names asked for and nothing of this machine, and a comparison sees a wrong weight."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from reenact.errors import ReenactError
from reenact.export.onnx import OPSET, compare, export_graph
from torch import nn

ROOT = Path(__file__).resolve().parents[2]


class Painter(nn.Module):
    """A picture in whole levels and the sum of what it was made of."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)
        self.mix.bias = nn.Parameter(torch.full((3,), 0.125))

    def levels(self, image, light):
        return (torch.tanh(self.mix(image) * light) + 1) * 127.5

    def forward(self, image, light):
        levels = self.levels(image, light)
        return levels[0].to(torch.uint8).permute(1, 2, 0), image.sum(1)


@pytest.fixture(scope="module")
def painter():
    torch.manual_seed(0)
    return Painter().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    return {"image": torch.randn(1, 3, 8, 8, generator=generator), "light": torch.tensor([0.7])}


@pytest.fixture(scope="module")
def graph(painter, inputs):
    return export_graph(painter, inputs, ("picture", "total"))


@pytest.fixture(scope="module")
def expected(painter, inputs):
    levels = painter.levels(**inputs)[0].permute(1, 2, 0)
    return {"picture": levels, "total": inputs["image"].sum(1)}


def disturbed(graph, by):
    """The graph with one number of its first convolution's weights changed."""
    made = onnx.ModelProto()
    made.CopyFrom(graph)
    name = next(node.input[1] for node in made.graph.node if node.op_type == "Conv")
    tensor = next(tensor for tensor in made.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += by
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return made


def test_a_graph_has_the_names_and_the_samples_shapes(graph):
    assert [value.name for value in graph.graph.input] == ["image", "light"]
    assert [value.name for value in graph.graph.output] == ["picture", "total"]
    picture, total = (value.type.tensor_type for value in graph.graph.output)
    assert picture.elem_type == TensorProto.UINT8
    assert [size.dim_value for size in picture.shape.dim] == [8, 8, 3]
    assert [size.dim_value for size in total.shape.dim] == [1, 8, 8]


def test_exporting_leaves_the_module_in_eval_mode(painter, inputs):
    painter.train()
    export_graph(painter, inputs, ("picture", "total"))
    assert not painter.training


def test_other_outputs_than_asked_for_are_an_error(painter, inputs):
    with pytest.raises(ReenactError, match=r"outputs \['picture', .*expected .*\['picture'\]"):
        export_graph(painter, inputs, ("picture",))


def test_a_comparison_sees_floats_as_they_are_and_pictures_before_they_are_rounded(graph, inputs, expected):
    found = {difference.output: difference.largest for difference in compare(graph, inputs, expected)}
    assert found.keys() == {"picture", "total"}
    assert found["picture"] < 1e-5  # rounding alone would be up to 2 / 255
    assert found["total"] < 1e-6


def test_a_comparison_notices_a_disturbed_weight(graph, inputs, expected):
    right, wrong = (compare(made, inputs, expected) for made in (graph, disturbed(graph, 1e-3)))
    assert right[0].output == wrong[0].output == "picture"
    assert 1e-4 < wrong[0].largest < 1e-2
    assert wrong[1].largest == right[1].largest  # the sum has nothing to do with it


def test_a_comparison_leaves_the_graph_as_it_was(graph, inputs, expected):
    before = graph.SerializeToString(deterministic=True)
    compare(graph, inputs, expected)
    assert graph.SerializeToString(deterministic=True) == before


def test_only_outputs_that_are_asked_for_are_compared(graph, inputs, expected):
    assert [row.output for row in compare(graph, inputs, {"total": expected["total"]})] == ["total"]


def test_a_picture_that_no_cast_rounds_is_an_error():
    made = helper.make_model(
        helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "made",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, [2])],
            [helper.make_tensor_value_info("y", TensorProto.UINT8, [2])],
        ),
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
    )
    with pytest.raises(ReenactError, match="output y is not rounded by a cast but comes from Identity"):
        compare(made, {"x": torch.zeros(2, dtype=torch.uint8)}, {"y": torch.zeros(2)})


@pytest.mark.parametrize("name", ["source", "frame"])
def test_a_systems_graphs_hold_standard_operators_and_nothing_of_this_machine(rho_bundle, name):
    content = (rho_bundle / f"{name}.onnx").read_bytes()
    require_clean(content)
    model = onnx.load_from_string(content)
    local = {function.name for function in model.functions}
    assert {(entry.domain, entry.version) for entry in model.opset_import} <= {("", OPSET), ("reenact", 1)}
    assert {node.op_type for node in model.graph.node if node.domain} == local
    assert {node.domain for function in model.functions for node in function.node} <= {""}
    onnx.checker.check_model(model, full_check=True)


def test_a_small_graph_holds_nothing_of_this_machine(graph):
    require_clean(graph.SerializeToString())


def require_clean(content):
    places = [str(ROOT), tempfile.gettempdir() + "/", str(Path.home()), "site-packages", ".py", "torch/nn"]
    texts = content.decode("latin-1")
    assert [place for place in places if place != "/" and place in texts] == []


def test_weights_are_in_the_graph_as_float32(graph, painter):
    weights = {tuple(tensor.dims): numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    np.testing.assert_array_equal(weights[(3, 3, 1, 1)], painter.mix.weight.numpy())
