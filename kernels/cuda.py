"""Compiles the kernels with NVRTC for the GPU at hand, keeps what was compiled, and launches it on the caller's stream.

Stands on cuda-python (the packages cuda-bindings and nvidia-cuda-nvrtc), which is imported only when it is used.
"""

import ctypes
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from ..errors import BackendError
from .arrays import View
from .launch import THREADS, Kernel, require_on, sources

__all__ = ["ARCHITECTURES", "Launcher", "compile_kernels", "missing", "nvrtc_version", "stream_address"]

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
"""Compute capabilities, times ten, that the kernels are compiled for in tests; others of NVRTC's list work too."""

_INSTALL = '`pip install ".[gpu]"` in the folder of the sources'
_OPTIONS = ("--std=c++17",)


def missing() -> str | None:
    """Why no kernel can run here; None where they can."""
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        return f"cuda-python cannot be imported ({error}); install it with {_INSTALL}"
    # Asked of the runtime and first of all: other calls hang or crash where there is no driver.
    status, count = runtime.cudaGetDeviceCount()
    if status != runtime.cudaError_t.cudaSuccess:
        return f"no NVIDIA driver answers ({status.name})"
    if not count:
        return "the NVIDIA driver finds no GPU"
    if nvrtc_version() is None:
        return f"NVRTC cannot be loaded; install it with {_INSTALL}"
    return None


class Launcher:
    """Launches kernels on one GPU, on one stream; streams of torch, cupy, pycuda and plain handles are taken."""

    def __init__(self, number: int = 0, *, stream: Any = 0, cache: Path | None = None) -> None:
        """For GPU `number`; `cache` keeps compiled kernels, it must be the user's own folder. None: not kept.

        Raises BackendError where there is no such GPU or something is not installed.
        """
        reason = missing()
        if reason:
            raise BackendError(f"CUDA kernels cannot run: {reason}")
        from cuda.bindings import driver, runtime

        self._number = number
        properties = _checked(runtime.cudaGetDeviceProperties(number), f"GPU {number}")
        _checked(driver.cuInit(0), "CUDA's driver")
        device = _checked(driver.cuDeviceGet(number), f"GPU {number}")
        # The context that torch, cupy and CUDA's runtime use; which GPU is theirs at the moment stays as it is.
        self._context = _checked(driver.cuDevicePrimaryCtxRetain(device), f"GPU {number}")
        self._capability = properties.major * 10 + properties.minor
        self._cache = cache
        self._stream = stream_address(stream)
        self._functions: dict[Kernel, Any] = {}
        self._libraries: dict[str, Any] = {}

    def accept(self, name: str, array: View) -> None:
        """ValueError where the array does not lie on this GPU."""
        require_on(f"cuda:{self._number}", name, array)

    def on(self, stream: Any) -> "Launcher":
        """The same kernels on another stream."""
        other = object.__new__(Launcher)
        other.__dict__.update(self.__dict__)
        other._stream = stream_address(stream)
        return other

    def launch(self, kernel: Kernel, params: ctypes.Structure, blocks: tuple[int, int, int]) -> None:
        """Start `kernel` and return at once, from any thread; its arrays must live until the stream has passed it.

        Raises BackendError where it cannot be compiled or started.
        """
        from cuda.bindings import driver

        # New threads have no context, and a caller of several GPUs may be at another.
        if int(_checked(driver.cuCtxGetCurrent(), kernel.name)) == int(self._context):
            self._start(kernel, params, blocks)
            return
        _checked(driver.cuCtxPushCurrent(self._context), kernel.name)
        try:
            self._start(kernel, params, blocks)
        finally:
            driver.cuCtxPopCurrent()

    def _start(self, kernel: Kernel, params: ctypes.Structure, blocks: tuple[int, int, int]) -> None:
        from cuda.bindings import driver

        function = self._functions.get(kernel) or self._load(kernel)
        # CUDA copies the parameters before the call returns.
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(params))
        started = driver.cuLaunchKernel(
            function, *blocks, THREADS, 1, 1, 0, self._stream, ctypes.addressof(arguments), 0
        )
        _checked(started, kernel.name)

    def _load(self, kernel: Kernel) -> Any:
        from cuda.bindings import driver

        if kernel.file not in self._libraries:
            cubin = _kept(kernel.file, self._capability, self._cache)
            loaded = driver.cuLibraryLoadData(cubin, [], [], 0, [], [], 0)
            self._libraries[kernel.file] = _checked(loaded, kernel.file)
        found = driver.cuLibraryGetKernel(self._libraries[kernel.file], kernel.name.encode())
        function = _checked(driver.cuKernelGetFunction(_checked(found, kernel.name)), kernel.name)
        self._functions[kernel] = function
        return function


def stream_address(stream: Any) -> int:
    """The CUDA handle of a stream: a number, or an object of torch, cupy, pycuda or with `__cuda_stream__`.

    Raises TypeError for anything else.
    """
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr", "handle"):  # torch, cupy, pycuda
        if hasattr(stream, name):
            return int(getattr(stream, name))
    raise TypeError(
        f"{type(stream).__name__} is no CUDA stream; pass one of torch, cupy or pycuda, or its handle"
    )


def compile_kernels(file: str, target: str, text: str | None = None) -> bytes:
    """A file in `csrc/`, or `text` in the place of one, compiled by NVRTC; needs no GPU.

    `target` is sm_90 or the like for a cubin, compute_90 for PTX. Raises BackendError with the compiler's words where
    it does not compile.
    """
    from cuda.bindings import nvrtc

    texts = sources(file, text)
    headers = [(name, text) for name, text in texts.items() if name != file]
    made = nvrtc.nvrtcCreateProgram(
        texts[file].encode(),
        file.encode(),
        len(headers),
        [text.encode() for _, text in headers],
        [name.encode() for name, _ in headers],
    )
    program = _checked(made, file)
    try:
        options = [*_OPTIONS, f"--gpu-architecture={target}"]
        status = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])[0]
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            log = bytes(_checked(nvrtc.nvrtcGetProgramLogSize(program), file))
            nvrtc.nvrtcGetProgramLog(program, log)
            raise BackendError(
                f"{file} does not compile for {target} ({status.name}): {log.rstrip(bytes(1)).decode()}"
            )
        if target.startswith("sm_"):
            size, content = nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN
        else:
            size, content = nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX
        compiled = bytes(_checked(size(program), file))
        _checked(content(program, compiled), file)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return compiled


def _kept(file: str, capability: int, folder: Path | None) -> bytes:
    """The cubin, from `folder` where it is there; written whole or not at all."""
    if folder is None:
        return compile_kernels(file, f"sm_{capability}")
    _require_own(folder)
    parts = (str(capability), *_OPTIONS, str(nvrtc_version()), *sources(file).values())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    place = folder / f"{Path(file).stem}-sm{capability}-{digest[:32]}.cubin"
    if place.is_file():
        return place.read_bytes()
    cubin = compile_kernels(file, f"sm_{capability}")
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as unfinished:
        unfinished.write(cubin)
    Path(unfinished.name).replace(place)
    return cubin


def _require_own(folder: Path) -> None:
    """What is compiled is code: BackendError where others may write into the folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.stat()
    others = facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if os.name == "posix" and (facts.st_uid != os.geteuid() or others):
        raise BackendError(
            f"{folder}: others may write into it, so kernels in it are not trusted; run chmod 700 on it"
        )


def nvrtc_version() -> str | None:
    """Of the installed NVRTC, such as 13.0; None where it cannot be loaded."""
    try:
        from cuda.bindings import nvrtc

        _, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, OSError, RuntimeError):
        return None
    return f"{major}.{minor}"


def _checked(answer: tuple[Any, ...], what: str) -> Any:
    """What a CUDA call gave besides its status; BackendError with the status where that is not success."""
    status, *given = answer
    if status.value:
        raise BackendError(f"{what}: CUDA says {status.name}")
    return given[0] if given else None
