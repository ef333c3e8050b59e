"""Does a live session stay as it is? Memory, latency and stalls while a clip is played round and round for minutes.

`python -m reenact.benchmarks.soak [CLIP] [--minutes 30] [--size 256] [--json FILE]`. Without a clip the project films
its own moving head. Ends with 1 where memory has grown by more than 20 MB since the first minute, the 95th percentile
of latency in the last minute is over that of the second by more than 20 %, or two pictures came more than 250 ms
apart. Needs Linux, which tells how much memory a process has.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from ..runtime import assets
from ..runtime.engines import Engines
from ..runtime.live import LiveSession
from ..runtime.media.camera import CameraFeed
from ..runtime.media.frame import Frame
from ..runtime.media.inputs import FileInput
from ..runtime.media.writer import open_writer
from ..runtime.moving_head import MovingHead

__all__ = ["Minute", "faults", "main"]

MOST_GROWTH_MB = 20.0
MOST_DRIFT = 1.2
LONGEST_GAP_MS = 250.0
CLIP_SECONDS = 9.5  # one round of the moving head


@dataclass(frozen=True)
class Minute:
    """What one minute was like."""

    pictures: int
    latency_p50_ms: float
    latency_p95_ms: float
    longest_gap_ms: float  # between two pictures
    memory_mb: float  # at its end
    step: int  # of degradation, at its end
    others_percent: float  # of all cores' time: what other programs took


def faults(minutes: Sequence[Minute]) -> list[str]:
    """What is not as it should be, for people; the first minute is for warming up."""
    found = []
    if len(minutes) < 2:
        return ["two whole minutes are the least that tells anything"]
    growth = max(minute.memory_mb for minute in minutes[1:]) - minutes[0].memory_mb
    if growth > MOST_GROWTH_MB:
        found.append(f"memory has grown by {growth:.1f} MB since the first minute")
    drift = minutes[-1].latency_p95_ms / minutes[1].latency_p95_ms
    if drift > MOST_DRIFT:
        found.append(
            f"p95 of latency is {drift:.2f} times that of the second minute; other programs took "
            f"{minutes[-1].others_percent:.0f} % of the processor's time, {minutes[1].others_percent:.0f} % then"
        )
    gap = max(minute.longest_gap_ms for minute in minutes[1:])
    if gap > LONGEST_GAP_MS:
        found.append(f"two pictures came {gap:.0f} ms apart")
    return found


def _film_moving_head(engines: Engines, path: Path) -> None:
    """One round of the generated head, 640x480 at 30 frames a second."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    head = MovingHead(engines.tracker.sibling(smooth=False), clock=lambda: now[0], sleep=sleep)
    with open_writer(path, width=640, height=480, fps=Fraction(30)) as sink:
        for number in range(round(CLIP_SECONDS * 30)):
            captured = head.read()
            sink.write(Frame(captured.image, number, Fraction(1, 30)))
    head.close()


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _processor_time() -> tuple[float, float, float]:
    """Seconds of all cores since the machine started: all, busy, busy for this process."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    second = os.sysconf("SC_CLK_TCK")
    own = os.times()
    return sum(ticks) / second, (sum(ticks) - idle) / second, own.user + own.system


def _remark(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _one_minute(session: LiveSession, feed: CameraFeed, seconds: float) -> Minute:
    before = _processor_time()
    ends = time.perf_counter() + seconds
    latencies: list[float] = []
    last: float | None = None
    longest = 0.0
    number = 0
    while time.perf_counter() < ends:
        if feed.error is not None:
            raise feed.error
        picture = session.newest(number, 0.05)
        if picture is None:
            continue
        session.shown(picture)
        now = time.perf_counter()
        number = picture.number
        longest = max(longest, 0.0 if last is None else now - last)
        last = now
        latencies.append(now - picture.captured)
    if last is not None:
        longest = max(longest, time.perf_counter() - last)
    p50, p95 = 1000 * np.percentile(latencies, (50, 95)) if latencies else (np.inf, np.inf)
    whole, busy, own = (now - then for now, then in zip(_processor_time(), before, strict=True))
    return Minute(
        len(latencies),
        round(float(p50), 2),
        round(float(p95), 2),
        round(1000 * longest, 1),
        round(_memory_mb(), 1),
        session.status.step,
        round(100 * max(0.0, busy - own) / max(whole, 1e-9), 1),
    )


def run(engines: Engines, clip: Path, minutes: int, side: int, seconds: float = 60.0) -> list[Minute]:
    """Play `clip` for so many minutes into a session of `side` x `side` pixels; prints a line for each."""
    with LiveSession(engines, size=(side, side), tell=_remark) as session:
        session.set_photo(assets.portrait("grace_hopper"))
        feed = CameraFeed(partial(FileInput, clip, loop=True), session.offer, session.announce)
        done: list[Minute] = []
        try:
            while len(done) < minutes:
                done.append(_one_minute(session, feed, seconds))
                sys.stdout.write(f"minute {len(done)}: {done[-1]}\n")
                sys.stdout.flush()
        finally:
            feed.close()
        sys.stdout.write(f"dropped: {session.status.drops}\n")
    return done


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with Engines() as engines, tempfile.TemporaryDirectory() as folder:
        clip = options.clip or Path(folder) / "head.mp4"
        if options.clip is None:
            _film_moving_head(engines, clip)
        minutes = run(engines, clip, options.minutes, options.size)
    found = faults(minutes)
    if options.json:
        record = {"minutes": [asdict(minute) for minute in minutes], "faults": found}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    for fault in found:
        sys.stdout.write(f"fault: {fault}\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
