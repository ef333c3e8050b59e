"""The same kernels for those whose program lives in pycuda: its contexts, its streams, its arrays.

pycuda compiles with nvcc, which must be on the PATH. It has no wheels and cannot wrap the streams of other libraries,
so it is an extra; `cuda.Launcher` takes pycuda's arrays and streams as well.
"""

import ctypes
from typing import Any

import numpy as np

from ..errors import BackendError
from .arrays import View
from .launch import THREADS, Kernel, sources

__all__ = ["Launcher"]


class Launcher:
    """Launches in pycuda's current context; make one, such as by `import pycuda.autoprimaryctx`, before this."""

    def __init__(self, *, stream: Any = None) -> None:
        """On a `pycuda.driver.Stream`, or None for the default one.

        Raises BackendError where pycuda cannot be imported or no context is current.
        """
        try:
            from pycuda import driver
        except ImportError as error:
            raise BackendError(
                f'pycuda cannot be imported ({error}); install it with `pip install ".[pycuda]"` in the folder of the '
                "sources, on a machine with the CUDA toolkit"
            ) from error
        if driver.Context.get_current() is None:
            raise BackendError("pycuda has no current context; `import pycuda.autoprimaryctx` makes one")
        self._stream = stream
        self._modules: dict[str, Any] = {}

    def accept(self, name: str, array: View) -> None:
        """ValueError where the array does not lie on a GPU; pycuda does not tell the current one's number."""
        if array.device == "cpu":
            raise ValueError(f"{name}: lies on cpu; these kernels run on pycuda's GPU")

    def launch(self, kernel: Kernel, params: ctypes.Structure, blocks: tuple[int, int, int]) -> None:
        """Start `kernel` and return at once; BackendError where it cannot be compiled or started."""
        from pycuda import driver

        struct = np.frombuffer(bytes(params), np.dtype((np.void, ctypes.sizeof(params))))[0]
        try:
            function = self._module(kernel.file).get_function(kernel.name)
            function(struct, grid=blocks, block=(THREADS, 1, 1), stream=self._stream)
        except driver.Error as error:
            raise BackendError(f"{kernel.name}: pycuda says {error}") from error

    def _module(self, file: str) -> Any:
        if file not in self._modules:
            from pycuda import compiler

            self._modules[file] = compiler.SourceModule(
                _in_one(sources(file), file), no_extern_c=True, options=["-std=c++17", "-O3"]
            )
        return self._modules[file]


def _in_one(texts: dict[str, str], file: str) -> str:
    """The file with its own headers, each once, in the place of their first includes: pycuda compiles one text."""
    included: set[str] = set()

    def expanded(name: str) -> str:
        if name in included:
            return ""
        included.add(name)
        lines = texts[name].replace("#pragma once", "").splitlines()
        return "\n".join(
            expanded(line.split('"')[1]) if line.startswith('#include "') else line for line in lines
        )

    return expanded(file)
