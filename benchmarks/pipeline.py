"""Speed of the whole path, file to file, and of its stages alone, on this machine.

`python -m reenact.benchmarks.pipeline [DRIVING] [--photo PHOTO] [--json FILE] [--markdown FILE]`. Without a driving
clip the project animates its own portrait and uses that. The driving is brought to 1280x720 first, so that figures
compare. With `--bundle FOLDER...` it measures the systems of these bundles instead of the built-in one.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ..runtime import assets
from ..runtime.bundle import Bundle
from ..runtime.engine import load
from ..runtime.media.frame import Frame, Image
from ..runtime.media.images import read_image, write_image
from ..runtime.media.reader import VideoReader
from ..runtime.media.writer import open_writer
from ..runtime.models import model_path
from ..runtime.motion import load_motion
from ..runtime.reenactor import Reenactor
from ..runtime.stream import StreamStats
from ..runtime.systems import registry
from ..runtime.systems.protocol import Observation
from ..runtime.tracking.relative import RelativeMotion
from ..runtime.tracking.tracker import Tracker

__all__ = ["Alone", "main"]

HD = (1280, 720)


@dataclass(frozen=True)
class Alone:
    """One step on its own, nothing else running; milliseconds a frame."""

    name: str
    p50_ms: float
    p95_ms: float


def _letterboxed(image: Image, width: int, height: int) -> Image:
    """The picture as large as it fits into (height, width), over a blurred copy of itself."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    canvas = cv2.GaussianBlur(cv2.resize(image, (width, height)), (0, 0), 20)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    inner = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    canvas[top : top + size[1], left : left + size[0]] = inner
    return np.asarray(canvas, np.uint8)


def _hd_clip(driving: Path, target: Path, most: int) -> None:
    with VideoReader(driving) as reader, open_writer(target, width=HD[0], height=HD[1]) as sink:
        for index, frame in enumerate(reader):
            if index == most:
                break
            sink.write(Frame(_letterboxed(frame.image, *HD), frame.pts, frame.time_base))


def _alone(name: str, work: Callable[[Frame], object], frames: list[Frame]) -> Alone:
    times = []
    for frame in frames:
        started = time.perf_counter()
        work(frame)
        times.append((time.perf_counter() - started) * 1000)
    return Alone(name, statistics.median(times), float(np.percentile(times, 95)))


def measure_network(name: str, side: int, rounds: int = 200) -> Alone:
    """One run of a tracker's network on noise: what the machine gives at this moment, to compare the rest with."""
    noise = np.random.default_rng(0).random((1, side, side, 3), np.float32)
    times = []
    with load(model_path(name), precision="fp32") as engine:
        for _ in range(rounds + 10):
            started = time.perf_counter()
            engine.run({next(iter(engine.inputs)): noise})
            times.append((time.perf_counter() - started) * 1000)
    return Alone(f"network {name}", statistics.median(times[10:]), float(np.percentile(times[10:], 95)))


def measure_stages(driving: Path, photo: Image) -> list[Alone]:
    """Tracking a 720p clip and animating a photo, each on its own."""
    with VideoReader(driving) as reader:
        frames = [frame for _, frame in zip(range(200), reader, strict=False)]
    system = registry.create("meshwarp")
    with Tracker() as tracker:
        portrait = system.register(photo, tracker.find_faces(photo)[0])
        for frame in frames[:5]:
            tracker.track(frame.image, frame.time - 100.0)
        faces = {}

        def track(frame: Frame) -> None:
            faces[frame.pts] = tracker.track(frame.image, frame.time)

        rows = [_alone("track, 1280x720", track, frames)]
    seen = [frame for frame in frames if faces[frame.pts] is not None]
    relative = RelativeMotion(faces[seen[0].pts])  # type: ignore[arg-type]  # seen has only frames with a face
    observations = {f.pts: Observation(relative.update(faces[f.pts], f.time)) for f in seen}
    system.animate(portrait, observations[seen[0].pts])
    size = f"{photo.shape[1]}x{photo.shape[0]}"
    rows.append(
        _alone(f"animate, {size}", lambda frame: system.animate(portrait, observations[frame.pts]), seen)
    )
    return rows


def measure_pipeline(
    driving: Path,
    photo: Path,
    folder: Path,
    rounds: int,
    *,
    crop: bool,
    system: str = "meshwarp",
    bundle: Path | None = None,
) -> StreamStats:
    """File to file; the run with the median rate of `rounds` runs."""
    runs = []
    with Reenactor(photo, crop=crop, system=system, bundle=bundle) as reenactor:
        for number in range(rounds + 1):
            stats = reenactor.run(driving, folder / f"out{number}.mp4")
            if number:  # the first run warms up
                runs.append(stats)
    return sorted(runs, key=lambda stats: stats.fps)[len(runs) // 2]


def _built_in(
    clip: Path, photo: Path, folder: Path, rounds: int
) -> tuple[list[Alone], dict[str, StreamStats]]:
    """The stages alone and the whole path of the built-in system, for a crop and a large photo."""
    full_hd = folder / "photo_1080p.png"
    write_image(full_hd, _letterboxed(read_image(photo), 1920, 1080))
    photo_512 = cv2.resize(read_image(photo), (512, 512), interpolation=cv2.INTER_AREA)
    alone = measure_stages(clip, np.asarray(photo_512, np.uint8))
    alone += measure_stages(clip, read_image(full_hd))[1:]
    return alone, {
        "512x512 crop": measure_pipeline(clip, photo, folder, rounds, crop=True),
        "1920x1080 photo": measure_pipeline(clip, full_hd, folder, rounds, crop=False),
    }


def _markdown(alone: list[Alone], pipelines: dict[str, StreamStats], machine: str) -> str:
    lines = [f"Machine: {machine}.", "", "| alone | p50 ms | p95 ms |", "| --- | --- | --- |"]
    lines += [f"| {row.name} | {row.p50_ms:.1f} | {row.p95_ms:.1f} |" for row in alone]
    names = [stage.name for stage in next(iter(pipelines.values())).stages]
    lines += ["", f"| whole path, busy ms p50 / p95 | fps | {' | '.join(names)} |"]
    lines += ["| --- |" + " --- |" * (len(names) + 1)]
    for name, stats in pipelines.items():
        cells = " | ".join(f"{stage.p50_ms:.1f} / {stage.p95_ms:.1f}" for stage in stats.stages)
        lines.append(f"| {name} | {stats.fps:.0f} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("driving", nargs="?", type=Path)
    parser.add_argument("--photo", type=Path, default=assets.portrait("grace_hopper"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=300, help="of the driving, at most")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--bundle", type=Path, nargs="+", default=[], help="measure these systems")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = f"{_processor()}, {cores} cores"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        driving = options.driving
        machine += f"; driving: {driving.name if driving else 'the animated portrait'}"
        if driving is None:
            driving = folder / "own.mp4"
            with Reenactor(assets.portrait("eileen_collins")) as reenactor:
                reenactor.run_motion(load_motion("demo"), driving)
        clip = folder / "driving_720p.mp4"
        _hd_clip(driving, clip, options.frames)
        alone = [measure_network("face_landmark", 192), measure_network("iris_landmark", 64)]
        pipelines = {}
        for bundle in options.bundle:
            manifest = Bundle.open(bundle).manifest
            pipelines[f"{manifest.system}, {manifest.resolution}x{manifest.resolution}"] = measure_pipeline(
                *(clip, options.photo, folder, options.rounds),
                crop=True,
                system=manifest.system,
                bundle=bundle,
            )
        if not options.bundle:
            rows, pipelines = _built_in(clip, options.photo, folder, options.rounds)
            alone += rows
    table = _markdown(alone, pipelines, machine)
    sys.stdout.write(table)
    if options.markdown:
        options.markdown.write_text(table)
    if options.json:
        record = {"machine": machine, "alone": [asdict(row) for row in alone]}
        runs = {name: json.loads(replace(stats, output="").to_json()) for name, stats in pipelines.items()}
        options.json.write_text(json.dumps(record | {"pipelines": runs}, indent=1) + "\n")


def _processor() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
