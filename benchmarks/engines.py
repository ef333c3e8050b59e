"""Speed of one driving frame, system by system: the published networks as they are, exported plainly, and our graph.

`python -m reenact.benchmarks.engines SYSTEM [--checkpoint FOLDER] [--sizes 256 512] [--rounds N] [--json FILE]
[--markdown FILE]`. Without a checkpoint the weights are made by rule; speed does not depend on them. Each contender
has a process of its own; they take turns, so that none profits from a quiet moment, and who waits is stopped.
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ReenactError
from ..runtime.closing import Closing
from ..runtime.doctor import report
from ..runtime.engine import BACKENDS, Precision, load
from ..runtime.media.frame import Image
from .ceiling import Ceiling, macs, measure_ceilings, under

if TYPE_CHECKING:
    from .published import Way

__all__ = ["CONTENDERS", "Contender", "Row", "main", "markdown", "measure"]

WARM_UPS = 3  # calls before each round
_EQUAL = 99.0  # dB that stand for no difference at all


@dataclass(frozen=True)
class Contender:
    """A way on a backend; "eager" runs the module itself."""

    name: str
    way: Literal["published", "ours"]
    backend: Literal["eager", "cpu", "openvino"]
    precision: Precision


CONTENDERS = (
    Contender("PyTorch, as published", "published", "eager", "fp32"),
    Contender("ONNX Runtime, plain export", "published", "cpu", "fp32"),
    Contender("OpenVINO, plain export", "published", "openvino", "fp32"),
    Contender("ONNX Runtime, our graph", "ours", "cpu", "fp32"),
    Contender("OpenVINO, our graph", "ours", "openvino", "fp32"),
    Contender("OpenVINO bf16, our graph", "ours", "openvino", "bf16"),
)


@dataclass(frozen=True)
class Row:
    """What was measured of one contender; without figures where it cannot run, and `note` says why."""

    size: int
    contender: str
    p50_ms: float | None = None
    times_eager: float | None = None  # how many times as fast as PyTorch
    times_plain: float | None = None  # as the plain export on the same backend
    fps: float | None = None
    psnr_db: float | None = None  # its picture against PyTorch's
    rounds_ms: tuple[float, ...] = ()  # median of each round
    note: str = ""


# --- the race -------------------------------------------------------------------------------------


def measure(
    system: str,
    checkpoint: Path | None,
    size: int,
    *,
    rounds: int,
    calls: int,
    threads: int,
    contenders: Sequence[Contender] = CONTENDERS,
) -> tuple[list[Row], str, int]:
    """Time `calls` calls of each contender in each of `rounds` rounds; a row each, and where the weights are from.

    Last come the multiply-adds of our graph. The first contender is PyTorch.

    Raises ReenactError as the system's function and where a contender fails.
    """
    import onnx

    from .published import SYSTEMS  # PyTorch; the processes that only run graphs do without

    ways = SYSTEMS[system](checkpoint, size)
    reasons = {contender: _why_not(contender) for contender in contenders}
    able = [contender for contender in contenders if not reasons[contender]]
    times: dict[Contender, list[list[float]]] = {contender: [] for contender in able}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        for way in {contender.way for contender in able if contender.backend != "eager"}:
            _write(Path(name), way, getattr(ways, way))
        place = _Place(system, checkpoint, size, Path(name), threads)
        racers = {contender: stack.enter_context(_Racer(contender, place)) for contender in able}
        pictures = {
            contender: getattr(ways, contender.way).picture(racer.output())
            for contender, racer in racers.items()
        }
        for _ in range(rounds):
            for contender, racer in racers.items():
                times[contender].append(racer.time(calls))
        work = macs(onnx.load(Path(name) / "ours.onnx"))
    return _rows(size, contenders, times, pictures, reasons), ways.weights, work


def _rows(
    size: int,
    contenders: Sequence[Contender],
    times: Mapping[Contender, Sequence[Sequence[float]]],
    pictures: Mapping[Contender, Image],
    reasons: Mapping[Contender, str],
) -> list[Row]:
    """Figures of milliseconds by round and call; those without times have a reason."""
    p50 = {
        contender: statistics.median(ms for one in lists for ms in one) for contender, lists in times.items()
    }
    eager = contenders[0]
    rows = []
    for contender in contenders:
        if contender not in p50:
            rows.append(Row(size, contender.name, note=reasons[contender]))
            continue
        plain = [c for c in p50 if c.way == "published" and c.backend == contender.backend]
        rows.append(
            Row(
                size,
                contender.name,
                p50_ms=p50[contender],
                times_eager=p50[eager] / p50[contender],
                times_plain=p50[plain[0]] / p50[contender] if plain and contender != eager else None,
                fps=1000 / p50[contender],
                psnr_db=None if contender == eager else _psnr(pictures[contender], pictures[eager]),
                rounds_ms=tuple(statistics.median(one) for one in times[contender]),
            )
        )
    return rows


def _why_not(contender: Contender) -> str:
    if contender.backend == "eager":
        return ""
    backend = BACKENDS[contender.backend]
    reason = backend.why_not()
    if reason is None and contender.precision == "bf16" and backend.best_precision() != "bf16":
        return "no bf16 on this CPU"
    return reason or ""


def _write(folder: Path, name: str, way: "Way") -> None:
    """The graph of a way and its inputs, for those that run it in other processes."""
    import onnx

    from ..export.onnx import export_graph

    onnx.save(export_graph(way.module, way.inputs, way.outputs), folder / f"{name}.onnx")
    arrays: dict[str, Any] = {key: value.numpy() for key, value in way.inputs.items()}
    np.savez(folder / f"{name}.npz", **arrays)


def _psnr(picture: Image, reference: Image) -> float:
    error = float(np.mean((picture.astype(np.float64) - reference.astype(np.float64)) ** 2))
    return min(_EQUAL, 10 * float(np.log10(255**2 / error))) if error else _EQUAL


# --- one contender in its own process -------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """What a contender's process needs to know beside the contender."""

    system: str
    checkpoint: Path | None
    size: int
    folder: Path
    threads: int


class _Racer(Closing):
    """A contender in a process of its own, which is stopped except while it is asked; a context manager."""

    def __init__(self, contender: Contender, place: _Place) -> None:
        self._name = contender.name
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, contender, place), daemon=True)
        with _waiting_actively():
            self._process.start()
        theirs.close()

    def output(self) -> NDArray[Any]:
        """The first output."""
        return np.asarray(self._ask(0))

    def time(self, calls: int) -> list[float]:
        """Milliseconds of each of so many calls, after some that warm up."""
        return [float(value) for value in self._ask(calls)]

    def _ask(self, calls: int) -> Any:
        try:
            self._signal("SIGCONT")
            self._ours.send(calls)
            answer = self._ours.recv()
            self._signal("SIGSTOP")
        except (EOFError, OSError) as error:
            raise ReenactError(f"{self._name}: its process ended early; see its message above") from error
        return answer

    def _signal(self, name: str) -> None:
        if self._process.pid and hasattr(signal, name):
            os.kill(self._process.pid, getattr(signal, name))

    def close(self) -> None:
        """End its process."""
        self._ours.close()
        self._process.kill()
        self._process.join()


@contextmanager
def _waiting_actively() -> Iterator[None]:
    """Processes that start here let PyTorch's threads wait for work actively.

    That is its fastest, and on some virtual machines the default is many times slower. Where processes cannot be
    stopped they would disturb each other so.
    """
    name = "OMP_WAIT_POLICY"
    before = os.environ.get(name)
    os.environ[name] = "active" if hasattr(signal, "SIGSTOP") else "passive"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _serve(connection: Connection, contender: Contender, place: _Place) -> None:
    """Answer until the other end is closed: to 0 with the first output, to n with the times of n calls."""
    os.environ["REENACT_HOME"] = str(place.folder)  # compiled graphs go there and not to the user
    call = _eager(contender, place) if contender.backend == "eager" else _engine(contender, place)
    while True:
        try:
            calls = connection.recv()
        except EOFError:
            return
        connection.send(_timed(call, calls) if calls else call())


def _timed(call: Callable[[], NDArray[Any]], calls: int) -> list[float]:
    times = []
    for number in range(WARM_UPS + calls):
        started = time.perf_counter()
        call()
        if number >= WARM_UPS:
            times.append((time.perf_counter() - started) * 1000)
    return times


def _eager(contender: Contender, place: _Place) -> Callable[[], NDArray[Any]]:
    import torch

    from .published import SYSTEMS

    torch.set_num_threads(place.threads)
    way: Way = getattr(SYSTEMS[place.system](place.checkpoint, place.size), contender.way)
    module, inputs = way.module.eval(), tuple(way.inputs.values())

    def call() -> NDArray[Any]:
        with torch.no_grad():
            made = module(*inputs)
        return np.asarray((made if isinstance(made, torch.Tensor) else made[0]).numpy())

    return call


def _engine(contender: Contender, place: _Place) -> Callable[[], NDArray[Any]]:
    graph = place.folder / f"{contender.way}.onnx"
    engine = load(graph, backend=contender.backend, precision=contender.precision, threads=place.threads)
    with np.load(graph.with_suffix(".npz"), allow_pickle=False) as archive:
        inputs = {name: archive[name] for name in archive.files}
    first = next(iter(engine.outputs))
    return lambda: engine.run(inputs)[first]


# --- what is told ---------------------------------------------------------------------------------

_COLUMNS = ("size", "one frame on", "ms p50", "times PyTorch", "times plain export", "fps", "PSNR, dB")
_LEGEND = f"""One driving frame on the CPU, from its inputs in memory to the picture. Plain export: the published
modules through `torch.onnx.export`, floats in and out. Our graph also does what the others leave to their caller:
uint8 to float and back. times: how many times as fast; the plain export is that on the same backend. PSNR: against
the picture of PyTorch in float32, both cut off to uint8; {_EQUAL:.0f} stands for no difference.
"""


def markdown(rows: Sequence[Row], machine: str, weights: str, ceilings: Sequence[Ceiling] = ()) -> str:
    """The rows as a markdown table, under what they were measured on; below it what no graph could beat here."""
    lines = [f"Machine: {machine}. Weights: {weights}.", ""]
    lines += [f"| {' | '.join(_COLUMNS)} |", "|" + " --- |" * len(_COLUMNS)]
    for row in rows:
        figures = (row.p50_ms, row.times_eager, row.times_plain, row.fps, row.psnr_db)
        cells = [
            "-" if value is None else f"{value:.{digits}f}"
            for value, digits in zip(figures, (1, 2, 2, 1, 1), strict=True)
        ]
        if row.note:
            cells[0] = row.note
        lines.append(f"| {row.size} | {row.contender} | {' | '.join(cells)} |")
    lines += ["", _LEGEND]
    lines += [under(ceilings)] if ceilings else []
    return "\n".join(lines)


def _machine(threads: int) -> str:
    here = report()
    versions = ", ".join(f"{name} {here.packages[name]}" for name in ("torch", "onnxruntime", "openvino"))
    return f"{here.cpu}, {here.cores} cores, {threads} threads each; {versions}"


def main() -> None:
    """Command line."""
    import torch

    from .published import SYSTEMS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("system", choices=sorted(SYSTEMS))
    parser.add_argument("--checkpoint", type=Path, help="folder of the published layout")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=15, help="in each round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(1)  # here nothing is timed
    rows: list[Row] = []
    weights, work = "", {}
    for size in options.sizes:
        made, weights, work[size] = measure(
            options.system,
            options.checkpoint,
            size,
            rounds=options.rounds,
            calls=options.calls,
            threads=threads,
        )
        rows += made
    machine = _machine(threads)
    ceilings = measure_ceilings(work, threads)
    table = markdown(rows, machine, weights, ceilings)
    sys.stdout.write(table)
    if options.markdown:
        options.markdown.write_text(table)
    if options.json:
        record = {"system": options.system, "machine": machine, "weights": weights, "rounds": options.rounds}
        record |= {"calls": options.calls, "rows": [asdict(row) for row in rows]}
        record["ceilings"] = [asdict(ceiling) for ceiling in ceilings]
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
