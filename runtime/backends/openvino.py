"""Runs graphs with OpenVINO on the CPU, in float32 or, where the CPU computes it natively, in bfloat16.

A graph with free axes is compiled once for each shape that it meets: fixed shapes run a quarter faster.
"""

import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray

from ...errors import BackendError, BundleError
from ..files import home, private_folder
from ..graph import Graph
from .halves import Chain, in_bfloat16

__all__ = ["best_precision", "core", "missing", "session", "start"]

_log = logging.getLogger(__name__)
_MOST_SHAPES = 4  # compiled forms kept for one graph


def missing() -> str | None:
    """Why OpenVINO cannot be used here; None where it can."""
    if find_spec("openvino") is None:
        return "the package openvino is not installed"
    try:
        found = "CPU" in core().available_devices
    except (ImportError, OSError, RuntimeError) as error:
        return f"openvino does not start ({error})"
    return None if found else "openvino finds no CPU device"


def best_precision() -> str:
    """bf16 where the CPU has instructions for it (AVX512-BF16, AMX), else fp32."""
    return "bf16" if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "fp32"


def start(graph: Graph, *, precision: str, threads: int | None) -> "OpenVinoSession | Chain":
    """Read `graph` and, where all its shapes are fixed, compile it.

    In bf16 sampling positions and the numbers of the result stay in float32. Raises BackendError for bf16 on a CPU
    without it and BundleError for a graph that OpenVINO refuses.
    """
    best = best_precision()
    if precision == "bf16" and best != "bf16":
        raise BackendError("precision bf16: this CPU has no bf16 instructions; use --precision fp32 or auto")
    return session(graph, best if precision == "auto" else precision, threads)


def session(graph: Graph, precision: str, threads: int | None) -> "OpenVinoSession | Chain":
    """As `start`, also in a precision that the CPU only emulates: slow, but it shows how exact that is."""
    parts = in_bfloat16(graph) if precision == "bf16" else [(graph, precision)]
    started = [(part, OpenVinoSession(part, kind, threads)) for part, kind in parts]
    return started[0][1] if len(started) == 1 else Chain(started, list(graph.outputs))


@cache
def core() -> Any:
    """OpenVINO's `Core`, one for the process; every import of openvino in this package goes through here.

    Importing openvino reports to its makers over the network, unless the package that does so is absent: it
    has a stub for that. So that package is made absent for this process first.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    from openvino import Core

    return Core()


def _compile_cache() -> dict[str, str]:
    """Compiled graphs are kept between runs: loading one takes a quarter of the time that compiling takes."""
    folder = home() / "openvino"
    try:
        return {"CACHE_DIR": str(private_folder(folder))}
    except OSError as error:
        _log.warning("%s cannot be written (%s): graphs are compiled anew each time", folder, error)
        return {}


class OpenVinoSession:
    """One graph on the CPU."""

    def __init__(self, graph: Graph, precision: str, threads: int | None) -> None:
        """Made by `start`."""
        self.precision = precision
        self._name = graph.name
        self._inputs = tuple(graph.inputs)
        self._outputs = tuple(graph.outputs)
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads or _cores(),
            # Pinned threads of two engines would share one core.
            "ENABLE_CPU_PINNING": False,
            **_compile_cache(),
        }
        try:
            self._model = core().read_model(graph.content)
        except RuntimeError as error:
            raise BundleError(f"{graph.name}: openvino refuses it ({_reason(error)})") from error
        self._compiled: OrderedDict[tuple[tuple[int, ...], ...], _Compiled] = OrderedDict()
        shapes = [spec.shape for spec in graph.inputs.values()]
        if all(size is not None for shape in shapes for size in shape):
            self._for(tuple(tuple(size for size in shape if size is not None) for shape in shapes))

    def hold(self, array: NDArray[Any]) -> NDArray[Any]:
        """A copy: the caller may go on writing into its own."""
        return array.copy()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name, in arrays of their own."""
        arrays = [inputs[name] for name in self._inputs]
        compiled = self._for(tuple(array.shape for array in arrays))
        try:
            return compiled.run(arrays)
        except RuntimeError as error:
            raise BackendError(f"{self._name}: openvino failed while running ({_reason(error)})") from error

    def close(self) -> None:
        """Free every compiled form."""
        self._compiled.clear()
        self._model = None

    def _for(self, shapes: tuple[tuple[int, ...], ...]) -> "_Compiled":
        compiled = self._compiled.get(shapes)
        if compiled is not None:
            self._compiled.move_to_end(shapes)
            return compiled
        try:
            model = self._model.clone()
            model.reshape(dict(zip(self._inputs, map(list, shapes), strict=True)))
            compiled = _Compiled(
                core().compile_model(model, "CPU", self._settings), self._inputs, self._outputs
            )
        except RuntimeError as error:
            raise BundleError(
                f"{self._name}: openvino cannot prepare it for inputs {shapes} ({_reason(error)})"
            ) from error
        self._compiled[shapes] = compiled
        if len(self._compiled) > _MOST_SHAPES:
            self._compiled.popitem(last=False)
        return compiled


class _Compiled:
    """A graph compiled for one set of shapes, with its one request."""

    def __init__(self, model: Any, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        from openvino import Tensor

        self._request = model.create_infer_request()
        self._tensor = Tensor
        self._inputs = inputs
        self._outputs = [(name, self._request.get_tensor(name).data) for name in outputs]

    def run(self, arrays: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for name, array in zip(self._inputs, arrays, strict=True):
            # Runs on the caller's memory; OpenVINO insists that it may be written, though it only reads it.
            shared = array if array.flags.writeable else array.copy()
            self._request.set_tensor(name, self._tensor(shared, shared_memory=True))
        self._request.infer()
        return {name: own.copy() for name, own in self._outputs}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _reason(error: Exception) -> str:
    """The last line that says something; OpenVINO puts where it happened before what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
