"""How well the invisible mark is hidden, what it survives, and how often it is seen where it is not.

`python -m reenact.benchmarks.provenance [--data FOLDER] [--trials N] [--films N] [--keep FOLDER]`. Real outputs are
made of the photos in FOLDER (../shared/data, where that is there) and of the two portraits of the project. The work is
done in parts, by several processes; with --keep each part that is done is kept, and the next run goes on from there.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from ..errors import ReenactError
from ..runtime import assets
from ..runtime.watermark import MOST_CHANCE
from .mistaken import CLIPS, DRAWN, FILM_CLIPS, FILMS, PHOTOS, PICTURES, in_films, in_pictures
from .survival import measure_cost, measure_photo

__all__ = ["FalsePositives", "Survival", "done_parts", "main", "markdown"]

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "../shared/data"
RESULTS = Path(__file__).parent / "results"
MADE_BY = (  # what the parts that are kept depend on
    "runtime/watermark.py",
    "runtime/provenance.py",
    "kernels/watermark.py",
    "benchmarks/damage.py",
    "benchmarks/survival.py",
    "benchmarks/mistaken.py",
)
TIMED = 4  # photos whose outputs are written again and again
PICTURES_A_PART, FILMS_A_PART = 500, 50

Parts = Mapping[str, Callable[[], dict[str, Any]]]


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
    """How often pictures or films of one kind pass for marked ones without being."""

    kind: str
    trials: int
    found: int
    highest: float  # score
    needed: float  # the lowest score that was needed in any trial


def done_parts(parts: Parts, keep: Path, jobs: int = 1) -> list[dict[str, Any]]:
    """The results of all parts, in their order; those that are in `keep` already, by their names, are not done again.

    Raises ReenactError where what is in `keep` was made by other sources.
    """
    _check_sources(keep)
    missing = [name for name in parts if not (keep / f"{name}.json").exists()]
    for name in missing if jobs == 1 else ():
        _do(name, parts[name], keep)
    if jobs > 1 and missing:
        _do_at_once({name: parts[name] for name in missing}, keep, jobs)
    return [json.loads((keep / f"{name}.json").read_text()) for name in parts]


def _do_at_once(parts: Parts, keep: Path, jobs: int) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        futures = [pool.submit(_do, name, work, keep) for name, work in parts.items()]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _do(name: str, work: Callable[[], dict[str, Any]], keep: Path) -> None:
    result = work()
    unfinished = keep / f".{name}.json"
    unfinished.write_text(json.dumps(result))
    unfinished.replace(keep / f"{name}.json")
    sys.stderr.write(f"{name} done\n")


def _check_sources(keep: Path) -> None:
    digest = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in MADE_BY)).hexdigest()
    noted = keep / "sources.txt"
    if noted.exists() and noted.read_text() != digest:
        raise ReenactError(f"{keep}: was begun with other sources; empty it, or give --keep another folder")
    noted.write_text(digest)


def _photos(data: Path) -> list[Path]:
    found = sorted(path for path in (data / "photos").glob("*") if path.suffix in (".jpg", ".png"))
    return [assets.portrait("eileen_collins"), assets.portrait("grace_hopper"), *found]


def _frames_file(keep: Path, number: int) -> Path:
    return keep / f"photo-{number:03d}.npz"


def _photo_parts(photos: list[Path], keep: Path, whole: int) -> Parts:
    return {
        f"photo-{number:03d}-{photo.stem}{'-whole' * (number < whole)}": partial(
            measure_photo, photo, _frames_file(keep, number), whole=number < whole
        )
        for number, photo in enumerate(photos)
    }


def _mistaken_parts(kinds: Sequence[str], sources: Mapping[str, list[Path]], trials: int) -> dict[str, Parts]:
    """For each kind that there are sources for, parts of some trials each."""
    wanted = [kind for kind in kinds if sources[kind] or kind == DRAWN]
    films = kinds == FILMS
    look, each = (in_films, FILMS_A_PART) if films else (in_pictures, PICTURES_A_PART)
    each = min(each, trials)
    return {
        kind: {
            f"{'films' if films else 'pictures'}-{kinds.index(kind)}-{each}-{block:03d}": partial(
                look, kind, sources[kind], block, each
            )
            for block in range(-(-trials // (len(wanted) * each)))
        }
        for kind in wanted
    }


def _survivals(photos: list[dict[str, Any]]) -> list[Survival]:
    gathered: dict[tuple[str, str], list[tuple[bool, float]]] = defaultdict(list)
    for photo in photos:
        for size, damage, found, score in photo["readings"]:
            gathered[size, damage].append((found, score))
    rows = []
    for (size, damage), readings in gathered.items():
        scores = [score for _, score in readings]
        found = sum(found for found, _ in readings)
        rows.append(Survival(size, damage, found, len(scores), min(scores), statistics.median(scores)))
    return rows


def _mistaken(results: Mapping[str, list[dict[str, Any]]]) -> list[FalsePositives]:
    return [
        FalsePositives(
            kind,
            sum(part["trials"] for part in parts),
            sum(part["found"] for part in parts),
            max(part["highest"] for part in parts),
            min(part["needed"] for part in parts),
        )
        for kind, parts in results.items()
    ]


def _rate(rows: Sequence[FalsePositives]) -> str:
    """By the rule of three, where none was found."""
    total, found = sum(row.trials for row in rows), sum(row.found for row in rows)
    return f"{found} of {total}" if found else f"0 of {total}: below {3 / total:.1e} with 95 % confidence"


def markdown(
    cost: Mapping[str, float],
    hidden: Sequence[float],
    survivals: Sequence[Survival],
    mistaken: Sequence[FalsePositives],
) -> str:
    """All figures as tables."""
    grid: dict[str, dict[str, str]] = defaultdict(dict)
    for row in survivals:
        grid[row.damage][row.size] = f"{row.found} of {row.outputs}, {row.lowest:.1f}"
    sizes = list(dict.fromkeys(row.size for row in survivals))
    films = [row for row in mistaken if row.kind in FILMS]
    pictures = [row for row in mistaken if row.kind not in FILMS]
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
        f"| pictures without a mark that pass for marked | {_rate(pictures)} |",
        *([f"| films without a mark that pass for marked | {_rate(films)} |"] if films else []),
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


def _measure(options: argparse.Namespace, keep: Path) -> tuple[str, dict[str, Any]]:
    """The tables and the record of a whole run."""
    photos = _photos(options.data)[: options.photos]
    clips = sorted((options.data / "clips").glob("*.mp4"))
    done = done_parts(_photo_parts(photos, keep, options.whole), keep, options.jobs)
    used = [part for part in done if part["left_out"] is None]
    outputs = [_frames_file(keep, number) for number, part in enumerate(done) if part["left_out"] is None]
    sources = defaultdict(lambda: outputs, {PHOTOS: photos, CLIPS: clips, FILM_CLIPS: clips, DRAWN: []})
    results: dict[str, list[dict[str, Any]]] = {}
    for kinds, trials in ((PICTURES, options.trials), (FILMS, options.films)):
        for kind, parts in _mistaken_parts(kinds, sources, trials).items():
            results[kind] = done_parts(parts, keep, options.jobs)
    (cost,) = done_parts({"cost": partial(measure_cost, photos[:TIMED])}, keep)
    survivals, mistaken = _survivals(used), _mistaken(results)
    hidden = [value for part in used for value in part["psnr"]]
    record = {
        "most_chance": MOST_CHANCE,
        "photos": [part["photo"] for part in used],
        "left_out": {part["photo"]: part["left_out"] for part in done if part["left_out"] is not None},
        "cost": cost,
        "psnr": {"frames": len(hidden), "lowest": min(hidden)},
        "survival": [asdict(row) for row in survivals],
        "false_positives": [asdict(row) for row in mistaken],
    }
    return markdown(cost, hidden, survivals, mistaken), record


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--trials", type=int, default=32_000, help="pictures without a mark")
    parser.add_argument("--films", type=int, default=3_300, help="films without a mark")
    parser.add_argument("--photos", type=int, help="at most so many")
    parser.add_argument("--whole", type=int, default=8, help="photos that are tried whole too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--keep", type=Path, help="folder of parts that are done, to go on after an interruption"
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "provenance.json")
    parser.add_argument("--markdown", type=Path, default=RESULTS / "provenance.md")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as passing:
        keep = options.keep or Path(passing)
        keep.mkdir(parents=True, exist_ok=True)
        table, record = _measure(options, keep)
    sys.stdout.write(table)
    options.markdown.write_text(table)
    options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
