"""`cuda.bindings.runtime` without a GPU: the real names and signatures, on host memory, with CUDA's rules enforced.

Work put into a stream runs only when somebody waits for it, so whoever reads a result too early reads rubbish. What
real CUDA would let pass and answer with a wrong picture or a crash (memory freed under running work, copies past the
end of a block, another thread's work in a capture) is an AssertionError here.
"""

import ctypes
import json
import re
import threading
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

API = json.loads((Path(__file__).parent / "cuda_runtime_api.json").read_text())
RUBBISH = 0xCD  # what new memory holds


class Handle:
    """What the bindings give for a stream, an event or a graph: a number in a type of its own."""

    def __init__(self, number: int, kind: str) -> None:
        self.number, self.kind = number, kind

    def __int__(self) -> int:
        return self.number


class Stream:
    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None  # while a capture is under way
        self.capturer: int | None = None
        self.broken = False  # the capture


class FakeCuda:
    """One machine with one GPU; `module` is its `cuda.bindings.runtime`."""

    def __init__(self) -> None:
        self.devices, self.driver, self.runtime = 1, 13000, 13000
        self.name, self.capability = b"NVIDIA Imaginary 4090", (8, 9)
        self.room = 1 << 30  # bytes of the GPU's memory
        self.calls: list[str] = []
        self.copies: list[tuple[str, int]] = []  # kind and bytes of every copy that ran
        self.blocks: dict[int, tuple[str, Any, int]] = {}  # address -> kind, buffer, size
        self.streams: dict[int, Stream] = {}
        self.events: dict[int, list[Any]] = {}  # [stream, marker] of the last record
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self._failures: dict[str, int] = {}
        self._last = 0x100
        self._lock = threading.RLock()
        self.module = self._module()

    # --- for tests

    def fail(self, function: str, error: str) -> None:
        """Let the next call of `function` fail; what it was asked to do is not done."""
        self._failures[function] = API["enums"]["cudaError_t"][error]

    def alive(self) -> dict[str, int]:
        """How many resources of each kind nobody has given back."""
        kinds = [kind for kind, _, _ in self.blocks.values()]
        counts = {
            "device": kinds.count("device"),
            "host": kinds.count("host"),
            "streams": len(self.streams),
            "events": len(self.events),
            "graphs": len(self.graphs) + len(self.executables),
        }
        return {kind: count for kind, count in counts.items() if count}

    # --- for the fake TensorRT

    def view(self, address: int, size: int, kind: str = "device") -> Any:
        """The bytes at an address, which must lie in a living block of that kind."""
        for start, (found, buffer, length) in self.blocks.items():
            if found == kind and start <= address and address + size <= start + length:
                return np.ctypeslib.as_array(buffer)[address - start : address - start + size]
        raise AssertionError(f"{size} bytes at {address:#x} lie in no {kind} memory")

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """Put work behind all that the stream has."""
        with self._lock:
            found = self.streams[int(stream)]
            if found.captured is None:
                found.waiting.append(work)
            else:
                assert found.capturer == threading.get_ident(), "another thread's work got into a capture"
                found.captured.append(work)

    def capturing(self, stream: int) -> bool:
        return self.streams[int(stream)].captured is not None

    # --- the functions, without their error codes

    def _module(self) -> ModuleType:
        module = ModuleType("cuda.bindings.runtime")
        for name, members in API["enums"].items():
            setattr(module, name, IntEnum(name, members))
        for name, value in API["constants"].items():
            setattr(module, name, value)
        for name, parameters in API["functions"].items():
            setattr(module, name, self._function(name, parameters, module))
        return module

    def _function(self, name: str, parameters: list[str], module: ModuleType) -> Callable[..., Any]:
        work = getattr(self, re.sub(r"(?<!^)(?=[A-Z])", "_", name.removeprefix("cuda")).lower())

        def call(*arguments: Any) -> tuple[Any, ...]:
            if len(arguments) != len(parameters):
                raise TypeError(f"{name}() takes {parameters}, given {len(arguments)} arguments")
            with self._lock:
                self.calls.append(name)
                code = self._failures.pop(name, 0)
                result = None if code else work(*arguments)
            if isinstance(result, module.cudaError_t):
                code, result = int(result), None
            gives = name in GIVING
            return (module.cudaError_t(code), result) if gives else (module.cudaError_t(code),)

        return call

    def _error(self, name: str) -> Any:
        return getattr(self.module.cudaError_t, name)

    def _handle(self, kind: str) -> Handle:
        self._last += 0x10
        return Handle(self._last, kind)

    def get_device_count(self) -> Any:
        if not self.driver:
            return self._error("cudaErrorInsufficientDriver")
        return self.devices or self._error("cudaErrorNoDevice")

    def get_device_properties(self, device: int) -> Any:
        assert device == 0
        properties = ModuleType("cudaDeviceProp")
        properties.name, (properties.major, properties.minor) = self.name, self.capability  # type: ignore[attr-defined]
        return properties

    def driver_get_version(self) -> int:
        return self.driver

    def runtime_get_version(self) -> int:
        return self.runtime

    def get_error_string(self, error: Any) -> bytes:
        assert isinstance(error, self.module.cudaError_t)
        return str(API["texts"][str(int(error))]).encode()

    def get_last_error(self) -> None:
        return None

    def malloc(self, size: int) -> Any:
        if self._breaks_capture():
            return self._error("cudaErrorStreamCaptureUnsupported")
        taken = sum(length for kind, _, length in self.blocks.values() if kind == "device")
        if taken + size > self.room:
            return self._error("cudaErrorMemoryAllocation")
        return self._block("device", size)

    def host_alloc(self, size: int, flags: int) -> Any:
        assert flags == 0
        return self._block("host", size)

    def _block(self, kind: str, size: int) -> int:
        assert size > 0
        buffer = (ctypes.c_uint8 * (size + 256))()
        ctypes.memset(buffer, RUBBISH, size + 256)
        start = ctypes.addressof(buffer)
        shift = -start % 256
        inner = (ctypes.c_uint8 * size).from_buffer(buffer, shift)
        self.blocks[start + shift] = (kind, inner, size)
        return start + shift

    def free(self, address: int) -> Any:
        return self._free("device", address)

    def free_host(self, address: int) -> Any:
        return self._free("host", address)

    def _free(self, kind: str, address: int) -> Any:
        assert self.blocks.get(address, ("nothing",))[0] == kind, f"{address:#x} is no {kind} block"
        assert not any(stream.waiting for stream in self.streams.values()), "memory freed under running work"
        if self._breaks_capture():
            return self._error("cudaErrorStreamCaptureUnsupported")
        ctypes.memset(self.blocks[address][1], RUBBISH, self.blocks[address][2])
        del self.blocks[address]
        return None

    def _breaks_capture(self) -> bool:
        """Calls that may wait for the whole GPU end the captures of their own thread."""
        own = [
            s for s in self.streams.values() if s.captured is not None and s.capturer == threading.get_ident()
        ]
        for stream in own:
            stream.broken = True
        return bool(own)

    def memcpy_async(self, to: int, source: int, size: int, kind: Any, stream: Any) -> Any:
        assert isinstance(kind, self.module.cudaMemcpyKind)
        assert type(to) is type(source) is type(size) is int
        here, there = {"HostToDevice": ("host", "device"), "DeviceToHost": ("device", "host")}.get(
            kind.name.removeprefix("cudaMemcpy"), ("device", "device")
        )
        from_bytes, to_bytes = self.view(source, size, here), self.view(to, size, there)

        def copy() -> None:
            self.copies.append((kind.name.removeprefix("cudaMemcpy"), size))
            to_bytes[:] = from_bytes

        self.enqueue(int(stream), copy)

    def stream_create_with_flags(self, flags: int) -> Handle:
        assert flags == API["constants"]["cudaStreamNonBlocking"]
        handle = self._handle("stream")
        self.streams[int(handle)] = Stream()
        return handle

    def stream_destroy(self, stream: Any) -> None:
        assert not self.streams.pop(int(stream)).waiting, "a stream was destroyed under running work"

    def stream_synchronize(self, stream: Any) -> Any:
        found = self.streams[int(stream)]
        if found.captured is not None:
            found.broken = True
            return self._error("cudaErrorStreamCaptureUnsupported")
        while found.waiting:
            found.waiting.pop(0)()
        return None

    def stream_begin_capture(self, stream: Any, mode: Any) -> None:
        assert mode is self.module.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        found = self.streams[int(stream)]
        assert found.captured is None
        found.captured, found.capturer, found.broken = [], threading.get_ident(), False

    def stream_end_capture(self, stream: Any) -> Any:
        found = self.streams[int(stream)]
        assert found.captured is not None
        assert found.capturer == threading.get_ident()
        work, found.captured = found.captured, None
        if found.broken:
            return self._error("cudaErrorStreamCaptureInvalidated")
        handle = self._handle("graph")
        self.graphs[int(handle)] = work
        return handle

    def graph_instantiate(self, graph: Any, flags: int) -> Handle:
        assert flags == 0
        handle = self._handle("executable")
        self.executables[int(handle)] = self.graphs[int(graph)]
        return handle

    def graph_launch(self, graph: Any, stream: Any) -> None:
        for work in self.executables[int(graph)]:
            self.enqueue(int(stream), work)

    def graph_exec_destroy(self, graph: Any) -> None:
        assert not any(stream.waiting for stream in self.streams.values()), (
            "a graph was destroyed while it ran"
        )
        del self.executables[int(graph)]

    def graph_destroy(self, graph: Any) -> None:
        del self.graphs[int(graph)]

    def event_create_with_flags(self, flags: int) -> Handle:
        handle = self._handle("event")
        self.events[int(handle)] = []
        return handle

    def event_record(self, event: Any, stream: Any) -> None:
        def marker() -> None:
            pass

        assert not self.capturing(int(stream)), "events are recorded outside captures here"
        self.events[int(event)] = [self.streams[int(stream)], marker]
        self.enqueue(int(stream), marker)

    def event_synchronize(self, event: Any) -> None:
        recorded = self.events[int(event)]
        if recorded:
            self._run_until(*recorded)

    def event_destroy(self, event: Any) -> None:
        del self.events[int(event)]

    def _run_until(self, stream: Stream, marker: Callable[[], None]) -> None:
        while marker in stream.waiting:
            stream.waiting.pop(0)()


# Functions that return something beside their error code.
GIVING = {
    *("cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaDriverGetVersion", "cudaRuntimeGetVersion"),
    *(
        "cudaGetErrorString",
        "cudaMalloc",
        "cudaHostAlloc",
        "cudaStreamCreateWithFlags",
        "cudaStreamEndCapture",
    ),
    *("cudaGraphInstantiate", "cudaEventCreateWithFlags"),
}
