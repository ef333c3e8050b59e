"""Reads the settings files of published systems: one section of an ini file, typed key by key.

It knows how such files are written, not which keys a system has.
"""

import configparser
import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Literal

from ..errors import ReenactError

__all__ = ["Kind", "Value", "read_settings"]

Kind = Literal["int", "float", "text", "bool", "ints", "floats"]
Value = int | float | str | bool | list[int] | list[float]

_MAX_BYTES = 1 << 20


def read_settings(
    path: Path,
    section: str,
    kinds: Mapping[str, Kind],
    *,
    required: Collection[str],
    ignored: str,
    other_names: Mapping[str, str],
) -> dict[str, Value]:
    """The settings of `[section]` under the names of `kinds`, whose case does not matter in the file.

    Lists are separated by commas; a bool is true only for the exact text "True". Keys that match the regular
    expression `ignored` as a whole are passed over; `other_names` are other spellings of keys of `kinds`.
    Raises ReenactError that names the file and the key that is missing, unknown, there twice or ill-typed.
    """
    texts = _texts(path, section)
    names = {name.lower(): name for name in kinds} | dict(other_names)
    settings: dict[str, Value] = {}
    for key, text in texts.items():
        if key in names and names[key] in settings:
            raise ReenactError(f"{path}: {names[key]} is there under two names; keep one")
        if key in names:
            settings[names[key]] = _value(path, names[key], text, kinds[names[key]])
        elif not re.fullmatch(ignored, key):
            near = difflib.get_close_matches(key, names, 1)
            mend = f"did you mean {names[near[0]]}?" if near else "remove it"
            raise ReenactError(f"{path}: unknown key {key} in [{section}]; {mend}")
    missing = [name for name in kinds if name in required and name not in settings]
    if missing:
        raise ReenactError(f"{path}: [{section}] lacks {', '.join(missing)}; every one of them is needed")
    return settings


def _texts(path: Path, section: str) -> dict[str, str]:
    """Lower-case key to text."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ReenactError(f"{path}: cannot be read ({error.strerror}); expected a settings file") from error
    if len(content) > _MAX_BYTES:
        raise ReenactError(f"{path}: larger than {_MAX_BYTES} bytes, so no settings file")
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(content.decode(), source=str(path))
    except UnicodeDecodeError as error:
        raise ReenactError(f"{path}: is not UTF-8 text, so no settings file") from error
    except configparser.DuplicateOptionError as error:
        raise ReenactError(f"{path}: line {error.lineno}: {error.option} is there twice; keep one") from error
    except configparser.Error as error:
        raise ReenactError(f"{path}: {' '.join(str(error).split())}; expected an ini file") from error
    if not parser.has_section(section):
        there = ", ".join(f"[{name}]" for name in parser.sections()) or "none"
        raise ReenactError(f"{path}: has no section [{section}]; its sections are: {there}")
    return dict(parser.items(section))


def _value(path: Path, key: str, text: str, kind: Kind) -> Value:
    try:
        return _PARSERS[kind](text)
    except ValueError as error:
        raise ReenactError(f"{path}: {key} is {text!r}; expected {_EXPECTED[kind]}") from error


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


_PARSERS: Mapping[Kind, Callable[[str], Value]] = {
    "int": int,
    "float": _float,
    "text": str,
    "bool": lambda text: text == "True",
    "ints": lambda text: [int(part) for part in text.split(",")],
    "floats": lambda text: [_float(part) for part in text.split(",")],
}
_EXPECTED: Mapping[Kind, str] = {
    "int": "an integer",
    "float": "a number",
    "text": "text",
    "bool": "True or False",
    "ints": "integers separated by commas",
    "floats": "numbers separated by commas",
}
