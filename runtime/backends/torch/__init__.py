"""Runs graphs with PyTorch on an NVIDIA GPU, when asked for by name; the one place of the runtime that knows torch.

Nothing in this module imports torch before a graph is started or `missing` is asked.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from ....errors import BackendError
from ...graph import Graph
from ..reading import written_in

if TYPE_CHECKING:
    from .session import TorchSession

__all__ = ["best_precision", "missing", "start"]


def missing() -> str | None:
    """Why PyTorch cannot be used here; None where it can."""
    if find_spec("torch") is None:
        return "the package torch is not installed"
    try:
        import torch
    except (ImportError, OSError) as error:
        return f"torch does not start ({error})"
    if torch.version.cuda is None:
        return "the package torch that is installed was built without CUDA"
    return None if torch.cuda.is_available() else "torch finds no GPU"


def best_precision() -> str:
    """Always fp16, which every GPU that torch runs on computes natively; sampling positions stay in float32."""
    return "fp16"


def start(graph: Graph, *, precision: str, threads: int | None) -> "TorchSession":  # noqa: ARG001
    """Make `graph` ready on the first GPU; `threads` does not matter there.

    Raises BundleError for a graph with operators that are not known here, BackendError for one that is written in
    another half precision than asked for.
    """
    from .session import TorchSession

    written = written_in(graph)
    if written != "fp32" and precision not in ("auto", written):
        raise BackendError(
            f"precision {precision}: {graph.name} is written in {written}; use --precision auto, or export it anew"
        )
    chosen = (written if written != "fp32" else best_precision()) if precision == "auto" else precision
    return TorchSession(graph, chosen, "cuda")
