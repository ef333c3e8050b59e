"""What a system brings to be trained: networks, their optimizers and the losses of a step. The loop knows no more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from .order import Draw
from .schedule import Schedule

__all__ = ["Batch", "Job", "Outcome", "Phase", "Samples", "Task"]

Batch = dict[str, Tensor]  # names to (B, ...) tensors


class Outcome(NamedTuple):
    """What a phase says of a batch."""

    terms: dict[str, Tensor]  # single numbers; their sum is differentiated
    made: dict[str, Tensor]  # detached, for the phases behind it and for pictures


@dataclass(frozen=True)
class Phase:
    """A part of a step with a loss of its own, such as a generator's and then its discriminator's.

    `module(batch, made, epoch)` gives an Outcome, where `made` is all that the phases before it made. Its
    parameters are exactly those of `networks`; all others are frozen while it runs.
    """

    networks: tuple[str, ...]  # names of those whose weights it changes
    module: nn.Module


class Task(Protocol):
    """A system in training."""

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """All that checkpoints hold, by the names that they have there."""

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """One for each network that is trained, made with the full learning rate; the others stay as they are."""

    @property
    def frozen(self) -> Sequence[nn.Module]:
        """Networks that losses look through; moved to the device, never trained nor saved."""

    @property
    def phases(self) -> Sequence[Phase]:
        """The parts of a step, in order; the sum of the first one's terms stands for the whole on plateaus."""

    def pictures(self, batch: Batch, made: Mapping[str, Tensor]) -> Tensor:
        """(3, H, W) in [0, 1], RGB: what a person wants to see of a step."""

    def write(self, folder: Path, suffix: str) -> None:
        """Write the networks into a folder in the published layout, each file whole or not at all.

        `suffix` is the number of an epoch that is over, iter_<samples>, or "latest". Raises ModelError where a value
        is not finite or a file cannot be written.
        """


class Samples(Protocol):
    """Where samples come from; the random choices of a sample may depend on the draw alone."""

    def check(self) -> None:
        """Look at all that will be read, once, before training; ReenactError names what cannot be used."""

    def __len__(self) -> int:
        """Samples of an epoch."""

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        """Names to tensors without the batch's axis."""


@dataclass(frozen=True)
class Job:
    """All that a settings file says about a training."""

    task: Task
    samples: Samples
    schedule: Schedule
    epochs: range
    batch_size: int  # of each process
    workers: int  # processes that prepare samples; 0 is none beside the main one
    shuffle: bool
    folder: Path  # of the checkpoints
    device: str  # "cpu" or "cuda", where the caller does not say
    seed: int = 0
    steps: int | None = None  # at most so many since the beginning, over all runs
