"""How the command line speaks: one line for an error, a bar for long work, tables for results."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from .errors import ReenactError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from .export.onnx import Checked
    from .export.tensorrt import Progress as PhaseProgress
    from .runtime.doctor import DoctorReport, GpuReport
    from .runtime.models import ModelStatus
    from .runtime.running import Progress
    from .runtime.stream import StreamStats

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "Debug",
    "guarded",
    "phase_bars",
    "print_stages",
    "progress_bar",
    "say",
    "show_checked",
    "show_doctor",
    "show_lost",
    "show_models",
    "show_stats",
    "tell",
    "tell_where",
]

FAILED, INTERRUPTED = 1, 130

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def say(message: str) -> None:
    """One line of result on the output stream."""
    _line(_console(), message)


def tell(message: str) -> None:
    """One line of remark on the error stream."""
    _line(_console(stderr=True), message)


def tell_where(backend: str) -> None:
    """Say, where `auto` has no GPU to choose, what computes instead; BackendError for a backend that is none."""
    from .runtime.engine import choose, no_gpu

    chosen = choose(backend)
    reason = no_gpu() if backend == "auto" else None
    if reason:
        tell(f"no GPU is used ({reason}); computing with {chosen.executes}")


@contextmanager
def guarded(debug: bool, finished: Sequence[object] | None = None) -> Iterator[None]:
    """Turn errors into one line and an exit code; with `debug` they go through.

    `finished` fills up with the results of a command that makes several: Ctrl-C tells how many there are.
    """
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as interrupt:
        _interrupted(interrupt, finished)
    except ReenactError as error:
        if debug:
            raise
        _fail(str(error))
    except Exception as error:
        if debug:
            raise
        _fail(f"{type(error).__name__}: {error}; this is a fault of reenact, run with --debug to see where")


def _interrupted(interrupt: KeyboardInterrupt, finished: Sequence[object] | None) -> NoReturn:
    from .runtime.stream import StreamInterrupted

    if isinstance(interrupt, StreamInterrupted) and interrupt.stats.frames:
        show_stats(interrupt.stats)
        tell(f"stopped by Ctrl-C; {interrupt.stats.output} holds what was done until then")
        if finished:
            tell(f"{len(finished)} results were finished before")
    elif finished is None:
        tell("stopped by Ctrl-C; nothing was written")
    else:
        tell(f"stopped by Ctrl-C; {len(finished)} results were finished, the next may be there in part")
    raise typer.Exit(INTERRUPTED) from None


def _fail(message: str) -> NoReturn:
    _console(stderr=True).print(f"error: {' '.join(message.split())}", style="red", soft_wrap=True)
    raise typer.Exit(FAILED) from None


@contextmanager
def progress_bar(title: str) -> "Iterator[Progress | None]":
    """A bar on the terminal; nothing where the error stream is none."""
    with _bars(remaining=True) as shown:
        if shown is None:
            yield None
            return
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


@contextmanager
def phase_bars(title: str) -> "Iterator[PhaseProgress | None]":
    """A bar on the terminal for each phase of some work, while it lasts; nothing where the error stream is none."""
    with _bars(remaining=False) as shown:
        if shown is None:
            yield None
            return
        tasks: dict[str, TaskID] = {}

        def tell_phase(phase: str, done: int, steps: int) -> None:
            if phase not in tasks:
                tasks[phase] = shown.add_task(f"{title}: {phase}", total=steps)
            shown.update(tasks[phase], completed=done, total=steps)
            if done >= steps:
                shown.remove_task(tasks.pop(phase))

        yield tell_phase


@contextmanager
def _bars(*, remaining: bool) -> "Iterator[Bars | None]":
    console = _console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn() if remaining else bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True) as shown:
        yield shown


def show_stats(stats: "StreamStats", without_face: str = "") -> None:
    """What a stream did: the file, its speed, its stages and everything that was not as it should be.

    `without_face` is what was shown in frames without a face.
    """
    say(f"{stats.output}: {stats.frames} frames in {stats.seconds:.1f} s, {stats.fps:.1f} fps")
    print_stages(stats)
    for cause, count in stats.drops.items():
        say(f"dropped: {count} frames, cause: {cause}")
    show_lost(stats, without_face)
    if stats.damaged_packets:
        tell(f"warning: {stats.damaged_packets} packets of the driving are damaged and were left out")


def show_lost(stats: "StreamStats", instead: str = "") -> None:
    """In how many frames there was no face, if any, and what was shown `instead`."""
    if stats.frames_without_face:
        say(f"no face in {stats.frames_without_face} frames{instead and ': '}{instead}")


def print_stages(stats: "StreamStats") -> None:
    """A table of how long the stages take a frame; they work at the same time."""
    table = _table("stage")
    for heading in ("p50 ms", "p95 ms"):
        table.add_column(heading, justify="right")
    for stage in stats.stages:
        table.add_row(stage.name, f"{stage.p50_ms:.2f}", f"{stage.p95_ms:.2f}")
    _console().print(table)


def show_models(models: "list[ModelStatus]") -> None:
    """The model files: what they are and whether they are here."""
    for model in models:
        state = "ready" if model.verified else "damaged" if model.present else "missing"
        say(f"{model.name}: {state}, {model.size} bytes, {model.licence}\n    {model.origin}")


def show_checked(checked: "list[Checked]") -> None:
    """How far each graph is from the reference, on each set of inputs."""
    table = _table("graph", "inputs", "output", "from the reference, at most")
    for check in checked:
        for difference in check.differences:
            table.add_row(check.graph, check.inputs, difference.output, f"{difference.largest:.1e}")
    _console().print(table)


def show_doctor(report: "DoctorReport") -> None:
    """What is installed, what will be used, and why the rest is not."""
    say(f"{report.python} on {report.platform}")
    features = f", {' '.join(report.cpu_features)}" if report.cpu_features else ""
    say(f"CPU: {report.cpu}, {report.cores} cores{features}")
    say(f"FFmpeg {report.ffmpeg}; files are kept in {report.home}")
    _show_gpu(report.gpu)
    if report.backend is None:
        say("Backend: none can run here")
    else:
        say(f"Backend: {report.backend}, precision {report.precision} (what --backend auto chooses)")
    table = _table("backend", "runs on", "here", "why not, and what brings it")
    for backend in report.backends:
        mend = f"; {backend.install}" if backend.install and not backend.available else ""
        table.add_row(
            backend.name,
            backend.executes,
            "yes" if backend.available else "no",
            f"{backend.reason or ''}{mend}",
        )
    packages = _table("package", "version")
    for name, version in report.packages.items():
        packages.add_row(name, version or "not installed")
    _console().print(table)
    _console().print(packages)
    ready = sum(model.verified for model in report.models)
    say(f"Model files: {ready} of {len(report.models)} ready; see reenact models list")


def _show_gpu(gpu: "GpuReport") -> None:
    if gpu.device is None:
        say(f"GPU: none ({gpu.reason})")
    else:
        major, minor = gpu.device.compute_capability
        say(
            f"GPU: {gpu.device.name}, compute capability {major}.{minor}, driver for CUDA {gpu.device.driver}"
        )
    kernels = f"not here: {gpu.kernels}" if gpu.kernels else "ready"
    say(f"CUDA kernels: {kernels}; NVRTC {gpu.nvrtc or 'is not installed'}")
    say(f"ONNX Runtime was built with {', '.join(gpu.providers) or 'nothing that is known'}")


class _PlainConsole(Console):
    """Shows text as it is, and outlives those who read it: whoever speaks has other work to finish."""

    def on_broken_pipe(self) -> None:
        """Nobody reads this stream any more; what comes later goes nowhere, the other stream stays as it is."""
        with suppress(OSError, ValueError):  # no file of the system
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)


def _console(*, stderr: bool = False) -> Console:
    return _PlainConsole(stderr=stderr, highlight=False, markup=False, emoji=False)


def _table(*headings: str) -> Table:
    return Table(*headings, box=None, pad_edge=False)


def _line(console: Console, message: str) -> None:
    console.print(message, soft_wrap=True)
