"""The door to the package tensorrt: found, of a version that is known, and 10.x and 11.x made alike.

Nothing here touches TensorRT before a GPU and its driver have been found: without one its objects crash the process.
"""

import json
import logging
import threading
from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Any

from ...errors import BackendError
from . import device

__all__ = [
    "INSTALL",
    "deserialise",
    "dtype_name",
    "layers",
    "library",
    "logger",
    "missing",
    "new_network",
    "refused",
    "release",
    "tensor_names",
]

INSTALL = 'pip install "tensorrt>=10.3" "cuda-python>=12.9"'
_log = logging.getLogger(__name__)
_OLDEST = (10, 3)  # the first known to have all that is used here
_MAJORS = (10, 11)
_ERROR = 1  # severities count from 0, internal error, to 4, verbose
# Errors come back as exceptions; what else it warns of is of no use to most.
_LEVELS = (logging.INFO, logging.INFO, logging.INFO, logging.DEBUG, logging.DEBUG)
_DTYPES = {
    **{"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "UINT8": "uint8", "BOOL": "bool"},
    **{"INT8": "int8", "INT32": "int32", "INT64": "int64"},
}


def missing() -> str | None:
    """Why TensorRT cannot be used here, in one line; None where it can."""
    reason = device.missing()
    if reason:
        return reason
    try:
        trt = _imported()
    except ImportError as error:
        return f"the package tensorrt cannot be imported ({error})"
    except (OSError, RuntimeError) as error:
        return f"tensorrt does not start ({error})"
    if not _known(trt.__version__):
        return f"tensorrt {trt.__version__} is installed; expected 10.3 or newer, or 11"
    return None


def library() -> Any:
    """The module tensorrt, on a machine that can run it; BackendError elsewhere."""
    reason = missing()
    if reason:
        mend = f"; install it with `{INSTALL}`" if reason.startswith("the package ") else ""
        raise BackendError(f"TensorRT cannot be used: {reason}{mend}")
    return _imported()


def release(trt: Any) -> tuple[int, int]:
    """Its major and minor version."""
    major, minor = trt.__version__.split(".")[:2]
    return int(major), int(minor)


@cache
def logger(trt: Any) -> Any:
    """The one logger of the process: a second one is ignored, or crashes. It writes to Python's log."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=8)
            self.turn = threading.Lock()

        def log(self, severity: Any, msg: str) -> None:
            _log.log(_LEVELS[int(severity)], "TensorRT: %s", msg)
            if int(severity) <= _ERROR:
                with self.turn:
                    self.errors.append(msg.strip())

        def taken(self) -> str:
            """The errors since the last call, in one line."""
            with self.turn:
                said = "; ".join(dict.fromkeys(self.errors))
                self.errors.clear()
            return said

    return Logger()


def refused(trt: Any, what: str) -> BackendError:
    """The error for a call that TensorRT answered with no: it says why in its log only."""
    return BackendError(f"{what}: {logger(trt).taken() or 'TensorRT gives no reason'}")


def new_network(trt: Any, builder: Any) -> Any:
    """An empty network whose types are those of the ONNX graph; in 11 every network is of that kind."""
    if release(trt)[0] >= 11:
        return builder.create_network(0)
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def deserialise(trt: Any, plan: bytes, name: str) -> tuple[Any, Any]:
    """The runtime and the engine of a plan, which must come from the cache: it is code. The runtime must outlive it."""
    runtime = trt.Runtime(logger(trt))
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise refused(trt, f"{name}: TensorRT does not take the engine")
    return runtime, engine


def tensor_names(engine: Any) -> Iterator[str]:
    """Of every input and output, in no order."""
    for index in range(engine.num_io_tensors):
        yield engine.get_tensor_name(index)


def dtype_name(dtype: Any) -> str:
    """NumPy's name of a type of TensorRT's, or TensorRT's own where NumPy has none."""
    return _DTYPES.get(dtype.name, str(dtype.name))


def layers(trt: Any, engine: Any) -> list[tuple[str, str]]:
    """Name and kind of every layer that an engine runs; the kind is empty where the engine keeps names only."""
    inspector = engine.create_engine_inspector()
    told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return [
        (layer, "") if isinstance(layer, str) else (layer.get("Name", ""), layer.get("LayerType", ""))
        for layer in told.get("Layers", [])
    ]


def _known(version: str) -> bool:
    numbers = version.split(".")[:2]
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
        return False
    found = (int(numbers[0]), int(numbers[1]))
    return found[0] in _MAJORS and found >= _OLDEST


def _imported() -> Any:
    import tensorrt

    return tensorrt
