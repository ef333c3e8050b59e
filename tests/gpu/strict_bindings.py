"""Classes and enums as pybind11 makes them, from a list of signatures: nothing else can be called, read or set.

An unknown name is an AttributeError, arguments that fit no listed signature are a TypeError, and what a class is listed
with but no behaviour was given for is an AssertionError.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

API = json.loads((Path(__file__).parent / "tensorrt_api.json").read_text())
# Enum values that 10.x has otherwise; NVIDIA renumbered them in 11.
VALUES_IN_10 = {"NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}}
MISSING = object()


@dataclass(frozen=True)
class Parameter:
    name: str
    kind: str
    default: str | None


class Bindings:
    """A module whose classes are those of `version`, with behaviour by "Class.method" or "Class.property"."""

    def __init__(self, name: str, version: str, behaviour: dict[str, Callable[..., Any]]) -> None:
        self.release = tuple(map(int, version.split(".")))
        self.behaviour = behaviour
        self.module = ModuleType(name)
        self.module.__version__ = version  # type: ignore[attr-defined]
        for cls, spec in API["classes"].items():
            setattr(self.module, cls, self._class(cls, spec))
        for full, members in API["enums"].items():
            holder, _, name = full.rpartition(".")
            setattr(getattr(self.module, holder) if holder else self.module, name, self._enum(full, members))

    def make(self, cls: str, **state: Any) -> Any:
        """An object that only the library itself makes."""
        made = object.__new__(getattr(self.module, cls))
        object.__setattr__(made, "_fake", SimpleNamespace(values={}, **state))
        return made

    def known(self, full: str) -> bool:
        """Whether this version has a member."""
        seen = API["first_seen"].get(full, "0")
        return tuple(map(int, seen.split("."))) <= self.release

    def gone(self, cls: str) -> Iterable[str]:
        """Members of a class or enum that 10.x has and 11 has not."""
        if self.release[0] >= 11:
            return ()
        return [full.rpartition(".")[2] for full in API["gone_in_11"] if full.rpartition(".")[0] == cls]

    def _enum(self, full: str, members: dict[str, int]) -> type:
        values = {name: value for name, value in members.items() if self.known(f"{full}.{name}")}
        if self.release[0] < 11:
            free = (n for n in range(100, 200))
            values = {
                **values,
                **{name: next(free) for name in self.gone(full)},
                **VALUES_IN_10.get(full, {}),
            }
        return _enum(full.rpartition(".")[2], values)

    def _class(self, cls: str, spec: dict[str, Any]) -> type:
        bases = tuple(getattr(self.module, base) for base in spec["bases"]) or (_Strict,)
        body: dict[str, Any] = {"__init__": self._constructor(cls, spec)}
        for name, signatures in spec["methods"].items():
            if name != "__init__" and self.known(f"{cls}.{name}"):
                body[name] = self._method(f"{cls}.{name}", signatures)
        for text in spec["properties"]:
            name, kind, access = _property(text)
            if self.known(f"{cls}.{name}"):
                body[name] = self._property(f"{cls}.{name}", kind, access)
        for name in self.gone(cls):
            body[name] = self._method(f"{cls}.{name}", ["() -> object"])
        made = type(cls, bases, body)
        made._generated = made  # type: ignore[attr-defined]
        return made

    def _constructor(self, cls: str, spec: dict[str, Any]) -> Callable[..., None]:
        signatures = spec["methods"].get("__init__", [])

        def construct(obj: Any, *arguments: Any, **named: Any) -> None:
            if not signatures:
                raise TypeError(f"{cls}: No constructor defined!")
            bound = self._bound(f"{cls}.__init__", signatures, arguments, named)
            object.__setattr__(obj, "_fake", SimpleNamespace(values={}))
            made = self.behaviour.get(f"{cls}.__init__")
            if made:
                made(obj, *bound)

        return construct

    def _method(self, full: str, signatures: list[str]) -> Callable[..., Any]:
        def call(obj: Any, *arguments: Any, **named: Any) -> Any:
            bound = self._bound(full, signatures, arguments, named)
            if not hasattr(obj, "_fake"):
                raise TypeError(f"{full}: __init__() must be called when overriding __init__")
            if full not in self.behaviour:
                raise AssertionError(f"{full} exists, but nothing here says what it does")
            result = self.behaviour[full](obj, *bound)
            gives = {signature.rpartition("-> ")[2] for signature in signatures}
            if result is not None and not any(self._fits(result, kind) for kind in gives):
                raise AssertionError(f"{full} gave {result!r}; the real one gives {gives}")
            return result

        return call

    def _property(self, full: str, kind: str, access: str) -> property:
        name = full.rpartition(".")[2]

        def read(obj: Any) -> Any:
            if full in self.behaviour:
                return self.behaviour[full](obj)
            if name not in obj._fake.values:
                raise AssertionError(f"{full} exists, but nothing here says what it holds")
            return obj._fake.values[name]

        def write(obj: Any, value: Any) -> None:
            if kind and not self._fits(value, kind):
                raise TypeError(f"{full} is {kind}, given {value!r}")
            obj._fake.values[name] = value

        return property(None if access == "wo" else read, None if access == "ro" else write)

    def _bound(
        self, full: str, signatures: list[str], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> list[Any]:
        for signature in signatures:
            bound = self._fitting(_parameters(signature), arguments, dict(named))
            if bound is not None:
                for value in bound:
                    if isinstance(value, _Strict) and not hasattr(value, "_fake"):
                        raise TypeError(f"{type(value)}.__init__() must be called when overriding __init__")
                return bound
        raise TypeError(
            f"{full}(): incompatible function arguments. The following argument types are supported: "
            f"{signatures}. Invoked with: {arguments}, {named}"
        )

    def _fitting(
        self, parameters: list[Parameter], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> list[Any] | None:
        if len(arguments) > len(parameters):
            return None
        bound = []
        for place, parameter in enumerate(parameters):
            value = arguments[place] if place < len(arguments) else named.pop(parameter.name, MISSING)
            if value is MISSING and parameter.default is not None:
                value = self._default(parameter.default)
            elif value is MISSING or not self._fits(value, parameter.kind):
                return None
            bound.append(value)
        return None if named else bound

    def _default(self, text: str) -> Any:
        if not text.startswith("trt."):
            return json.loads({"None": "null", "True": "true", "False": "false"}.get(text, text))
        found: Any = self.module
        for name in text.split(".")[1:]:
            found = getattr(found, name, None)
        return found

    def _fits(self, value: Any, kind: str) -> bool:
        if kind.startswith("trt."):
            if kind == "trt.Dims" and isinstance(value, (tuple, list)):
                return all(type(size) is int for size in value)
            cls: Any = self.module
            for name in kind.split(".")[1:]:
                cls = getattr(cls, name, None)
            return isinstance(cls, type) and isinstance(value, cls)
        if kind.startswith(("Sequence[", "list[")):
            inner = kind.partition("[")[2][:-1]
            return isinstance(value, (tuple, list)) and all(self._fits(item, inner) for item in value)
        simple: dict[str, Any] = {
            "int": int,
            "bool": bool,
            "str": str,
            "float": (int, float),
            "Buffer": (bytes, bytearray, memoryview),
            "tuple": tuple,
            "list": list,
            "object": object,
            "None": type(None),
        }
        return (
            kind in simple and isinstance(value, simple[kind]) and not (kind == "int" and type(value) is bool)
        )


class _Strict:
    """Has no attributes but those of its class; a Python subclass may have its own."""

    _generated: type

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__class__":
            if not issubclass(value, _Strict):
                raise TypeError(f"__class__ assignment: {value} is none of these bindings")
            object.__setattr__(self, name, value)
        elif type(self) is type(self)._generated and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        else:
            object.__setattr__(self, name, value)


def _enum(name: str, members: dict[str, int]) -> type:
    """As pybind11 makes it: a number only through int(), no `|`, no order."""

    class Enum:
        def __init__(self, value: int) -> None:
            if value not in members.values():
                raise ValueError(f"{name}: {value}")
            self.value = value
            self.name = next(key for key, number in members.items() if number == value)

        def __int__(self) -> int:
            return self.value

        def __eq__(self, other: object) -> bool:
            return type(other) is type(self) and other.value == self.value

        def __hash__(self) -> int:
            return hash((name, self.value))

        def __repr__(self) -> str:
            return f"<{name}.{self.name}: {self.value}>"

    Enum.__name__ = Enum.__qualname__ = name
    for key, value in members.items():
        setattr(Enum, key, Enum(value))
    return Enum


def _property(text: str) -> tuple[str, str, str]:
    found = re.fullmatch(r"(\w+)(?:: (.+?))? \[(ro|rw|wo)\]", text)
    assert found, text
    return found[1], found[2] or "", found[3]


def _parameters(signature: str) -> list[Parameter]:
    inside = signature[1 : signature.rindex(") ->")]
    parts = re.split(r", (?![^\[]*\])", inside) if inside else []
    parameters = []
    for part in parts:
        name, _, rest = part.partition(": ")
        kind, _, default = rest.partition(" = ")
        parameters.append(Parameter(name, kind, default or None))
    return parameters
