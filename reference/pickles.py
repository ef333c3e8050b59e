"""Pickles of arrays, read without building anything that they name: stand-ins take each class's and function's place.

What may be named is listed: NumPy's arrays, chumpy's plain `Ch`, SciPy's csc matrices; `tensor_pickles.py` adds torch's
tensors. Stand-ins keep the parts that a pickle hands them and make an array of them only in `dense`, once its shape is
known to be right. What a pickle holds is named by its type in errors and never shown: a few bytes can stand for many.
"""

import io
import math
import pickle
import pickletools
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, TypeGuard

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ARRAYS",
    "NUMPY",
    "NUMPY_OBJECT",
    "REFUSED",
    "Allowed",
    "Array",
    "Maker",
    "PickleReader",
    "PickleRefusedError",
    "StandIn",
    "Token",
    "bytes_of",
    "dense",
    "end_of_pickle",
    "is_shape",
    "item_of",
    "read_pickle",
]

Array = NDArray[Any]
Allowed = Mapping[tuple[str, str], object]

REFUSED = frozenset(
    ("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEXT_BUFFER", "READONLY_BUFFER")
)
"""Steps of a pickle that no file of arrays needs: what lies outside of it, registered classes, Python 2's objects."""

# A file of arrays takes a few hundred; a limit keeps the memo, and how deep things can be nested, small.
_MOST_STEPS = 5000
_LONGEST = 120  # characters of a name or of another's words that an error repeats
_KINDS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}


class PickleRefusedError(ValueError):
    """Why a pickle is not read, in words that go on after the file's name."""


def read_pickle(content: bytes, allowed: Allowed) -> object:
    """What a pickle holds, as plain containers, texts and numbers, and stand-ins for its arrays.

    `allowed` says what it may name, as ARRAYS does. Nothing of that is imported or called but the stand-ins here, and
    no more memory is used than a few times the pickle's size. Raises PickleRefusedError where it is damaged or asks
    for anything else.
    """
    end_of_pickle(content, REFUSED)
    return PickleReader(content, allowed).load()


def dense(value: object, shape: Sequence[int]) -> Array:
    """The array behind a stand-in of `read_pickle`, in the file's precision, of this shape and read-only.

    Raises PickleRefusedError where it is none, has another shape, or its parts do not fit together.
    """
    if not isinstance(value, StandIn):
        raise PickleRefusedError(f"is a {type(value).__name__}, not an array")
    if value.shape != tuple(shape):
        raise PickleRefusedError(f"is {value.shape}; expected {tuple(shape)}")
    made = value.dense()
    made.flags.writeable = False
    return made


def end_of_pickle(content: bytes, refused: Collection[str], most: int = _MOST_STEPS) -> int:
    """Where the pickle at the start of `content` ends, once each of its steps has been looked at.

    Raises PickleRefusedError for a step that is refused, for more than `most` of them, and where the pickle is cut
    short.
    """
    steps, end, far = 0, 0, False
    try:
        for opcode, argument, position in pickletools.genops(content):
            steps, end = steps + 1, (position or 0) + 1
            if opcode.name in refused:
                raise PickleRefusedError(f"uses {opcode.name}, which no file of arrays needs")
            if opcode.name == "FRAME" and (argument or 0) > len(content) - end - 8:
                raise PickleRefusedError("is cut short")
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT"):  # a memo as long as this number would be made
                far = not 0 <= (argument or 0) < most
            if steps > most or far:
                raise PickleRefusedError(f"takes more than {most} steps; no file of arrays needs so many")
    except PickleRefusedError:
        raise
    except Exception as error:  # genops raises whatever a wrong argument makes of it
        raise PickleRefusedError(f"is cut short, or no pickle ({_short(str(error))})") from error
    return end


_STEPS: Mapping[int, Callable[[Any], None]] = pickle._Unpickler.dispatch


class PickleReader(pickle._Unpickler):
    """Finds nothing but what is listed; to be used on what `end_of_pickle` has looked at.

    It is Python's own reader in Python, whose steps can be replaced. A key is a text, a number or a row of them: tuples
    in tuples, each twice in the next, take time without end to be hashed. What is put into a set is left out.
    """

    stack: list[Any]  # what was read since the last mark

    def __init__(self, content: bytes, allowed: Allowed) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for what a pickle names."""
        try:
            return self._allowed[module, name]
        except KeyError:
            raise PickleRefusedError(f"asks for {_short(f'{module}.{name}')}, which is no array") from None

    def persistent_load(self, _identity: object) -> Any:
        """Nothing: a pickle of arrays stands alone."""
        raise PickleRefusedError("refers to something outside itself")

    def load(self) -> object:
        """What the pickle holds; PickleRefusedError where it is damaged or asks for what is not listed."""
        try:
            return super().load()
        except PickleRefusedError:
            raise
        except Exception as error:  # a damaged pickle may raise anything from inside the reader
            reason = _short(f"{type(error).__name__}: {error}")
            raise PickleRefusedError(f"is damaged, or no pickle ({reason})") from error

    def _set_item(self) -> None:
        _require_keys(self.stack[-2:-1])
        _STEPS[pickle.SETITEM[0]](self)

    def _set_items(self) -> None:
        _require_keys(self.stack[::2])
        _STEPS[pickle.SETITEMS[0]](self)

    def _dict(self) -> None:
        _require_keys(self.stack[::2])
        _STEPS[pickle.DICT[0]](self)

    def _add_items(self) -> None:
        _STEPS[pickle.POP_MARK[0]](self)
        if not isinstance(self.stack[-1], set):
            raise PickleRefusedError(f"adds to a {type(self.stack[-1]).__name__} as if it were a set")

    def _frozen_set(self) -> None:
        _STEPS[pickle.POP_MARK[0]](self)
        _STEPS[pickle.EMPTY_SET[0]](self)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **_STEPS,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _dict,
        pickle.ADDITEMS[0]: _add_items,
        pickle.FROZENSET[0]: _frozen_set,
    }


class Token:
    """A name that a pickle may mention, to be recognised and nothing else."""

    def __setstate__(self, _state: object) -> NoReturn:
        raise PickleRefusedError("changes what it may only name")


class Maker(Token):
    """A function that a pickle may call."""

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *arguments: object) -> object:
        """What the function makes of what a pickle gives it."""
        return self._make(*arguments)


class StandIn:
    """The parts of an array, as a pickle hands them over."""

    shape: tuple[int, ...] = ()

    def __setstate__(self, _state: object) -> None:
        raise PickleRefusedError("changes an array that has been made")

    def dense(self) -> Array:
        """The array, in memory of its own or the pickle's; only when `shape` is known to be right."""
        raise PickleRefusedError("has an array without numbers")


def _require_keys(keys: Sequence[object]) -> None:
    for key in keys:
        if any(not _is_key(part) for part in (key if isinstance(key, tuple) else (key,))):
            raise PickleRefusedError(f"has a dictionary whose key is a {type(key).__name__} with more in it")


def _is_key(value: object) -> bool:
    return value is None or isinstance(value, str | bytes | int | float | StandIn | Token)


def _said(value: object) -> str:
    """A short text, else the type alone."""
    return repr(value) if isinstance(value, str) and len(value) < 20 else f"a {type(value).__name__}"


def _short(text: str) -> str:
    """What an error repeats of words that are not ours, on one line."""
    return " ".join(text[:_LONGEST].split()) + ("..." if len(text) > _LONGEST else "")


def is_shape(value: object) -> TypeGuard[tuple[int, ...]]:
    """Whether this is a tuple of a few whole numbers, none below 0."""
    return (
        isinstance(value, tuple)
        and len(value) <= 4
        and all(type(size) is int and 0 <= size <= sys.maxsize for size in value)
    )


def bytes_of(raw: bytes | bytearray | str) -> bytes:
    """Bytes that a pickle may hold as a text of as many characters."""
    try:
        return raw.encode("latin1") if isinstance(raw, str) else bytes(raw)
    except UnicodeEncodeError as error:
        raise PickleRefusedError("has an array whose bytes are no bytes") from error


class _Dtype(Token):
    """A plain number's kind and byte order; or, where the kind is O, that there is one object, not a number."""

    def __init__(self, code: str) -> None:
        self.code, self._order = code, "="

    def __setstate__(self, state: object) -> None:  # type: ignore[override]
        match state:
            case (int(), "<" | ">" | "|" | "=" as order, None, None, None, int(), int(), int()):
                self._order = order
            case _:
                raise PickleRefusedError("has an array of something else than plain numbers")

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self._order + self.code)


class _Numbers(StandIn):
    """A NumPy array."""

    item: object = None
    _raw: bytes | bytearray | str | None = None
    _dtype: np.dtype[Any]
    _fortran: bool

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), (), _Dtype(code="O"), _, [item]):
                self.item = item
            case (int(), shape, dtype, bool() | 0 | 1 as fortran, raw):
                self.fill(raw, dtype, shape, "F" if fortran else "C")
            case _:
                raise PickleRefusedError("has an array of a form that NumPy does not write")

    def fill(self, raw: object, dtype: object, shape: object, order: object) -> None:
        if (
            not isinstance(raw, bytes | bytearray | str)
            or not isinstance(dtype, _Dtype)
            or not is_shape(shape)
        ):
            raise PickleRefusedError("has an array of a form that NumPy does not write")
        if order not in ("C", "F"):
            raise PickleRefusedError(f"has an array in the order {_said(order)}; expected C or F")
        kind = dtype.numpy()
        if math.prod(shape) * kind.itemsize != len(raw):
            raise PickleRefusedError(f"has an array {shape} of {kind} in {len(raw)} bytes")
        self.shape, self._raw, self._dtype, self._fortran = shape, raw, kind, order == "F"

    def dense(self) -> Array:
        if self._raw is None:
            return super().dense()
        flat = np.frombuffer(bytes_of(self._raw), self._dtype)
        return flat.reshape(self.shape, order="F" if self._fortran else "C")


class _Ch(StandIn):
    """A chumpy array: its value is the entry x of its state, the rest is bookkeeping."""

    _x: StandIn = StandIn()

    def __setstate__(self, state: object) -> None:
        self._x = _numbers_in(state, "x")
        self.shape = self._x.shape

    def dense(self) -> Array:
        return self._x.dense()


class _Sparse(StandIn):
    """A SciPy matrix in compressed sparse columns."""

    _parts: tuple[StandIn, ...] = (StandIn(),) * 3

    def __setstate__(self, state: object) -> None:
        self._parts = tuple(_numbers_in(state, name) for name in ("data", "indices", "indptr"))
        shape = state.get("_shape") if isinstance(state, dict) else None
        if not is_shape(shape) or len(shape) != 2:
            raise PickleRefusedError(
                f"has a sparse matrix whose shape is {_said(shape)}; expected two numbers"
            )
        self.shape = shape

    def dense(self) -> Array:
        data, rows, starts = (part.dense() for part in self._parts)
        height, width = self.shape
        fits = data.ndim == rows.ndim == starts.ndim == 1 and len(data) == len(rows)
        if (
            not fits
            or len(starts) != width + 1
            or rows.dtype.kind not in "iu"
            or starts.dtype.kind not in "iu"
        ):
            raise PickleRefusedError("has a sparse matrix whose parts do not fit together")
        rows, starts = rows.astype(np.int64), starts.astype(np.int64)
        counts = np.diff(starts)
        if starts[0] != 0 or starts[-1] != len(data) or (counts < 0).any():
            raise PickleRefusedError("has a sparse matrix whose columns do not follow each other")
        if len(rows) and not (rows.min() >= 0 and rows.max() < height):
            raise PickleRefusedError("has a sparse matrix with a row that does not exist")
        made = np.zeros((height, width), data.dtype)
        np.add.at(made, (rows, np.repeat(np.arange(width), counts)), data)
        return made


_NDARRAY, _OBJECT = Token(), Token()


def _array(kind: object, _shape: object, _code: object) -> _Numbers:
    if kind is not _NDARRAY:
        raise PickleRefusedError("has an array of another class than ndarray")
    return _Numbers()


def _array_of(raw: object, dtype: object, shape: object, order: object, axes: object = None) -> _Numbers:
    if axes is not None:
        raise PickleRefusedError("has an array with its axes in an order of their own")
    made = _Numbers()
    made.fill(raw, dtype, shape, order)
    return made


def _dtype(code: object, _align: object = False, _copy: object = False) -> _Dtype:
    if not isinstance(code, str) or code not in _KINDS:
        objects = isinstance(code, str) and code.startswith("O")
        kind = "objects" if objects else _said(code)
        raise PickleRefusedError(f"has an array of {kind}; expected numbers")
    return _Dtype(code)


def _dtype_or_object(code: object, *options: object) -> _Dtype:
    return _Dtype("O") if code in ("O", "O4", "O8") else _dtype(code, *options)


def _text(text: object, codec: object) -> str:
    """Bytes as Python 3 writes them in older protocols. They stay a text until used: a copy each time could be many."""
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise PickleRefusedError(f"encodes {_said(text)} by {_said(codec)}; expected a text by latin1")
    return text


def _reconstructed(kind: object, base: object, state: object) -> StandIn:
    if base is _OBJECT and state is None:
        for known in (_Ch, _Sparse):
            if kind is known:
                return known()
    raise PickleRefusedError("builds an object that is no array")


def _numbers_in(state: object, name: str) -> _Numbers:
    value = state.get(name) if isinstance(state, dict) else None
    if not isinstance(value, _Numbers):
        raise PickleRefusedError(f"has an object whose {name} is a {type(value).__name__}; expected an array")
    return value


def item_of(value: object) -> object:
    """What a single object was wrapped into by `numpy.save`; PickleRefusedError where it was not."""
    if not isinstance(value, _Numbers) or value.item is None:
        raise PickleRefusedError("does not hold one object")
    return value.item


NUMPY: Allowed = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Maker(_dtype),
    ("_codecs", "encode"): Maker(_text),
    **{
        (f"numpy.{core}.{module}", name): Maker(make)
        for core in ("core", "_core")
        for module, name, make in (
            ("multiarray", "_reconstruct", _array),
            ("numeric", "_frombuffer", _array_of),
        )
    },
}
"""What NumPy's arrays name, before and after its version 2 and in all protocols."""

NUMPY_OBJECT: Allowed = {**NUMPY, ("numpy", "dtype"): Maker(_dtype_or_object)}
"""The same, and an array without axes of one object, for `item_of`."""

# A set is only ever bookkeeping of chumpy; what is in it does not matter.
ARRAYS: Allowed = {
    **NUMPY,
    ("chumpy.ch", "Ch"): _Ch,
    **{(module, "csc_matrix"): _Sparse for module in ("scipy.sparse.csc", "scipy.sparse._csc")},
    **{(module, "set"): Maker(lambda *_: ()) for module in ("__builtin__", "builtins")},
    **{(module, "object"): _OBJECT for module in ("__builtin__", "builtins")},
    **{(module, "_reconstructor"): Maker(_reconstructed) for module in ("copy_reg", "copyreg")},
}
"""What NumPy's, chumpy's and SciPy's arrays name, as Python 2 and 3 call it."""
