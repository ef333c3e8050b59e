"""Runs graphs as TensorRT engines on an NVIDIA GPU. Engines are built ahead by `reenact build`; nothing is built here.

Both TensorRT and CUDA are first touched when a driver has been found.
"""

import weakref
from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError, ReenactError
from ..graph import Graph
from . import device
from .device import Event, Memory, Pinned
from .engine_cache import Filed, find, others, read_plan, target
from .tensorrt_compat import deserialise, dtype_name, library, missing, tensor_names
from .tensorrt_context import Context, OnDevice
from .tensorrt_lane import Lane, enter

__all__ = ["TensorRtSession", "best_precision", "missing", "not_built", "start"]

Typed = Literal["fp32", "fp16", "bf16"]
_FASTEST_FIRST: tuple[Typed, ...] = ("fp16", "bf16", "fp32")
_MOST_SHAPES = 4  # contexts kept for one engine


def best_precision() -> str:
    """What `auto` looks for first: fp16. What is used is the best that has been built."""
    return "fp16"


def not_built(graph: Graph, precision: str) -> str | None:
    """Why there is no engine to run `graph` with here, and the command that builds it; None where there is one."""
    return None if _filed(graph, precision) else _advice(graph, precision)


def start(graph: Graph, *, precision: str, threads: int | None) -> "TensorRtSession":  # noqa: ARG001
    """Load the engine built for `graph`; BackendError where there is none for this GPU and these versions."""
    filed = _filed(graph, precision)
    if filed is None:
        raise BackendError(f"{graph.name}: {_advice(graph, precision)}")
    folder = Path(graph.name).parent
    return TensorRtSession(graph, filed, folder if Path(graph.name).is_file() else object())


class TensorRtSession:
    """One graph on the GPU."""

    def __init__(self, graph: Graph, filed: Filed, lane: Hashable) -> None:
        """Made by `start`; engines on one lane take turns and share memory."""
        self.precision: str = filed.manifest.target.precision
        self._name = graph.name
        self._specs = (graph.inputs, graph.outputs)
        self._trt = library()
        self._runtime, self._engine = deserialise(self._trt, read_plan(filed), graph.name)
        self._check_engine()
        self._contexts: OrderedDict[tuple[tuple[int, ...], ...], Context] = OrderedDict()
        self._held: set[Memory] = set()
        self._dropped: deque[Memory] = (
            deque()
        )  # held by nobody any more; freed where no capture can be under way
        self._lane: Lane = enter(lane)
        try:
            self._lane.require(self._engine.device_memory_size_v2)
        except BaseException:
            self._lane.leave()
            raise

    def hold(self, array: NDArray[Any]) -> OnDevice:
        """A copy on the GPU; it is freed with the last reference to it, or with the session."""
        self._free_dropped()
        try:
            memory = Memory(array.nbytes)
            try:
                self._upload(memory, array)
            except BaseException:
                memory.close()
                raise
        except BackendError as error:
            raise self._named(error) from error
        self._held.add(memory)
        held = OnDevice(memory, array.shape, array.nbytes)
        weakref.finalize(held, self._dropped.append, memory).atexit = False
        return held

    def run(self, inputs: Mapping[str, NDArray[Any] | OnDevice]) -> dict[str, NDArray[Any]]:
        """All outputs by name, in arrays of their own."""
        self._free_dropped()
        try:
            return self._for(inputs).run(inputs)
        except ReenactError as error:
            raise self._named(error) from error

    def close(self) -> None:
        """Free everything, what is held too."""
        while self._contexts:
            self._contexts.popitem()[1].close()
        self._dropped.clear()
        for memory in self._held:
            memory.close()
        self._held.clear()
        self._engine = None  # before the runtime that made it
        self._runtime = None
        self._lane.leave()

    def _for(self, inputs: Mapping[str, NDArray[Any] | OnDevice]) -> Context:
        shapes = tuple(inputs[name].shape for name in self._specs[0])
        context = self._contexts.get(shapes)
        if context is not None:
            self._contexts.move_to_end(shapes)
            return context
        if len(self._contexts) >= _MOST_SHAPES:
            self._contexts.popitem(last=False)[1].close()
        context = Context(self._trt, self._engine, self._lane, self._specs, inputs)
        self._contexts[shapes] = context
        return context

    def _upload(self, memory: Memory, array: NDArray[Any]) -> None:
        if not array.nbytes:
            return
        with Pinned(array.nbytes) as staging, Event() as done:
            staging.array()[:] = array.reshape(-1).view(np.uint8)
            try:
                with self._lane.turn:
                    self._lane.stream.upload(memory.pointer, staging.pointer, array.nbytes)
                    done.record(self._lane.stream)
                done.wait()
            except BaseException:
                self._lane.settle()
                raise

    def _free_dropped(self) -> None:
        while self._dropped:
            memory = self._dropped.popleft()
            self._held.discard(memory)
            memory.close()

    def _named(self, error: ReenactError) -> ReenactError:
        return type(error)(f"{self._name}: {error}")

    def _check_engine(self) -> None:
        """The engine takes and gives what the graph does; BackendError where it does not."""
        trt, engine = self._trt, self._engine
        kinds = {trt.TensorIOMode.INPUT: self._specs[0], trt.TensorIOMode.OUTPUT: self._specs[1]}
        found = {name: engine.get_tensor_mode(name) for name in tensor_names(engine)}
        for mode, specs in kinds.items():
            names = {name for name, own in found.items() if own == mode}
            if names != specs.keys():
                raise BackendError(
                    f"{self._name}: the engine has {sorted(names)}, the graph {sorted(specs)}; {_AGAIN}"
                )
            for name, spec in specs.items():
                dtype = dtype_name(engine.get_tensor_dtype(name))
                if dtype != spec.dtype.name:
                    raise BackendError(
                        f"{self._name}: the engine has {name} as {dtype}, the graph {spec}; {_AGAIN}"
                    )
                if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                    raise BackendError(
                        f"{self._name}: the engine wants {name} on the host, which is not done here"
                    )


_AGAIN = "build it again with `reenact build --rebuild`"


def _filed(graph: Graph, precision: str) -> Filed | None:
    trt, gpu = library(), device.device()
    wanted = [name for name in _FASTEST_FIRST if precision in ("auto", name)]
    if not wanted:
        raise BackendError(f"precision {precision}: TensorRT computes in {', '.join(_FASTEST_FIRST)} here")
    found = (find(target(graph.content, name, trt.__version__, gpu)) for name in wanted)
    return next((filed for filed in found if filed is not None), None)


def _advice(graph: Graph, precision: str) -> str:
    """That no engine is there, what there is instead, and the command that builds it."""
    gpu, version = device.device(), library().__version__
    wanted: Typed = next((name for name in _FASTEST_FIRST if precision in ("auto", name)), "fp16")
    here = target(graph.content, wanted, version, gpu)
    instead = ", ".join(
        f"{other.precision} for {other.gpu}, TensorRT {other.tensorrt}, driver {other.driver}"
        for other in others(here)
    )
    path = Path(graph.name)
    of_bundle = (path.parent / "manifest.json").is_file()
    place = path.parent if of_bundle else path if path.is_file() else "BUNDLE"
    # `source` is built in float32 unless it is asked for by its name.
    named = " --graph source" if of_bundle and path.stem == "source" and wanted != "fp32" else ""
    return (
        f"no TensorRT engine in {precision} is built for {gpu.name}, TensorRT {version} and driver {gpu.driver}"
        + (f" (there is {instead})" if instead else "")
        + f"; run `reenact build {place} --backend tensorrt --precision {wanted}{named}`"
    )
