"""Pickles of arrays with torch tensors in them, as `numpy.save` writes a dict of both, by the rules of `pickles.py`."""

import numpy as np

from .pickles import (
    NUMPY_OBJECT,
    REFUSED,
    Allowed,
    Array,
    Maker,
    PickleReader,
    PickleRefusedError,
    StandIn,
    bytes_of,
    end_of_pickle,
    is_shape,
)

__all__ = ["TENSORS"]

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what a stream of torch.save in its older form begins with
_STORAGES: Allowed = {
    ("torch", "FloatStorage"): "<f4",
    ("torch", "DoubleStorage"): "<f8",
    ("torch", "IntStorage"): "<i4",
    ("torch", "LongStorage"): "<i8",
}
_STRANGE = "has a tensor of a form that torch does not write"


class _Storage(StandIn):
    """The numbers of a tensor."""

    numbers: Array

    def __init__(self, kind: str, key: str, size: int) -> None:
        self.dtype, self.key, self.size = np.dtype(kind), key, size


class _Tensor(StandIn):
    """Where a tensor's numbers lie among those of a storage; offset and strides count numbers."""

    def __init__(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        self._storage, self._offset, self.shape, self._strides = storage, offset, shape, strides

    def dense(self) -> Array:
        last = self._offset + sum((n - 1) * step for n, step in zip(self.shape, self._strides, strict=True))
        if 0 in self.shape or last >= self._storage.size:
            raise PickleRefusedError(f"is a tensor {self.shape} that reaches beyond its numbers")
        numbers = self._storage.numbers[self._offset :]
        strides = [step * numbers.itemsize for step in self._strides]
        return np.lib.stride_tricks.as_strided(numbers, self.shape, strides).copy()


class _StorageReader(PickleReader):
    """Of the pickle that refers to a storage, which is outside itself."""

    def persistent_load(self, identity: object) -> _Storage:
        match identity:
            case ("storage", str() as kind, str() as key, str(), int() as size, None):
                if kind in _STORAGES.values() and size >= 0:
                    return _Storage(kind, key, size)
        raise PickleRefusedError(_STRANGE)


def _storage(raw: object) -> _Storage:
    """From a stream of `torch.save` in its older form: five pickles, the fourth the storage, and its numbers."""
    if not isinstance(raw, bytes | bytearray | str):
        raise PickleRefusedError(_STRANGE)
    content, found = bytes_of(raw), []
    for reader, refused in (
        *((PickleReader, REFUSED),) * 3,
        (_StorageReader, REFUSED - {"BINPERSID"}),
        (PickleReader, REFUSED),
    ):
        end = end_of_pickle(content, refused)
        found.append(reader(content[:end], _STORAGES if reader is _StorageReader else {}).load())
        content = content[end:]
    size, numbers = int.from_bytes(content[:8], "little"), content[8:]
    match found:
        case [magic, protocol, {"little_endian": True}, _Storage() as storage, [key]]:
            if (magic, protocol, key) == (_MAGIC, _PROTOCOL, storage.key) and size == storage.size:
                if len(numbers) != size * storage.dtype.itemsize:
                    raise PickleRefusedError(f"has a tensor of {size} numbers in {len(numbers)} bytes")
                storage.numbers = np.frombuffer(numbers, storage.dtype)
                return storage
    raise PickleRefusedError(_STRANGE)


def _tensor(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    _gradient: object,
    _hooks: object,
    _metadata: object = None,
) -> _Tensor:
    start = (offset,)
    if not (isinstance(storage, _Storage) and is_shape(start) and is_shape(shape) and is_shape(strides)):
        raise PickleRefusedError(_STRANGE)
    if len(shape) != len(strides):
        raise PickleRefusedError(_STRANGE)
    return _Tensor(storage, start[0], shape, strides)


TENSORS: Allowed = {
    **NUMPY_OBJECT,
    ("collections", "OrderedDict"): Maker(lambda: {}),
    ("torch._utils", "_rebuild_tensor_v2"): Maker(_tensor),
    ("torch.storage", "_load_from_bytes"): Maker(_storage),
}
"""What NumPy's arrays, the one around a single object too, and torch's tensors name."""
