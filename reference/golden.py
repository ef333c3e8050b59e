"""Golden files: what a published network computes for inputs and weights made by rule, and how far we are from it.

A golden is `<system>/<part>.json` with `<part>.npz` beside it. Nothing here runs a network.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ReenactError
from .fill import Rules, image

__all__ = ["Bound", "Compared", "Golden", "Stored", "compare", "read_golden"]

Array = NDArray[Any]

_MAX_JSON = 16 << 20  # bytes
_NOT_FILLED = ("constant", "synthetic")  # kinds of state entries that the network is built with
_NOISE = 4  # times the noise floor that is always allowed


@dataclass(frozen=True)
class Stored:
    """An expected output, thinned out."""

    shape: tuple[int, ...]  # of the whole output
    strides: tuple[int, ...]  # one step an axis; `values` is the whole output with them
    absmax: float  # of the whole output
    noise: float  # distance of float32 to float64 in the original, relative to absmax; 0 where not measured
    values: Array


@dataclass(frozen=True)
class Bound:
    """What counts as equal: |ours - golden| / absmax.

    `mask` names an expected output of the same picture; only where it is not zero values are compared.
    `share` of the values may be further away; `measure` judges the largest distance or the mean.
    """

    tolerance: float = 1e-4
    mask: str | None = None
    share: float = 0.0
    measure: Literal["max", "mean"] = "max"


@dataclass(frozen=True)
class Compared:
    """How an output of ours compares."""

    name: str
    shape: tuple[int, ...]
    error: float  # relative to absmax; infinite where one is not finite
    beyond: float  # share of the compared values whose error is above the tolerance
    tolerance: float
    passed: bool


@dataclass(frozen=True)
class Golden:
    """One golden file."""

    path: Path
    system: str
    part: str
    config: Mapping[str, Any]
    state: Mapping[str, tuple[int, ...]]  # official names and shapes, in order; empty where not listed
    outputs: Mapping[str, Stored]
    document: Mapping[str, Any]  # the whole json
    arrays: Mapping[str, Array]  # the whole npz

    def rules(self, network: str) -> Rules:
        """How the weights of one of its networks are filled; rules may be given for each network or for all."""
        said = self.document
        constant = frozenset(row[0] for row in said.get("state") or [] if row[2] in _NOT_FILLED)
        return Rules(
            salt=said["salt"],
            gain=_rule_of(network, said.get("gain"), depth=1),
            add=_rule_of(network, said.get("add") or said.get("offset"), depth=2),
            alias=_rule_of(network, said.get("alias"), depth=1),
            constant=constant,
        )

    def input(self, name: str) -> Array:
        """The input `name`: stored, or made by rule as (N, C, H, W) float32."""
        given = self.document["inputs"].get(name)
        if given is None:
            known = ", ".join(self.document["inputs"])
            raise ReenactError(f"{self.path}: has no input {name}; its inputs are {known}")
        if given.get("stored"):
            return self.arrays[f"in:{name}"]
        if given.get("rule") == "image":
            return image(name, given["shape"], given["low"], given["high"], self.document["salt"])
        raise ReenactError(f"{self.path}: the input {name} is made by a rule of its own: {given}")


def read_golden(path: Path, system: str | None = None) -> Golden:
    """Read a golden; its folder's name is its system, unless `system` is given.

    Raises ReenactError where a file is missing, damaged or no golden.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ReenactError(f"{path}: larger than {_MAX_JSON} bytes, so no golden")
        document = json.loads(path.read_bytes())
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise ReenactError(
            f"{error.filename or path}: cannot be read ({error.strerror}); a golden is a .json and a .npz "
            "of one name"
        ) from error
    except (ValueError, RecursionError, EOFError) as error:
        raise ReenactError(f"{path}: damaged, or no golden ({error})") from error
    try:
        return Golden(
            path=path,
            system=system or path.resolve().parent.name,
            part=document["part"],
            config=document["config"],
            state={row[0]: tuple(row[1]) for row in document.get("state") or []},
            outputs={**_outputs(document["outputs"], arrays), **_scalars(document.get("scalars", {}))},
            document=document,
            arrays=arrays,
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ReenactError(f"{path}: damaged, or no golden ({type(error).__name__}: {error})") from error


def compare(golden: Golden, name: str, ours: Array, bound: Bound) -> Compared:
    """Measure the whole output `name` of ours against the golden's; ReenactError where it has another shape."""
    stored = golden.outputs[name]
    if ours.shape != stored.shape:
        raise ReenactError(f"{name} has the shape {ours.shape}; {golden.path.name} says {stored.shape}")
    thin = ours[tuple(slice(None, None, step) for step in stored.strides)]
    if thin.shape != stored.values.shape:
        raise ReenactError(
            f"{golden.path}: {name} is stored as {stored.values.shape}; its shape and strides make {thin.shape}"
        )
    distance = np.abs(thin.astype(np.float64) - stored.values.astype(np.float64)) / (stored.absmax or 1.0)
    distance = np.where(np.isfinite(distance), distance, np.inf)
    if bound.mask is not None:
        distance = distance[_mask(golden, bound.mask, stored, distance.shape)]
    tolerance = max(bound.tolerance, _NOISE * stored.noise)
    error = float(getattr(distance, bound.measure)()) if distance.size else 0.0
    beyond = float((distance > tolerance).mean()) if distance.size else 0.0
    passed = error <= tolerance or (bound.measure == "max" and beyond <= bound.share)
    return Compared(name, stored.shape, error, beyond, tolerance, passed)


def _rule_of(network: str, rule: Mapping[str, Any] | None, depth: int) -> Mapping[str, Any]:
    """A rule for one network; `depth` is how deep it is nested where it is not told apart by network."""
    level: Any = rule or {}
    for _ in range(depth):
        if not isinstance(level, Mapping) or not level:
            return rule or {}
        level = next(iter(level.values()))
    by_network = isinstance(level, Mapping)
    chosen: Mapping[str, Any] = (rule or {}).get(network, {}) if by_network else (rule or {})
    return chosen


def _mask(golden: Golden, name: str, stored: Stored, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where a mask over the last two axes holds, as booleans of `shape`."""
    mask = golden.outputs[name]
    steps = [step // own for step, own in zip(stored.strides[-2:], mask.strides[-2:], strict=True)]
    if mask.shape[-2:] != stored.shape[-2:] or any(
        own * step != wanted
        for own, step, wanted in zip(mask.strides[-2:], steps, stored.strides[-2:], strict=True)
    ):
        raise ReenactError(f"{golden.path}: the mask {name} does not lie over an output of {stored.shape}")
    return np.broadcast_to(mask.values[..., :: steps[0], :: steps[1]] != 0, shape)


def _outputs(described: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Stored]:
    outputs = {}
    for name, said in described.items():
        shape = tuple(said["shape"])
        thinned = min(len(shape), 2)
        strides = said.get("axis_strides") or [1] * (len(shape) - thinned) + [said["stride"]] * thinned
        noise = said.get("fp32_noise", 0.0)
        outputs[name] = Stored(shape, tuple(strides), said["absmax"], noise, arrays[f"out:{name}"])
    return outputs


def _scalars(tree: Any, path: str = "") -> dict[str, Stored]:
    """Single numbers and rows of them that the json itself holds, under the names "a/b" of their branches."""
    if isinstance(tree, Mapping):
        return {
            name: stored
            for key, branch in tree.items()
            for name, stored in _scalars(branch, f"{path}/{key}" if path else key).items()
        }
    values = np.asarray(tree, np.float64)
    return {path: Stored(values.shape, (1,) * values.ndim, float(np.abs(values).max()), 0.0, values)}
