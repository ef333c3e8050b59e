"""Loads a graph on a backend and runs it, binding tensors by name; the only door to the backends."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import BackendError, BundleError
from .graph import Graph, TensorSpec, read_graph

__all__ = ["BACKENDS", "Backend", "Engine", "Precision", "TensorSpec", "Tensors", "choose", "load"]

Precision = Literal["auto", "fp32", "bf16"]
Tensors = dict[str, NDArray[Any]]


class Session(Protocol):
    """A graph made ready by a backend; not safe for two threads at once."""

    precision: str

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """All outputs, in arrays of their own; the inputs are C-contiguous and fit the graph."""

    def close(self) -> None:
        """Free everything."""


class _BackendModule(Protocol):
    def missing(self) -> str | None: ...

    def best_precision(self) -> str: ...

    def start(self, graph: Graph, *, precision: Precision, threads: int | None) -> Session: ...


@dataclass(frozen=True)
class Backend:
    """One way to run graphs, whether or not it can be used here."""

    name: str
    executes: str
    install: str | None  # the exact line that brings it; None: nothing does yet
    module: str | None  # None: not written yet

    def why_not(self) -> str | None:
        """Why it cannot be used on this machine; None where it can."""
        if self.module is None:
            return "not available in this version"
        return self._loaded().missing()

    def best_precision(self) -> str:
        """What `precision="auto"` means on this machine: "fp32" or "bf16"."""
        return self._loaded().best_precision()

    def start(self, graph: Graph, *, precision: Precision, threads: int | None) -> Session:
        """Make `graph` ready; BackendError where the backend cannot be used, BundleError where it cannot."""
        reason = self.why_not()
        if reason:
            mend = f"; install it with `{self.install}`" if self.install else ""
            raise BackendError(f"backend {self.name} cannot be used: {reason}{mend}, or use --backend auto")
        return self._loaded().start(graph, precision=precision, threads=threads)

    def _loaded(self) -> _BackendModule:
        return cast(_BackendModule, import_module(f".backends.{self.module}", __package__))


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("tensorrt", "TensorRT on an NVIDIA GPU", None, None),
        Backend("cuda", "ONNX Runtime on an NVIDIA GPU", None, None),
        Backend("torch", "PyTorch", None, None),
        Backend("openvino", "OpenVINO on the CPU", 'pip install "openvino>=2025.0"', "openvino"),
        Backend("cpu", "ONNX Runtime on the CPU", 'pip install "onnxruntime>=1.20"', "cpu"),
    )
}
"""Every backend of the design, in the order in which `auto` prefers them."""


def choose(name: str = "auto") -> Backend:
    """The backend of that name, or for "auto" the first that can be used; BackendError where none is."""
    if name != "auto":
        if name not in BACKENDS:
            raise BackendError(f"no backend is called {name!r}; known are auto, {', '.join(BACKENDS)}")
        return BACKENDS[name]
    for backend in BACKENDS.values():
        if backend.why_not() is None:
            return backend
    raise BackendError(f"no backend can be used here; install one with `{BACKENDS['cpu'].install}`")


def load(
    graph: Path | bytes | onnx.ModelProto,
    *,
    backend: str = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
) -> "Engine":
    """Check a graph and make it ready on a backend.

    `precision` auto takes the best that the machine computes natively; `threads` None takes all cores. Raises
    BundleError where the graph is at fault and BackendError where the backend is.
    """
    if threads is not None and threads < 1:
        raise BackendError(f"threads is {threads}; expected 1 or more")
    chosen = choose(backend)
    checked = read_graph(graph)
    return Engine(checked, chosen.name, chosen.start(checked, precision=precision, threads=threads))


class Engine:
    """A graph on a backend. Calls from several threads take turns; close it, or use it in a `with`."""

    def __init__(self, graph: Graph, backend: str, session: Session) -> None:
        """Made by `load`."""
        self.inputs: dict[str, TensorSpec] = graph.inputs
        self.outputs: dict[str, TensorSpec] = graph.outputs
        self.backend = backend
        self.precision = session.precision  # "fp32" or "bf16": what it computes in; tensors keep their dtype
        self._name = graph.name
        self._session: Session | None = session
        self._turn = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Every output by name, in new arrays, for every input by name.

        Raises BundleError where names, shapes or dtypes are not as declared, BackendError where it fails.
        """
        if inputs.keys() != self.inputs.keys():
            given, expected = ", ".join(sorted(inputs)), ", ".join(map(str, self.inputs.values()))
            raise BundleError(f"{self._name}: given the inputs {given or 'none'}; expected {expected}")
        bound = {name: _fitting(self._name, inputs[name], spec) for name, spec in self.inputs.items()}
        with self._turn:
            if self._session is None:
                raise BackendError(f"{self._name}: the engine has been closed; load it again")
            return self._session.run(bound)

    def close(self) -> None:
        """Free what the backend holds; a second call does nothing."""
        with self._turn:
            if self._session is not None:
                self._session.close()
                self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _fitting(graph: str, array: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    if (
        array.dtype != spec.dtype
        or array.ndim != len(spec.shape)
        or any(
            size is not None and size != given for size, given in zip(spec.shape, array.shape, strict=True)
        )
    ):
        raise BundleError(f"{graph}: input {spec.name} is {array.shape} {array.dtype}; expected {spec}")
    return np.ascontiguousarray(array) if array.ndim else array
