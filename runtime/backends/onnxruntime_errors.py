"""What ONNX Runtime raises, and what of its messages is worth telling."""

__all__ = ["failures", "reason"]


def failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its own exceptions share no base below Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError)


def reason(error: Exception) -> str:
    """The end of the first line; ONNX Runtime puts codes and its own source lines before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][-200:] if lines else type(error).__name__
