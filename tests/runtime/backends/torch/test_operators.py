"""Every operator that the torch backend knows, against ONNX Runtime on the CPU."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser
from onnxruntime import InferenceSession, SessionOptions
from reenact.errors import BundleError

torch = pytest.importorskip("torch", reason="the torch backend needs torch, which is not installed")
from reenact.runtime.backends.torch.network import OPERATORS, Network  # noqa: E402


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def positive(*shape):
    return np.abs(normal(*shape)) + 0.1


def ints(*values, shape=None):
    return np.array(values, np.int64).reshape(shape or -1)


X = normal(2, 6, 8, 10)
GRID = np.clip(normal(2, 5, 7, 2) * 0.7, -1.3, 1.3)
WHOLE = np.random.default_rng(3).integers(-9, 9, (2, 6)).astype(np.int64)
TRUTH = normal(2, 6) > 0

# The node, its inputs by name; what is under `fixed` is a constant of the graph.
PLAIN = [
    *(
        f"{op}(x)"
        for op in ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Neg", "Relu", "Round", "Sigmoid", "Sign")
    ),
    *(
        f"{op}(x)"
        for op in ("Sin", "Softplus", "Tan", "Tanh", "HardSigmoid", "HardSwish", "Identity", "Elu", "Gelu")
    ),
    *("LeakyRelu<alpha: float = 0.2>(x)", "Elu<alpha: float = 0.7>(x)", 'Gelu<approximate = "tanh">(x)'),
    *("HardSigmoid<alpha: float = 0.3, beta: float = 0.4>(x)", "Flatten(x)", "Flatten<axis: int = -1>(x)"),
    *("Flatten<axis: int = 0>(x)", "Transpose(x)", "Transpose<perm: ints = [0, 2, 3, 1]>(x)", "Dropout(x)"),
    *(
        "GlobalAveragePool(x)",
        "GlobalMaxPool(x)",
        "Softmax(x)",
        "Softmax<axis: int = 1>(x)",
        "LogSoftmax<axis: int = 2>(x)",
    ),
    *("ArgMax<axis: int = 1>(x)", "ArgMin<axis: int = -1, keepdims: int = 0>(x)"),
    *(f"Cast<to: int = {kind}>(x)" for kind in (6, 7, 9, 10, 11)),
    "MaxPool<kernel_shape: ints = [3, 3], strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]>(x)",
    "MaxPool<kernel_shape: ints = [3, 2], strides: ints = [2, 2], pads: ints = [0, 1, 2, 0]>(x)",
    "MaxPool<kernel_shape: ints = [3, 3], strides: ints = [2, 2], ceil_mode: int = 1>(x)",
    'MaxPool<kernel_shape: ints = [3, 3], strides: ints = [2, 2], auto_pad = "SAME_UPPER">(x)',
    "AveragePool<kernel_shape: ints = [3, 3], strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]>(x)",
    "AveragePool<kernel_shape: ints = [2, 2], pads: ints = [1, 1, 1, 1], count_include_pad: int = 1>(x)",
    *(f"{op}(x)" for op in ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")),
    *("ReduceSumSquare(x)", "ReduceSum<noop_with_empty_axes: int = 1>(x)"),
    *("SpaceToDepth<blocksize: int = 2>(x)", "Max(x)", "Mean(x, x)"),
]
CASES = [
    *((text, {"x": X}, {}) for text in PLAIN),
    *((f"{op}(x)", {"x": positive(3, 4)}, {}) for op in ("Log", "Sqrt", "Reciprocal", "ReduceProd")),
    *((f"{op}(x)", {"x": np.tanh(normal(3, 4))}, {}) for op in ("Asin", "Acos", "Atan")),
    *(
        (f"{op}(x, z)", {"x": X, "z": normal(6, 1, 10, seed=1)}, {})
        for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum", "Greater", "Less", "PRelu")
    ),
    *((f"{op}(x, x)", {"x": X}, {}) for op in ("Equal", "GreaterOrEqual", "LessOrEqual")),
    *((f"{op}(x, x, z)", {"x": X, "z": normal(10, seed=1)}, {}) for op in ("Max", "Min", "Mean", "Sum")),
    *((f"{op}(a, b)", {"a": WHOLE, "b": ints(3, -4, 5, 7, -2, 2)}, {}) for op in ("Div", "Mod", "Mul", "Equal")),
    ("Mod<fmod: int = 1>(x, z)", {"x": X, "z": positive(10)}, {}),
    ("Pow(x, p)", {"x": positive(3, 4), "p": normal(4)}, {}),
    ("Pow(x, p)", {"x": normal(3, 4)}, {"p": ints(2)}),
    *((f"{op}(a, b)", {"a": TRUTH, "b": normal(6) > 0}, {}) for op in ("And", "Or")),
    ("Not(a)", {"a": TRUTH}, {}),
    ("Where(a, x, z)", {"a": TRUTH, "x": normal(6), "z": normal(2, 1)}, {}),
    ("Clip(x, low, high)", {"x": X}, {"low": np.float32(-0.5), "high": np.float32(0.7)}),
    ("Clip(x, , high)", {"x": X}, {"high": np.float32(0.7)}),
    ("Cast<to: int = 1>(x)", {"x": np.arange(256, dtype=np.uint8)}, {}),
    ("Cast<to: int = 2>(x)", {"x": np.linspace(0, 255.9, 300, dtype=np.float32)}, {}),
    # moving
    ("Reshape(x, s)", {"x": X}, {"s": ints(0, -1, 5)}),
    ("Reshape<allowzero: int = 1>(x, s)", {"x": X}, {"s": ints(4, 3, -1)}),
    ("Squeeze(x, a)", {"x": normal(1, 3, 1, 4)}, {"a": ints(0, -2)}),
    ("Squeeze(x)", {"x": normal(1, 3, 1, 4)}, {}),
    ("Unsqueeze(x, a)", {"x": normal(3, 4)}, {"a": ints(-1, 0)}),
    ("Concat<axis: int = -3>(x, z, x)", {"x": X, "z": normal(2, 1, 8, 10)}, {}),
    ("Expand(x, s)", {"x": normal(6, 1, 10)}, {"s": ints(2, 1, 8, 1)}),
    ("Tile(x, s)", {"x": normal(2, 3)}, {"s": ints(3, 2)}),
    ("DepthToSpace<blocksize: int = 2>(x)", {"x": normal(2, 12, 3, 4)}, {}),
    ('DepthToSpace<blocksize: int = 2, mode = "CRD">(x)', {"x": normal(2, 12, 3, 4)}, {}),
    ("Slice(x, s, e)", {"x": X}, {"s": ints(0, 1), "e": ints(1, 9**9)}),
    ("Slice(x, s, e, a, t)", {"x": X}, {"s": ints(1, -1), "e": ints(-1, -8), "a": ints(2, -1), "t": ints(3, -2)}),
    ("Slice(x, s, e, a, t)", {"x": X}, {"s": ints(9**9), "e": ints(-(9**9)), "a": ints(3), "t": ints(-1)}),
    ("Slice(x, s, e, a, t)", {"x": X}, {"s": ints(7), "e": ints(2), "a": ints(2), "t": ints(-2)}),
    ("Pad(x, p)", {"x": X}, {"p": ints(0, 0, 1, 2, 0, 0, 3, 0)}),
    ("Pad(x, p, v)", {"x": X}, {"p": ints(0, 1, 1, 2, 0, 0, 3, 0), "v": np.float32(0.5)}),
    ("Pad(x, p, , a)", {"x": X}, {"p": ints(1, 2), "a": ints(-1)}),
    *(
        (f'Pad<mode = "{mode}">(x, p)', {"x": X}, {"p": ints(0, 0, 1, 2, 0, 0, 3, 0)})
        for mode in ("edge", "reflect", "wrap")
    ),
    ("Split<axis: int = 3, num_outputs: int = 4>(x)", {"x": X}, {}),
    ("Split<axis: int = -1>(x, s)", {"x": X}, {"s": ints(3, 5, 2)}),
    # choosing
    ("Gather<axis: int = 2>(x, i)", {"x": X}, {"i": ints(7, -1, 0, 3, shape=(2, 2))}),
    ("Gather(x, i)", {"x": X, "i": np.array(1)}, {}),
    ("GatherElements<axis: int = 1>(x, i)", {"x": normal(2, 4), "i": ints(0, -1, 3, 2, shape=(2, 2))}, {}),
    ("GatherND(x, i)", {"x": X, "i": ints(0, 1, 1, 5, shape=(2, 2))}, {}),
    ("GatherND<batch_dims: int = 1>(x, i)", {"x": X, "i": ints(0, 1, 5, 2, shape=(2, 2))}, {}),
    ("TopK<axis: int = 1>(x, k)", {"x": normal(3, 9)}, {"k": ints(4)}),
    ("TopK<largest: int = 0>(x, k)", {"x": normal(3, 9)}, {"k": ints(2)}),
    ("CumSum(x, a)", {"x": X}, {"a": np.array(2)}),
    ("CumSum<exclusive: int = 1, reverse: int = 1>(x, a)", {"x": X}, {"a": np.array(-1)}),
    *(
        (f"{op}<keepdims: int = {keep}>(x, a)", {"x": X}, {"a": ints(1, -1)})
        for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd")
        for keep in (0, 1)
    ),
    # layers
    ("Conv<pads: ints = [1, 1, 1, 1]>(x, w, b)", {"x": X}, {"w": normal(4, 6, 3, 3), "b": normal(4)}),
    ("Conv<strides: ints = [2, 1], pads: ints = [0, 2, 1, 1]>(x, w)", {"x": X}, {"w": normal(4, 6, 3, 3)}),
    ("Conv<dilations: ints = [2, 2], group: int = 3>(x, w)", {"x": X}, {"w": normal(9, 2, 3, 3)}),
    ('Conv<auto_pad = "SAME_LOWER", strides: ints = [2, 2]>(x, w)', {"x": X}, {"w": normal(4, 6, 4, 3)}),
    ('Conv<auto_pad = "VALID">(x, w)', {"x": X, "w": normal(4, 6, 3, 3)}, {}),
    ("Conv(x, w)", {"x": normal(1, 3, 9)}, {"w": normal(4, 3, 3)}),
    ("Conv<pads: ints = [1, 1, 1, 1, 1, 1]>(x, w)", {"x": normal(1, 3, 4, 5, 6)}, {"w": normal(4, 3, 3, 3, 3)}),
    ("ConvTranspose<strides: ints = [2, 2]>(x, w, b)", {"x": X}, {"w": normal(6, 4, 4, 4), "b": normal(4)}),
    (
        "ConvTranspose<strides: ints = [2, 2], pads: ints = [1, 1, 1, 1], output_padding: ints = [1, 1],"
        "group: int = 2>(x, w)",
        {"x": X},
        {"w": normal(6, 2, 3, 3)},
    ),
    ("ConvTranspose<strides: ints = [2, 2], pads: ints = [0, 1, 1, 0]>(x, w)", {"x": X}, {"w": normal(6, 2, 3, 3)}),
    ("MatMul(x, z)", {"x": X, "z": normal(6, 10, 3)}, {}),
    ("MatMul(x, z)", {"x": normal(4, 5), "z": normal(5)}, {}),
    ("Gemm<alpha: float = 0.5, beta: float = 2.0, transA: int = 1, transB: int = 1>(a, b, c)",
     {"a": normal(5, 3), "b": normal(4, 5), "c": normal(4)}, {}),
    ("Gemm<alpha: float = 0.5>(a, b)", {"a": normal(3, 5), "b": normal(5, 4)}, {}),
    ('Einsum<equation = "b i j, b j k -> b k i">(a, b)', {"a": normal(2, 3, 4), "b": normal(2, 4, 5)}, {}),
    (
        "BatchNormalization<epsilon: float = 0.01>(x, s, b, m, v)",
        {"x": X},
        {"s": normal(6), "b": normal(6, seed=1), "m": normal(6, seed=2), "v": positive(6)},
    ),
    ("InstanceNormalization<epsilon: float = 0.01>(x, s, b)", {"x": X}, {"s": normal(6), "b": normal(6, seed=1)}),
    ("LayerNormalization<axis: int = -2>(x, s, b)", {"x": X}, {"s": normal(8, 10), "b": normal(10)}),
    ("LayerNormalization(x, s)", {"x": X}, {"s": normal(10)}),
    # sampling
    *(
        (
            f'GridSample<mode = "{mode}", padding_mode = "{padding}", align_corners: int = {corners}>(x, g)',
            {"x": X, "g": GRID},
            {},
        )
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (0, 1)
        if (mode, padding) != ("cubic", "reflection")  # in which ONNX Runtime and torch reflect otherwise
    ),
    ("GridSample(x, g)", {"x": normal(1, 2, 4, 5, 6), "g": np.tanh(normal(1, 3, 4, 5, 3))}, {}),
    ("AffineGrid(t, s)", {"t": normal(2, 2, 3)}, {"s": ints(2, 3, 4, 5)}),
    ("AffineGrid<align_corners: int = 1>(t, s)", {"t": normal(2, 3, 4)}, {"s": ints(2, 3, 4, 5, 6)}),
]  # fmt: skip
RESIZES = [
    *(
        (f'mode = "nearest", coordinate_transformation_mode = "{place}", nearest_mode = "{rounding}"', scales)
        for place in ("asymmetric", "half_pixel", "align_corners")
        for rounding in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        for scales in ((1, 1, 2, 3), (1, 1, 0.6, 1.7))
    ),
    *(
        (f'mode = "{mode}", coordinate_transformation_mode = "{place}"', scales)
        for mode in ("linear", "cubic")
        for place in (
            "half_pixel",
            "align_corners",
            "asymmetric",
            "pytorch_half_pixel",
            "half_pixel_symmetric",
        )
        for scales in ((1, 1, 2, 3), (1, 1, 0.5, 1), (1, 1, 0.6, 1.7))
        if mode == "linear" or place != "half_pixel_symmetric"
    ),
    ('mode = "cubic", cubic_coeff_a: float = -0.5', (1, 1, 2, 3)),
]
CASES += [
    (f"Resize<{how}>(x, , s)", {"x": X}, {"s": np.array(scales, np.float32)}) for how, scales in RESIZES
]
CASES += [
    ('Resize<mode = "linear">(x, , , n)', {"x": X}, {"n": ints(2, 6, 11, 7)}),
    (
        'Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">(x, , , n)',
        {"x": X},
        {"n": ints(2, 6, 11, 20)},
    ),
    ('Resize<mode = "linear", axes: ints = [2, 3]>(x, , s)', {"x": X}, {"s": np.array([2, 2], np.float32)}),
]  # fmt: skip


def model_of(text, inputs, fixed, outputs=1):
    kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(np.asarray(v).dtype) for name, v in inputs.items()}
    made = ", ".join(f"y{i}" for i in range(outputs))
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> g () => () {{ {made} = {text} }}')
    for name, value in inputs.items():
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, kinds[name], np.shape(value)))
    for name, value in fixed.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs))
    return onnx.shape_inference.infer_shapes(model)


def run_torch(model, inputs, half=None):
    network = Network("made", model.SerializeToString(), half)
    return [made.numpy() for made in network(*(torch.from_numpy(np.asarray(v)) for v in inputs.values()))]


def run_onnxruntime(model, inputs):
    options = SessionOptions()
    options.log_severity_level = 4
    session = InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: np.asarray(value) for name, value in inputs.items()})


@pytest.mark.parametrize(("text", "inputs", "fixed"), CASES, ids=[case[0] for case in CASES])
def test_an_operator_gives_what_onnxruntime_gives(text, inputs, fixed):
    outputs = {"Split": 3 if "s" in fixed else 4, "TopK": 2}.get(text.split("(")[0].split("<")[0], 1)
    model = model_of(text, inputs, fixed, outputs)
    expected, found = run_onnxruntime(model, inputs), run_torch(model, inputs)
    for a, b in zip(expected, found, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(b.astype(np.float64), a.astype(np.float64), rtol=1e-5, atol=2e-5)


def test_every_operator_has_a_case():
    folded = {"ConstantOfShape", "Range"}  # shown below, where they are folded
    assert {case[0].split("(")[0].split("<")[0] for case in CASES} | folded == set(OPERATORS)


# --- constants ------------------------------------------------------------------------------------


def graph(text, opset=20):
    return onnx.shape_inference.infer_shapes(
        parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> {text}')
    )


def test_what_hangs_on_constants_alone_is_computed_once():
    model = graph("""
    g (float[2,3,4] x) => (float[N,M] y)
    <int64[1] last = {-1}, int64[1] one = {1}> {
        shape = Shape(x)
        rows = Gather(shape, one)
        target = Concat<axis: int = 0>(rows, last)
        flat = Reshape(x, target)
        zero = Constant<value_int: int = 0>()
        three = Constant<value_int: int = 3>()
        step = Constant<value_int: int = 1>()
        line = Range(zero, three, step)
        column = Unsqueeze(line, last)
        floats = Cast<to: int = 1>(column)
        size = Constant<value_ints: ints = [3, 1]>()
        twos = ConstantOfShape<value = float[1] {2.0}>(size)
        more = Add(floats, twos)
        y = Mul(flat, more)
    }
    """)
    network = Network("made", model.SerializeToString())
    assert len(network._steps) == 2
    x = normal(2, 3, 4)
    np.testing.assert_array_equal(
        network(torch.from_numpy(x))[0].numpy(), x.reshape(3, 8) * np.array([[2], [3], [4]], np.float32)
    )


def test_weights_in_bfloat16_are_read_as_they_are():
    weight = onnx.helper.make_tensor(
        "w", TensorProto.BFLOAT16, [2], np.array([0x3FC0, 0xC000], np.uint16).tobytes(), raw=True
    )
    model = graph("g (bfloat16[2] x) => (float[2] y) { s = Add(x, w) y = Cast<to: int = 1>(s) }")
    model.graph.initializer.append(weight)
    network = Network("made", model.SerializeToString())
    assert network(torch.zeros(2, dtype=torch.bfloat16))[0].tolist() == [1.5, -2.0]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("y = Hardmax(x)", r"made: .* does not know the operator Hardmax \(node .*use another backend"),
        (
            "y = AveragePool<kernel_shape: ints = [2, 2], dilations: ints = [2, 2]>(x)",
            "AveragePool with auto_pad, dilations",
        ),
        ("y = Resize<antialias: int = 1>(x, , s)", "Resize with antialias"),
        (
            'y = Resize<coordinate_transformation_mode = "tf_crop_and_resize">(x, , s)',
            "tf_crop_and_resize is not known",
        ),
        (
            "n = Cast<to: int = 7>(k) y = Reshape(x, n)",
            "Reshape .* takes n, a size or the like, from what is computed",
        ),
        ("n = Cast<to: int = 12>(x) y = Cast<to: int = 1>(n)", "does not know the type UINT32 of n"),
        ("y = Relu<speed: int = 3>(x)", "does not know the attribute speed of Relu"),
    ],
)
def test_what_it_does_not_know_is_named(text, said):
    model = graph(
        "g (float[1,1,4,4] x, float[4] k) => (float[A,B,C,D] y) <float[4] s = {1.0, 1.0, 2.0, 2.0}> {"
        + text
        + "}"
    )
    with pytest.raises(BundleError, match=said):
        Network("made", model.SerializeToString())(torch.zeros(1, 1, 4, 4), torch.zeros(4))


def test_an_old_opset_and_control_flow_are_refused():
    with pytest.raises(BundleError, match="of opset 11; the torch backend takes 13 and newer"):
        Network("made", graph("g (float[2] x) => (float[2] y) { y = Relu(x) }", 11).SerializeToString())
    branching = graph("""
    g (bool c, float[4] x) => (float[4] y) {
        y = If (c) <
            then_branch = t () => (float[4] a) { a = Relu(x) },
            else_branch = e () => (float[4] b) { b = Neg(x) }
        >
    }
    """)
    with pytest.raises(BundleError, match="does not know control flow"):
        Network("made", branching.SerializeToString())
