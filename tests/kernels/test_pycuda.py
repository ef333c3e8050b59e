"""Launching through pycuda, recorded by a stand-in: pycuda itself cannot be imported without a driver."""

import ctypes
import sys
import types
from typing import Any

import numpy as np
import pytest
from reenact.errors import BackendError
from reenact.kernels import pycuda
from reenact.kernels.arrays import view
from reenact.kernels.launch import Kernel

KERNEL = Kernel("warp.cu", "warp_planar_f32")


class Numbers(ctypes.Structure):
    _fields_ = (("place", ctypes.c_uint64), ("count", ctypes.c_int32))


class Pycuda:
    """What of pycuda is used: `driver.Context.get_current`, `driver.Error`, `compiler.SourceModule`."""

    def __init__(self) -> None:
        self.context: Any = object()
        self.sources: list[tuple[str, dict[str, Any]]] = []
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []
        error = type("Error", (Exception,), {})
        context = types.SimpleNamespace(get_current=lambda: self.context)
        self.driver = types.SimpleNamespace(Context=context, Error=error)
        self.compiler = types.SimpleNamespace(SourceModule=self.source_module)
        self.fails: Exception | None = None

    def source_module(self, source: str, **options: Any) -> Any:
        self.sources.append((source, options))
        return types.SimpleNamespace(get_function=self.function)

    def function(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> None:
            if self.fails:
                raise self.fails
            self.calls.append((name, arguments, options))

        return call


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Pycuda:
    made = Pycuda()
    package = types.ModuleType("pycuda")
    package.driver, package.compiler = made.driver, made.compiler  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    return made


def test_a_launch_hands_over_one_struct_grid_block_and_stream(fake: Pycuda) -> None:
    launcher = pycuda.Launcher(stream="stream")
    launcher.launch(KERNEL, Numbers(place=4096, count=5), (3, 2, 1))
    launcher.launch(KERNEL, Numbers(place=1, count=6), (1, 1, 1))
    (name, (struct,), options), _ = fake.calls
    assert name == "warp_planar_f32"
    assert isinstance(struct, np.void)
    assert Numbers.from_buffer_copy(struct.tobytes()).place == 4096
    assert options == {"grid": (3, 2, 1), "block": (256, 1, 1), "stream": "stream"}
    ((source, compiled),) = fake.sources
    assert compiled == {"no_extern_c": True, "options": ["-std=c++17", "-O3"]}
    assert '#include "' not in source
    assert source.count("struct half_t") == 1
    assert source.index("struct half_t") < source.index("KERNEL(warp_planar_f32")


def test_an_error_of_pycuda_is_named(fake: Pycuda) -> None:
    launcher = pycuda.Launcher()
    fake.fails = fake.driver.Error("out of memory")
    with pytest.raises(BackendError, match="warp_planar_f32: pycuda says out of memory"):
        launcher.launch(KERNEL, Numbers(), (1, 1, 1))


def test_a_context_must_be_current(fake: Pycuda) -> None:
    fake.context = None
    with pytest.raises(BackendError, match=r"import pycuda\.autoprimaryctx"):
        pycuda.Launcher()


def test_without_pycuda_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(BackendError, match=r"pip install \"\.\[pycuda\]\""):
        pycuda.Launcher()


def test_arrays_in_the_cpus_memory_are_refused(fake: Pycuda) -> None:
    with pytest.raises(ValueError, match="x: lies on cpu"):
        pycuda.Launcher().accept("x", view("x", np.zeros(2)))
