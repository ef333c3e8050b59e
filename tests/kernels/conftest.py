"""What runs the device code in tests: g++'s build of it everywhere, and a GPU where there is one."""

import ctypes
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from reenact.kernels import cuda, host
from reenact.kernels.arrays import View
from reenact.kernels.launch import Kernel, Launcher, require_on

MOST_ARRAYS = 64  # that are remembered, and so kept in memory


class OnGpu:
    """Launches on a GPU with arrays in the CPU's memory: copies them there, starts the kernel, copies them back."""

    def __init__(self) -> None:
        self._launcher = cuda.Launcher()
        self._accepted: dict[int, View] = {}

    def accept(self, name: str, array: View) -> None:
        """As the CPU's launcher."""
        require_on("cpu", name, array)
        self._accepted.pop(array.address, None)
        self._accepted[array.address] = array
        while len(self._accepted) > MOST_ARRAYS:
            del self._accepted[next(iter(self._accepted))]

    def launch(self, kernel: Kernel, params: ctypes.Structure, blocks: tuple[int, int, int]) -> None:
        """Run to the end; every 64-bit number of the parameters is the address of an accepted array."""
        from cuda.bindings import runtime

        up, down = (
            runtime.cudaMemcpyKind.cudaMemcpyHostToDevice,
            runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost,
        )
        arrays = {address: self._accepted[address] for address in addresses_in(params)}
        copies = {}
        for address, array in arrays.items():
            copies[address] = succeeded(runtime.cudaMalloc(max(array.nbytes, 1)))
            succeeded(runtime.cudaMemcpy(copies[address], address, array.nbytes, up))
        there = type(params).from_buffer_copy(params)
        for part, name in address_fields(there):
            setattr(part, name, copies[getattr(part, name)])
        self._launcher.launch(kernel, there, blocks)
        succeeded(runtime.cudaDeviceSynchronize())
        for address, array in arrays.items():
            if array.writeable:
                succeeded(runtime.cudaMemcpy(address, copies[address], array.nbytes, down))
            succeeded(runtime.cudaFree(copies[address]))


def succeeded(answer: tuple[Any, ...]) -> Any:
    """What a call of CUDA gave; the test fails where the call did."""
    assert int(answer[0]) == 0, answer[0]
    return answer[1] if len(answer) > 1 else None


def addresses_in(params: Any) -> set[int]:
    return {getattr(part, name) for part, name in address_fields(params)}


def address_fields(part: Any) -> Iterator[tuple[Any, str]]:
    """The structures within `part` and the names of their 64-bit numbers that are not 0."""
    for name, kind in part._fields_:
        value = getattr(part, name)
        if kind is ctypes.c_uint64 and value:
            yield part, name
        for inner in value if isinstance(value, ctypes.Array) else [value]:
            if isinstance(inner, ctypes.Structure):
                yield from address_fields(inner)


# Where there is no GPU one test says so (in test_cuda.py), and not every one.
@pytest.fixture(scope="session", params=["g++"] if cuda.missing() else ["g++", "gpu"])
def launcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Launcher:
    if request.param == "gpu":
        return OnGpu()
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed; it compiles the device code for the CPU")
    return host.Launcher(tmp_path_factory.mktemp("kernels"))
