"""The warp as a TensorRT plugin: what its generated kernel computes, and that TensorRT's own rules accept it."""

import ctypes
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from reenact.kernels import cuda, host
from reenact.kernels.launch import Kernel, sources
from reenact.kernels.plugins import PluginKernel, warp_kernel
from reenact.kernels.warp import Field, warp_reference

MAPS = [(28, 64, 64), (72, 32, 32), (140, 16, 16), (280, 16, 16)]


@pytest.mark.parametrize(("half", "near"), [(False, 1e-4), (True, 5e-3)])
@pytest.mark.parametrize(("batch", "maps"), [(1, MAPS), (2, [(5, 7, 9)]), (1, [(33, 3, 3), (1, 65, 2)])])
def test_its_kernel_warps_every_map(
    batch: int, maps: list[Any], half: bool, near: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed; it compiles the device code for the CPU")
    random = np.random.default_rng(7)
    field = random.uniform(-1.2, 1.2, (batch, 2, 64, 64)).astype(np.float32)
    dtype = np.float16 if half else np.float32
    features = [random.normal(size=(batch, *shape)).astype(dtype) for shape in maps]
    out = [np.full_like(array, np.nan) for array in features]
    kernel = warp_kernel(batch, (64, 64), maps, half=half)
    launch_as_one_struct(kernel, field, features, out, tmp_path, monkeypatch)
    for given, found in zip(features, out, strict=True):
        expected = warp_reference(given, Field(field, planar=True), *given.shape[2:])
        assert (np.abs(found - expected) > near).mean() < 1e-3
        assert np.isfinite(found).all()


def launch_as_one_struct(
    kernel: PluginKernel,
    field: NDArray[Any],
    features: list[NDArray[Any]],
    out: list[NDArray[Any]],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run the kernel in g++'s build."""
    addresses = ctypes.c_uint64 * len(features)
    fields = [("field", ctypes.c_uint64), ("features", addresses), ("out", addresses)]
    pointers = type("Pointers", (ctypes.Structure,), {"_fields_": fields})
    params = pointers(
        field.ctypes.data,
        addresses(*(a.ctypes.data for a in features)),
        addresses(*(a.ctypes.data for a in out)),
    )
    monkeypatch.setattr(host, "sources", lambda file: sources(file, kernel.text))
    host.Launcher(folder).launch(Kernel("plugin.cu", kernel.name), params, (*kernel.blocks, 1))


def test_its_kernel_is_ptx_that_takes_one_parameter_a_tensor() -> None:
    if cuda.nvrtc_version() is None:
        pytest.skip("NVRTC, CUDA's compiler as a library, is not installed")
    kernel = warp_kernel(1, (64, 64), MAPS, half=True)
    ptx = cuda.compile_kernels("plugin.cu", "compute_90", kernel.text).decode()
    (parameters,) = re.findall(rf"\.visible \.entry {kernel.name}\(([^)]*)\)", ptx)
    assert parameters.count(".param .u64") == 1 + 2 * len(MAPS)
    assert ".local" not in ptx  # everything stays in registers
    assert ptx.count(".visible .entry") == 1


def test_more_maps_than_one_launch_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="9 maps"):
        warp_kernel(1, (8, 8), [(1, 8, 8)] * 9, half=True)


# What TensorRT's libraries would offer; its Python part loads when these names exist, and judges plugins by itself.
LOADER = """
void* createInferBuilder_INTERNAL(void) { return 0; }
void* createInferRuntime_INTERNAL(void) { return 0; }
void* createInferRefitter_INTERNAL(void) { return 0; }
void* createNvOnnxParser_INTERNAL(void) { return 0; }
void* createNvOnnxParserRefitter_INTERNAL(void) { return 0; }
void* getBuilderPluginRegistry(void) { return 0; }
void* getPluginRegistry(void) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void) { return 0; }
"""

JUDGED = """
import json, sys, types, warnings
warnings.simplefilter("ignore")
import tensorrt_bindings
sys.modules["tensorrt"] = tensorrt_bindings
created = []
class Registry:
    def get_creator(self, name, version, namespace):
        return next((c for c in created if (c.name, c.plugin_namespace) == (name, namespace)), None)
    def register_creator(self, creator, namespace):
        created.append(creator)
tensorrt_bindings.get_plugin_registry = Registry
import tensorrt_bindings.plugin as trtp
sys.modules["tensorrt.plugin"] = trtp
from reenact.kernels.plugins import register_warp
names = [register_warp(number, 90) for number in (4, 1, 4)]
definition = trtp._lib.QDP_REGISTRY["reenact::WarpPyramid4V1"]

def tensor(dtype, *shape):
    made = trtp.TensorDesc()
    made.shape, made.dtype = trtp.Shape(shape), dtype
    return made

trtp._tensor.SymIntExpr._exprBuilder = types.SimpleNamespace(constant=lambda value: value)
half, single = tensorrt_bindings.DataType.HALF, tensorrt_bindings.DataType.FLOAT
maps = [(28, 64, 64), (72, 32, 32), (140, 16, 16), (280, 16, 16)]
tensors = [tensor(single, 1, 2, 64, 64), *(tensor(half, 1, *shape) for shape in maps)]
name, ptx, launch, extra = definition.aot_impl_func(*tensors, (), 0)
print(json.dumps({
    "names": names, "created": [(c.name, c.plugin_namespace, c.plugin_version) for c in created],
    "inputs": definition.input_tensor_names, "outputs": definition.num_outputs,
    "kernel": name, "is_ptx": ptx.lstrip().startswith(b"//"), "extra": len(extra),
    "grid": [size._expr for size in (launch.grid_x, launch.grid_y, launch.block_x)],
}))
"""


def test_tensorrts_own_rules_accept_it(tmp_path: Path) -> None:
    if cuda.nvrtc_version() is None:
        pytest.skip("NVRTC, CUDA's compiler as a library, is not installed")
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed; it builds what stands for TensorRT's libraries")
    try:
        import importlib.metadata

        importlib.metadata.version("tensorrt_cu13_bindings")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package tensorrt_cu13_bindings, TensorRT's Python part, is not installed")
    (tmp_path / "loader.c").write_text(LOADER)
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        name = f"lib{library}.so.11"
        command = ["g++", "-x", "c", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(tmp_path / name)]
        subprocess.run([*command, str(tmp_path / "loader.c")], check=True)
    environment = {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", JUDGED], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["names"] == ["WarpPyramid4V1", "WarpPyramid1V1", "WarpPyramid4V1"]
    assert found["created"] == [["WarpPyramid4V1", "reenact", "1"], ["WarpPyramid1V1", "reenact", "1"]]
    assert (found["inputs"][:2], found["outputs"]) == (["field", "features_0"], 4)
    assert (found["kernel"], found["is_ptx"], found["extra"]) == ("warp_pyramid_4_f16", True, 0)
    assert found["grid"] == [42, 1, 256]
