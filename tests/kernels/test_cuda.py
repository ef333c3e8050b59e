"""Compiling kernels for GPUs without one, and launching them against a recorded driver."""

import ctypes
import os
import re
import shutil
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from reenact.benchmarks import kernel_report
from reenact.errors import BackendError
from reenact.kernels import cuda
from reenact.kernels.launch import Kernel, sources

CSRC = Path(cuda.__file__).parent / "csrc"
FILES = sorted(path.name for path in CSRC.glob("*.cu"))
KERNEL = Kernel("warp.cu", "warp_planar_f32")


@pytest.fixture
def nvrtc() -> None:
    if cuda.nvrtc_version() is None:
        pytest.skip("NVRTC, CUDA's compiler as a library, is not installed")


PRIMARY = 70  # the fake driver's context of the first GPU


class Numbers(ctypes.Structure):
    _fields_ = (("place", ctypes.c_uint64), ("count", ctypes.c_int32))


def test_the_kernels_ran_on_a_gpu_too() -> None:
    if cuda.missing():
        pytest.skip(f"kernels were tested in g++'s build only: {cuda.missing()}")


@pytest.mark.parametrize("file", FILES)
def test_nvrtc_compiles_every_kernel(nvrtc: None, file: str) -> None:
    cubin = cuda.compile_kernels(file, "sm_90")
    assert cubin.startswith(b"\x7fELF")
    for name in re.findall(r"^KERNEL\((\w+),", sources(file)[file], re.MULTILINE):
        assert name.encode() in cubin


@pytest.mark.parametrize(("kind", "short"), [("f16", "u16"), ("f32", "f32")])
def test_the_warp_has_the_loads_of_four_channels_under_way_at_once(
    nvrtc: None, kind: str, short: str
) -> None:
    ptx = cuda.compile_kernels("warp.cu", "compute_90").decode()
    code = ptx.split(f".entry warp_planar_{kind}(")[1].split(".entry")[0]
    moves = re.findall(rf"\b(ld|st)(?:\.global)?\.{short}\b", code)
    assert "".join(moves).endswith("ld" * 16 + "st" * 4)


@pytest.mark.parametrize("file", FILES)
def test_nvcc_compiles_every_kernel_for_every_gpu_without_spills(file: str) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    found = kernel_report.measure(CSRC / file)
    kernels = re.findall(r"^KERNEL\((\w+),", sources(file)[file], re.MULTILINE)
    assert sorted((row.kernel, row.capability) for row in found) == sorted(
        (kernel, capability) for kernel in kernels for capability in cuda.ARCHITECTURES
    )
    assert {row.kernel: row.spilled for row in found if row.spilled} == {}


def test_a_compiled_kernel_is_kept_and_found_again(
    nvrtc: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kernels"
    first = cuda._kept("warp.cu", 90, folder)
    assert [path.suffix for path in folder.iterdir()] == [".cubin"]
    assert folder.stat().st_mode & 0o777 == 0o700

    def fail(*_: Any) -> bytes:
        raise AssertionError("compiled again")

    monkeypatch.setattr(cuda, "compile_kernels", fail)
    assert cuda._kept("warp.cu", 90, folder) == first
    with pytest.raises(AssertionError, match="compiled again"):
        cuda._kept("warp.cu", 80, folder)


@pytest.mark.skipif(os.name != "posix", reason="asks for POSIX permissions")
def test_a_folder_that_others_may_write_into_is_not_trusted(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(BackendError, match="chmod 700"):
        cuda._kept("warp.cu", 90, tmp_path)


def test_source_that_does_not_compile_comes_with_the_compilers_words(nvrtc: None) -> None:
    with pytest.raises(BackendError, match=r'warp.cu does not compile for sm_90 [^"]*"nothing" is undefined'):
        cuda.compile_kernels("warp.cu", "sm_90", "__device__ int broken = nothing;")


def test_without_a_driver_it_says_so() -> None:
    reason = cuda.missing()
    if reason is None:
        pytest.skip("there is a GPU here")
    with pytest.raises(BackendError, match="CUDA kernels cannot run: "):
        cuda.Launcher()


def test_an_nvrtc_that_was_missing_is_looked_for_again(nvrtc: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "cuda.bindings", None)
        assert cuda.nvrtc_version() is None
    assert cuda.nvrtc_version() is not None


class Driver:
    """Stands for cuda.bindings.{driver,runtime}: notes the calls, answers with success."""

    def __init__(self) -> None:
        self.launched: list[tuple[Any, ...]] = []
        self.loaded = 0
        self.contexts: dict[int, list[int]] = {}  # thread -> its stack

    def stack(self) -> list[int]:
        return self.contexts.setdefault(threading.get_ident(), [])

    def cuInit(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return (self.success,)

    def cuDeviceGet(self, number: int) -> tuple[Any, ...]:  # noqa: N802
        return self.success, number

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:  # noqa: N802
        return self.success, PRIMARY + device

    def cuCtxGetCurrent(self) -> tuple[Any, ...]:  # noqa: N802
        return self.success, (self.stack() or [0])[-1]

    def cuCtxPushCurrent(self, context: int) -> tuple[Any, ...]:  # noqa: N802
        self.stack().append(context)
        return (self.success,)

    def cuCtxPopCurrent(self) -> tuple[Any, ...]:  # noqa: N802
        return self.success, self.stack().pop()

    def cuLibraryLoadData(self, code: bytes, *rest: Any) -> tuple[Any, ...]:  # noqa: N802
        assert code == b"cubin"
        assert len(rest) == 6
        self.loaded += 1
        return self.success, "library"

    def cuLibraryGetKernel(self, library: str, name: bytes) -> tuple[Any, ...]:  # noqa: N802
        return self.success, (library, name)

    def cuKernelGetFunction(self, kernel: Any) -> tuple[Any, ...]:  # noqa: N802
        return (self.success, kernel) if self.stack()[-1:] == [PRIMARY] else (self.lost, None)

    def cuLaunchKernel(self, function: Any, *arguments: Any) -> tuple[Any, ...]:  # noqa: N802
        if self.stack()[-1:] != [PRIMARY]:
            return (self.lost,)
        *numbers, stream, values, extra = arguments
        first = ctypes.c_void_p.from_address(values).value
        assert first is not None
        given = Numbers.from_address(first)
        self.launched.append((function, numbers, stream, given.place, given.count, extra))
        return (self.success,)

    def cudaGetDeviceProperties(self, number: int) -> tuple[Any, ...]:  # noqa: N802
        status = self.success if number == 0 else self.failure
        return status, types.SimpleNamespace(major=9, minor=0)

    success = types.SimpleNamespace(value=0, name="cudaSuccess")
    failure = types.SimpleNamespace(value=101, name="cudaErrorInvalidDevice")
    lost = types.SimpleNamespace(value=201, name="CUDA_ERROR_INVALID_CONTEXT")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    bindings = types.ModuleType("cuda.bindings")
    bindings.driver = bindings.runtime = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setattr(cuda, "missing", lambda: None)
    monkeypatch.setattr(cuda, "_kept", lambda file, capability, folder: b"cubin")
    return made


def test_a_launch_hands_over_the_struct_the_blocks_and_the_stream(driver: Driver) -> None:
    launcher = cuda.Launcher(stream=7)
    launcher.launch(KERNEL, Numbers(place=4096, count=5), (3, 2, 1))
    launcher.on(9).launch(KERNEL, Numbers(place=1, count=6), (1, 1, 1))
    function = ("library", b"warp_planar_f32")
    assert driver.launched == [
        (function, [3, 2, 1, 256, 1, 1, 0], 7, 4096, 5, 0),
        (function, [1, 1, 1, 256, 1, 1, 0], 9, 1, 6, 0),
    ]
    assert driver.loaded == 1


def test_a_launch_finds_its_gpu_from_any_thread_and_leaves_the_callers_as_it_was(driver: Driver) -> None:
    launcher = cuda.Launcher()

    def launch(*before: int) -> list[int]:
        driver.stack()[:] = before
        launcher.launch(KERNEL, Numbers(place=1, count=2), (1, 1, 1))
        return list(driver.stack())

    with ThreadPoolExecutor(1) as other:
        assert other.submit(launch).result() == []
    for before in ((), (PRIMARY,), (PRIMARY + 1,)):
        assert launch(*before) == list(before)
    assert len(driver.launched) == 4


def test_an_error_of_the_driver_is_named(driver: Driver) -> None:
    with pytest.raises(BackendError, match="GPU 1: CUDA says cudaErrorInvalidDevice"):
        cuda.Launcher(1)


def test_streams_of_every_library_are_understood() -> None:
    made = types.SimpleNamespace
    protocol = type("Stream", (), {"__cuda_stream__": lambda self: (0, 11)})()
    streams = (3, made(cuda_stream=4), made(ptr=5), made(handle=6), protocol)
    assert [cuda.stream_address(stream) for stream in streams] == [3, 4, 5, 6, 11]
    with pytest.raises(TypeError, match="str is no CUDA stream"):
        cuda.stream_address("x")
