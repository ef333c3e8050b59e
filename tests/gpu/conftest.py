"""A machine with an imaginary GPU for the tests in this folder; the package itself knows nothing of it."""

import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _beside(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    full = f"reenact_tests_gpu_{name}"
    if full not in sys.modules:
        spec = spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An imaginary GPU in the place of CUDA's runtime; all that is taken from it must be given back."""
    machine = _beside("fake_cuda").FakeCuda()
    modules = {name: ModuleType(name) for name in ("cuda", "cuda.bindings")}
    modules["cuda.bindings.runtime"] = machine.module
    modules["cuda.bindings"].runtime = machine.module  # type: ignore[attr-defined]
    modules["cuda"].bindings = modules["cuda.bindings"]  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    yield machine
    assert machine.alive() == {}


@pytest.fixture
def install(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Installs a version of TensorRT on the machine with the imaginary GPU."""

    def make(version: str = "11.4.0.106") -> Any:
        fake = _beside("fake_tensorrt").FakeTensorRT(cuda, _beside("strict_bindings").Bindings, version)
        monkeypatch.setitem(sys.modules, "tensorrt", fake.module)
        return fake

    return make


@pytest.fixture
def trt(install: Callable[..., Any], small_home: Path) -> Any:
    """TensorRT 11.4 there, and an empty cache of engines."""
    return install()
