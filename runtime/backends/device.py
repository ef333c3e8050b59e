"""The GPU as backends need it: memory, streams, events and captured graphs, through cuda-python's runtime bindings.

Nothing here touches a GPU before `missing` has found one: other libraries crash or hang where there is no driver.
"""

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendError
from ..closing import Closing

__all__ = ["CapturedGraph", "Device", "Event", "Memory", "Pinned", "Stream", "device", "missing"]

_log = logging.getLogger(__name__)
_OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation


@dataclass(frozen=True)
class Device:
    """The first GPU that CUDA_VISIBLE_DEVICES shows; what engines are built for."""

    name: str
    compute_capability: tuple[int, int]
    driver: str  # the newest CUDA version that the driver knows: "13.0"
    runtime: str  # of the CUDA runtime in this process


def missing() -> str | None:
    """Why no GPU can be used, in one line; None where one can. The first thing to ask, before any other library."""
    try:
        cuda = _runtime()
    except (ImportError, OSError, RuntimeError) as error:
        return f"the package cuda-python cannot be imported ({error})"
    failed, count = cuda.cudaGetDeviceCount()
    if not int(failed):
        return None if count else "CUDA finds no GPU"
    cuda.cudaGetLastError()
    unknown, driver = cuda.cudaDriverGetVersion()
    if int(unknown) or not driver:
        return "no NVIDIA driver is installed"
    return f"CUDA finds no GPU ({_text(failed)})"


def device() -> Device:
    """The GPU in use; BackendError where there is none."""
    reason = missing()
    if reason:
        raise BackendError(f"no GPU can be used: {reason}")
    properties = _call("cudaGetDeviceProperties", 0)
    return Device(
        name=bytes(properties.name).split(b"\0", 1)[0].decode(errors="replace"),
        compute_capability=(int(properties.major), int(properties.minor)),
        driver=_version(_call("cudaDriverGetVersion")),
        runtime=_version(_call("cudaRuntimeGetVersion")),
    )


class _Resource(Closing):
    """Something of the GPU's that is given back once: by `close`, or at the end of a `with`."""

    _free: str  # the function that gives it back

    def __init__(self, handle: Any) -> None:
        self._handle: Any | None = handle

    def close(self) -> None:
        """Give it back; a second call does nothing."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        try:
            _call(self._free, handle)
        except BackendError as error:  # what it was closed for matters more
            _log.warning("%s", error)

    def _open(self) -> Any:
        if self._handle is None:
            raise BackendError(f"{type(self).__name__} of the GPU has been closed")
        return self._handle


class Memory(_Resource):
    """A block of the GPU's memory, aligned to 256 bytes; close it only when no work on it is under way."""

    _free = "cudaFree"

    def __init__(self, size: int) -> None:
        """Of `size` bytes; BackendError where the GPU has no room."""
        super().__init__(_allocated("cudaMalloc", size))
        self.size = size

    @property
    def pointer(self) -> int:
        """Where it begins."""
        return int(self._open())


class Pinned(_Resource):
    """A block of the host's memory that the GPU reads and writes by itself; copies from other memory would wait."""

    _free = "cudaFreeHost"

    def __init__(self, size: int) -> None:
        """Of `size` bytes; BackendError where the host has no room."""
        super().__init__(_allocated("cudaHostAlloc", size, 0))
        self.size = size

    @property
    def pointer(self) -> int:
        """Where it begins."""
        return int(self._open())

    def array(self) -> NDArray[np.uint8]:
        """(size,) uint8: the block itself; not to be touched after `close`."""
        return np.ctypeslib.as_array((ctypes.c_uint8 * self.size).from_address(self.pointer))


class Event(_Resource):
    """A mark in a stream that the host can wait for."""

    _free = "cudaEventDestroy"

    def __init__(self) -> None:
        """BackendError where CUDA makes none."""
        cuda = _runtime()
        # Waiting threads sleep: spinning would take a core from the stages that decode and encode.
        flags = int(cuda.cudaEventDisableTiming) | int(cuda.cudaEventBlockingSync)
        super().__init__(_call("cudaEventCreateWithFlags", flags))

    def record(self, stream: "Stream") -> None:
        """Put the mark behind all that `stream` has been given."""
        _call("cudaEventRecord", self._open(), stream.raw)

    def wait(self) -> None:
        """Return when the work before the mark is done; BackendError where that work failed."""
        _call("cudaEventSynchronize", self._open())


class CapturedGraph(_Resource):
    """Work that was captured from a stream and is launched as one; bound to the addresses it was captured with."""

    _free = "cudaGraphExecDestroy"

    def launch(self, stream: "Stream") -> None:
        """Put it into `stream`."""
        _call("cudaGraphLaunch", self._open(), stream.raw)


class Stream(_Resource):
    """A queue of work for the GPU, apart from the default stream, with which every other would wait.

    Host memory in copies is `Pinned`, and stays until the work is done.
    """

    _free = "cudaStreamDestroy"

    def __init__(self) -> None:
        """BackendError where CUDA makes none."""
        super().__init__(_call("cudaStreamCreateWithFlags", int(_runtime().cudaStreamNonBlocking)))

    @property
    def raw(self) -> Any:
        """As cuda-python has it."""
        return self._open()

    @property
    def handle(self) -> int:
        """For libraries that take streams as numbers."""
        return int(self._open())

    def upload(self, to: int, source: int, size: int) -> None:
        """Copy `size` bytes from pinned host memory to the GPU."""
        self._copy(to, source, size, "cudaMemcpyHostToDevice")

    def download(self, to: int, source: int, size: int) -> None:
        """Copy `size` bytes from the GPU to pinned host memory."""
        self._copy(to, source, size, "cudaMemcpyDeviceToHost")

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy `size` bytes from one place on the GPU to another."""
        self._copy(to, source, size, "cudaMemcpyDeviceToDevice")

    def synchronize(self) -> None:
        """Return when all that it was given is done; BackendError where it failed."""
        _call("cudaStreamSynchronize", self._open())

    def capture(self, work: Callable[[], None]) -> CapturedGraph:
        """The graph of what `work` puts into this stream; nothing of it runs, and other threads are not disturbed.

        Raises what `work` raises, BackendError where the work cannot be captured; the stream can be used on.
        """
        mode = _runtime().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call("cudaStreamBeginCapture", self._open(), mode)
        try:
            work()
        except BaseException:
            self._end_broken_capture()
            raise
        graph = _call("cudaStreamEndCapture", self._open())
        try:
            return CapturedGraph(_call("cudaGraphInstantiate", graph, 0))
        finally:
            _call("cudaGraphDestroy", graph)

    def _end_broken_capture(self) -> None:
        cuda = _runtime()
        error, graph = cuda.cudaStreamEndCapture(self._open())
        if int(error):
            cuda.cudaGetLastError()  # it is only that the capture was broken
        elif graph is not None and int(graph):
            _call("cudaGraphDestroy", graph)

    def _copy(self, to: int, source: int, size: int, kind: str) -> None:
        _call("cudaMemcpyAsync", to, source, size, getattr(_runtime().cudaMemcpyKind, kind), self._open())


def _runtime() -> Any:
    """The module of the bindings; every import of it in this package goes through here."""
    from cuda.bindings import runtime

    return runtime


def _call(name: str, *arguments: Any) -> Any:
    """What a function of CUDA's runtime gives; BackendError with CUDA's own text where it fails."""
    cuda = _runtime()
    error, *results = getattr(cuda, name)(*arguments)
    if int(error):
        cuda.cudaGetLastError()  # else the next call of another library would report it
        raise BackendError(f"{name} failed on the GPU: {_text(error)}")
    return results[0] if results else None


def _allocated(name: str, size: int, *flags: int) -> Any:
    """A new block; CUDA gives none for no bytes, so there is at least one."""
    cuda = _runtime()
    error, pointer = getattr(cuda, name)(max(size, 1), *flags)
    if int(error):
        cuda.cudaGetLastError()
        mend = "; close other programs that use the GPU" if int(error) == _OUT_OF_MEMORY else ""
        raise BackendError(f"{name} of {size / 2**20:.1f} MiB failed on the GPU: {_text(error)}{mend}")
    return pointer


def _text(error: Any) -> str:
    failed, text = _runtime().cudaGetErrorString(error)
    return f"error {int(error)}" if int(failed) else f"{text.decode(errors='replace')}, error {int(error)}"


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
