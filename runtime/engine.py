"""Loads a graph on a backend and runs it, binding tensors by name; the only door to the backends."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import BackendError, BundleError
from .backends import device, tensorrt_compat
from .closing import Closing
from .graph import Graph, TensorSpec, read_graph

__all__ = [
    "BACKENDS",
    "Backend",
    "Engine",
    "Given",
    "Held",
    "Precision",
    "TensorSpec",
    "Tensors",
    "choose",
    "load",
    "no_gpu",
    "require",
]

_log = logging.getLogger(__name__)

Precision = Literal["auto", "fp32", "fp16", "bf16"]
Tensors = dict[str, NDArray[Any]]
"""Arrays by name."""


class Session(Protocol):
    """A graph made ready by a backend; not safe for two threads at once."""

    precision: str

    def hold(self, array: NDArray[Any]) -> Any:
        """Bring one input to where the graph is computed, for many runs; `run` takes what this gives."""

    def run(self, inputs: Mapping[str, Any]) -> Tensors:
        """All outputs, in arrays of their own; an input is a C-contiguous array that fits the graph, or held."""

    def close(self) -> None:
        """Free everything."""


class _BackendModule(Protocol):
    def missing(self) -> str | None: ...

    def best_precision(self) -> str: ...

    def start(self, graph: Graph, *, precision: Precision, threads: int | None) -> Session: ...


class _BuiltAhead(Protocol):
    def not_built(self, graph: Graph, precision: Precision) -> str | None: ...


@dataclass(frozen=True)
class Backend:
    """One way to run graphs, whether or not it can be used here."""

    name: str
    executes: str
    install: str  # the exact line that brings it
    module: str
    precisions: tuple[Precision, ...] = ("fp32",)
    gpu: bool = False  # it runs on an NVIDIA GPU
    in_auto: bool = True  # False: taken only when asked for by its name
    built_ahead: bool = False  # its graphs are built by `reenact build` before they can be loaded

    def why_not(self) -> str | None:
        """Why it cannot be used on this machine; None where it can."""
        return self._loaded().missing()

    def best_precision(self) -> str:
        """What `precision="auto"` means on this machine: one of `precisions`."""
        return self._loaded().best_precision()

    def computes(self, precision: Precision) -> bool:
        """Whether it knows that precision; on this machine it may still be missing."""
        return precision == "auto" or precision in self.precisions

    def not_built(self, graph: Graph, precision: Precision) -> str | None:
        """Why there is nothing built ahead that runs `graph` here; None where there is, or nothing needs to be."""
        if not self.built_ahead:
            return None
        return cast(_BuiltAhead, self._loaded()).not_built(graph, precision)

    def require(self, precision: Precision) -> None:
        """BackendError where it cannot be used on this machine, or does not know that precision."""
        reason = self.why_not()
        if reason:
            # No package brings a GPU.
            helps = not self.gpu or reason.startswith("the package ")
            mend = f"; install it with `{self.install}`" if helps else ""
            raise BackendError(f"backend {self.name} cannot be used: {reason}{mend}, or use --backend auto")
        if not self.computes(precision):
            able = [other.name for other in BACKENDS.values() if precision in other.precisions]
            raise BackendError(
                f"precision {precision}: the {self.name} backend has {' and '.join(self.precisions)} only; use "
                f"--backend {' or '.join(able)}, or --precision fp32"
            )

    def start(self, graph: Graph, *, precision: Precision, threads: int | None) -> Session:
        """Make `graph` ready; BackendError as `require`, BundleError where the graph is at fault."""
        self.require(precision)
        return self._loaded().start(graph, precision=precision, threads=threads)

    def _loaded(self) -> _BackendModule:
        return cast(_BackendModule, import_module(f".backends.{self.module}", __package__))


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend(
            "tensorrt",
            "TensorRT on an NVIDIA GPU",
            tensorrt_compat.INSTALL,
            "tensorrt",
            ("fp32", "fp16", "bf16"),
            gpu=True,
            built_ahead=True,
        ),
        Backend(
            "cuda",
            "ONNX Runtime on an NVIDIA GPU",
            'pip install "onnxruntime-gpu[cuda,cudnn]>=1.24" nvidia-cublas "cuda-python>=12.9"',
            "cuda",
            ("fp32", "fp16"),
            gpu=True,
        ),
        Backend(
            "torch",
            "PyTorch on an NVIDIA GPU",
            'pip install "torch>=2.13"',
            "torch",
            ("fp32", "fp16", "bf16"),
            gpu=True,
            in_auto=False,
        ),
        Backend(
            "openvino",
            "OpenVINO on the CPU",
            'pip install "openvino>=2025.0"',
            "openvino",
            ("fp32", "bf16"),
        ),
        Backend("cpu", "ONNX Runtime on the CPU", 'pip install "onnxruntime>=1.20"', "cpu"),
    )
}
"""Every backend of the design, in the order in which `auto` prefers them."""


def no_gpu() -> str | None:
    """Why no GPU runs anything here, in one line; None where one can."""
    return device.missing()


def choose(name: str = "auto") -> Backend:
    """The backend of that name, or for "auto" the first that can be used; BackendError where none is.

    For "auto" nothing counts as built ahead; `load` knows its graph, and takes what was built for that.
    """
    if name == "auto":
        return _first("auto", None)
    if name not in BACKENDS:
        raise BackendError(f"no backend is called {name!r}; known are auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]


def require(name: str, precision: Precision) -> Backend:
    """The backend that `name` and `precision` mean here; BackendError where it cannot be used or computes otherwise."""
    if name == "auto":
        every = (b for b in BACKENDS.values() if b.in_auto and b.computes(precision) and b.why_not() is None)
        return next(every, None) or _first(precision, None)
    chosen = choose(name)
    chosen.require(precision)
    return chosen


def _first(precision: Precision, graph: Graph | None) -> Backend:
    """What `auto` is: the first in order that has all it needs, for `graph` where one is given."""
    absent, passed = no_gpu(), ""
    if absent:
        _log.info("no GPU is used: %s", absent)
    for backend in BACKENDS.values():
        if not backend.in_auto or not backend.computes(precision) or backend.why_not() is not None:
            continue
        if graph is None and backend.built_ahead:
            continue
        reason = None if graph is None else backend.not_built(graph, precision)
        if reason is None:
            return backend
        _log.info("backend %s is passed over: %s", backend.name, reason)
        passed = f"; {backend.name}: {reason}"
    if precision in ("auto", "fp32"):
        raise BackendError(f"no backend can be used here; install one with `{BACKENDS['cpu'].install}`")
    raise BackendError(
        f"precision {precision}: no backend that can be used here computes in it; use --precision auto or fp32{passed}"
    )


def load(
    graph: Path | bytes | onnx.ModelProto,
    *,
    backend: str = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
) -> "Engine":
    """Check a graph and make it ready on a backend.

    `precision` auto takes the best that the machine computes natively, or that was built ahead; `threads` None takes
    all cores. `backend` auto takes a GPU where there is one with all that it needs, else the CPU; a GPU backend asked
    for by its name is never replaced. Raises BundleError where the graph is at fault and BackendError where the backend
    is.
    """
    if threads is not None and threads < 1:
        raise BackendError(f"threads is {threads}; expected 1 or more")
    named = None if backend == "auto" else choose(backend)
    checked = read_graph(graph)
    chosen = named or _first(precision, checked)
    return Engine(checked, chosen.name, chosen.start(checked, precision=precision, threads=threads))


@dataclass(frozen=True, eq=False)
class Held:
    """An input that stays where an engine computes; made by `Engine.hold` and good for that engine only."""

    engine: "Engine"
    name: str
    value: Any  # the backend's own


Given = NDArray[Any] | Held
"""What one input may be."""


class Engine(Closing):
    """A graph on a backend. Calls from several threads take turns; close it, or use it in a `with`."""

    def __init__(self, graph: Graph, backend: str, session: Session) -> None:
        """Made by `load`."""
        self.inputs: dict[str, TensorSpec] = graph.inputs
        self.outputs: dict[str, TensorSpec] = graph.outputs
        self.backend = backend
        self.precision = session.precision  # "fp32", "fp16" or "bf16"; tensors keep their dtype
        self._name = graph.name
        self._session: Session | None = session
        self._turn = threading.Lock()

    def hold(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Held]:
        """Inputs that many runs share, such as a portrait's features, brought once to where they are computed with.

        Pass what this returns to `run` in the arrays' place; the memory is freed with the last reference to it.
        Raises BundleError where a name, shape or dtype is not as declared, BackendError where it fails.
        """
        for name in inputs.keys() - self.inputs.keys():
            raise BundleError(f"{self._name}: has no input {name}; expected {_listed(self.inputs)}")
        fitting = {name: _fitting(self._name, array, self.inputs[name]) for name, array in inputs.items()}
        with self._turn:
            session = self._open()
            return {name: Held(self, name, session.hold(array)) for name, array in fitting.items()}

    def run(self, inputs: Mapping[str, Given]) -> Tensors:
        """Every output by name, in new arrays, for every input by name; each an array or held by this engine.

        Raises BundleError where names, shapes or dtypes are not as declared, BackendError where it fails.
        """
        if inputs.keys() != self.inputs.keys():
            given = ", ".join(sorted(inputs)) or "none"
            raise BundleError(f"{self._name}: given the inputs {given}; expected {_listed(self.inputs)}")
        with self._turn:
            session = self._open()
            return session.run({name: self._bound(inputs[name], spec) for name, spec in self.inputs.items()})

    def close(self) -> None:
        """Free what the backend holds; a second call does nothing."""
        with self._turn:
            if self._session is not None:
                self._session.close()
                self._session = None

    def _open(self) -> Session:
        if self._session is None:
            raise BackendError(f"{self._name}: the engine has been closed; load it again")
        return self._session

    def _bound(self, given: Given, spec: TensorSpec) -> Any:
        if not isinstance(given, Held):
            return _fitting(self._name, given, spec)
        if given.engine is not self or given.name != spec.name:
            raise BundleError(
                f"{self._name}: given for {spec.name} what another engine holds as {given.name}; hold it here"
            )
        return given.value


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(map(str, specs.values()))


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
