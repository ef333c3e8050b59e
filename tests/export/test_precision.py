"""Half precision and int8: what stays in float32 and why, what comes out typed, and what the error is said to be."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser
from onnx.reference import ReferenceEvaluator
from reenact.errors import BundleError, ReenactError
from reenact.export.emulation import emulated
from reenact.export.plain import prepared, rounded
from reenact.export.precision import convert, quantise
from reenact.export.typed import typed
from reenact.runtime.engine import load
from reenact.runtime.graph import read_graph

HALF = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def graph(text, opset=20, domains="", functions=""):
    opsets = f'"" : {opset}' + (f', "{domains}" : 1' if domains else "")
    return parser.parse_model(f"<ir_version: 10, opset_import: [{opsets}]>\n{text}\n{functions}")


def with_weights(model, **weights):
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return model


def noise(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def naive(model, dtype="fp16"):
    """The graph with everything in half precision that ONNX allows there."""
    plain = prepared(model, dtype)

    def whole(body):
        unable = {name: why for name, why in body.islands.items() if why.endswith(("float32", "numbers"))}
        return replace(body, islands=unable, positions=frozenset())

    functions = {name: whole(body) for name, body in plain.functions.items()}
    return typed(replace(plain, main=whole(plain.main), functions=functions), ())


def run(model, inputs):
    with load(model, backend="cpu", precision="fp32") as engine:
        return engine.run(inputs)


def off(model, half_model, inputs, dtype="fp16"):
    """The largest difference of each output."""
    exact, found = run(model, inputs), run(emulated(half_model, dtype), inputs)
    return {name: np.abs(found[name].astype(float) - exact[name]).max() for name in exact}


def types(model):
    values = onnx.shape_inference.infer_shapes(model).graph
    known = {
        v.name: v.type.tensor_type.elem_type for v in (*values.value_info, *values.input, *values.output)
    }
    return known | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def nodes(model, kind):
    return [node for node in model.graph.node if node.op_type == kind]


# --- sampling -------------------------------------------------------------------------------------

SIDE = 128
SAMPLER = """
sampler (uint8[1,3,128,128] picture, float[1,2,128,128] field) => (uint8[1,3,128,128] image) {
    features = Cast<to: int = 1>(picture)
    moved = Conv(field, turn, little)
    grid = Transpose<perm: ints = [0, 2, 3, 1]>(moved)
    found = GridSample<mode = "linear", padding_mode = "zeros">(features, grid)
    bright = Mul(found, gain)
    image = Cast<to: int = 2>(bright)
}
"""


@pytest.fixture
def sampler():
    """Samples a picture of noise where an identity field says, moved by a third of a pixel."""
    return with_weights(
        graph(SAMPLER),
        turn=np.eye(2, dtype=np.float32)[:, :, None, None],
        little=np.full(2, 2 / SIDE / 3, np.float32),
        gain=np.float32(0.9),
    )


@pytest.fixture
def sampler_inputs():
    line = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, SIDE, SIDE), dtype=np.uint8)
    return {"picture": picture, "field": np.stack(np.meshgrid(line, line))[None] * 0.98}


def test_positions_stay_exact_where_all_in_half_is_visibly_wrong(sampler, sampler_inputs):
    made = convert(sampler, dtype="fp16", calibration=[sampler_inputs])
    wrong = off(sampler, naive(sampler), sampler_inputs)["image"]
    right = off(sampler, made.model, sampler_inputs)["image"]
    assert wrong >= 5
    assert right <= 1
    assert made.report.errors[0].largest == right
    assert (made.report.errors[0].psnr_db or 0) > 55


def test_sampling_is_float32_on_both_sides_and_features_are_not(sampler, sampler_inputs):
    model = convert(sampler, dtype="fp16", calibration=[sampler_inputs]).model
    kinds = types(model)
    (sampling,) = nodes(model, "GridSample")
    assert [kinds[name] for name in sampling.input] == [TensorProto.FLOAT, TensorProto.FLOAT]
    (layer,) = nodes(model, "Conv")
    assert {kinds[name] for name in (*layer.input, *layer.output)} == {TensorProto.FLOAT}
    assert kinds["features"] == TensorProto.FLOAT16


def test_layers_far_behind_the_positions_are_half_unless_that_costs_too_much():
    text = """
    g (float[1,4,32,32] motion, float[1,8,32,32] map) => (float[1,8,32,32] y) {
        hidden = Conv<pads: ints = [1, 1, 1, 1]>(motion, w)
        active = Relu(hidden)
        moved = Conv(active, v)
        grid = Transpose<perm: ints = [0, 2, 3, 1]>(moved)
        y = GridSample(map, grid)
    }
    """
    model = with_weights(graph(text), w=noise(16, 4, 3, 3, scale=0.2), v=noise(2, 16, 1, 1, scale=0.2))
    inputs = {"motion": noise(1, 4, 32, 32), "map": noise(1, 8, 32, 32, seed=1)}
    loose = convert(model, dtype="fp16", calibration=[inputs], tolerance=0.05)
    strict = convert(model, dtype="fp16", calibration=[inputs], tolerance=0.002)
    kept = {name.split("_")[0] for name in loose.report.float32}
    assert kept == {"Conv", "Transpose", "GridSample"}
    assert types(loose.model)["hidden"] == TensorProto.FLOAT16
    assert types(strict.model)["hidden"] == TensorProto.FLOAT
    assert "leads to positions" in strict.report.float32.values()
    assert strict.report.errors[0].largest < loose.report.errors[0].largest / 3


# --- numbers that half precision has not ----------------------------------------------------------


def test_a_weight_that_overflows_is_named_and_its_node_stays_float32():
    model = graph("""
    g (float[1,8] x) => (float[1,8] y)
    <float[1] huge = {100000.0}, float[1] tiny = {0.00001}> {
        large = Mul(x, huge)
        y = Mul(large, tiny)
    }
    """)
    x = {"x": np.linspace(0.1, 0.6, 8, dtype=np.float32)[None]}
    assert not np.isfinite(run(emulated(naive(model), "fp16"), x)["y"]).any()
    made = convert(model, dtype="fp16", calibration=[x])
    assert "huge overflows fp16" in made.report.float32.values()
    assert off(model, made.model, x)["y"] < 1e-3


@pytest.mark.parametrize("count", [1, 8])
def test_a_number_that_keeps_a_divisor_from_nothing_does_so_still(count):
    text = """
    g (float[1,8] x) => (float[1,8] y) {
        square = Mul(x, x)
        guarded = Add(square, little)
        length = Sqrt(guarded)
        y = Div(x, length)
    }
    """
    model = with_weights(graph(text), little=np.full(count, 1e-8, np.float32))
    x = np.linspace(-1, 1, 8, dtype=np.float32)[None]
    x[0, 3] = 0
    assert not np.isfinite(run(emulated(naive(model), "fp16"), {"x": x})["y"]).all()
    made = convert(model, dtype="fp16", calibration=[{"x": x}])
    assert list(made.report.float32.values()).count("little vanishes in fp16") == 4
    assert off(model, made.model, {"x": x})["y"] < 2e-3


def test_what_is_infinite_on_purpose_may_be_half():
    model = graph("""
    g (float[4] x) => (float[4] y)
    <float[1] never = {-inf}> {
        least = Max(x, never)
        y = Add(least, least)
    }
    """)
    made = convert(model, dtype="fp16", calibration=[{"x": noise(4)}])
    assert made.report.float32 == {}


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_rounding_is_to_nearest_with_ties_to_even(dtype):
    import torch

    values = np.concatenate(
        [
            noise(1000, scale=100),
            np.array(
                [1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, -70000, 3.4e38, 1e-7, 0], np.float32
            ),
            np.array([np.inf, -np.inf, np.nan], np.float32),
        ]
    )
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    np.testing.assert_array_equal(rounded(values, dtype), torch.from_numpy(values).to(kind).float().numpy())


# --- types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_inputs_and_outputs_keep_their_types_and_all_between_is_half(dtype):
    model = with_weights(
        graph("""
        g (uint8[8,8,3] picture, float[1,3,8,8] more) => (float[1,4,16,16] features, uint8[1,4,16,16] image)
        <float[4] factors = {1.0, 1.0, 2.0, 2.0}, int64[1] axis = {0}> {
            floats = Cast<to: int = 1>(picture)
            planes = Transpose<perm: ints = [2, 0, 1]>(floats)
            one = Unsqueeze(planes, axis)
            scale = Constant<value_float: float = 0.0078431>()
            unit = Mul(one, scale)
            sum = Add(unit, more)
            layer = Conv<pads: ints = [1, 1, 1, 1]>(sum, w)
            features = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric">(layer, , factors)
            levels = Mul(features, scale)
            image = Cast<to: int = 2>(levels)
        }
        """),
        w=noise(4, 3, 3, 3),
    )
    inputs = {
        "picture": np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8),
        "more": np.abs(noise(1, 3, 8, 8)),
    }
    made = convert(model, dtype=dtype, calibration=[inputs])
    before, after = read_graph(model), read_graph(made.model)
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    kinds = types(made.model)
    assert {kinds[name] for name in ("unit", "sum", "layer")} == {HALF[dtype]}
    assert kinds["factors"] == TensorProto.FLOAT
    assert kinds["levels"] == TensorProto.FLOAT
    assert nodes(made.model, "Constant") == []
    # ONNX Runtime's CUDA provider enlarges in fp16 but not in bf16; TensorRT takes uint8 into fp16 or float32 only.
    (enlarging,) = nodes(made.model, "Resize")
    whole = HALF["fp16"] if dtype == "fp16" else TensorProto.FLOAT
    assert kinds[enlarging.input[0]] == whole
    assert kinds["floats"] == whole


def test_features_may_enter_and_leave_in_half():
    model = with_weights(
        graph("g (float[1,4] x) => (float[1,4] y, float[1,4] z) { y = MatMul(x, w) z = Relu(y) }"),
        w=noise(4, 4),
    )
    made = convert(model, dtype="fp16", calibration=[{"x": noise(1, 4)}], half_io=["x", "z"])
    after = read_graph(made.model)
    assert {n: str(s.dtype) for n, s in (after.inputs | after.outputs).items()} == {
        "x": "float16",
        "y": "float32",
        "z": "float16",
    }
    found = run(made.model, {"x": noise(1, 4).astype(np.float16)})
    np.testing.assert_allclose(found["y"], noise(1, 4) @ noise(4, 4), atol=0.01)


def test_a_weight_that_both_kinds_of_nodes_use_is_kept_twice():
    model = with_weights(
        graph(
            "g (float[2,4] x) => (float[2,4] y)"
            "{ a = MatMul(x, w) b = Softmax(a) c = Mul(b, w1) d = Softmax(c) y = Mul(d, w1) }"
        ),
        w=noise(4, 4),
        w1=noise(4, seed=1),
    )
    made = convert(model, dtype="fp16", calibration=[{"x": noise(2, 4)}])
    held = {tensor.name: tensor.data_type for tensor in made.model.graph.initializer}
    assert held == {"w_fp16": TensorProto.FLOAT16, "w1": TensorProto.FLOAT, "w1_fp16": TensorProto.FLOAT16}
    # The product between the two sums stays in float32 and needs no Casts around it.
    assert "between others" in made.report.float32.values()
    assert types(made.model)["b"] == types(made.model)["c"] == TensorProto.FLOAT
    np.testing.assert_array_equal(numpy_helper.to_array(made.model.graph.initializer[1]), noise(4, seed=1))


def test_sums_over_many_numbers_stay_float32():
    model = with_weights(
        graph(
            "g (float[1,4,64,64] x) => (float[1,4,64,64] y) { a = Relu(x) y = InstanceNormalization(a, s, b) }"
        ),
        s=np.ones(4, np.float32),
        b=np.zeros(4, np.float32),
    )
    made = convert(model, dtype="fp16", calibration=[{"x": noise(1, 4, 64, 64, scale=10)}])
    (name,) = made.report.float32
    assert name.startswith("InstanceNormalization")
    assert types(made.model)["a"] == TensorProto.FLOAT16


def test_each_tensor_is_cast_once():
    model = graph(
        "g (float[4] x) => (float[4] y, float[4] z) { a = Relu(x) b = Exp(x) y = Add(a, b) z = Mul(a, b) }"
    )
    made = convert(model, dtype="fp16", calibration=[{"x": noise(4)}])
    assert sorted(node.input[0] for node in nodes(made.model, "Cast")) == ["x", "y_fp16", "z_fp16"]


# --- the error ------------------------------------------------------------------------------------


def test_the_error_is_that_of_every_half_tensor_rounded():
    model = graph(
        "g (float[1000] x) => (float[1000] y) { a = Add(x, x) b = Mul(a, x) c = Sub(b, a) y = Abs(c) }"
    )
    x = noise(1000, scale=3)
    made = convert(model, dtype="fp16", calibration=[{"x": x}])
    (step_by_step,) = ReferenceEvaluator(made.model).run(None, {"x": x})
    np.testing.assert_array_equal(run(emulated(made.model, "fp16"), {"x": x})["y"], step_by_step)
    exact = run(model, {"x": x})["y"]
    (error,) = made.report.errors
    assert error.largest == np.abs(step_by_step.astype(float) - exact).max() > 0  # type: ignore[union-attr]
    assert error.mean == pytest.approx(np.abs(step_by_step.astype(float) - exact).mean())  # type: ignore[union-attr]
    assert error.scale == exact.max()


CANCELLING = """
g (float[1,64] x) => (float[1,64] y)
<float[1] offset = {2000.0}> {
    a = Relu(x)
    b = Tanh(a)
    lifted = Add(b, offset)
    lowered = Sub(lifted, offset)
    c = Sigmoid(lowered)
    d = Mul(c, c)
    y = Add(d, b)
}
"""


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_nodes_that_hurt_go_back_to_float32_and_only_they(dtype):
    model, inputs = graph(CANCELLING), [{"x": noise(1, 64)}]
    assert off(model, naive(model, dtype), inputs[0], dtype)["y"] > 0.03
    made = convert(model, dtype=dtype, calibration=inputs)
    assert sorted(made.report.float32) == ["Add_lifted", "Sub_lowered"]
    assert all("of the error allowed" in why for why in made.report.float32.values())
    assert made.report.errors[0].largest < made.report.errors[0].scale * (0.01 if dtype == "fp16" else 0.05)
    assert made.report.trials < 12


def test_the_same_graph_and_inputs_give_the_same_graph():
    model, inputs = graph(CANCELLING), [{"x": noise(1, 64)}, {"x": noise(1, 64, seed=1)}]
    first, second = (convert(model, dtype="fp16", calibration=inputs) for _ in range(2))
    assert first.model.SerializeToString(deterministic=True) == second.model.SerializeToString(
        deterministic=True
    )
    assert first.report == second.report


def test_a_graph_of_which_nothing_may_be_half_is_refused():
    model = graph("g (float[4] x) => (float[4] y) { y = Tanh(x) }")
    with pytest.raises(
        ReenactError, match=r"cannot be brought to bf16: y at most .* off, in values up to .*keep fp32"
    ):
        convert(model, dtype="bf16", calibration=[{"x": noise(4)}], tolerance=1e-6)


# --- functions ------------------------------------------------------------------------------------

WARPING = """
g (float[1,2,32,32] field, float[1,8,32,32] x) => (float[1,8,32,32] y) {
    map = Relu(x)
    moved = Mul(field, half)
    warped = DOMAIN.Warp<corners: int = 0>(moved, map)
    y = Conv(warped, w)
}
"""
WARP = """
<domain: "DOMAIN", opset_import: ["" : 20]>
Warp<corners>(field, features) => (warped) {
    grid = Transpose<perm: ints = [0, 2, 3, 1]>(field)
    gain = Constant<value = float {1.5}>()
    loud = Mul(features, gain)
    warped = GridSample<align_corners: int = @corners>(loud, grid)
}
"""


def warping(domain):
    model = graph(WARPING.replace("DOMAIN", domain), 20, domain, WARP.replace("DOMAIN", domain))
    return with_weights(model, half=np.float32(0.5), w=noise(8, 8, 1, 1))


@pytest.fixture
def warping_inputs():
    return {"field": noise(1, 2, 32, 32), "x": noise(1, 8, 32, 32, seed=1)}


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_a_region_for_kernels_takes_half_features_and_float32_positions(dtype, warping_inputs):
    model = warping("reenact")
    made = convert(model, dtype=dtype, calibration=[warping_inputs])
    (call,) = nodes(made.model, "Warp")
    kinds = types(made.model)
    given = [kinds[name] for name in (*call.input, *call.output)]
    assert given == [TensorProto.FLOAT, HALF[dtype], HALF[dtype]]
    (function,) = made.model.functions
    assert [node.op_type for node in function.node].count("Cast") == 2
    # The positions' way is float32 outside of the function too.
    assert "positions" in {made.report.float32[n.name] for n in nodes(made.model, "Mul")}
    assert 0 < made.report.errors[0].largest < 0.05 * made.report.errors[0].scale
    inlined = read_graph(made.model)
    assert inlined.outputs == read_graph(model).outputs


def test_a_region_is_as_exact_as_the_same_nodes_without_it(warping_inputs):
    errors = {
        domain: convert(warping(domain), dtype="fp16", calibration=[warping_inputs])
        for domain in ("reenact", "elsewhere")
    }
    assert not errors["elsewhere"].model.functions
    assert errors["reenact"].report.errors == errors["elsewhere"].report.errors


def test_a_region_that_hurts_stays_a_function_of_float32(warping_inputs):
    made = convert(warping("reenact"), dtype="bf16", calibration=[warping_inputs], tolerance=0.004)
    assert "Warp" in made.report.float32
    (call,) = nodes(made.model, "Warp")
    kinds = types(made.model)
    assert {kinds[name] for name in (*call.input, *call.output)} == {TensorProto.FLOAT}
    assert "Cast" not in {node.op_type for node in made.model.functions[0].node}


# --- what cannot be -------------------------------------------------------------------------------


def test_bad_requests_are_named():
    model = graph("g (float[4] x) => (float[4] y) { y = Relu(x) }")
    with pytest.raises(ReenactError, match="at least one set"):
        convert(model, dtype="fp16", calibration=[])
    with pytest.raises(BundleError, match=r"expected x \(4\) float32"):
        convert(model, dtype="fp16", calibration=[{"z": noise(4)}])
    with pytest.raises(ReenactError, match=r"half_io is z in fp16; expected.* some of x, y"):
        convert(model, dtype="fp16", calibration=[{"x": noise(4)}], half_io=["z"])
    with pytest.raises(ReenactError, match="half_io is x in bf16"):
        convert(model, dtype="bf16", calibration=[{"x": noise(4)}], half_io=["x"])
    with pytest.raises(
        ReenactError, match="opset 18, in which too few operators take bf16; export it with 22"
    ):
        convert(
            graph("g (float[4] x) => (float[4] y) { y = Relu(x) }", 18),
            dtype="bf16",
            calibration=[{"x": noise(4)}],
        )
    twice = with_weights(graph("g (float[4] x) => (float[4] y) { y = Mul(x, w) }"), w=noise(4))
    twice = convert(twice, dtype="fp16", calibration=[{"x": noise(4)}]).model
    with pytest.raises(ReenactError, match="in half precision already"):
        convert(twice, dtype="fp16", calibration=[{"x": noise(4)}])
    branching = graph("""
    g (bool c, float[4] x) => (float[4] y) {
        y = If (c) <
            then_branch = t () => (float[4] a) { a = Relu(x) },
            else_branch = e () => (float[4] b) { b = Neg(x) }
        >
    }
    """)
    with pytest.raises(ReenactError, match="control flow"):
        convert(branching, dtype="fp16", calibration=[{"c": np.array(True), "x": noise(4)}])


# --- int8 -----------------------------------------------------------------------------------------


def test_int8_is_symmetric_by_channel_and_leaves_positions_alone(sampler_inputs):
    text = """
    g (uint8[1,3,128,128] picture, float[1,2,128,128] field) => (float[1,8,128,128] y) {
        features = Cast<to: int = 1>(picture)
        moved = Conv(field, turn)
        grid = Transpose<perm: ints = [0, 2, 3, 1]>(moved)
        found = GridSample(features, grid)
        y = Conv<pads: ints = [1, 1, 1, 1]>(found, w, bias)
    }
    """
    weights = {
        "turn": np.eye(2, dtype=np.float32)[:, :, None, None],
        "w": noise(8, 3, 3, 3) * np.logspace(-2, 0, 8, dtype=np.float32)[:, None, None, None],
        "bias": noise(8),
    }
    made = quantise(with_weights(graph(text), **weights), [sampler_inputs])
    held = {t.name: numpy_helper.to_array(t) for t in made.model.graph.initializer}
    kinds = {name: array.dtype for name, array in held.items()}
    assert kinds["turn"] == kinds["bias"] == np.float32
    (quantised,) = [array for name, array in held.items() if name.startswith("w_quantized")]
    assert quantised.dtype == np.int8
    assert np.abs(quantised).reshape(8, -1).max(axis=1).min() >= 126  # each channel has its own scale
    zeros = [array for name, array in held.items() if "zero_point" in name]
    assert len(zeros) >= 2
    assert not any(array.any() for array in zeros)
    assert made.report.precision == "int8"
    assert 1e-3 < made.report.errors[0].largest / made.report.errors[0].scale < 0.03


# --- a whole system -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rho(rho_bundle):
    """Face2Face-rho's frame graph for pictures of side 128, with inputs of its own."""
    from reenact.export import face2face_rho
    from reenact.export.face2face_rho_graphs import Sizes

    frame = onnx.load(rho_bundle / "frame.onnx")
    calibration = []
    with load(rho_bundle / "source.onnx", backend="cpu", precision="fp32") as source:
        for _, (photo, driving) in face2face_rho.samples(Sizes.of(128)):
            features = source.run({name: tensor.numpy() for name, tensor in photo.items()})
            calibration.append(features | {name: tensor.numpy() for name, tensor in driving.items()})
    return frame, calibration


def test_face2face_rho_is_over_45_db_in_fp16(rho):
    frame, calibration = rho
    made = convert(frame, dtype="fp16", calibration=calibration)
    (error,) = made.report.errors
    assert (error.output, made.report.trials) == ("image", 1)
    assert error.psnr_db is not None
    assert error.psnr_db > 48
    assert len(made.report.float32) < 30 < made.report.nodes / 5
    kinds = types(made.model)
    assert all(kinds[name] == TensorProto.FLOAT for n in nodes(made.model, "GridSample") for name in n.input)
    halves = [n for n in nodes(made.model, "Conv") if kinds[n.output[0]] == TensorProto.FLOAT16]
    assert len(halves) > 70
    # The typed graph itself runs, and is no further off than it says.
    assert _psnr(frame, made.model, calibration) > error.psnr_db - 1


def test_face2face_rho_in_bf16_needs_all_that_leads_to_positions(rho):
    frame, (_, portrait) = rho
    made = convert(frame, dtype="bf16", calibration=[portrait])
    assert made.report.trials == 2
    assert made.report.errors[0].psnr_db > max(
        38, 6 + _psnr(frame, emulated(naive(frame, "bf16"), "bf16"), [portrait])
    )
    assert "leads to positions" in made.report.float32.values()


def _psnr(model, other, calibration):
    squares = []
    for inputs in calibration:
        apart = run(model, inputs)["image"].astype(float) - run(other, inputs)["image"]
        squares.append((apart**2).mean())
    return 10 * np.log10(255**2 / max(squares))
