import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from reenact.runtime.backends.halves import Chain, cut_before_sampling
from reenact.runtime.backends.openvino import OpenVinoSession, session
from reenact.runtime.graph import read_graph

SIDE = 32


def sampler(moved=True):
    """Samples `map` at `field`, moved by a little that bfloat16 cannot hold, and doubles what it finds."""
    tensor = helper.make_tensor_value_info
    moving = [
        helper.make_node("Conv", ["field", "same", "little"], ["positions"]),
        helper.make_node("Transpose", ["positions"], ["grid"], perm=[0, 2, 3, 1]),
    ]
    nodes = [
        helper.make_node("GridSample", ["map", "grid" if moved else "field"], ["found"], mode="linear"),
        helper.make_node("Conv", ["found", "two"], ["result"]),
    ]
    constants = {
        "same": np.eye(2, dtype=np.float32)[:, :, None, None],
        "little": np.full(2, 0.0021, np.float32),
        "two": np.full((1, 1, 1, 1), 2, np.float32),
    }
    graph = helper.make_graph(
        [*moving, *nodes] if moved else nodes,
        "sampler",
        [
            tensor("map", TensorProto.FLOAT, [1, 1, SIDE, SIDE]),
            tensor("field", TensorProto.FLOAT, [1, 2, SIDE, SIDE] if moved else [1, SIDE, SIDE, 2]),
        ],
        [tensor("result", TensorProto.FLOAT, [1, 1, SIDE, SIDE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if moved or name == "two"],
    )
    return read_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


@pytest.fixture
def inputs():
    line = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1
    field = np.stack(np.meshgrid(line, line))[None]
    chequered = (np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 2 - 1).astype(np.float32)[None, None]
    return {"map": chequered, "field": field}


def test_the_first_half_gives_the_positions_and_the_second_takes_them():
    halves = cut_before_sampling(sampler())
    assert halves is not None
    first, second = halves
    assert (list(first.inputs), list(first.outputs)) == (["field"], ["grid"])
    assert (list(second.inputs), list(second.outputs)) == (["map", "grid"], ["result"])
    kinds = [node.op_type for node in onnx.load_from_string(second.content).graph.node]
    assert kinds == ["GridSample", "Conv"]


def test_a_graph_that_samples_where_it_is_told_is_left_whole():
    assert cut_before_sampling(sampler(moved=False)) is None


def test_both_halves_make_what_the_whole_makes(inputs):
    graph = sampler()
    halves = cut_before_sampling(graph)
    assert halves is not None
    chain = Chain(halves, *(OpenVinoSession(half, "fp32", 1) for half in halves))
    whole = OpenVinoSession(graph, "fp32", 1)
    np.testing.assert_array_equal(chain.run(inputs)["result"], whole.run(inputs)["result"])
    chain.close()


def test_positions_keep_float32_in_half_precision(inputs):
    graph = sampler()
    exact = OpenVinoSession(graph, "fp32", 1).run(inputs)["result"]
    off = {
        name: np.abs(made.run(inputs)["result"] - exact).max()
        for name, made in {
            "halves": session(graph, "bf16", 1),
            "whole": OpenVinoSession(graph, "bf16", 1),
        }.items()
    }
    if off["whole"] == 0:
        pytest.skip("OpenVINO does not even emulate bfloat16 on this CPU, it computes in float32")
    assert off["halves"] < 0.02
    assert off["whole"] > 0.05
