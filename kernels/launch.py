"""What starts a kernel, whatever compiles and runs it: the protocol between the kernels' API and its launchers.

`cuda.Launcher` (cuda-python) and `pycuda.Launcher` run on a GPU; `host.Launcher` runs the same source, compiled by g++,
on NumPy arrays, to test it where there is no GPU.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

from .arrays import View, view

__all__ = ["MOST_ELEMENTS", "THREADS", "Kernel", "Launcher", "blocks_for", "require_on", "sources", "views"]

THREADS = 256  # a block's, of every kernel
MOST_ELEMENTS = 2**31 - 1  # of one array: kernels count in 32 bits


@dataclass(frozen=True)
class Kernel:
    """One kernel by the file in `csrc/` that has it and its name there."""

    file: str
    name: str


class Launcher(Protocol):
    """Compiles kernels once and starts them; what it starts may still run when `launch` returns."""

    def accept(self, name: str, array: View) -> None:
        """Called for every array of a launch, before it; ValueError where these kernels cannot reach it."""

    def launch(self, kernel: Kernel, params: ctypes.Structure, blocks: tuple[int, int, int]) -> None:
        """Start `kernel` on `blocks` blocks of THREADS threads; a copy of `params` is taken."""


def require_on(device: str, name: str, array: View) -> None:
    """ValueError where an array does not lie on `device`: "cpu", or "cuda:0" and so on."""
    if array.device != device:
        raise ValueError(f"{name}: lies on {array.device}; these kernels run on {device}")


def blocks_for(work: int) -> int:
    """Blocks that have a thread for each of `work` items."""
    return -(-work // THREADS)


def views(launcher: Launcher, arrays: Mapping[str, Any]) -> dict[str, View]:
    """Views of arrays by name, each within the launcher's reach and small enough to count in 32 bits.

    Raises ValueError where one is not, and what `view` raises.
    """
    seen = {name: view(name, array) for name, array in arrays.items()}
    for name, found in seen.items():
        launcher.accept(name, found)
        if found.nbytes > MOST_ELEMENTS:
            raise ValueError(
                f"{name}: {found.shape} {found.dtype} is larger than 2 GiB, too large for a kernel"
            )
    return seen


def sources(file: str, text: str | None = None) -> dict[str, str]:
    """The text of a file in `csrc/`, or `text` in its place, and of the headers there, by name; the file first."""
    folder = resources.files(__package__) / "csrc"
    headers = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".cuh"))
    found = {name: (folder / name).read_text(encoding="utf-8") for name in headers}
    return {file: (folder / file).read_text(encoding="utf-8") if text is None else text, **found}
