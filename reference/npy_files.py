"""NumPy's files, `.npy` and `.npz`: what their headers say is checked before any memory is asked for."""

import io
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NpyHeader", "npz_rows", "read_npy", "read_npy_header"]

_BLOCK = 1 << 22  # bytes at once
_SHORT = "is cut short, or no NumPy file"


@dataclass(frozen=True)
class NpyHeader:
    """What a `.npy` file says about itself; the numbers follow."""

    shape: tuple[int, ...]
    fortran: bool  # whether the first axis runs fastest
    dtype: np.dtype[Any]


def read_npy_header(file: IO[bytes]) -> NpyHeader:
    """Read a header and stop at its end. Raises ValueError where there is none, in words for after a file's name."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            return NpyHeader(*np.lib.format.read_array_header_1_0(file))
        if version == (2, 0):
            return NpyHeader(*np.lib.format.read_array_header_2_0(file))
    except Exception as error:  # the header is a literal of Python's; reading a wrong one may raise anything
        raise ValueError(_SHORT) from error
    raise ValueError(f"is of version {version}; expected 1.0 or 2.0")


def read_npy(content: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
    """The numbers of a whole `.npy` file, of this shape, read-only; ValueError where it has another or no numbers."""
    file = io.BytesIO(content)
    header = read_npy_header(file)
    _require_plain(header)
    if header.shape != shape:
        raise ValueError(f"is {header.shape}; expected {shape}")
    rest = content[file.tell() :]
    if len(rest) != math.prod(shape) * header.dtype.itemsize:
        raise ValueError(f"has {len(rest)} bytes for {shape} numbers of {header.dtype}")
    return np.frombuffer(rest, header.dtype).reshape(shape, order="F" if header.fortran else "C")


def npz_rows(archive: zipfile.ZipFile, name: str, rows: int, columns: int) -> Iterator[NDArray[Any]]:
    """The numbers under `name`, in blocks of whole rows, however many axes the file gives the rows.

    Raises ValueError where they are not rows * columns numbers, their last axis not `columns` long (but for a single
    column), or not plain; and whatever `zipfile` raises for a damaged archive.
    """
    with archive.open(f"{name}.npy") as file:
        header = read_npy_header(file)
        _require_plain(header)
        last = header.shape[-1] if header.shape else 0
        if header.fortran or math.prod(header.shape) != rows * columns or columns not in (1, last):
            raise ValueError(f"has {name} as {header.shape}; expected {rows} rows of {columns}")
        width = columns * header.dtype.itemsize
        step = max(1, _BLOCK // width)
        for first in range(0, rows, step):
            count = min(step, rows - first)
            block = file.read(count * width)
            if len(block) != count * width:
                raise ValueError(_SHORT)
            yield np.frombuffer(block, header.dtype).reshape(count, columns)
        if file.read(1):  # the end is reached, and with it the archive's checksum
            raise ValueError(f"has more behind the numbers of {name}")


def _require_plain(header: NpyHeader) -> None:
    if header.dtype.kind not in "fiu" or header.dtype.itemsize > 8:
        what = "objects" if header.dtype.hasobject else str(header.dtype)
        raise ValueError(f"has an array of {what}; expected numbers")
