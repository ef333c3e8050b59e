"""How the learning rate falls from epoch to epoch: a factor of the rate that the settings give."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["POLICIES", "Policy", "Schedule"]

Policy = Literal["lambda", "linear", "step", "plateau", "cosine", "exponential"]
POLICIES: tuple[str, ...] = get_args(Policy)

_STEP = 0.1
_PER_EPOCH = 0.95
_PLATEAU = 0.2
_PATIENCE = 5  # epochs without a better loss that are borne
_BETTER = 0.99  # times the best loss so far


@dataclass
class Schedule:
    """The factor of an epoch under one policy. Epochs are numbered from 0, also where training starts later.

    lambda, linear: 1 for `steady` epochs, then down in a line that would reach 0 one epoch behind the last,
    1 - max(0, epoch - steady) / (decay + 1). step: a tenth after every `steady` epochs. cosine: half a wave from 1
    at epoch 0 towards 0 behind the last. exponential: 0.95 an epoch. plateau: a fifth whenever the loss of more
    than 5 epochs in a row was not at least 1 % below the best one before. Only the first policy is described by
    the publication; the others are known by name, so their constants are ours.
    """

    policy: Policy
    steady: int  # `niter`
    decay: int  # `niter_decay`; the last epoch is steady + decay
    best: float | None = None  # smallest loss of an epoch so far; these three change under "plateau" only
    without_gain: int = 0  # epochs since
    drops: int = 0

    def factor(self, epoch: int) -> float:
        """What the learning rate is multiplied with in an epoch."""
        match self.policy:
            case "lambda" | "linear":
                return max(0.0, 1 - max(0, epoch - self.steady) / (self.decay + 1))
            case "step":
                return float(_STEP ** (epoch // max(1, self.steady)))
            case "cosine":
                return (1 + math.cos(math.pi * epoch / (self.steady + self.decay + 1))) / 2
            case "exponential":
                return float(_PER_EPOCH**epoch)
            case "plateau":
                return float(_PLATEAU**self.drops)

    def observe(self, loss: float) -> None:
        """Take note of the mean loss of an epoch that is over."""
        if self.policy != "plateau":
            return
        if self.best is None or loss < self.best * _BETTER:
            self.best, self.without_gain = loss, 0
            return
        self.without_gain += 1
        if self.without_gain > _PATIENCE:
            self.drops, self.without_gain = self.drops + 1, 0

    def state(self) -> dict[str, float]:
        """What `restore` needs to go on."""
        state: dict[str, float] = {"without_gain": self.without_gain, "drops": self.drops}
        return state if self.best is None else {**state, "best": self.best}

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from what `state` gave."""
        self.best = state.get("best")
        self.without_gain, self.drops = int(state["without_gain"]), int(state["drops"])
