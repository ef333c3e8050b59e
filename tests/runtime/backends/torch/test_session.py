"""Graphs on torch: precision, held inputs, captured graphs, kernels in the place of regions; a whole system."""

import contextlib
import gc
import shutil
import weakref
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from reenact.errors import BackendError
from reenact.kernels import host
from reenact.runtime.engine import load
from reenact.runtime.graph import read_graph

torch = pytest.importorskip("torch", reason="the torch backend needs torch, which is not installed")
from reenact.runtime.backends import torch as backend  # noqa: E402
from reenact.runtime.backends.torch import fused, network, session  # noqa: E402
from reenact.runtime.backends.torch import sampling as resizing  # noqa: E402
from reenact.runtime.backends.torch.session import TorchSession  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # two would wait for each other on a busy machine
    yield
    torch.set_num_threads(before)


def graph(text, functions="", **weights):
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20, "reenact" : 1]> {text} {functions}')
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    return read_graph(model)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


ADDING = """g (float[2,3] x, float[3] features, uint8[2,3] more) => (float[2,3] y, uint8[2,3] z) {
    sum = Add(x, features)
    floats = Cast<to: int = 1>(more)
    y = Mul(sum, floats)
    z = Identity(more)
}"""


def inputs(seed=0):
    more = np.random.default_rng(seed).integers(0, 255, (2, 3), dtype=np.uint8)
    return {"x": normal(2, 3, seed=seed), "features": normal(3, seed=seed + 100), "more": more}


def check(found, given):
    np.testing.assert_array_equal(
        found["y"], (given["x"] + given["features"]) * given["more"].astype(np.float32)
    )
    np.testing.assert_array_equal(found["z"], given["more"])


# --- running --------------------------------------------------------------------------------------


def test_results_are_right_and_stay_when_the_next_run_comes():
    made = TorchSession(graph(ADDING), "fp32", "cpu")
    found = [made.run(inputs(seed)) for seed in range(3)]
    for seed, result in enumerate(found):
        check(result, inputs(seed))


def test_held_inputs_are_copies_and_take_turns_with_arrays():
    made = TorchSession(graph(ADDING), "fp32", "cpu")
    given = [inputs(seed) for seed in range(3)]
    held = [made.hold(one["features"]) for one in given[:2]]
    given[0]["features"][:] = 99
    given[0] = inputs(0)
    for seed, features in ((0, held[0]), (1, held[1]), (2, given[2]["features"]), (0, held[0]), (0, held[0])):
        check(made.run(given[seed] | {"features": features}), given[seed])


def test_a_graph_with_free_axes_is_made_ready_for_each_shape():
    made = TorchSession(graph("g (float[N,3] x) => (float[N,3] y) { y = Add(x, x) }"), "fp32", "cpu")
    for rows in (1, 2, 5, 2, 7, 9, 1):
        x = np.full((rows, 3), rows, np.float32)
        np.testing.assert_array_equal(made.run({"x": x})["y"], 2 * x)
    assert len(made._forms) == 4


def test_what_fails_in_torch_names_the_graph():
    made = TorchSession(
        graph("g (float[3] x, int64[1] i) => (float[1] y) { y = Gather(x, i) }"), "fp32", "cpu"
    )
    with pytest.raises(BackendError, match=r"graph in memory: torch failed on cpu \(.*index"):
        made.run({"x": normal(3), "i": np.array([7])})
    assert made.run({"x": normal(3), "i": np.array([-1])})["y"] == normal(3)[-1]


# --- the captured graph ---------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """torch.cuda on the CPU: a captured graph is what the network did, done again into the same tensors.

    Like a real one it keeps neither the network nor its inputs, and fails where they have gone.
    """
    seen = SimpleNamespace(calls=[], capturing=None, forwards=0, fails=False)
    forward = network.Network.forward

    class Stream:
        def synchronize(self):
            seen.calls.append("synchronize")

    class Graph:
        def replay(self):
            seen.calls.append("replay")
            kept, results = self.captured  # type: ignore[attr-defined]
            given = [reference() for reference in kept]
            assert all(one is not None for one in given), "freed under the captured graph"
            for result, again in zip(results, forward(*given), strict=True):
                result.copy_(again)

    @contextlib.contextmanager
    def capture(made, *, stream, capture_error_mode):
        assert isinstance(stream, Stream)
        assert capture_error_mode == "thread_local"
        assert seen.calls[-1] == "synchronize"
        seen.capturing = made
        yield
        seen.capturing = None
        if seen.fails:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def counted(self, *given):
        seen.forwards += 1
        results = forward(self, *given)
        if seen.capturing is not None:
            results = tuple(result.clone() for result in results)
            seen.capturing.captured = ([weakref.ref(one) for one in (self, *given)], results)
        return results

    monkeypatch.setattr(network.Network, "forward", counted)
    monkeypatch.setattr(session, "_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    return seen


def test_after_warming_up_only_the_captured_graph_runs(gpu):
    made = TorchSession(graph(ADDING), "fp32", "cpu")
    assert gpu.forwards == 4  # three to warm up, one to capture
    gpu.calls.clear()
    for seed in (1, 2):
        check(made.run(inputs(seed)), inputs(seed))
    assert gpu.calls == ["replay", "synchronize"] * 2
    assert gpu.forwards == 4


def test_what_a_captured_graph_reads_is_never_freed_under_it(gpu):
    text = "g (float[2,3] x) => (float[2,3] y) { y = Add(x, w) }"
    made = TorchSession(graph(text, w=normal(3, seed=4)), "fp32", "cpu")
    gc.collect()
    np.testing.assert_array_equal(made.run({"x": normal(2, 3)})["y"], normal(2, 3) + normal(3, seed=4))
    assert gpu.calls[-2:] == ["replay", "synchronize"]
    device = torch.device("cpu")
    for kept in (
        lambda size: resizing._weights((size, 2 * size, 2.0), "half_pixel", "linear", -0.75, device),
        lambda size: resizing._nearest((size, 2 * size, 2.0), "asymmetric", "floor", device),
    ):
        first = kept(3)
        for size in range(4, 204):
            kept(size)
        assert kept(3) is first


def test_a_held_input_is_copied_to_its_place_only_when_another_was_there(gpu, monkeypatch):
    made = TorchSession(graph(ADDING), "fp32", "cpu")
    held = made.hold(inputs(0)["features"])
    copied = []
    real = torch.Tensor.copy_

    def copy(self, source, *rest, **named):
        copied.append(source is held)
        return real(self, source, *rest, **named)

    monkeypatch.setattr(torch.Tensor, "copy_", copy)
    for features in (held, held, inputs(5)["features"], held, held):
        made.run(inputs(0) | {"features": features})
    assert sum(copied) == 2


def test_what_cannot_be_captured_runs_node_by_node_and_says_so(gpu, caplog):
    gpu.fails = True
    made = TorchSession(graph(ADDING), "fp32", "cpu")
    assert "cannot be captured, it is launched node by node (CUDA error" in caplog.text
    check(made.run(inputs(1)), inputs(1))
    assert "replay" not in gpu.calls


def test_torch_has_what_capturing_needs():
    import inspect

    assert "thread_local" in (torch.cuda.graph.__doc__ or "")
    assert list(inspect.signature(torch.cuda.graph.__init__).parameters)[1:5] == [
        *("cuda_graph", "pool", "stream", "capture_error_mode")
    ]
    assert callable(torch.cuda.CUDAGraph.replay)


def test_torch_compile_is_asked_for_by_a_setting_and_can_trace_a_network(monkeypatch):
    asked = []

    def compile_(module, **options):
        asked.append(options)
        return real(module, backend="eager", **options)

    real = torch.compile
    monkeypatch.setattr(torch, "compile", compile_)
    text = 'g (float[1,2,4,4] x) => (float[1,2,8,8] y) { a = Conv(x, w) y = Resize<mode = "linear">(a, , s) }'
    made = graph(text, w=normal(2, 2, 1, 1), s=np.array([1, 1, 2, 2], np.float32))
    plain = TorchSession(made, "fp32", "cpu").run({"x": normal(1, 2, 4, 4)})["y"]
    assert asked == []
    monkeypatch.setenv("REENACT_TORCH_COMPILE", "1")
    compiled = TorchSession(made, "fp32", "cpu").run({"x": normal(1, 2, 4, 4)})["y"]
    assert asked == [{"fullgraph": True, "dynamic": False}]
    np.testing.assert_array_equal(compiled, plain)


# --- precision ------------------------------------------------------------------------------------

SIDE = 128
SAMPLER = """g (uint8[1,3,128,128] picture, float[1,2,128,128] field) => (float[1,3,128,128] image) {
    features = Cast<to: int = 1>(picture)
    moved = Conv(field, turn, little)
    grid = Transpose<perm: ints = [0, 2, 3, 1]>(moved)
    found = GridSample(features, grid)
    image = Conv(found, mix)
}"""


@pytest.fixture
def sampling():
    line = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1
    made = graph(
        SAMPLER,
        turn=np.eye(2, dtype=np.float32)[:, :, None, None],
        little=np.full(2, 2 / SIDE / 3, np.float32),
        mix=normal(3, 3, 1, 1),
    )
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, SIDE, SIDE), dtype=np.uint8)
    return made, {"picture": picture, "field": np.stack(np.meshgrid(line, line))[None] * 0.98}


@pytest.mark.parametrize(("precision", "most"), [("fp16", 0.001), ("bf16", 0.01)])
def test_positions_stay_exact_in_half_precision(sampling, monkeypatch, precision, most):
    made, given = sampling
    exact = TorchSession(made, "fp32", "cpu").run(given)["image"]

    def off():
        found = TorchSession(made, precision, "cpu").run(given)["image"]
        assert found.dtype == np.float32
        return np.abs(found - exact).max() / np.abs(exact).max()

    assert 0 < off() < most
    monkeypatch.setattr(network, "islands", lambda *_: {})
    monkeypatch.setattr(network, "leading_to", lambda *_: set())
    monkeypatch.setattr(network, "sampled_at", lambda _: ())
    assert off() > 5 * most


@pytest.mark.parametrize(("half", "last"), [(None, False), (torch.bfloat16, True)])
def test_in_half_precision_weights_and_with_them_maps_lie_channels_last(half, last):
    made = graph("g (float[1,4,8,8] x) => (float[1,6,8,8] y) { y = Conv(x, w) }", w=normal(6, 4, 3, 3))
    (weight,) = network.Network("made", made.content, half).buffers()
    assert weight.is_contiguous(memory_format=torch.channels_last) == last
    found = torch.nn.functional.conv2d(torch.zeros(1, 4, 8, 8, dtype=weight.dtype), weight)
    assert found.is_contiguous(memory_format=torch.channels_last) == last


def test_constants_beyond_half_precision_keep_their_nodes_in_float32():
    made = graph(
        """g (float[4] x) => (float[4] y) {
            bounded = Min(x, huge)
            never = Sub(bounded, huge)
            gone = Exp(never)
            square = Mul(x, x)
            guarded = Add(square, little)
            unit = Div(square, guarded)
            sum = Add(bounded, unit)
            y = Add(sum, gone)
        }""",
        huge=np.float32(1e5),
        little=np.float32(1e-8),
    )
    x = np.array([0, 0.5, -0.7, 1], np.float32)
    exact, found = (TorchSession(made, precision, "cpu").run({"x": x})["y"] for precision in ("fp32", "fp16"))
    np.testing.assert_allclose(found, exact, atol=2e-3)


def in_half():
    """A graph that is written in fp16, with float32 around."""
    return graph(
        "g (float[8] x) => (float[8] y) { h = Cast<to: int = 10>(x) s = Mul(h, w) y = Cast<to: int = 1>(s) }",
        w=normal(8).astype(np.float16),
    )


def test_a_graph_written_in_half_precision_runs_as_it_is_written():
    made = TorchSession(in_half(), "fp16", "cpu")
    x = normal(8, seed=1)
    expected = (x.astype(np.float16) * normal(8).astype(np.float16)).astype(np.float32)
    np.testing.assert_array_equal(made.run({"x": x})["y"], expected)
    with pytest.raises(BackendError, match=r"precision bf16: .* is written in fp16; use --precision auto"):
        backend.start(in_half(), precision="bf16", threads=None)


# --- kernels in the place of regions --------------------------------------------------------------

REGION = """g (float[1,2,8,8] field, float[1,4,8,8] x) => (float[1,4,8,8] y) {
    map = Relu(x)
    warped = reenact.WarpPyramid1_2(field, map)
    y = Conv(warped, w)
}"""
BODY = """<domain: "reenact", opset_import: ["" : 20]>
WarpPyramid1_2 (field, features) => (warped) {
    grid = Transpose<perm: ints = [0, 2, 3, 1]>(field)
    warped = GridSample(features, grid)
}"""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_region_is_computed_by_its_kernel_where_there_is_one(monkeypatch, precision):
    made = graph(REGION, BODY, w=normal(4, 4, 1, 1))
    given = {"field": normal(1, 2, 8, 8) * 0.3, "x": normal(1, 4, 8, 8)}
    plain = TorchSession(made, precision, "cpu").run(given)["y"]
    kinds = []

    def kernel(field, features):
        kinds.append((field.dtype, features.dtype))
        found = torch.nn.functional.grid_sample(
            features.float(), field.permute(0, 2, 3, 1), align_corners=False
        )
        return (found.to(features.dtype),)

    monkeypatch.setattr(session, "kernels_on", lambda device: {"WarpPyramid": kernel})
    replaced = TorchSession(made, precision, "cpu").run(given)["y"]
    np.testing.assert_allclose(replaced, plain, atol=1e-6)
    assert set(kinds) == {(torch.float32, torch.float32 if precision == "fp32" else torch.bfloat16)}


@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float32, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)]
)
def test_the_fused_warp_is_torchs_own_sampling(monkeypatch, tmp_path, dtype, near):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed; it compiles the device code for the CPU")
    monkeypatch.setattr(fused, "_launcher", lambda device: host.Launcher(tmp_path))
    field = torch.from_numpy(normal(1, 2, 8, 8) * 0.5)
    features = [torch.from_numpy(normal(1, c, s, s)).to(dtype) for c, s in ((8, 8), (16, 4), (3, 8))]
    features[1] = features[1].contiguous(memory_format=torch.channels_last)
    warped = fused._warp(field, *features)
    for maps, found in zip(features, warped, strict=True):
        few = torch.nn.functional.interpolate(field, size=maps.shape[2:], mode="nearest")
        expected = torch.nn.functional.grid_sample(maps.float(), few.permute(0, 2, 3, 1), align_corners=False)
        np.testing.assert_allclose(found.float().numpy(), expected.numpy(), atol=near)
        assert (found.dtype, found.stride()) == (maps.dtype, maps.stride())


def test_a_graph_takes_the_fused_warp_where_the_device_has_it(monkeypatch, tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed; it compiles the device code for the CPU")
    made = graph(REGION, BODY, w=normal(4, 4, 1, 1))
    given = {"field": normal(1, 2, 8, 8) * 0.3, "x": normal(1, 4, 8, 8)}
    plain = TorchSession(made, "fp32", "cpu").run(given)["y"]
    used = []

    def launcher(device):
        used.append(device)
        return host.Launcher(tmp_path)

    monkeypatch.setattr(fused, "_launcher", launcher)
    monkeypatch.setattr(session, "kernels_on", lambda device: {"WarpPyramid": fused._warp})
    np.testing.assert_allclose(TorchSession(made, "fp32", "cpu").run(given)["y"], plain, atol=1e-5)
    assert used
    assert fused.kernels_on(torch.device("cpu")) == {}


# --- whether it can be used -----------------------------------------------------------------------


def test_it_says_what_keeps_it(monkeypatch):
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    assert backend.missing() == "the package torch is not installed"
    monkeypatch.undo()
    if torch.version.cuda is None:
        assert backend.missing() == "the package torch that is installed was built without CUDA"
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert backend.missing() == "torch finds no GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert backend.missing() is None


# --- a whole system -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rho(rho_bundle):
    """Both graphs of Face2Face-rho, a portrait for them, and what the cpu backend makes of it."""
    from reenact.export import face2face_rho
    from reenact.export.face2face_rho_graphs import Sizes

    photo, driving = dict(face2face_rho.samples(Sizes.of(128)))["portrait"]
    given = {"source": {name: tensor.numpy() for name, tensor in photo.items()}}
    expected = {}
    for name in ("source", "frame"):
        with load(rho_bundle / f"{name}.onnx", backend="cpu", precision="fp32") as engine:
            expected[name] = engine.run(given[name])
        given["frame"] = expected["source"] | {key: tensor.numpy() for key, tensor in driving.items()}
    return rho_bundle, given, expected


@pytest.mark.parametrize("name", ["source", "frame"])
def test_face2face_rho_gives_what_the_cpu_backend_gives(rho, name):
    folder, given, expected = rho
    made = TorchSession(read_graph(folder / f"{name}.onnx"), "fp32", "cpu")
    held = {key: made.hold(array) for key, array in given[name].items() if array.dtype == np.float32}
    found = made.run(given[name] | held)
    assert found.keys() == expected[name].keys()
    for key, array in expected[name].items():
        assert found[key].dtype == array.dtype
        most = 1 if array.dtype == np.uint8 else 1e-4
        assert np.abs(found[key].astype(float) - array).max() <= most


@pytest.mark.parametrize(("precision", "least_db"), [("fp16", 50), ("bf16", 40)])
def test_face2face_rho_in_half_precision(rho, precision, least_db):
    folder, given, expected = rho
    found = TorchSession(read_graph(folder / "frame.onnx"), precision, "cpu").run(given["frame"])["image"]
    square = np.mean((found.astype(float) - expected["frame"]["image"]) ** 2)
    assert least_db < 10 * np.log10(255**2 / square) < 70


def test_face2face_rho_written_in_half_precision_is_as_exact_as_said(rho):
    from reenact.export.precision import convert

    folder, given, expected = rho
    made = convert(onnx.load(folder / "frame.onnx"), dtype="fp16", calibration=[given["frame"]])
    found = TorchSession(read_graph(made.model), "fp16", "cpu").run(given["frame"])["image"]
    square = np.mean((found.astype(float) - expected["frame"]["image"]) ** 2)
    assert 10 * np.log10(255**2 / square) == pytest.approx(made.report.errors[0].psnr_db, abs=1.5)
