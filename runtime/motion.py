"""Motions without a driving video: keyframes over head pose and expression controls, from small JSON files.

The format is described in docs/motions.md. Knows nothing of pictures or systems.
"""

import difflib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ReenactError
from .assets import FOLDER
from .files import read_small_file
from .tracking.canonical import load as load_canonical
from .tracking.face import Motion, rotation_matrix

__all__ = ["MotionFile", "MotionTrack", "control_ranges", "load_motion", "preset_names"]

Floats = NDArray[np.float32]

PREFIX = "motion_"
MAX_BYTES = 1_000_000
MAX_KEYS = 5_000  # of one control
MIN_GAP = 0.001  # seconds between two keys

POSE_RANGES = {
    "yaw": (-60.0, 60.0),  # degrees, signs as in `rotation_matrix`
    "pitch": (-45.0, 45.0),
    "roll": (-60.0, 60.0),
    "x": (-15.0, 15.0),  # cm, right
    "y": (-15.0, 15.0),  # cm, down
    "scale": (0.5, 2.0),
}
EYE_RANGES = {
    "blink": (0.0, 1.0),
    "blink_right": (0.0, 1.0),
    "blink_left": (0.0, 1.0),
    "gaze_x": (-0.25, 0.25),  # eye widths, right in the picture
    "gaze_y": (-0.25, 0.25),  # eye widths, down
}
# Friendly names for several of the canonical face's shapes at once, and how much of each.
MIXED: dict[str, dict[str, float]] = {
    "smile": {
        "mouthSmile_L": 0.8,
        "mouthSmile_R": 0.8,
        "cheekSquint_L": 0.5,
        "cheekSquint_R": 0.5,
    },
    "frown": {"mouthFrown_L": 0.9, "mouthFrown_R": 0.9},
    "mouth_open": {"jawOpen": 1.0},
    "pucker": {"mouthPucker": 1.0},
    "funnel": {"mouthFunnel": 1.0},
    "stretch": {"mouthStretch_L": 1.0, "mouthStretch_R": 1.0},
    "brow_up": {"browInnerUp_L": 1.0, "browInnerUp_R": 1.0, "browOuterUp_L": 1.0, "browOuterUp_R": 1.0},
    "brow_down": {"browDown_L": 1.0, "browDown_R": 1.0},
    "cheek_puff": {"cheekPuff_L": 1.0, "cheekPuff_R": 1.0},
    "eyes_wide": {"eyeWide_L": 1.0, "eyeWide_R": 1.0},
    "squint": {"eyeSquint_L": 1.0, "eyeSquint_R": 1.0},
}
# Shapes that move the lids, and how far the opening changes by a control of 1.
LIDS = {"eyeBlink": -1.0, "eyeWide": 0.35, "eyeSquint": -0.4, "cheekSquint": -0.15}
SIDES = ("_R", "_L")  # the person's right, left: the order of `Motion.lids`

Key = tuple[float, float]


class MotionFile(BaseModel):
    """A motion as it is written in JSON; times are seconds, each control has its own keys [time, value]."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    description: str = Field(default="", max_length=500)
    duration: float = Field(ge=0.1, le=600)
    loop: bool = False
    interpolation: Literal["smooth", "linear"] = "smooth"
    controls: dict[str, list[Key]] = Field(min_length=1)


@cache
def control_ranges() -> dict[str, tuple[float, float]]:
    """Every control that a motion file may use and the values that it may take."""
    shapes = dict.fromkeys(load_canonical().shape_names, (0.0, 1.0))
    return {**POSE_RANGES, **EYE_RANGES, **dict.fromkeys(MIXED, (0.0, 1.0)), **shapes}


def preset_names() -> list[str]:
    """The motions that ship with the package."""
    return sorted(path.stem.removeprefix(PREFIX) for path in FOLDER.glob(f"{PREFIX}*.json"))


def load_motion(motion: str | Path) -> "MotionTrack":
    """A motion by preset name or by file (anything that ends in .json).

    Raises ReenactError for a name that is unknown and for a file that is no motion, naming the place in it.
    """
    if isinstance(motion, str) and not motion.lower().endswith(".json"):
        if motion not in preset_names():
            raise ReenactError(
                f"no motion is called {motion!r}; known are {', '.join(preset_names())}, "
                "or name a file that ends in .json"
            )
        motion = FOLDER / f"{PREFIX}{motion}.json"
    path = Path(motion)
    return MotionTrack(_read(path), name=path.stem.removeprefix(PREFIX), source=str(path))


def _read(path: Path) -> MotionFile:
    content = read_small_file(path, MAX_BYTES, "a motion file")
    try:
        return MotionFile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        where = f" at {place[:80]}" if place else ""
        raise ReenactError(
            f"{path}: not a motion{where}: {first['msg'][:200]}; the format is in docs/motions.md"
        ) from error


class MotionTrack:
    """A motion that can be asked for any time."""

    def __init__(self, file: MotionFile, *, name: str, source: str) -> None:
        """Check the keys against the controls; raises ReenactError that names `source` and the control."""
        self.name = name
        self.duration = file.duration
        self.loop = file.loop
        self._curves = {
            control: _curve(_checked(keys, control, file, source), file)
            for control, keys in file.controls.items()
        }
        self._basis = _basis(list(self._curves))
        self._neck = load_canonical().turning_point

    def at(self, time: float) -> Motion:
        """The motion `time` seconds from the beginning; a loop goes on for ever, others stay as they end."""
        time = time % self.duration if self.loop else min(time, self.duration)
        values = {control: curve.at(time) for control, curve in self._curves.items()}
        yaw, pitch, roll = (np.radians(values.get(name, 0.0)) for name in ("yaw", "pitch", "roll"))
        rotation = rotation_matrix(yaw, pitch, roll)
        carried = (self._neck - rotation @ self._neck)[:2]
        amounts = np.array(list(values.values()), np.float32)
        return Motion(
            rotation=rotation,
            translation=carried + np.array([values.get("x", 0.0), values.get("y", 0.0)], np.float32),
            scale=values.get("scale", 1.0),
            expression=np.tensordot(amounts, self._basis, axes=1).astype(np.float32),
            lids=_lids(values),
            gaze=np.tile(
                np.array([values.get("gaze_x", 0.0), values.get("gaze_y", 0.0)], np.float32), (2, 1)
            ),
        )


def _checked(keys: list[Key], control: str, file: MotionFile, source: str) -> list[Key]:
    ranges = control_ranges()
    if control not in ranges:
        near = difflib.get_close_matches(control[:50], ranges, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ReenactError(
            f"{source}: no control is called {control[:50]!r}; {hint}all are in docs/motions.md"
        )
    where = f"{source}: control {control!r}"
    if not 1 <= len(keys) <= MAX_KEYS:
        raise ReenactError(f"{where} has {len(keys)} keys; expected 1 to {MAX_KEYS} pairs [seconds, value]")
    low, high = ranges[control]
    for time, value in keys:
        if not 0 <= time <= file.duration:
            raise ReenactError(
                f"{where} has a key at {time:g} s; expected 0 to the duration, {file.duration:g} s"
            )
        if not low <= value <= high:
            raise ReenactError(f"{where} is {value:g} at {time:g} s; expected {low:g} to {high:g}")
    for (before, _), (after, _) in pairwise(keys):
        if after - before < MIN_GAP:
            raise ReenactError(
                f"{where} has a key at {after:g} s after one at {before:g} s; sort them, 1 ms apart or more"
            )
    if file.loop and _meets_itself(keys, file.duration) and keys[0][1] != keys[-1][1]:
        raise ReenactError(
            f"{where} begins with {keys[0][1]:g} and ends with {keys[-1][1]:g}; a loop must end as it begins"
        )
    return keys


@dataclass(frozen=True)
class _Curve:
    """Piecewise cubic through keys with given slopes; constant before the first and after the last key."""

    times: Sequence[float]
    values: Sequence[float]
    slopes: Sequence[float]

    def at(self, time: float) -> float:
        after = bisect_right(self.times, time)
        if after == 0:
            return self.values[0]
        if after == len(self.times):
            return self.values[-1]
        k = after - 1
        width = self.times[after] - self.times[k]
        u = (time - self.times[k]) / width
        rest = 1 - u
        return (
            self.values[k] * rest * rest * (1 + 2 * u)
            + self.values[after] * u * u * (3 - 2 * u)
            + width * u * rest * (self.slopes[k] * rest - self.slopes[after] * u)
        )


@dataclass(frozen=True)
class _Line:
    """Straight pieces between keys."""

    times: Sequence[float]
    values: Sequence[float]

    def at(self, time: float) -> float:
        return float(np.interp(time, self.times, self.values))


def _curve(keys: list[Key], file: MotionFile) -> _Curve | _Line:
    if file.loop:
        keys = _repeated(keys, file.duration)
    times, values = [key[0] for key in keys], [key[1] for key in keys]
    if file.interpolation == "linear":
        return _Line(times, values)
    return _Curve(times, values, _slopes(times, values))


def _meets_itself(keys: list[Key], duration: float) -> bool:
    """Whether, in a loop, the last key falls on the first key of the next round."""
    return len(keys) > 1 and keys[-1][0] - keys[0][0] > duration - MIN_GAP


def _repeated(keys: list[Key], duration: float) -> list[Key]:
    """The keys of a loop with up to two of the round before and of the round after."""
    if _meets_itself(keys, duration):
        keys = keys[:-1]
    before = [(time - duration, value) for time, value in keys[-2:]]
    after = [(time + duration, value) for time, value in keys[:2]]
    return before + keys + after


def _slopes(times: Sequence[float], values: Sequence[float]) -> list[float]:
    """Slopes that never overshoot the keys (Fritsch and Butland 1984); level at extremes and at both ends."""
    widths = [b - a for a, b in pairwise(times)]
    rises = [(b - a) / width for (a, b), width in zip(pairwise(values), widths, strict=True)]
    slopes = [0.0]
    for (before, after), (rise, next_rise) in zip(pairwise(widths), pairwise(rises), strict=True):
        if rise * next_rise <= 0:
            slopes.append(0.0)
            continue
        first, second = 2 * after + before, after + 2 * before
        slopes.append((first + second) / (first / rise + second / next_rise))
    return [*slopes, 0.0][: len(times)]


def _basis(controls: list[str]) -> Floats:
    """(C, 468, 3) cm: what each control does to the canonical face; lids are shut by `Motion.lids` alone."""
    canonical = load_canonical()
    rows = {name: index for index, name in enumerate(canonical.shape_names)}
    basis = np.zeros((len(controls), 468, 3), np.float32)
    for index, control in enumerate(controls):
        for shape, amount in MIXED.get(control, {control: 1.0}).items():
            if shape in rows and not shape.startswith("eyeBlink"):
                basis[index] += np.float32(amount) * canonical.shapes[rows[shape]]
    return basis


def _lids(values: dict[str, float]) -> Floats:
    """(2,) openness of the person's right and left eye over that of the source."""
    shapes: dict[str, float] = {}
    for control, value in values.items():
        for shape, amount in MIXED.get(control, {control: 1.0}).items():
            shapes[shape] = shapes.get(shape, 0.0) + amount * value
    lids = []
    for side, name in zip(SIDES, ("blink_right", "blink_left"), strict=True):
        blink = values.get("blink", 0.0) + values.get(name, 0.0) + shapes.get(f"eyeBlink{side}", 0.0)
        opening = 1.0
        for shape, change in LIDS.items():
            amount = blink if shape == "eyeBlink" else shapes.get(f"{shape}{side}", 0.0)
            opening *= max(0.0, 1 + change * min(amount, 1.0))
        lids.append(opening)
    return np.array(lids, np.float32)
