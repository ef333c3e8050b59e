"""Arrays of any library as kernels take them: an address, a shape, a dtype and where it lies; nothing is copied.

Understood are NumPy arrays, what has `__cuda_array_interface__` (torch, cupy, pycuda, numba) and what has `__dlpack__`.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["View", "view"]


@dataclass(frozen=True)
class View:
    """One C-contiguous array in somebody's memory."""

    address: int
    shape: tuple[int, ...]
    dtype: str  # NumPy's name: float32, float16, uint8, ...
    device: str  # "cpu", or "cuda:0" and so on
    writeable: bool
    owner: Any  # keeps the memory alive

    @property
    def nbytes(self) -> int:
        """Bytes from its first to its last element."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def view(name: str, array: Any) -> View:
    """How an array lies in memory; `name` stands in messages.

    Raises TypeError for what is no array that shares its memory, ValueError where it is not C-contiguous.
    """
    if isinstance(array, View):
        return array
    if isinstance(array, np.ndarray):
        if not array.flags.c_contiguous:
            raise ValueError(f"{name}: {array.shape} is not C-contiguous; pass a contiguous copy")
        return View(array.ctypes.data, array.shape, str(array.dtype), "cpu", array.flags.writeable, array)
    described = getattr(array, "__cuda_array_interface__", None)
    if described is not None:
        return _from_interface(name, array, described)
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(name, array)
    raise TypeError(f"{name}: {type(array).__name__} is no array of NumPy, torch, cupy or pycuda")


def _from_interface(name: str, array: Any, described: dict[str, Any]) -> View:
    shape, dtype = tuple(described["shape"]), np.dtype(described["typestr"])
    _require_contiguous(name, shape, described.get("strides"), dtype.itemsize)
    address, read_only = described["data"]
    number = getattr(getattr(array, "device", None), "index", None)
    if number is None:  # cupy calls it id; pycuda has one context, of one device
        number = getattr(getattr(array, "device", None), "id", None) or 0
    return View(address or 0, shape, str(dtype), f"cuda:{number}", not read_only, array)


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("number", ctypes.c_int32))


class _Type(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    """`DLTensor` of DLPack's C interface."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("dimensions", ctypes.c_int32),
        ("type", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


_KINDS = {0: "int", 1: "uint", 2: "float", 6: "bool"}  # kDLInt, kDLUInt, kDLFloat, kDLBool
_CPU, _CUDA = 1, 2  # kDLCPU, kDLCUDA


def _from_dlpack(name: str, array: Any) -> View:
    capsule = array.__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _Tensor.from_address(pointer(capsule, b"dltensor"))
    kind = tensor.type.code
    if kind not in _KINDS or tensor.type.lanes != 1:
        raise TypeError(f"{name}: its element type (DLPack code {kind}) is not one that kernels take")
    dtype = np.dtype("bool" if kind == 6 else f"{_KINDS[kind]}{tensor.type.bits}")
    shape = tuple(tensor.shape[i] for i in range(tensor.dimensions))
    if tensor.strides:
        steps = tuple(tensor.strides[i] * dtype.itemsize for i in range(tensor.dimensions))
        _require_contiguous(name, shape, steps, dtype.itemsize)
    if tensor.device.kind not in (_CPU, _CUDA):
        raise TypeError(
            f"{name}: lies on a device of DLPack's kind {tensor.device.kind}, neither CPU nor CUDA"
        )
    device = "cpu" if tensor.device.kind == _CPU else f"cuda:{tensor.device.number}"
    # The capsule frees the tensor when it goes, so it is kept beside the array.
    address = (tensor.data or 0) + tensor.offset
    return View(address, shape, str(dtype), device, writeable=True, owner=(array, capsule))


def _require_contiguous(
    name: str, shape: tuple[int, ...], strides: tuple[int, ...] | None, itemsize: int
) -> None:
    """ValueError where `strides`, in bytes, are not those of C order; axes of one element do not count."""
    if strides is None:
        return
    step = itemsize
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step:
            raise ValueError(f"{name}: {shape} is not C-contiguous; pass a contiguous copy")
        step *= size
