"""`train`: one call from a settings file to checkpoints, whatever the system."""

import shlex
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol, get_args

from ...errors import ReenactError
from .board import NoBoard, open_board, require_tensorboard
from .distributed import Place, first_process, place
from .loop import LATEST_STATE, Options, Precision, Trained, Trainer
from .task import Job

__all__ = ["SYSTEMS", "run_job", "train"]

SYSTEMS = ("face2face_rho", "deca")  # each a module of this folder with a function `prepare`


class Prepare(Protocol):
    """Reads a system's settings file."""

    def __call__(self, config: Path, *, vgg: Path | None, say: Callable[[str], None]) -> Job:
        """The training that the file describes."""


def train(
    system: str,
    config: Path,
    *,
    resume: bool = False,
    device: str | None = None,
    precision: Precision = "fp32",
    steps: int | None = None,
    tensorboard: bool = True,
    vgg: Path | None = None,
    say: Callable[[str], None] = print,
) -> Trained:
    """Train a system as its settings file says, and write checkpoints in the published layout.

    system       one of SYSTEMS
    config       the settings file; paths in it are relative to the working folder
    resume       go on from the folder's latest state, else begin anew; that needs a folder without one
    device       "cpu" or "cuda"; None takes what the settings say
    precision    "fp32", or "amp" for mixed precision
    steps        at most so many steps in this run
    tensorboard  write a log to `tensorboard` in the folder of the checkpoints
    vgg          torchvision's VGG19 file; None looks where torchvision keeps it
    say          takes lines for a person

    Started by torchrun it is one of several processes with a batch each. Ctrl-C ends the present step, saves and
    returns; a second one returns at once, with what was saved before. Raises ReenactError that names the file or
    setting for everything that can be known beforehand, and for a loss that is not finite.
    """
    if system not in SYSTEMS:
        raise ReenactError(f"no training is known for {system!r}; there is one for {', '.join(SYSTEMS)}")
    if precision not in get_args(Precision):
        raise ReenactError(f"precision is {precision}; expected one of {', '.join(get_args(Precision))}")
    if steps is not None and steps < 1:
        raise ReenactError(f"steps is {steps}; expected 1 or more")
    if tensorboard:
        require_tensorboard()
    if not first_process():
        say = _say_nothing
    prepare: Prepare = import_module(f".{system}", __package__).prepare
    job = prepare(config, vgg=vgg, say=say)
    done = run_job(
        job,
        Options(precision=precision, steps=steps),
        resume=resume,
        device=device,
        tensorboard=tensorboard,
        say=say,
    )
    command = _command(system, config, vgg=vgg, device=device, precision=precision, tensorboard=tensorboard)
    go_on = f"go on with: {command} --resume"
    if done.saved:
        how = "stopped by request" if done.interrupted else "done"
        more = f"; {go_on}" if not done.complete else ""
        say(f"{how} at step {done.step}, {done.where}; saved in {done.folder}{more}")
    elif (done.folder / LATEST_STATE).exists():
        say(f"stopped at once; {done.folder} holds the state that was saved before; {go_on}")
    else:
        say(f"stopped at once; no state was saved in {done.folder} yet, so there is nothing to resume")
    return done


def run_job(
    job: Job,
    options: Options,
    *,
    resume: bool,
    device: str | None,
    tensorboard: bool,
    say: Callable[[str], None],
) -> Trained:
    """Train a job in this process's place among those that torchrun started; arguments and errors as `train`."""
    state = job.folder / LATEST_STATE
    with place(device or job.device) as here:
        if here.speaks:
            for folder in (job.folder, *([_board_folder(job)] if tensorboard else [])):
                _require_writable(folder)
        if not resume and state.exists():
            raise ReenactError(
                f"{state}: is of an earlier training; go on with --resume, or choose another name or "
                "checkpoints_dir in the settings"
            )
        say("looking at every training file")
        job.samples.check()
        trainer = Trainer(job, here, options, say)
        try:
            if resume:
                trainer.resume()
            return _shown(trainer, job, here, tensorboard)
        except KeyboardInterrupt:
            return trainer.ended(interrupted=True)


def _shown(trainer: Trainer, job: Job, here: Place, tensorboard: bool) -> Trained:
    if not (tensorboard and here.speaks):
        return trainer.run(NoBoard())
    board = open_board(_board_folder(job), trainer.progress.step)
    try:
        return trainer.run(board)
    finally:
        board.close()


def _board_folder(job: Job) -> Path:
    return job.folder / "tensorboard"


def _require_writable(folder: Path) -> None:
    """Find out before hours of work, not at the first save."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"probe")
    except OSError as error:
        raise ReenactError(
            f"{folder}: cannot be written ({error.strerror or error}), and training saves there; mend the folder, or "
            "choose another checkpoints_dir in the ini file"
        ) from error


def _command(
    system: str,
    config: Path,
    *,
    vgg: Path | None,
    device: str | None,
    precision: Precision,
    tensorboard: bool,
) -> str:
    """What a person would type for the same training; `steps` belong to one run alone."""
    words = ["reenact", "train", system, "--config", str(config)]
    if vgg is not None:
        words += ["--vgg", str(vgg)]
    if device is not None:
        words += ["--device", device]
    if precision != "fp32":
        words += ["--precision", precision]
    if not tensorboard:
        words.append("--no-tensorboard")
    return shlex.join(words)


def _say_nothing(_line: str) -> None:
    """Of a process that is not the first."""
