"""Pickles as chumpy, SciPy and Python 2 write them, made without any of the three."""

import io
import pickle
import struct
import sys
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from reenact.reference.pickles import ARRAYS, PickleRefusedError, read_pickle

__all__ = [
    "PROTOCOLS",
    "Calls",
    "Ch",
    "Py2Pickler",
    "assert_refused",
    "csc_matrix",
    "dumps",
    "py2_dumps",
    "steps",
]

PROTOCOLS = (0, 1, 2, 3, 4, 5)


class Ch:
    """What chumpy pickles of an array: the array and bookkeeping."""

    def __init__(self, x: Any) -> None:
        self.x = x
        self._dirty_vars = {"x"}
        self._itr = None
        self._depends_on_deps: dict[str, Any] = {}
        self._make_dense = self._make_sparse = False
        self._status = "new"


class csc_matrix:  # noqa: N801
    """What SciPy pickles of a matrix in compressed sparse columns."""

    def __init__(self, dense: np.ndarray) -> None:
        columns, rows = np.nonzero(dense.T)
        self._shape = dense.shape
        self.data = dense[rows, columns]
        self.indices = rows.astype(np.int32)
        self.indptr = np.searchsorted(columns, np.arange(dense.shape[1] + 1)).astype(np.int32)
        self.maxprint = 50


Ch.__module__ = "chumpy.ch"
csc_matrix.__module__ = "scipy.sparse.csc"
_MODULES: dict[str, dict[str, Any]] = {
    "chumpy": {},
    "chumpy.ch": {"Ch": Ch},
    "scipy": {},
    "scipy.sparse": {},
    "scipy.sparse.csc": {"csc_matrix": csc_matrix},
}


class _Installed:
    """While they are pickled, the two classes are where their names say; never when they are read."""

    def __enter__(self) -> None:
        self.before = {name: sys.modules.get(name) for name in _MODULES}
        for name, content in _MODULES.items():
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(content)

    def __exit__(self, *_: object) -> None:
        for name, module in self.before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def dumps(value: object, protocol: int) -> bytes:
    with _Installed():
        return pickle.dumps(value, protocol)


class Py2Pickler(pickle._Pickler):
    """Protocol 2 as Python 2 writes it: texts and bytes are strings, and NumPy is an old one."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def _string(self, value: str | bytes) -> None:
        raw = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)  # type: ignore[attr-defined]
        self.memoize(value)  # type: ignore[attr-defined]

    dispatch[str] = dispatch[bytes] = _string


def py2_dumps(value: object) -> bytes:
    file = io.BytesIO()
    with _Installed():
        Py2Pickler(file, 2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def steps(*parts: bytes | str | int | tuple[Any, ...] | bool | None) -> bytes:
    """A pickle of protocol 2, written out: bytes are opcodes as they are, all else is a value that is pushed."""
    return b"\x80\x02" + b"".join(_step(part) for part in parts) + b"."


def _step(part: Any) -> bytes:
    match part:
        case bytes():
            return part
        case str():
            return b"X" + struct.pack("<I", len(part.encode())) + part.encode()
        case None:
            return b"N"
        case bool():
            return b"\x88" if part else b"\x89"
        case int():
            return b"\x8a\x10" + part.to_bytes(16, "little", signed=True)
        case tuple():
            return b"(" + b"".join(_step(item) for item in part) + b"t"
    raise TypeError(part)


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.how = function, arguments

    def __reduce__(self):
        return self.how


def assert_refused(content, *words, allowed=ARRAYS):
    with pytest.raises(PickleRefusedError) as caught:
        read_pickle(content, allowed)
    for word in words:
        assert word in str(caught.value)
