"""How well the invisible mark is hidden, what it survives, and how often it is seen where it is not.

`python -m reenact.benchmarks.provenance [--data FOLDER] [--trials N] [--json FILE] [--markdown FILE]`. Real outputs
are made of the photos in FOLDER (../shared/data, where that is there) and of the two portraits of the project.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from ..errors import ReenactError
from ..runtime import assets
from ..runtime.media.frame import Frame, Image
from ..runtime.media.images import read_image
from ..runtime.media.reader import VideoReader
from ..runtime.media.writer import open_writer
from ..runtime.provenance import verify
from ..runtime.reenactor import Reenactor
from ..runtime.watermark import MOST_CHANCE, Reading, marked, read_mark
from .damage import DAMAGES, psnr, random_picture, synthetic

__all__ = ["FalsePositives", "Survival", "main", "markdown"]

DATA = Path(__file__).resolve().parents[1] / "../shared/data"
RESULTS = Path(__file__).parent / "results"
SECONDS, FPS, STEP = 2.0, 25, 2  # of each output; every second frame is read
LONGEST = 1024  # pixels of a whole photo's longer side
WRITTEN: dict[str, dict[str, str]] = {
    ".mp4": {},
    ".mp4, hevc": {"codec": "hevc"},
    ".webm": {},
    ".gif": {},
}
TIMED = 4  # outputs that are written again and again


@dataclass(frozen=True)
class Output:
    """A real output before it is marked."""

    size: str  # which of the sizes that are told apart
    frames: list[Image]


@dataclass(frozen=True)
class Survival:
    """How many outputs of one size are found after one damage."""

    size: str
    damage: str
    found: int
    outputs: int
    lowest: float  # score
    median: float


@dataclass(frozen=True)
class FalsePositives:
    """How often pictures of one kind pass for marked ones without being."""

    kind: str
    trials: int
    found: int
    highest: float  # score
    needed: float  # the lowest score that was needed in any trial


@dataclass
class _Measured:
    """What is gathered from output to output."""

    readings: dict[tuple[str, str], list[Reading]] = field(default_factory=lambda: defaultdict(list))
    psnr: list[float] = field(default_factory=list)
    pictures: list[Image] = field(default_factory=list)  # some frames, not marked
    timed: list[list[Image]] = field(default_factory=list)


def _photos(data: Path) -> list[Path]:
    found = sorted(path for path in (data / "photos").glob("*") if path.suffix in (".jpg", ".png"))
    return [assets.portrait("eileen_collins"), assets.portrait("grace_hopper"), *found]


def _outputs(photo: Path, *, whole: bool) -> Iterator[Output]:
    """A photo moved by the motion `demo`: a crop of 512 pixels, that crop at 256 and, where asked, the whole photo."""
    image = read_image(photo)
    longest = max(image.shape[:2])
    if longest > LONGEST:
        factor = LONGEST / longest
        image = np.asarray(
            cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8
        )
    square = _animated(image, crop=True)
    yield Output("512x512", square)
    small = np.asarray(cv2.resize(square[0], (256, 256), interpolation=cv2.INTER_AREA), np.uint8)
    yield Output("256x256", _animated(small, crop=False))
    if whole:
        yield Output("whole photo", _animated(image, crop=False))


def _animated(image: Image, *, crop: bool) -> list[Image]:
    with tempfile.TemporaryDirectory() as folder, Reenactor(image, crop=crop, mark=False) as reenactor:
        reenactor.run_motion("demo", f"{folder}/frames/", duration=SECONDS, fps=FPS)
        with VideoReader(f"{folder}/frames") as reader:
            return [frame.image for frame in reader]


def measure_output(output: Output, measured: _Measured) -> float:
    """Mark an output, damage it, and look for the mark without telling what was done; the lowest score."""
    clip = [marked(image) for image in output.frames]
    measured.psnr += [psnr(*pair) for pair in zip(output.frames, clip, strict=True)]
    measured.pictures += output.frames[::20]
    lowest = float("inf")
    for damage in DAMAGES:
        reading = read_mark(damage.apply(clip)[::STEP] if damage.moves else damage.apply(clip[:1]))
        measured.readings[output.size, damage.name].append(reading)
        lowest = min(lowest, reading.score)
    if output.size == "512x512":
        if len(measured.timed) < TIMED:
            measured.timed.append(output.frames)
        with tempfile.TemporaryDirectory() as folder:
            for name, options in WRITTEN.items():
                path = Path(folder) / f"out{name.partition(',')[0]}"
                _write(path, output.frames, mark=True, **options)
                verdict = verify(path)
                if verdict.statement is None:
                    raise SystemExit(f"{name}: the statement in its metadata was not found")
                measured.readings[output.size, f"written as {name}"].append(verdict.watermark)
    return lowest


def _write(path: Path, frames: list[Image], *, mark: bool, **options: str) -> None:
    height, width = frames[0].shape[:2]
    with open_writer(path, width=width, height=height, mark=mark, **options) as sink:  # type: ignore[arg-type]
        for number, image in enumerate(frames):
            sink.write(Frame(image, number, Fraction(1, FPS)))


def _survivals(measured: _Measured) -> list[Survival]:
    rows = []
    for (size, damage), readings in measured.readings.items():
        scores = [reading.score for reading in readings]
        found = sum(reading.found for reading in readings)
        rows.append(Survival(size, damage, found, len(scores), min(scores), statistics.median(scores)))
    return rows


def measure_false_positives(kinds: dict[str, list[Image]], trials: int) -> list[FalsePositives]:
    """Look for the mark in random parts of pictures without it; a kind without pictures is drawn anew each time."""
    random = np.random.default_rng(20)
    rows = []
    for kind, pictures in kinds.items():
        trial = 0
        found, highest, needed = 0, 0.0, float("inf")
        while trial < trials // len(kinds):
            picture = random_picture(pictures, random) if pictures else synthetic(random)
            reading = read_mark([picture])
            found, highest = found + reading.found, max(highest, reading.score)
            if reading.score > 0:  # in a flat picture nothing is looked for
                needed = min(needed, reading.needed)
            trial += 1
        rows.append(FalsePositives(kind, trial, found, highest, needed))
        sys.stderr.write(f"{rows[-1]}\n")
    return rows


def _unmarked(data: Path, measured: _Measured) -> dict[str, list[Image]]:
    clips = sorted((data / "clips").glob("*.mp4"))
    kinds = {
        "parts of photos": [read_image(photo) for photo in _photos(data)],
        "parts of clips": [image for clip in clips for image in _few_frames(clip)],
        "parts of outputs before marking": measured.pictures,
    }
    drawn: dict[str, list[Image]] = {"drawn: noise, flats, slopes, stripes, squares, strokes": []}
    return {kind: pictures for kind, pictures in kinds.items() if pictures} | drawn


def _few_frames(clip: Path) -> Iterable[Image]:
    with VideoReader(clip, duration=8.0) as reader:
        return [frame.image for number, frame in enumerate(reader) if number % 25 == 0]


def measure_cost(clips: list[list[Image]]) -> dict[str, float]:
    """Milliseconds to mark a 512 frame and to copy it, to write one with and without the mark; growth of the file."""
    frame, copy = clips[0][0], np.empty_like(clips[0][0])
    costs = {"mark_ms": _best_ms(lambda: marked(frame)), "copy_ms": _best_ms(lambda: np.copyto(copy, frame))}
    sizes, times = {True: 0, False: 0}, {True: 0.0, False: 0.0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.mp4"
        for clip in clips:
            for mark in (True, False):
                times[mark] += _best_ms(lambda: _write(path, clip, mark=mark), 5) / len(clip) / len(clips)  # noqa: B023
                sizes[mark] += path.stat().st_size
    costs |= {"write_ms": times[False], "write_marked_ms": times[True]}
    return costs | {"file_growth": sizes[True] / sizes[False] - 1}


def _best_ms(work: Callable[[], object], rounds: int = 300) -> float:
    """Milliseconds of the quickest of many rounds: others may use the machine at the same time."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times) * 1000


def markdown(
    cost: dict[str, float], hidden: list[float], survivals: list[Survival], mistaken: list[FalsePositives]
) -> str:
    """All figures as tables."""
    grid = defaultdict(dict)  # type: ignore[var-annotated]
    for row in survivals:
        grid[row.damage][row.size] = f"{row.found} of {row.outputs}, {row.lowest:.1f}"
    sizes = list(dict.fromkeys(row.size for row in survivals))
    total, found = sum(row.trials for row in mistaken), sum(row.found for row in mistaken)
    rate = f"0 of {total}: below {3 / total:.1e} with 95 % confidence" if not found else f"{found} of {total}"
    lines = [
        "| what | measured |",
        "| --- | --- |",
        f"| time to mark a 512x512 frame | {cost['mark_ms']:.2f} ms, {cost['mark_ms'] / cost['copy_ms']:.1f} "
        "times that of a copy |",
        f"| PSNR of {len(hidden)} marked frames | lowest {min(hidden):.1f} dB, median "
        f"{statistics.median(hidden):.1f} dB |",
        f"| time to write a 512x512 frame, H.264 | {cost['write_ms']:.2f} ms, marked "
        f"{cost['write_marked_ms']:.2f} ms |",
        f"| growth of such a file | {cost['file_growth']:.0%} |",
        f"| pictures without a mark that pass for marked | {rate} |",
        "",
        f"| found, lowest score | {' | '.join(sizes)} |",
        "| --- |" + " --- |" * len(sizes),
    ]
    lines += [
        f"| {damage} | {' | '.join(cells.get(s, '-') for s in sizes)} |" for damage, cells in grid.items()
    ]
    lines += [
        "",
        "| without a mark | trials | found | highest score | needed |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {r.kind} | {r.trials} | {r.found} | {r.highest:.2f} | {r.needed:.2f} |" for r in mistaken]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--trials", type=int, default=40_000, help="pictures without a mark")
    parser.add_argument("--photos", type=int, help="at most so many")
    parser.add_argument("--whole", type=int, default=8, help="photos that are tried whole too")
    parser.add_argument("--json", type=Path, default=RESULTS / "provenance.json")
    parser.add_argument("--markdown", type=Path, default=RESULTS / "provenance.md")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    measured = _Measured()
    for number, photo in enumerate(_photos(options.data)[: options.photos]):
        try:
            for output in _outputs(photo, whole=number < options.whole):
                lowest = measure_output(output, measured)
                sys.stderr.write(f"{photo.name}, {output.size}: lowest score {lowest:.1f}\n")
        except ReenactError as error:
            sys.stderr.write(f"left out: {photo.name}: {error}\n")
    survivals, cost = _survivals(measured), measure_cost(measured.timed)
    mistaken = measure_false_positives(_unmarked(options.data, measured), options.trials)
    table = markdown(cost, measured.psnr, survivals, mistaken)
    sys.stdout.write(table)
    record = {
        "most_chance": MOST_CHANCE,
        "cost": cost,
        "psnr": {"frames": len(measured.psnr), "lowest": min(measured.psnr)},
        "survival": [asdict(row) for row in survivals],
        "false_positives": [asdict(row) for row in mistaken],
    }
    options.markdown.write_text(table)
    options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
