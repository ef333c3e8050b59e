"""Trains any task step by step: optimizers, precision, processes, checkpoints, and going on where it stopped.

It knows tasks (`task.py`), not systems. A step depends on the weights, the seed and the step's number alone, so a
training that was interrupted and resumed gives the same weights, bit for bit on a CPU with as many threads.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal, cast

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.utils.data import DataLoader, Dataset

from ...errors import ReenactError
from .board import Board, NoBoard
from .distributed import Place, any_of, mean_of, shared
from .order import batches
from .snapshot import Progress, State, read_snapshot, write_snapshot
from .task import Batch, Job, Outcome

__all__ = ["LATEST_STATE", "Options", "Precision", "Trained", "Trainer"]

Precision = Literal["fp32", "amp"]
LATEST_STATE = "latest_state.pth"


@dataclass(frozen=True)
class Options:
    """How a training runs, as far as the settings file does not say it."""

    precision: Precision = "fp32"  # amp: float16 with scaled losses on a GPU, bfloat16 on a CPU
    steps: int | None = None  # at most so many in this run
    log_every: int = 50  # steps
    pictures_every: int = 500  # steps
    save_every: int = 10_000  # samples


@dataclass(frozen=True)
class Trained:
    """How a run ended."""

    folder: Path  # holds the latest checkpoint and what is needed to resume
    epoch: int  # the one that goes on or, behind the last, their number
    step: int  # since the beginning, over all runs
    terms: Mapping[str, float]  # of the last step; empty where there was none
    interrupted: bool  # by Ctrl-C or SIGTERM
    within_epoch: bool  # whether that epoch has begun
    saved: bool  # whether the state in the folder is of this step
    complete: bool  # whether the last epoch or step of the settings is over

    @property
    def where(self) -> str:
        """Where it stands among the epochs, for a person: "after epoch 0"."""
        if self.within_epoch:
            return f"in epoch {self.epoch}"
        return f"after epoch {self.epoch - 1}" if self.step else f"before epoch {self.epoch}"


@dataclass
class _Since:
    """What has added up since the last line of the log."""

    terms: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    began: float = field(default_factory=time.perf_counter)


class Trainer:
    """One training: made for a place, optionally resumed, then run once."""

    def __init__(self, job: Job, here: Place, options: Options, say: Callable[[str], None]) -> None:
        """Moves the task's networks to the place's device; `say` takes lines for a person, of rank 0 only."""
        self._job, self._here, self._options, self._say = job, here, options, say
        self._board: Board = NoBoard()
        task = job.task
        for network in (*task.networks.values(), *task.frozen):
            network.to(here.device)
        for name, network in task.networks.items():
            network.train(name in task.optimizers)
        self._modules = [shared(phase.module, here) for phase in task.phases]
        self._half = {"cuda": torch.float16, "cpu": torch.bfloat16}[here.device.type]
        self._amp = options.precision == "amp"
        scaler = GradScaler(here.device.type, enabled=self._amp and here.device.type == "cuda")
        self._full_rate = {
            name: optimizer.param_groups[0]["lr"] for name, optimizer in task.optimizers.items()
        }
        self._state = State(task.networks, task.optimizers, scaler, job.schedule, Progress(job.epochs.start))
        self._since = _Since()
        self._last_terms: dict[str, float] = {}
        self._saved_step = -1  # of the latest state

    @property
    def progress(self) -> Progress:
        """How far the training is."""
        return self._state.progress

    def resume(self) -> None:
        """Go on from the folder's latest state; ModelError where there is none or it does not fit."""
        read_snapshot(self._state, self._job.folder / LATEST_STATE)
        self._saved_step = self.progress.step

    def ended(self, *, interrupted: bool) -> Trained:
        """How the run ended, as it stands now."""
        progress = self.progress
        return Trained(
            folder=self._job.folder,
            epoch=progress.epoch,
            step=progress.step,
            terms=dict(self._last_terms),
            interrupted=interrupted,
            within_epoch=progress.epoch_samples > 0,
            saved=self._saved_step == progress.step,
            complete=progress.epoch >= self._job.epochs.stop
            or (self._job.steps is not None and progress.step >= self._job.steps),
        )

    def run(self, board: Board) -> Trained:
        """Train to the last epoch, or for as many steps as job and options allow, or until Ctrl-C; then save.

        Raises ReenactError that names the term where a loss is not finite, and KeyboardInterrupt at a second
        Ctrl-C; what was saved before stays.
        """
        progress, begin = self.progress, self.progress.step
        self._board, self._since = board, _Since()
        last = min(
            math.inf if self._job.steps is None else self._job.steps,
            math.inf if self._options.steps is None else begin + self._options.steps,
        )
        with _stop_requests() as stop_requested:
            stopped = False
            while not stopped and progress.epoch < self._job.epochs.stop and progress.step < last:
                for batch in self._rest_of_epoch():
                    self._step(batch)
                    stopped = any_of(stop_requested(), self._here)
                    if stopped or progress.step >= last:
                        break
                if progress.epoch_samples >= self._samples_an_epoch:
                    self._end_epoch()
            self._log()
            if progress.step > begin and self._saved_step != progress.step:
                self._save("latest")
        return self.ended(interrupted=stopped)

    @property
    def _whole_batch(self) -> int:
        return self._job.batch_size * self._here.world

    @property
    def _samples_an_epoch(self) -> int:
        there = len(self._job.samples)
        if there < self._whole_batch:
            raise ReenactError(
                f"an epoch has {there} samples, not enough for one batch of {self._whole_batch}; raise "
                "num_repeats or lower batch_size"
            )
        return there // self._whole_batch * self._whole_batch

    def _rest_of_epoch(self) -> Iterator[Batch]:
        """The batches of the present epoch that were not trained with yet, on the device."""
        job, here, progress = self._job, self._here, self.progress
        done = min(progress.epoch_samples, self._samples_an_epoch) // self._whole_batch
        order = batches(
            len(job.samples),
            progress.epoch,
            batch_size=job.batch_size,
            rank=here.rank,
            world=here.world,
            shuffle=job.shuffle,
            seed=job.seed,
        )
        loader: DataLoader[Batch] = DataLoader(
            cast(Dataset[Batch], job.samples),
            batch_sampler=cast("list[list[int]]", order[done:]),
            num_workers=job.workers,
            pin_memory=here.device.type == "cuda",
            worker_init_fn=_leave_signals_to_the_trainer,
        )
        factor = job.schedule.factor(progress.epoch)
        for name, optimizer in job.task.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._full_rate[name] * factor
        for batch in loader:
            yield {name: value.to(here.device, non_blocking=True) for name, value in batch.items()}

    def _step(self, batch: Batch) -> None:
        """All phases once, then what is due after so many steps or samples."""
        torch.manual_seed(_step_seed(self._job.seed, self.progress.step, self._here.rank))
        made: dict[str, Tensor] = {}
        terms: dict[str, float] = {}
        for index in range(len(self._modules)):
            outcome, values = self._phase(index, batch, made)
            made |= outcome.made
            if index == 0:
                self.progress.loss_sum += sum(values.values())
                self.progress.loss_steps += 1
            terms |= values
        self._state.scaler.update()
        before = self.progress.samples
        self.progress.step += 1
        self.progress.samples += self._whole_batch
        self.progress.epoch_samples += self._whole_batch
        self._note(terms)
        if (self.progress.step - 1) % self._options.pictures_every == 0 and self._here.speaks:
            self._board.picture("pictures", self._job.task.pictures(batch, made), self.progress.step)
        if self.progress.step % self._options.log_every == 0:
            self._log()
        if before // self._options.save_every < self.progress.samples // self._options.save_every:
            self._save(f"iter_{self.progress.samples}")
            self._save("latest")

    def _phase(
        self, index: int, batch: Batch, made: Mapping[str, Tensor]
    ) -> tuple[Outcome, dict[str, float]]:
        """Forward, backward and the optimizers of one phase; its terms as numbers."""
        phase, module, state = self._job.task.phases[index], self._modules[index], self._state
        for name, network in state.networks.items():
            network.requires_grad_(name in phase.networks)
        for name in phase.networks:
            state.optimizers[name].zero_grad(set_to_none=True)
        with torch.autocast(self._here.device.type, dtype=self._half, enabled=self._amp):
            outcome: Outcome = module(batch, made, state.progress.epoch)
        values = self._numbers(outcome.terms)
        total = torch.stack(list(outcome.terms.values())).sum()
        torch.autograd.backward(state.scaler.scale(total))
        for name in phase.networks:
            state.scaler.step(state.optimizers[name])
        return outcome, values

    def _numbers(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        stacked = torch.stack([term.detach().double() for term in terms.values()])
        values = dict(zip(terms, stacked.tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                folder = self._job.folder
                more = " or --precision fp32" if self._amp else ""
                if (folder / LATEST_STATE).exists():
                    again = f"resume from what was saved in {folder} with --resume"
                else:
                    again = f"begin anew, as no state was saved in {folder} yet"
                raise ReenactError(
                    f"the loss {name!r} is {value} at step {self.progress.step + 1} (epoch "
                    f"{self.progress.epoch}); the weights are of no use from here. Try a smaller lr{more}, and "
                    f"{again}"
                )
        return values

    def _note(self, terms: Mapping[str, float]) -> None:
        self._last_terms = dict(terms)
        for name, value in terms.items():
            self._since.terms[name] = self._since.terms.get(name, 0.0) + value
        self._since.steps += 1

    def _log(self) -> None:
        """Means since the last log, of this process's own share."""
        since, progress = self._since, self.progress
        if not since.steps or not self._here.speaks:
            return
        means = {name: total / since.steps for name, total in since.terms.items()}
        rate = since.steps * self._whole_batch / max(time.perf_counter() - since.began, 1e-9)
        factor = self._job.schedule.factor(progress.epoch)
        self._board.scalars(
            {
                **{f"loss/{name}": value for name, value in means.items()},
                "samples_per_second": rate,
                "learning_rate_factor": factor,
            },
            progress.step,
        )
        losses = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        self._say(f"epoch {progress.epoch}, step {progress.step}: {losses}; {rate:.1f} samples/s")
        self._since = _Since()

    def _end_epoch(self) -> None:
        progress = self.progress
        self._job.schedule.observe(mean_of(progress.loss_sum / max(1, progress.loss_steps), self._here))
        self._log()  # these losses are of the epoch that ends
        finished = progress.epoch
        progress.epoch += 1
        progress.epoch_samples = progress.loss_steps = 0
        progress.loss_sum = 0.0
        self._save(str(finished))
        self._save("latest")

    def _save(self, suffix: str) -> None:
        """A checkpoint in the published layout; beside `latest` all that is needed to resume."""
        if self._here.speaks:
            self._write(suffix)
        if suffix == "latest":
            self._saved_step = self.progress.step

    def _write(self, suffix: str) -> None:
        folder = self._job.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReenactError(
                f"{folder}: cannot be made ({error.strerror}); choose another folder"
            ) from error
        self._job.task.write(folder, suffix)
        if suffix == "latest":
            write_snapshot(self._state, folder / LATEST_STATE)


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM become a question to ask between steps; a second Ctrl-C interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only that one may handle signals
        yield asked.is_set
        return

    def take_note(_number: int, _frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, take_note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_signals_to_the_trainer(_worker: int) -> None:
    """A terminal sends Ctrl-C to every process; the trainer still needs its workers for the present step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _step_seed(seed: int, step: int, rank: int) -> int:
    """Of the random numbers that networks draw in a step: nothing has to be kept for resuming."""
    return ((seed * 1_000_003 + step) * 4_099 + rank) % (1 << 63)
