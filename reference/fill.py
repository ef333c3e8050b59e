"""Weights and pictures by rule: the same array for the same (name, shape, salt) everywhere.

Golden numbers were computed with these in place of trained weights, so no weights need to be stored with them.
"""

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import ReenactError

__all__ = ["Rules", "fill", "image", "tensor"]


@dataclass(frozen=True)
class Rules:
    """How the parameters and buffers of one network are filled."""

    salt: int = 0
    gain: Mapping[str, float] = field(default_factory=dict)  # regular expression of the key -> factor
    add: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # key -> flat index -> added last
    alias: Mapping[str, str] = field(default_factory=dict)  # key -> the key whose values it has
    constant: frozenset[str] = frozenset()  # keys that stay as they were constructed


def fill(network: nn.Module, rules: Rules) -> None:
    """Put the rule's values into every entry of a network's state.

    The vectors of a spectrally normalised layer (`weight_u`, `weight_v` beside `weight_orig`) are one step of
    power iteration away from their rule, in float64. Raises ReenactError where a rule names no entry.
    """
    state = network.state_dict()
    for key in (*rules.add, *rules.alias):
        if key not in state:
            raise ReenactError(f"a filling rule names {key}, which the network does not have")
    filled = {
        key: torch.from_numpy(_values(key, state, rules)).to(there.dtype)
        for key, there in state.items()
        if key not in rules.constant
    }
    network.load_state_dict({**state, **filled})


def tensor(name: str, shape: Sequence[int], salt: int = 0) -> NDArray[Any]:
    """The float32 array of the parameter or buffer `name` (int64 zeros for `num_batches_tracked`).

    The generator is NumPy's PCG64 seeded with crc32(f"{salt}:{name}"). First match wins: `*running_var`
    uniform in [0.5, 1.5); `*running_mean` normal * 0.1; two axes or more: normal * sqrt(2 / fan_in) with
    fan_in = prod(shape[1:]); `*bias` normal * 0.05; any other row 1 + normal * 0.1; a single number normal * 0.1.
    """
    shape = tuple(shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    random = _generator(f"{salt}:{name}")
    if name.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape).astype(np.float32)
    normal = np.asarray(random.standard_normal(shape))
    if name.endswith("running_mean"):
        return (normal * 0.1).astype(np.float32)
    if len(shape) >= 2:
        return (normal * math.sqrt(2.0 / math.prod(shape[1:]))).astype(np.float32)
    if name.endswith("bias"):
        return (normal * 0.05).astype(np.float32)
    if len(shape) == 1:
        return (1 + normal * 0.1).astype(np.float32)
    return (normal * 0.1).astype(np.float32)


def image(
    name: str, shape: Sequence[int], low: float = -1.0, high: float = 1.0, salt: int = 0
) -> NDArray[np.float32]:
    """(N, C, H, W) float32 from `low` to `high`: six slow waves in each channel."""
    random = _generator(f"{salt}:input:{name}")
    count, channels, height, width = shape
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    out = np.zeros((count, channels, height, width))
    for i in range(count):
        for j in range(channels):
            for _ in range(6):
                fy, fx = random.uniform(0.5, 6, 2)
                phase = random.uniform(0, 2 * math.pi)
                out[i, j] += random.uniform(0.2, 1) * np.sin(2 * math.pi * (fy * y + fx * x) + phase)
    out = (out - out.min()) / (out.max() - out.min())
    return np.asarray(low + (high - low) * out, np.float32)


def _values(key: str, state: Mapping[str, torch.Tensor], rules: Rules) -> NDArray[Any]:
    shape = tuple(state[key].shape)
    layer, _, last = key.rpartition(".")
    if last in ("weight_u", "weight_v") and f"{layer}.weight_orig" in state:
        values = _spectral(layer, last, tuple(state[f"{layer}.weight_orig"].shape), rules.salt)
    else:
        values = tensor(rules.alias.get(key, key), shape, rules.salt)
    for pattern, factor in rules.gain.items():
        if re.search(pattern, key):
            values = (values * factor).astype(values.dtype)
    for index, change in rules.add.get(key, {}).items():
        values.reshape(-1)[int(index)] += change
    return values


def _spectral(layer: str, last: str, shape: tuple[int, ...], salt: int) -> NDArray[np.float32]:
    weight = tensor(f"{layer}.weight_orig", shape, salt).reshape(shape[0], -1).astype(np.float64)
    u = tensor(f"{layer}.weight_u", shape[:1], salt).astype(np.float64)
    v = weight.T @ (u / np.linalg.norm(u))
    v /= np.linalg.norm(v)
    u = weight @ v
    u /= np.linalg.norm(u)
    return (u if last == "weight_u" else v).astype(np.float32)


def _generator(seed: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(seed.encode())))
