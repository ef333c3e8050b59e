"""One TensorRT execution context for one set of input shapes: fixed buffers, and after the first run a CUDA graph."""

import logging
import math
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError, BundleError
from ..graph import TensorSpec
from .device import CapturedGraph, Event, Memory, Pinned
from .tensorrt_compat import refused
from .tensorrt_lane import Lane

__all__ = ["Context", "OnDevice"]

_log = logging.getLogger(__name__)
_ALIGNMENT = 256  # what TensorRT asks of addresses
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class OnDevice:
    """An input that lies on the GPU; its memory is freed by the session that made it."""

    memory: Memory
    shape: Shape
    nbytes: int


@dataclass(frozen=True)
class _Place:
    """Where one tensor lies in its block."""

    offset: int
    nbytes: int
    shape: Shape
    dtype: np.dtype[np.generic]


class Context:
    """Runs an engine for inputs of fixed shapes. A run is one upload, one launch and one download.

    Addresses never change, so that the captured graph stays good; what is held on the GPU is copied into them there,
    when it is another than in the run before.
    """

    def __init__(
        self,
        trt: Any,
        engine: Any,
        lane: Lane,
        specs: tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]],
        given: Mapping[str, NDArray[Any] | OnDevice],
    ) -> None:
        """`specs` of inputs and outputs; shapes, and which inputs are uploaded each time, are as in `given`.

        Raises BundleError for shapes that the engine was not built for, BackendError where something fails.
        """
        self._trt, self._lane = trt, lane
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._context = engine.create_execution_context(strategy)
        if self._context is None:
            raise refused(trt, "TensorRT makes no execution context")
        self._graph: CapturedGraph | None = None
        self._warm = False  # it has run once with these addresses
        self._captures = True
        self._generation = -1
        self._held: dict[str, weakref.ref[OnDevice]] = {}  # what each input's place holds
        self._choose_profile()
        self._set_shapes({name: given[name].shape for name in specs[0]})
        # Uploaded ones side by side: one copy brings them all.
        order = sorted(specs[0].values(), key=lambda spec: isinstance(given[spec.name], OnDevice))
        self._inputs, size = _laid_out({spec.name: (given[spec.name].shape, spec.dtype) for spec in order})
        shapes = {name: self._output_shape(name) for name in specs[1]}
        self._outputs, out_size = _laid_out({n: (shapes[n], spec.dtype) for n, spec in specs[1].items()})
        with ExitStack() as made:
            self._device_in = made.enter_context(Memory(size))
            self._device_out = made.enter_context(Memory(out_size))
            self._host_in: Pinned | None = None
            self._host_out = made.enter_context(Pinned(out_size))
            self._done = made.enter_context(Event())
            self._set_addresses()
            if engine.num_aux_streams:
                self._context.set_aux_streams(lane.aux_streams(engine.num_aux_streams))
            made.pop_all()

    def run(self, given: Mapping[str, NDArray[Any] | OnDevice]) -> dict[str, NDArray[Any]]:
        """All outputs, in arrays of their own."""
        fresh = [name for name, value in given.items() if not isinstance(value, OnDevice)]
        host = self._staged({name: given[name] for name in fresh})
        for name in fresh:
            self._held.pop(name, None)
        try:
            with self._lane.turn:
                self._enqueue_all(given, fresh, host)
            self._done.wait()
        except BaseException:
            self._held.clear()
            self._lane.settle()
            raise
        block = self._host_out.array()
        return {name: _array(block, place).copy() for name, place in self._outputs.items()}

    def _enqueue_all(
        self, given: Mapping[str, NDArray[Any] | OnDevice], fresh: list[str], host: Pinned
    ) -> None:
        stream = self._lane.stream
        self._follow_block()
        for start, end in self._runs(fresh):
            stream.upload(self._device_in.pointer + start, host.pointer + start, end - start)
        self._bring_held(given)
        self._launch()
        stream.download(self._host_out.pointer, self._device_out.pointer, self._device_out.size)
        self._done.record(stream)

    def close(self) -> None:
        """Free everything; nothing of it is running, since every run waits for its end."""
        if self._graph is not None:
            self._graph.close()
        self._context = None
        for resource in (self._done, self._host_in, self._host_out, self._device_in, self._device_out):
            if resource is not None:
                resource.close()

    def _choose_profile(self) -> None:
        """Only an engine's first context has a profile from the beginning."""
        if self._context.active_optimization_profile == 0:
            return
        with self._lane.turn:
            chosen = self._context.set_optimization_profile_async(0, self._lane.stream.handle)
        if not chosen:
            raise refused(self._trt, "TensorRT cannot choose the profile")

    def _set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                reason = refused(self._trt, f"input {name} {shape} is not what the engine was built for")
                raise BundleError(f"{reason}; build it for this shape with --shape")
        unknown = self._context.infer_shapes()
        if unknown:
            raise refused(self._trt, f"TensorRT cannot work out shapes for {', '.join(unknown)}")

    def _output_shape(self, name: str) -> Shape:
        shape = tuple(int(size) for size in self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise BundleError(
                f"output {name} has a shape that depends on its values, which cannot be run here"
            )
        return shape

    def _set_addresses(self) -> None:
        for block, places in ((self._device_in, self._inputs), (self._device_out, self._outputs)):
            for name, place in places.items():
                if not self._context.set_tensor_address(name, block.pointer + place.offset):
                    raise refused(self._trt, f"TensorRT refuses the address of {name}")

    def _staged(self, fresh: Mapping[str, Any]) -> Pinned:
        """The host's memory with the fresh inputs in their places."""
        size = max((self._inputs[name].offset + self._inputs[name].nbytes for name in fresh), default=0)
        if self._host_in is None or self._host_in.size < size:
            if self._host_in is not None:
                self._host_in.close()
                self._host_in = None
            self._host_in = Pinned(size)
        block = self._host_in.array()
        for name, array in fresh.items():
            _array(block, self._inputs[name])[...] = array
        return self._host_in

    def _runs(self, fresh: list[str]) -> list[tuple[int, int]]:
        """Begin and end of the parts of the input block that hold fresh inputs and nothing else."""
        runs: list[tuple[int, int]] = []
        joins = False
        for name, place in self._inputs.items():
            if name in fresh and place.nbytes:
                end = place.offset + place.nbytes
                if joins:
                    runs[-1] = (runs[-1][0], end)
                else:
                    runs.append((place.offset, end))
            joins = name in fresh and bool(runs)
        return runs

    def _bring_held(self, given: Mapping[str, NDArray[Any] | OnDevice]) -> None:
        for name, value in given.items():
            if not isinstance(value, OnDevice):
                continue
            there = self._held.get(name)
            if there is None or there() is not value:
                to = self._device_in.pointer + self._inputs[name].offset
                self._lane.stream.copy(to, value.memory.pointer, value.nbytes)
                self._held[name] = weakref.ref(value)

    def _follow_block(self) -> None:
        """Use the lane's block of now; a graph captured with another must go."""
        if self._generation == self._lane.generation:
            return
        if self._graph is not None:
            self._graph.close()
            self._graph = None
        self._context.set_device_memory(self._lane.block.pointer, self._lane.block.size)
        self._generation, self._warm = self._lane.generation, False

    def _launch(self) -> None:
        """The first run goes as it is and lets TensorRT make itself ready; from the second on a graph is launched."""
        if self._graph is None and self._warm and self._captures:
            try:
                self._graph = self._lane.stream.capture(self._enqueue)
            except BackendError as error:
                self._captures = False
                _log.warning("the engine runs without a CUDA graph, which is slower (%s)", error)
        if self._graph is None:
            self._enqueue()
            self._warm = True
        else:
            self._graph.launch(self._lane.stream)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._lane.stream.handle):
            raise refused(self._trt, "TensorRT failed while running")


def _laid_out(
    tensors: Mapping[str, tuple[Shape, np.dtype[np.generic]]],
) -> tuple[dict[str, _Place], int]:
    """A place for each in one block, in order, and the block's size."""
    places, offset = {}, 0
    for name, (shape, dtype) in tensors.items():
        nbytes = math.prod(shape) * dtype.itemsize
        places[name] = _Place(offset, nbytes, shape, dtype)
        offset += -(-max(nbytes, 1) // _ALIGNMENT) * _ALIGNMENT
    return places, offset


def _array(block: NDArray[np.uint8], place: _Place) -> NDArray[Any]:
    """A tensor as it lies in its block."""
    return block[place.offset : place.offset + place.nbytes].view(place.dtype).reshape(place.shape)
