"""When a machine is too slow for a live stream: what is reduced, in which order, and when it is given back.

Pure arithmetic on measured times; starts nothing, waits for nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["FULL", "Degrader", "Pace", "Quality"]

TRACKING_SIDES = (None, 960, 480)  # longer side in pixels of the frame that is tracked; None: as it comes
OUTPUT_SCALES = (1.0, 0.75, 0.5)  # of the output's size; what is made is enlarged to it
RATE_PARTS = (1.0, 2 / 3, 1 / 2, 1 / 3)  # of the wanted frame rate

PERIOD_S = 1.0  # between two looks at the load
TOO_MUCH = 1.0  # a stage that is busy for all the time there is between two frames
COMFORTABLE = 0.75  # what the load may be after something was given back
LOOKS_TO_REDUCE = 2
LOOKS_TO_RESTORE = 5
MOST_LOOKS_TO_RESTORE = 120
RELAPSE_S = 15.0  # reduced again so soon after it was given back: wait longer before the next try
LEAST_GAIN = 1.07  # times cheaper; below that a reduction was for nothing
FORGIVEN_S = 120.0  # then what gained nothing may be tried again
SLACK = 0.4  # of the time between two frames: how early a frame may come


@dataclass(frozen=True)
class Quality:
    """How much is asked of the machine; each number counts steps down, 0 is all there is."""

    tracking: int = 0
    output: int = 0
    rate: int = 0

    @property
    def step(self) -> int:
        """Steps down in all."""
        return self.tracking + self.output + self.rate

    @property
    def tracking_side(self) -> int | None:
        """Longer side in pixels of the frame that is tracked; None: as it comes."""
        return TRACKING_SIDES[self.tracking]

    @property
    def output_scale(self) -> float:
        """Of the output's size."""
        return OUTPUT_SCALES[self.output]

    def fps(self, wanted: float) -> float:
        """The frame rate where `wanted` was asked for."""
        return wanted * RATE_PARTS[self.rate]

    def described(self, wanted: float) -> str:
        """What is reduced, for people; "" where nothing is."""
        parts = []
        if self.tracking:
            parts.append(f"tracked at {self.tracking_side} pixels or less")
        if self.output:
            parts.append(f"made at {self.output_scale:.0%} of the size")
        if self.rate:
            parts.append(f"at most {self.fps(wanted):.0f} fps")
        return ", ".join(parts)


FULL = Quality()
_STEPS = {"tracking": len(TRACKING_SIDES), "output": len(OUTPUT_SCALES), "rate": len(RATE_PARTS)}
_LEVERS = {"track": "tracking", "animate": "output"}


@dataclass(frozen=True)
class _Reduced:
    """A step down that holds, and what the stage that it was for took before and after, in seconds a frame."""

    lever: str
    stage: str
    before: float
    after: float | None = None  # known at the first look after it

    @property
    def gain(self) -> float:
        """How many times cheaper the stage became, 1 for nothing."""
        return 1.0 if not self.after else max(1.0, self.before / self.after)


class Degrader:
    """Decides once a second from the mean busy times of the stages and the frame rate.

    The stage that is too slow is made cheaper first; what turns out to gain nothing is given back at once and the
    frame rate is lowered instead. When there is room again the last step is undone; each relapse doubles the wait.
    """

    def __init__(self, wanted_fps: float) -> None:
        """`wanted_fps`: frames a second at full quality."""
        self.quality = FULL
        self._wanted = wanted_fps
        self._held: list[_Reduced] = []
        self._looked = self._restored = -math.inf
        self._settling = False
        self._hot = self._cool = 0
        self._patience = LOOKS_TO_RESTORE
        self._useless: dict[str, float] = {}  # lever -> when it gained nothing
        self._at_bottom = False
        self._input_side = 0

    @property
    def described(self) -> str:
        """What is reduced now, for people; "" where nothing is."""
        return self.quality.described(self._wanted)

    @property
    def _now(self) -> str:
        return self.described or "full quality"

    def update(self, now: float, busy: Mapping[str, float], input_fps: float, input_side: int) -> str | None:
        """What changed, for people, or None. Call it often.

        `busy` are seconds a frame by stage, lately; `input_side` is the longer side of a frame in pixels.
        """
        self._input_side = input_side
        if now - self._looked < PERIOD_S or not busy:
            return None
        self._looked = now
        if self._settling:  # the figures still hold frames from before the last change
            self._settling = False
            return None
        if self._held and self._held[-1].after is None:
            self._held[-1] = replace(self._held[-1], after=busy.get(self._held[-1].stage))
        rate = min(input_fps, self.quality.fps(self._wanted))
        stage = max(busy, key=lambda name: busy[name])
        if busy[stage] * rate > TOO_MUCH:
            self._hot, self._cool = self._hot + 1, 0
            return self._reduce(now, stage, busy[stage], input_fps) if self._hot >= LOOKS_TO_REDUCE else None
        self._hot, self._at_bottom = 0, False
        if not self._held or self._load_after_restoring(busy, input_fps) > COMFORTABLE:
            self._cool = 0
            return None
        self._cool += 1
        return self._restore(now) if self._cool >= self._patience else None

    def _reduce(self, now: float, stage: str, seconds: float, input_fps: float) -> str | None:
        if now - self._restored < RELAPSE_S:
            self._patience = min(2 * self._patience, MOST_LOOKS_TO_RESTORE)
            self._restored = -math.inf
        last = self._held[-1] if self._held else None
        useless = last is not None and last.lever != "rate" and last.gain < LEAST_GAIN
        if last is not None and useless:
            self._undo_last()
            self._useless[last.lever] = now
        lever = self._next_lever(now, stage)
        if lever is None:
            return self._nothing_left(undone=useless)
        self._take(_Reduced(lever, stage, seconds))
        while lever == "rate" and self.quality.fps(self._wanted) > input_fps and self._can_go_on(lever):
            self._take(_Reduced(lever, stage, seconds))
        self._hot = 0
        return f"this machine is too slow: {self.described}"

    def _nothing_left(self, *, undone: bool) -> str | None:
        said, self._at_bottom = self._at_bottom, True
        lines = [] if said else ["this machine is too slow, and nothing is left to reduce"]
        if undone:
            lines.append(f"what was reduced last gained nothing and is given back: {self._now}")
        return "; ".join(lines) or None

    def _restore(self, now: float) -> str:
        self._undo_last()
        self._restored = now
        self._cool = 0
        return f"there is room again: {self._now}"

    def _take(self, step: _Reduced) -> None:
        self._held.append(step)
        self.quality = _changed(self.quality, step.lever, 1)
        self._settling = True

    def _undo_last(self) -> None:
        self.quality = _changed(self.quality, self._held.pop().lever, -1)
        self._settling = True

    def _next_lever(self, now: float, stage: str) -> str | None:
        """What is to be reduced next; None where nothing is left."""
        for lever in (_LEVERS.get(stage, "rate"), "rate"):
            if now - self._useless.get(lever, -math.inf) >= FORGIVEN_S and self._can_go_on(lever):
                return lever
        return None

    def _can_go_on(self, lever: str) -> bool:
        step = int(getattr(self.quality, lever)) + 1
        if lever == "tracking" and step < len(TRACKING_SIDES):
            return self._input_side > (TRACKING_SIDES[step] or 0)
        return step < _STEPS[lever]

    def _load_after_restoring(self, busy: Mapping[str, float], input_fps: float) -> float:
        """What the slowest stage's load would be without the last step down, by what that step has gained."""
        last = self._held[-1]
        expected = dict(busy)
        if last.lever != "rate" and last.stage in busy:
            expected[last.stage] *= last.gain
        quality = _changed(self.quality, last.lever, -1)
        return max(expected.values()) * min(input_fps, quality.fps(self._wanted))


def _changed(quality: Quality, lever: str, by: int) -> Quality:
    return replace(quality, **{lever: getattr(quality, lever) + by})


class Pace:
    """Lets no more than `fps` frames a second through, as evenly as they come."""

    def __init__(self) -> None:
        self._due = -math.inf

    def takes(self, captured: float, fps: float) -> bool:
        """Whether the frame captured then, in seconds, is one to be shown."""
        period = 1 / fps
        if captured < self._due - SLACK * period:
            return False
        # Frames come a little early and late; the beat is kept, but not across a pause.
        self._due = (self._due if captured < self._due + period else captured) + period
        return True
