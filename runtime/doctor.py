"""What is installed, what can run here and what would be chosen, as data; prints nothing, fetches nothing."""

import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import av

from ..errors import BackendError
from ..kernels import cuda
from .backends.cpu import providers
from .backends.device import Device, device, missing
from .engine import BACKENDS, choose
from .files import home
from .models import ModelStatus, list_models

__all__ = ["BackendReport", "DoctorReport", "GpuReport", "report"]

_NEEDED = ("numpy", "opencv-python", "onnx", "onnxruntime", "openvino", "av", "numba", "tflite")
_OPTIONAL = (
    *("opencv-python-headless", "torch", "onnxruntime-gpu", "tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    *("cuda-bindings", "nvidia-cuda-nvrtc", "pycuda", "nvdiffrast", "pyvirtualcam"),
)
_CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")


@dataclass(frozen=True)
class BackendReport:
    """One backend and whether it can be used here."""

    name: str
    executes: str
    available: bool
    reason: str | None  # why it cannot be used; None where it can
    install: str | None  # the exact line that brings it; None where no line does


@dataclass(frozen=True)
class GpuReport:
    """What is known of the GPU and of what compiles for it."""

    device: Device | None  # None: `reason` says why
    reason: str | None
    nvrtc: str | None  # the version of the kernels' compiler; None: not installed
    kernels: str | None  # why the CUDA kernels cannot run; None where they can
    providers: tuple[str, ...]  # that ONNX Runtime was built with


@dataclass(frozen=True)
class DoctorReport:
    """Everything that `reenact doctor` prints."""

    python: str
    platform: str
    cpu: str
    cores: int  # that this process may use
    cpu_features: tuple[str, ...]  # those that matter here; empty where the system does not tell
    packages: dict[str, str | None]  # version; None: not installed
    gpu: GpuReport
    backends: tuple[BackendReport, ...]
    backend: str | None  # what `auto` chooses; None: nothing can run
    precision: str | None  # what `auto` chooses on that backend
    models: tuple[ModelStatus, ...]
    ffmpeg: str  # version inside PyAV
    libav: dict[str, str]  # library -> version
    home: Path


def report() -> DoctorReport:
    """Look at this machine; takes about a second, since it starts the backends."""
    backends = tuple(
        BackendReport(b.name, b.executes, reason is None, reason, b.install)
        for b, reason in ((backend, backend.why_not()) for backend in BACKENDS.values())
    )
    try:
        chosen = choose("auto")
    except BackendError:
        chosen = None  # the reasons are in `backends`
    cpu, features = _cpu()
    return DoctorReport(
        python=f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        cpu=cpu,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cpu_features=features,
        packages={name: _version(name) for name in ("reenact", *_NEEDED, *_OPTIONAL)},
        gpu=_gpu(),
        backends=backends,
        backend=chosen.name if chosen else None,
        precision=chosen.best_precision() if chosen else None,
        models=tuple(list_models()),
        ffmpeg=str(av.ffmpeg_version_info),
        libav={name: ".".join(map(str, version)) for name, version in av.library_versions.items()},
        home=home(),
    )


def _gpu() -> GpuReport:
    reason = missing()
    return GpuReport(
        device=None if reason else device(),
        reason=reason,
        nvrtc=cuda.nvrtc_version(),
        kernels=cuda.missing(),
        providers=providers(),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> tuple[str, tuple[str, ...]]:
    """Its name and features, from Linux's own list where there is one."""
    listing = Path("/proc/cpuinfo")
    if not listing.is_file():
        return platform.processor() or platform.machine(), ()
    lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return facts.get("model name", platform.machine()), tuple(f for f in _CPU_FEATURES if f in flags)
