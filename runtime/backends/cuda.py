"""Runs graphs with ONNX Runtime's CUDA provider: every node on the GPU, tensors in fixed places, one captured graph.

Where ONNX Runtime would take the CPU without a word (an option it does not know, a library it cannot load, a node it
has no kernel for), there is an error. A graph with free axes is made ready once for each shape that it meets.
"""

import contextlib
import ctypes
import io
import itertools
import logging
import os
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..files import home, private_folder
from ..graph import Graph, TensorSpec
from . import device
from .device import Event, Memory, Pinned, Stream
from .onnxruntime_errors import failures, reason
from .reading import Shapes, fixed_shapes, of_shapes, written_in

__all__ = ["INSTALL", "CudaSession", "best_precision", "missing", "providers", "start"]

INSTALL = 'pip install "onnxruntime-gpu[cuda,cudnn]>=1.24" nvidia-cublas "cuda-python>=12.9"'
_log = logging.getLogger(__name__)
_MOST_SHAPES = 4  # forms kept of one graph
_CUDA, _TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_ALLOW_CPU = (
    "REENACT_CUDA_ALLOW_CPU"  # "1": nodes without a kernel may run on the CPU, and nothing is captured
)
_USE_TENSORRT = "REENACT_CUDA_TENSORRT"  # "1": ONNX Runtime's TensorRT provider takes what it can

Provider = tuple[str, dict[str, str]]
_numbers = itertools.count()


def missing() -> str | None:
    """Why the CUDA provider cannot be used here; None where it can. The driver is asked before anything is loaded."""
    absent = device.missing()
    if absent:
        return absent
    if find_spec("onnxruntime") is None:
        return "the package onnxruntime-gpu is not installed"
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        return f"onnxruntime does not start ({error})"
    if _CUDA not in onnxruntime.get_available_providers():
        return "the package onnxruntime is installed, the one for the CPU; remove it with `pip uninstall onnxruntime`"
    return _missing_library(onnxruntime)


def best_precision() -> str:
    """Always fp32: the CUDA provider computes what the graph says."""
    return "fp32"


def start(graph: Graph, *, precision: str, threads: int | None) -> "CudaSession":  # noqa: ARG001
    """Make `graph` ready on the first GPU; `threads` does not matter there.

    Raises BackendError for a precision that the graph is not written in, where libraries are missing and where nodes
    would run on the CPU; BundleError for a graph that ONNX Runtime refuses.
    """
    written = written_in(graph)
    if precision not in ("auto", written):
        raise BackendError(
            f"precision {precision}: the cuda backend computes what {graph.name} says, which is {written}; use "
            f"--precision auto, or export with --precision {precision}"
        )
    allow_cpu = os.environ.get(_ALLOW_CPU) == "1"
    return CudaSession(graph, "cuda", os.environ.get(_USE_TENSORRT) == "1", allow_cpu)


def providers(stream: int, captured: bool, tensorrt: bool) -> list[Provider]:
    """What ONNX Runtime is asked for, in order; everything goes into `stream`, and `captured` launches are one.

    TF32 is off: what a graph keeps in float32, sampling positions above all, has its reasons.
    """
    common = {"device_id": "0", "user_compute_stream": str(stream)}
    asked = [(_CUDA, {**common, "enable_cuda_graph": str(int(captured)), "use_tf32": "0"})]
    if tensorrt:
        folder = str(private_folder(home() / "onnxruntime-tensorrt"))
        engines = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
        timing = {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
        captures = {"trt_cuda_graph_enable": str(int(captured)), "trt_auxiliary_streams": "0"}
        asked.insert(0, (_TENSORRT, {**common, **engines, **timing, **captures}))
    return asked


class CudaSession:
    """One graph on the GPU."""

    def __init__(self, graph: Graph, place: str, tensorrt: bool, allow_cpu: bool) -> None:
        """Made by `start`; `place` is where ONNX Runtime is told that the tensors lie: "cuda"."""
        self.precision = written_in(graph)
        if tensorrt:
            _require_tensorrt(self.precision)
        self._graph, self._place = graph, place
        self._tensorrt, self._allow_cpu = tensorrt, allow_cpu
        self._ready: OrderedDict[Shapes, _Fixed] = OrderedDict()
        self._held: set[Memory] = set()
        self._dropped: deque[Memory] = (
            deque()
        )  # held by nobody any more; freed between runs, never inside one
        self._stream = Stream()
        shapes = fixed_shapes(graph)
        try:
            if shapes is not None:
                self._for(shapes)
        except BaseException:
            self.close()
            raise

    def hold(self, array: NDArray[Any]) -> "_Held":
        """A copy on the GPU; it is freed after the last reference to it, or with the session."""
        self._free_dropped()
        with ExitStack() as made, Pinned(array.nbytes) as staging:
            memory = made.enter_context(Memory(array.nbytes))
            staging.array()[: array.nbytes] = array.reshape(-1).view(np.uint8)
            self._stream.upload(memory.pointer, staging.pointer, array.nbytes)
            self._stream.synchronize()
            made.pop_all()
        held = _Held(memory, array.shape, next(_numbers))
        self._held.add(memory)
        weakref.finalize(held, self._dropped.append, memory).atexit = False
        return held

    def run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """All outputs by name, in arrays of their own."""
        self._free_dropped()
        shapes = tuple(inputs[name].shape for name in self._graph.inputs)
        return self._for(shapes).run(inputs)

    def close(self) -> None:
        """Free all that it has on the GPU, what is held too."""
        while self._ready:
            self._ready.popitem()[1].close()
        self._dropped.clear()
        while self._held:
            self._held.pop().close()
        self._stream.close()

    def _free_dropped(self) -> None:
        while self._dropped:
            memory = self._dropped.popleft()
            self._held.discard(memory)
            memory.close()

    def _for(self, shapes: Shapes) -> "_Fixed":
        ready = self._ready.get(shapes)
        if ready is not None:
            self._ready.move_to_end(shapes)
            return ready
        if len(self._ready) == _MOST_SHAPES:
            self._ready.popitem(last=False)[1].close()
        graph = of_shapes(self._graph, shapes)

        def made(captured: bool) -> _Fixed:
            asked = providers(self._stream.handle, captured, self._tensorrt)
            return _Fixed(graph, _session(graph, asked, self._allow_cpu), self._place, self._stream)

        try:
            ready = made(captured=not self._allow_cpu)
        except _FirstRunError as error:
            _log.warning("%s: cannot be captured, it is launched node by node (%s)", graph.name, error)
            ready = made(captured=False)
        self._ready[shapes] = ready
        return ready


@dataclass(frozen=True, eq=False)
class _Held:
    """A tensor on the GPU."""

    memory: Memory
    shape: tuple[int, ...]
    number: int  # no two held tensors of a process have the same


class _FirstRunError(BackendError):
    """A graph was taken but failed when it first ran, which is when ONNX Runtime captures it."""


class _Tensor:
    """An input or output: where it lies on the GPU, and the host memory that it is copied from or to."""

    def __init__(self, spec: TensorSpec, resources: ExitStack) -> None:
        self.shape = tuple(size for size in spec.shape if size is not None)
        self.size = int(np.prod(self.shape, dtype=np.int64)) * spec.dtype.itemsize
        self.memory = resources.enter_context(Memory(self.size))
        self.pinned = resources.enter_context(Pinned(self.size))
        self.array = self.pinned.array().view(spec.dtype).reshape(self.shape)


class _Fixed:
    """A graph of fixed shapes with its session and the places of its tensors."""

    def __init__(self, graph: Graph, session: Any, place: str, stream: Stream) -> None:
        """Runs once, on zeros; _FirstRunError where that fails."""
        from onnxruntime import RunOptions

        self._name, self._stream = graph.name, stream
        self._failures = failures()
        self._there: dict[str, int] = {}  # which held tensor an input's place has a copy of
        self._options = RunOptions()
        # The results are awaited on the stream, behind their copies to the host.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        with ExitStack() as resources:
            self._inputs = {name: _Tensor(spec, resources) for name, spec in graph.inputs.items()}
            self._outputs = {name: _Tensor(spec, resources) for name, spec in graph.outputs.items()}
            self._done = resources.enter_context(Event())
            self._session, self._binding = session, session.io_binding()
            for bind, tensors in (
                (self._binding.bind_input, self._inputs),
                (self._binding.bind_output, self._outputs),
            ):
                for name, tensor in tensors.items():
                    kind, pointer = tensor.array.dtype.type, tensor.memory.pointer
                    bind(name, place, 0, kind, list(tensor.shape), pointer)
            try:
                self.run({name: np.zeros_like(tensor.array) for name, tensor in self._inputs.items()})
            except BackendError as error:
                raise _FirstRunError(str(error)) from error
            self._resources = resources.pop_all()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """All outputs by name, in arrays of their own."""
        try:
            for name, tensor in self._inputs.items():
                self._bring(name, tensor, inputs[name])
            self._launch()
            for tensor in self._outputs.values():
                self._stream.download(tensor.pinned.pointer, tensor.memory.pointer, tensor.size)
            self._done.record(self._stream)
            self._done.wait()
        except BaseException:
            self._there.clear()
            with contextlib.suppress(BackendError):  # what went wrong first matters more
                self._stream.synchronize()
            raise
        return {name: tensor.array.copy() for name, tensor in self._outputs.items()}

    def close(self) -> None:
        """Free everything; the session first, for it knows the addresses."""
        self._session = self._binding = None
        self._resources.close()

    def _launch(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding, self._options)
        except self._failures as error:
            raise BackendError(f"{self._name}: onnxruntime failed while running ({reason(error)})") from error

    def _bring(self, name: str, tensor: _Tensor, given: Any) -> None:
        """Bring an input to its place, unless the held tensor that is given is there already."""
        if isinstance(given, _Held):
            if self._there.get(name) != given.number:
                self._stream.copy(tensor.memory.pointer, given.memory.pointer, tensor.size)
                self._there[name] = given.number
            return
        self._there.pop(name, None)
        np.copyto(tensor.array, given)
        self._stream.upload(tensor.memory.pointer, tensor.pinned.pointer, tensor.size)


def _session(graph: Graph, asked: list[Provider], allow_cpu: bool) -> Any:
    """ONNX Runtime's session, every provider of which is there and every node of which runs on the GPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4  # what matters comes as an exception
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        # Without enable_fallback=0 a wrong option would be printed and the graph run on the CPU.
        session = onnxruntime.InferenceSession(graph.content, options, providers=asked, enable_fallback=0)
    except failures() as error:
        raise BackendError(f"{graph.name}: onnxruntime refuses it for the GPU ({reason(error)})") from error
    names = [name for name, _ in asked]
    absent = [name for name in names if name not in session.get_providers()]
    if absent:
        raise BackendError(
            f"onnxruntime left out {', '.join(absent)}, most often for a CUDA library that it cannot load; install "
            f"them with `{INSTALL}`"
        )
    elsewhere = [
        f"{node.op_type} {node.name}"
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name not in names
        for node in part.get_nodes()
    ]
    if elsewhere and not allow_cpu:
        more = f" and {len(elsewhere) - 5} more" if len(elsewhere) > 5 else ""
        raise BackendError(
            f"{graph.name}: {', '.join(elsewhere[:5])}{more} would run on the CPU, for which onnxruntime's CUDA "
            f"provider has no kernel; use --backend torch or tensorrt, or set {_ALLOW_CPU}=1 to let them"
        )
    return session


def _missing_library(onnxruntime: Any) -> str | None:
    """Which of the libraries that the CUDA provider is linked with cannot be loaded; Linux only."""
    major = onnxruntime.cuda_version.partition(".")[0]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls()
    if sys.platform != "linux":
        return None
    for name in (
        f"libcudart.so.{major}",
        f"libcublas.so.{major}",
        f"libcublasLt.so.{major}",
        "libcurand.so.10",
    ):
        try:
            ctypes.CDLL(name)
        except OSError as error:
            return f"the package onnxruntime-gpu needs {name}, which cannot be loaded ({error})"
    return None


def _require_tensorrt(precision: str) -> None:
    """BackendError where ONNX Runtime's TensorRT provider cannot be used, or would not keep to the graph's types."""
    if precision != "fp32":
        raise BackendError(
            f"{_USE_TENSORRT}=1: ONNX Runtime's TensorRT provider may compute the float32 parts of a graph in "
            f"{precision} too; use --backend tensorrt, or a bundle in fp32"
        )
    try:
        ctypes.CDLL("libnvinfer.so.10")
        ctypes.CDLL("libnvonnxparser.so.10")
    except OSError as error:
        raise BackendError(
            f"{_USE_TENSORRT}=1: ONNX Runtime's TensorRT provider needs TensorRT 10, which cannot be loaded ({error}); "
            "unset it, or use --backend tensorrt with TensorRT 11"
        ) from error
