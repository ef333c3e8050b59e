"""What DECA costs a frame and a photo at run time, beside the eager PyTorch reference, and whether memory stays flat.

`python -m reenact.benchmarks.deca [--rounds N] [--frames N]` writes `results/deca.json` and `results/deca.md`. Weights
are made by rule and the head is the stand-in: times do not depend on either. Every way of computing has a process of
its own. Calls take turns one by one, of the steps as of the ways, so that all of them meet the same machine. Before
each comes one of the same that is not timed, for between two turns the caches were the others'; before
`points after encode` an `encode`. Medians of all calls are shown, and how many there were.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendError
from ..runtime.doctor import report
from ..runtime.engine import BACKENDS
from ..runtime.systems.deca.model import Deca
from ..runtime.systems.deca.reconstruction import Reconstruction, grid, reconstruct
from ..runtime.systems.protocol import SystemSettings
from ..runtime.tracking.flame_crop import FaceSquare, crop
from ..runtime.tracking.flame_fit import View

__all__ = ["Measured", "main", "markdown", "turns"]

RESULTS = Path(__file__).parent / "results"
GOALS = {"encode + decode": 35.0, "points": 0.5}  # ms, in bfloat16 on two cores
_CALLS = {"encode": 5, "encode + decode": 5, "encode_detail": 5, "grid": 3}  # in a round
_CALLS_SMALL = 20
# What runs, untimed, before a step, where it is not the step itself.
_BEFORE = {"points after encode": "encode"}
_SETTLE = 100  # frames after which memory is expected to stay as it is
Steps = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Measured:
    """One step by one way of computing it."""

    step: str
    way: str
    median_ms: float
    calls: int


def steps_of_graphs(bundle: Path, backend: str, precision: Any) -> Steps:
    """What the runtime does, each step by itself."""
    deca = Deca(SystemSettings(bundle, backend, precision))
    photo = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    square = FaceSquare(640, 360, 400)
    view = View(crop(photo, square.to_crop()), square.to_crop())
    made: Reconstruction = reconstruct(deca, [view])[0]
    fit, person, head = made.fit, made.person, made.head

    def frame() -> Any:
        (seen,) = deca.fit([view])
        return deca.head(person, seen.exp, seen.pose, seen.cam)

    return {
        "crop": lambda: crop(photo, square.to_crop()),
        "encode": lambda: deca.fit([view]),
        "decode": lambda: deca.head(person, fit.exp, fit.pose, fit.cam),
        "encode + decode": frame,
        "points": lambda: deca.points(person, fit.exp, fit.pose),
        "points after encode": lambda: deca.points(person, fit.exp, fit.pose),
        "encode_detail": lambda: deca.detail_codes([view]),
        "detail": lambda: deca.wrinkles(head, fit.exp, fit.pose, made.detail),
        "grid": lambda: grid(reconstruct(deca, [view])[0]),
    }


def steps_of_reference(threads: int) -> Steps:
    """The same by the reference, eager; its landmarks need the whole mesh."""
    import torch

    from ..reference.deca import codes_of, decode, encode, wrinkles

    torch.set_num_threads(threads)
    networks, flame, skin = _reference()
    photo = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        codes, detail = encode(networks["e_flame"], networks["e_detail"], photo)
        head = decode(flame, skin, codes)

    def frame() -> Any:
        return decode(flame, skin, codes_of(networks["e_flame"](photo)))

    def points() -> Any:
        return flame.landmarks_2d(flame(codes.shape, codes.exp, codes.pose))

    steps: Steps = {
        "encode": lambda: networks["e_flame"](photo),
        "decode": lambda: decode(flame, skin, codes),
        "encode + decode": frame,
        "points": points,
        "points after encode": points,
        "encode_detail": lambda: networks["e_detail"](photo),
        "detail": lambda: wrinkles(networks["d_detail"], skin, codes, detail, head),
    }
    return {name: torch.no_grad()(step) for name, step in steps.items()}


def write_filled_bundle(folder: Path) -> None:
    """A bundle with weights by rule and the stand-in head."""
    from ..export.checkpoints import Checkpoint
    from ..export.deca_bundle import Files, export_files
    from ..reference import stand_in

    networks, _, _ = _reference()
    landmarks = stand_in.stand_in_landmarks()
    keypoints = np.arange(72, dtype=np.int64) * 138, np.full((72, 3), 1 / 3)
    files = Files(stand_in.stand_in_model(), landmarks, stand_in.stand_in_template(), keypoints=keypoints)
    export_files(Checkpoint("deca", folder, "made by rule", networks), files, folder, "none")


def memory_over(bundle: Path, backend: str, frames: int) -> tuple[float, float]:
    """Resident megabytes after the first frames and at the end, of fitting and posing with changing pictures."""
    with Deca(SystemSettings(bundle, backend, "fp32")) as deca:
        random = np.random.default_rng(0)
        photos = [random.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(4)]
        square = FaceSquare(160, 120, 150)
        person = deca.person(np.zeros(100, np.float32))
        settled = 0.0
        for number in range(frames):
            view = View(crop(photos[number % 4], square.to_crop()), square.to_crop())
            (fit,) = deca.fit([view])
            deca.head(person, fit.exp, fit.pose, fit.cam)
            deca.points(person, fit.exp, fit.pose)
            if number + 1 == _SETTLE:
                settled = _resident()
        return settled, _resident()


def markdown(rows: list[Measured], machine: str, memory: tuple[float, float], frames: int) -> str:
    """A table with a row a step and a column a way, and what else is to be known."""
    ways = list(dict.fromkeys(row.way for row in rows))
    lines = [f"| step | {' | '.join(ways)} | goal |", "| --- |" + " --- |" * (len(ways) + 1)]
    for step in dict.fromkeys(row.step for row in rows):
        times = {row.way: row.median_ms for row in rows if row.step == step}
        shown = [f"{times[way]:.2f}" if way in times else "-" for way in ways]
        lines.append(f"| {step} | {' | '.join(shown)} | {GOALS.get(step, '')} |")
    grown, counts = memory[1] - memory[0], [row.calls for row in rows]
    return "\n".join(
        [
            *lines,
            "",
            f"Milliseconds, medians of {min(counts)} to {max(counts)} calls that took turns, each after an untimed "
            f"one; {machine}.",
            f"Resident memory after {_SETTLE} frames {memory[0]:.0f} MB, after {frames} frames {memory[1]:.0f} MB "
            f"({grown:+.1f} MB).",
            "",
        ]
    )


def main() -> None:
    """Measure and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--note", default="", help="what else ran on the machine")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "deca"
        write_filled_bundle(bundle)
        ways: dict[str, tuple[Any, ...]] = {"PyTorch eager": (chosen.threads,)}
        for backend in ("openvino", "cpu"):
            for precision in ("fp32", "bf16"):
                missing = _why_not(backend, precision)
                if missing is None:
                    ways[f"{backend} {precision}"] = (bundle, backend, precision)
                elif backend == "openvino":
                    print(f"not measured: {missing}")
        rows = _race(ways, chosen.rounds)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(memory_over, (bundle, "openvino", chosen.frames))
    machine = f"{report().cpu}, {chosen.threads} threads"
    if chosen.note:
        machine += f"; {chosen.note}"
    kept = {
        "machine": machine,
        "rows": [asdict(row) for row in rows],
        "memory_mb": memory,
        "frames": chosen.frames,
    }
    (RESULTS / "deca.json").write_text(json.dumps(kept, indent=1) + "\n")
    (RESULTS / "deca.md").write_text(table := markdown(rows, machine, memory, chosen.frames))
    print(table)


def _race(ways: dict[str, tuple[Any, ...]], rounds: int) -> list[Measured]:
    context = multiprocessing.get_context("spawn")
    racers: dict[str, tuple[Connection, Any, list[str]]] = {}
    for way, arguments in ways.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, arguments), daemon=True)
        process.start()
        racers[way] = ours, process, ours.recv()
    times: dict[tuple[str, str], list[float]] = {}
    for way, step in turns({way: steps for way, (_, _, steps) in racers.items()}, rounds):
        connection = racers[way][0]
        connection.send(step)
        times.setdefault((step, way), []).append(connection.recv())
    for connection, process, _ in racers.values():
        connection.send(None)
        process.join()
    return [
        Measured(step, way, statistics.median(taken) * 1e3, len(taken))
        for way, (_, _, steps) in racers.items()
        for step in steps
        for taken in (times[step, way],)
    ]


def turns(steps: Mapping[str, Sequence[str]], rounds: int) -> Iterator[tuple[str, str]]:
    """Way and step of every call, for the steps of each way: a step's calls are spread evenly over a round.

    Some turns go the other way round, so that none always follows the same.
    """
    every = list(dict.fromkeys(step for names in steps.values() for step in names))
    for turn in range(rounds * _CALLS_SMALL):
        place = turn % _CALLS_SMALL
        calls = {step: _CALLS.get(step, _CALLS_SMALL) for step in every}
        due = [s for s in every if (place + 1) * calls[s] // _CALLS_SMALL > place * calls[s] // _CALLS_SMALL]
        pairs = [(way, step) for step in due for way, names in steps.items() if step in names]
        yield from pairs if turn // 4 % 2 == 0 else reversed(pairs)


def _serve(connection: Connection, arguments: tuple[Any, ...]) -> None:
    steps = steps_of_reference(*arguments) if len(arguments) == 1 else steps_of_graphs(*arguments)
    for step in steps.values():
        step()
    connection.send(list(steps))
    while (name := connection.recv()) is not None:
        steps[_BEFORE.get(name, name)]()
        began = time.perf_counter()
        steps[name]()
        connection.send(time.perf_counter() - began)


def _why_not(backend: str, precision: Any) -> str | None:
    try:
        BACKENDS[backend].require(precision)
    except BackendError as error:
        return str(error)
    if precision == "bf16" and BACKENDS[backend].best_precision() != "bf16":
        return f"{backend} bf16: this CPU has no bfloat16"
    return None


def _reference() -> Any:
    """Filled networks, the stand-in head and its skin."""
    from ..reference import build, stand_in
    from ..reference.deca_skin import skin_of
    from ..reference.fill import Rules, fill
    from ..reference.flame import Flame

    gain = {r"bn3\.weight": 0.25, r"layers\.2\.weight": 0.02}
    networks = {}
    for name in ("e_flame", "e_detail", "d_detail"):
        networks[name] = build(f"deca/{name}").eval().requires_grad_(False)
        plain = {"layers.2.bias": {"206": 6.5}} if name == "e_flame" else {}
        fill(networks[name], Rules(gain={} if name == "d_detail" else gain, add=plain))
    skin = skin_of(stand_in.stand_in_template())
    flame = Flame(stand_in.stand_in_model(), stand_in.stand_in_landmarks()).requires_grad_(False)
    return networks, flame, skin


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


if __name__ == "__main__":
    main()
