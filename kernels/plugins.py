"""The fused warp inside TensorRT engines: a plugin whose kernel is compiled before and lies in the engine as PTX.

An engine with it needs neither Python nor this package to run. TensorRT asks of such plugins one launch, with pointers
to the inputs and then to the outputs as the kernel's parameters; all else is baked in.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .cuda import compile_kernels, nvrtc_version
from .launch import THREADS, blocks_for
from .warp import CHANNELS_A_THREAD, MOST_MAPS

__all__ = ["NAMESPACE", "VERSIONED", "PluginKernel", "missing", "register_warp", "warp_kernel"]

NAMESPACE = "reenact"
VERSIONED = "WarpPyramid{number}V1"
"""A plugin's name. TensorRT keeps timings by it, so it changes when the kernel does."""


@dataclass(frozen=True)
class PluginKernel:
    """One kernel with everything baked in."""

    name: str
    text: str  # CUDA source
    blocks: tuple[int, int]  # in x and y, of THREADS threads each


def warp_kernel(
    batch: int, field: tuple[int, int], maps: Sequence[tuple[int, int, int]], *, half: bool
) -> PluginKernel:
    """The kernel that warps feature maps (batch, channels, height, width) by a field (batch, 2, height, width).

    `field` is its height and width, `maps` are channels, height and width of each. The field is float32, the maps are
    float16 or float32. It computes what the function `WarpPyramid<n>` of an exported graph says.
    """
    if not 1 <= len(maps) <= MOST_MAPS:
        raise ValueError(f"{len(maps)} maps; one launch takes 1 to {MOST_MAPS}")
    kind = "half_t" if half else "float"
    name = f"warp_pyramid_{len(maps)}_{'f16' if half else 'f32'}"
    blocks, lines = 0, []
    for i, (channels, height, width) in enumerate(maps):
        numbers = (channels, height, width, height, width, channels, 0, blocks)
        lines.append(f"    p.maps[{i}] = {{features[{i}], out[{i}], {', '.join(map(str, numbers))}}};")
        blocks += blocks_for(height * width * -(-channels // CHANNELS_A_THREAD))
    settings = {
        "field": "field",
        "number": len(maps),
        "batch": batch,
        "channels_a_thread": CHANNELS_A_THREAD,
        "field_height": field[0],
        "field_width": field[1],
        "field_planar": 1,
        "scale_x": "1.0f",
        "scale_y": "1.0f",
    }
    lines += [f"    p.{key} = {value};" for key, value in settings.items()]
    return PluginKernel(name, _source(name, kind, len(maps), lines), (blocks, batch))


def _source(name: str, kind: str, number: int, lines: list[str]) -> str:
    """On a GPU a kernel with one parameter a tensor; for g++ one struct, as of every other kernel."""
    every = range(number)
    inputs = "".join(f", const {kind}* in{i}" for i in every)
    outputs = "".join(f", {kind}* out{i}" for i in every)
    gathered = f"""    const {kind}* features[] = {{{", ".join(f"in{i}" for i in every)}}};
    {kind}* out[] = {{{", ".join(f"out{i}" for i in every)}}};
"""
    return f"""#include "warp.cuh"

DEVICE void all_maps(const float* field, const {kind}* const* features, {kind}* const* out) {{
    WarpParams p = {{}};
{chr(10).join(lines)}
    warp_planar<{kind}>(p);
}}

#ifdef __CUDACC_RTC__
extern "C" __global__ void __launch_bounds__({THREADS}) {name}(const float* field{inputs}{outputs}) {{
{gathered}    all_maps(field, features, out);
}}
#else
struct Pointers {{ const float* field; const {kind}* features[{number}]; {kind}* out[{number}]; }};
KERNEL({name}, Pointers) {{ all_maps(p.field, p.features, p.out); }}
#endif
"""


def missing() -> str | None:
    """Why engines cannot have plugins of ours, in one line; None where they can. TensorRT must be importable."""
    if nvrtc_version() is None:
        return "NVRTC, which compiles the kernels, is not installed"
    try:
        from tensorrt import plugin as trtp
    except ImportError as error:
        return f"this TensorRT has no plugins with kernels of their own ({error})"
    return None if hasattr(trtp, "aot_impl") else "this TensorRT's plugins cannot have kernels of their own"


def register_warp(number: int, capability: int) -> str:
    """Make the plugin for `number` maps known to TensorRT in this process; the name of its operator.

    Kernels are compiled when an engine is built, for the compute capability of its GPU, such as 90. Raises ValueError
    for a number of maps that one launch cannot take. `tensorrt.plugin` must be importable (TensorRT 10.9 or newer).
    """
    from tensorrt import DataType
    from tensorrt import plugin as trtp

    if not 1 <= number <= MOST_MAPS:
        raise ValueError(f"{number} maps; one launch takes 1 to {MOST_MAPS}")
    name = VERSIONED.format(number=number)
    identity = f"{NAMESPACE}::{name}"
    if hasattr(getattr(trtp.op, NAMESPACE, None), name):
        return name

    def describe(*tensors: Any) -> Any:
        outputs = tuple(features.like() for features in tensors[1:])
        return outputs if number > 1 else outputs[0]

    def implement(*tensors: Any) -> Any:
        field, *maps = tensors[: number + 1]
        shapes = [tuple(features.shape) for features in maps]
        half = maps[0].dtype == DataType.HALF
        kernel = warp_kernel(shapes[0][0], tuple(field.shape)[2:], [shape[1:] for shape in shapes], half=half)
        ptx = compile_kernels("warp.cu", f"compute_{capability}", kernel.text)
        launch = trtp.KernelLaunchParams()
        launch.grid_x, launch.grid_y = kernel.blocks
        launch.block_x = THREADS
        return kernel.name, ptx, launch, trtp.SymIntExprs(0)

    tensors = ["field", *(f"features_{i}" for i in range(number))]
    # TensorRT reads what a plugin takes and gives from its annotations.
    outputs = trtp.TensorDesc if number == 1 else tuple[(trtp.TensorDesc,) * number]  # type: ignore[misc]
    _annotate(describe, tensors, trtp.TensorDesc, outputs)
    compiled = tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymExprs]
    _annotate(implement, [*tensors, "outputs", "tactic"], inspect.Parameter.empty, compiled)
    trtp.register(identity)(describe)
    trtp.aot_impl(identity)(implement)
    return name


def _annotate(function: Any, names: Sequence[str], kind: Any, returned: Any) -> None:
    parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for name in names
    ]
    function.__signature__ = inspect.Signature(parameters, return_annotation=returned)
