"""Runs graphs with ONNX Runtime on the CPU, in float32."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray

from ...errors import BackendError, BundleError
from ..graph import Graph
from .onnxruntime_errors import failures, reason

__all__ = ["best_precision", "missing", "providers", "start"]


def missing() -> str | None:
    """Why ONNX Runtime cannot be used here; None where it can."""
    if find_spec("onnxruntime") is None:
        return "the package onnxruntime is not installed"
    try:
        found = "CPUExecutionProvider" in _providers()
    except (ImportError, OSError) as error:
        return f"onnxruntime does not start ({error})"
    return None if found else "onnxruntime finds no CPU provider"


def providers() -> tuple[str, ...]:
    """What the installed ONNX Runtime was built for, whether or not it can run here; empty where it is absent."""
    try:
        return _providers()
    except (ImportError, OSError):
        return ()


def _providers() -> tuple[str, ...]:
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


def best_precision() -> str:
    """Always fp32: ONNX Runtime's CPU provider computes what the graph says."""
    return "fp32"


def start(graph: Graph, *, precision: str, threads: int | None) -> "CpuSession":
    """Make `graph` ready; BackendError for bf16, BundleError for a graph that ONNX Runtime refuses."""
    if precision == "bf16":
        raise BackendError(
            "precision bf16: the cpu backend has fp32 only; use --backend openvino or --precision fp32"
        )
    return CpuSession(graph, threads)


class CpuSession:
    """One graph on the CPU."""

    precision = "fp32"

    def __init__(self, graph: Graph, threads: int | None) -> None:
        """Made by `start`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what matters comes as an exception
        # Spinning threads would take the core from the stages that decode and encode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._name = graph.name
        self._outputs = list(graph.outputs)
        self._failures = failures()
        try:
            self._session = onnxruntime.InferenceSession(
                graph.content, options, providers=["CPUExecutionProvider"]
            )
        except self._failures as error:
            raise BundleError(f"{graph.name}: onnxruntime refuses it ({reason(error)})") from error

    def hold(self, array: NDArray[Any]) -> NDArray[Any]:
        """A copy: the caller may go on writing into its own."""
        return array.copy()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name, in arrays of their own."""
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
        except self._failures as error:
            raise BackendError(f"{self._name}: onnxruntime failed while running ({reason(error)})") from error

    def close(self) -> None:
        """Free the session."""
        self._session = None
