"""Runs the device code without a GPU: g++ compiles a kernel file unchanged, grid and block become loops.

It is the proof that the code computes the right thing, not a fast path: one thread does all the work.
"""

import ctypes
import hashlib
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from .arrays import View
from .launch import THREADS, Kernel, require_on, sources

__all__ = ["Launcher"]

# No contraction into fused multiply-adds: results then do not depend on the machine that compiles.
_OPTIONS = (
    "-x",
    "c++",
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
)


class Launcher:
    """Launches on arrays in the CPU's memory; each file is compiled once into `folder`."""

    def __init__(self, folder: Path | None = None, compiler: str = "g++") -> None:
        """`folder` keeps what is compiled, by the hash of its source; None: a temporary one for the process."""
        self._folder = folder or _temporary_folder()
        self._compiler = compiler
        self._libraries: dict[str, ctypes.CDLL] = {}

    def accept(self, name: str, array: View) -> None:
        """ValueError where the array does not lie in the CPU's memory."""
        require_on("cpu", name, array)

    def launch(self, kernel: Kernel, params: ctypes.Structure, blocks: tuple[int, int, int]) -> None:
        """Run all threads, one after the other.

        Raises RuntimeError where the file does not compile, or Python and C++ disagree about the parameters' size.
        """
        library = self._library(kernel.file)
        size = getattr(library, f"{kernel.name}_params_size")()
        if size != ctypes.sizeof(params):
            raise RuntimeError(
                f"{kernel.name}: its parameters take {size} bytes in {kernel.file} and {ctypes.sizeof(params)} here"
            )
        getattr(library, kernel.name)(ctypes.byref(params), *map(ctypes.c_uint, (*blocks, THREADS)))

    def _library(self, file: str) -> ctypes.CDLL:
        if file not in self._libraries:
            self._libraries[file] = ctypes.CDLL(str(_compiled(file, self._folder, self._compiler)))
        return self._libraries[file]


@cache
def _temporary_folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="reenact-kernels-")
    _KEPT.append(folder)
    return Path(folder.name)


_KEPT: list["tempfile.TemporaryDirectory[str]"] = []  # removed when the process ends


def _compiled(file: str, folder: Path, compiler: str) -> Path:
    """The shared library of a file, made if it is not there yet."""
    texts = sources(file)
    digest = hashlib.sha256("\0".join((compiler, *_OPTIONS, *texts, *texts.values())).encode()).hexdigest()
    library = folder / f"{Path(file).stem}-{digest[:16]}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=folder) as workplace:
        for name, text in texts.items():
            (Path(workplace) / name).write_text(text, encoding="utf-8")
        made = Path(workplace) / "made.so"
        command = [compiler, *_OPTIONS, str(Path(workplace) / file), "-o", str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise RuntimeError(
                f"{compiler} cannot be started ({error}); install it to run kernels on the CPU"
            ) from error
        if done.returncode:
            raise RuntimeError(f"{file} does not compile with {compiler}:\n{done.stderr}")
        made.replace(library)
    return library
