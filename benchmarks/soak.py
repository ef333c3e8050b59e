"""Does a live run stay as it is? Memory, latency and stalls while a clip is played round and round for minutes.

`python -m reenact.benchmarks.soak [CLIP] [--minutes 30] [--size 256] [--window] [--record FILE] [--json FILE]`. Runs
what `reenact live` runs, with a recording; in place of the window, unless it is asked for, something that shows
nothing. Without a clip the project films its own moving head. Ends with 1 where memory has grown by more than 20 MB
since the first minute, the 95th percentile of latency in the last minute is over that of the second by more than
20 %, two pictures came more than 250 ms apart, or the recording is not whole. Time in which the machine itself stood
still, so that a process that only sleeps was not woken either, is told and taken off a gap before it is judged. Needs
Linux, which tells how much memory a process has.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..runtime import assets
from ..runtime.doctor import report
from ..runtime.engines import Engines
from ..runtime.live import LiveSession, Presented
from ..runtime.live_loop import LiveLoop, LiveStats
from ..runtime.media.camera import CameraFeed
from ..runtime.media.frame import Frame, Image
from ..runtime.media.inputs import FileInput
from ..runtime.media.limits import Limits
from ..runtime.media.reader import VideoReader
from ..runtime.media.writer import open_writer
from ..runtime.moving_head import MovingHead
from ..runtime.window import PreviewWindow, Window
from .load import MachinePauses, OthersLoad

__all__ = ["Minute", "Minutes", "Soaked", "faults", "main", "markdown", "run"]

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
    longest_own_gap_ms: float  # without the time in which the machine stood still
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
    worst = max(minutes[1:], key=lambda minute: minute.longest_own_gap_ms)
    if worst.longest_own_gap_ms > LONGEST_GAP_MS:
        found.append(
            f"two pictures came {worst.longest_own_gap_ms:.0f} ms apart; other programs took "
            f"{worst.others_percent:.0f} % of the processor's time in that minute"
        )
    return found


def markdown(minutes: Sequence[Minute], machine: str) -> str:
    """A table of the first two minutes, of each fifth and of the last."""
    lines = [
        f"{machine}; {len(minutes)} minutes.",
        "",
        "| minute | pictures | latency p50, ms | p95, ms | longest gap, ms | without the machine's pauses, ms "
        "| memory, MB | others, % of the cores |",
        "| --- |" + " --- |" * 7,
    ]
    for number, minute in enumerate(minutes, 1):
        if number > 2 and number % 5 and number != len(minutes):
            continue
        lines.append(
            f"| {number} | {minute.pictures} | {minute.latency_p50_ms:.0f} | {minute.latency_p95_ms:.0f} "
            f"| {minute.longest_gap_ms:.0f} | {minute.longest_own_gap_ms:.0f} | {minute.memory_mb:.0f} "
            f"| {minute.others_percent:.0f} |"
        )
    return "\n".join([*lines, ""])


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


def _remark(line: str) -> None:
    sys.stderr.write(f"{line}\n")


class _NoScreen:
    """In place of a window: takes pictures at once, and nobody presses a key."""

    def show(self, picture: Image) -> None:
        """Nothing is seen."""

    def key(self) -> str | None:
        """None is pressed."""
        return None

    def close(self) -> None:
        """Nothing is open."""


class _Watched(LiveSession):
    """A session that notes when each picture was shown."""

    def __init__(self, engines: Engines, size: tuple[int, int]) -> None:
        super().__init__(engines, size=size, tell=_remark)
        self.seen: deque[tuple[float, float]] = deque()  # when it was shown, and its latency, in seconds

    def shown(self, picture: Presented) -> None:
        """As every session does."""
        super().shown(picture)
        now = self.clock()
        self.seen.append((now, now - picture.captured))


class Minutes:
    """Measures minute after minute. A gap counts in the minute in which it ends, or goes on, wherever it began."""

    def __init__(self, stood_still: Callable[[float, float], float]) -> None:
        """`stood_still` tells for how many seconds from one time to another the machine did."""
        self._stood_still = stood_still
        self._last: float | None = None
        self._others = OthersLoad()

    def next(self, seen: Sequence[tuple[float, float]], now: float, step: int) -> Minute:
        """The minute that ends `now`, with the pictures `seen` in it: when, and their latency, in seconds."""
        times = [*(() if self._last is None else (self._last,)), *(time for time, _ in seen)]
        self._last = times[-1] if times else None
        gaps = list(pairwise([*times, now])) if times else [(-np.inf, now)]
        latencies = [latency for _, latency in seen]
        p50, p95 = 1000 * np.percentile(latencies, (50, 95)) if latencies else (np.inf, np.inf)
        others, self._others = self._others, OthersLoad()
        return Minute(
            len(seen),
            round(float(p50), 2),
            round(float(p95), 2),
            round(1000 * max(end - begin for begin, end in gaps), 1),
            round(1000 * max(end - begin - self._stood_still(begin, end) for begin, end in gaps), 1),
            round(_memory_mb(), 1),
            step,
            round(100 * others.cores / (os.cpu_count() or 1), 1),
        )


@dataclass(frozen=True)
class Soaked:
    """What a whole run was like."""

    minutes: list[Minute]
    drops: dict[str, int]  # cause -> frames, or output -> pictures
    recording: list[str]  # what is wrong with it


def run(
    engines: Engines,
    clip: Path,
    minutes: int,
    side: int,
    record: Path,
    *,
    seconds: float = 60.0,
    window: Window | None = None,
) -> Soaked:
    """Play `clip` for so many minutes of `seconds`, `side` x `side` pixels, and record it; prints a line for each."""
    done: list[Minute] = []
    stop = threading.Event()
    with _Watched(engines, (side, side)) as session, MachinePauses() as pauses:
        loop = LiveLoop(
            session,
            lambda: CameraFeed(partial(FileInput, clip, loop=True), session.offer, session.announce),
            [assets.portrait("grace_hopper")],
            window=window or _NoScreen(),
            record=record,
        )

        def measure() -> None:
            measured = Minutes(pauses.within)
            while len(done) < minutes and not stop.wait(seconds):
                seen = [session.seen.popleft() for _ in range(len(session.seen))]
                done.append(measured.next(seen, session.clock(), session.status.step))
                sys.stdout.write(f"minute {len(done)}: {done[-1]}\n")
                sys.stdout.flush()
            stop.set()

        measuring = threading.Thread(target=measure, name="reenact-soak")
        measuring.start()
        try:
            stats = loop.run(stop=stop)
        finally:
            stop.set()
            measuring.join()
    missed = {
        "the recording" if output in stats.recordings else output: count
        for output, count in stats.outputs_dropped.items()
    }
    drops = {**stats.status.drops, **missed}
    sys.stdout.write(f"dropped: {drops}\n")
    return Soaked(done, drops, _recording_faults(stats, minutes * seconds))


def _recording_faults(stats: LiveStats, seconds: float) -> list[str]:
    """What is wrong with the recording: is it there, to its end, with its pictures?"""
    found = list(stats.faults)
    if len(stats.recordings) != 1:
        return [*found, f"recorded were {', '.join(stats.recordings) or 'no files'}; one was asked for"]
    with VideoReader(stats.recordings[0], limits=Limits(max_seconds=2 * seconds + 60)) as reader:
        frames, last = 0, 0.0
        for frame in reader:
            frames, last = frames + 1, frame.time
    if last < 0.95 * seconds - 2:
        found.append(f"the recording ends after {last:.1f} s of {seconds:.1f} s")
    if frames < 0.95 * stats.pictures:
        found.append(f"{frames} of {stats.pictures} pictures are in the recording")
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--window", action="store_true", help="show it, too")
    parser.add_argument("--record", type=Path, help="keep the recording")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    with Engines() as engines, tempfile.TemporaryDirectory() as folder:
        clip = options.clip or Path(folder) / "head.mp4"
        if options.clip is None:
            _film_moving_head(engines, clip)
        window = PreviewWindow("reenact soak", (options.size, options.size)) if options.window else None
        record = options.record or Path(folder) / "live.mp4"
        soaked = run(engines, clip, options.minutes, options.size, record, window=window)
    found = faults(soaked.minutes) + soaked.recording
    if options.markdown:
        here = report()
        options.markdown.write_text(markdown(soaked.minutes, f"{here.cpu}, {here.cores} cores"))
    if options.json:
        options.json.write_text(json.dumps({**asdict(soaked), "faults": found}, indent=1) + "\n")
    for fault in found:
        sys.stdout.write(f"fault: {fault}\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
