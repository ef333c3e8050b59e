"""How fast `reenact serve` is with a real browser on the same machine: pictures a second and latency, as the page says.

`python -m reenact.benchmarks.serve [--seconds N] [--json FILE] [--markdown FILE]`. Needs chromium and playwright. The
browser's camera is a generated moving head, 640x480 at 30 frames a second. Ends with exit code 1 where the mean at 256
is under GOAL_FPS; what other programs used meanwhile stands beside each figure.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ReenactError
from ..runtime.engines import Engines
from .load import OthersLoad, busy_and_idle_seconds
from .page import FAKE_CAMERA, film_camera, open_browser, run_server, wait_until_ready

__all__ = ["GOAL_FPS", "Case", "main", "table", "too_slow"]

GOAL_FPS, GOAL_SIZE = 20.0, 256
SIZES = ("256", "384", "512")
CONNECTIONS = {"auto": "WebRTC", "websocket": "WebSocket"}
CAMERA_SECONDS = 8
SETTLE_S = 4.0  # after the portrait is live, before anything is measured
PHOTO = "Grace Hopper"


@dataclass(frozen=True)
class Case:
    """One connection and one quality, measured once a second."""

    connection: str
    size: int
    fps: float  # mean
    slowest_fps: int  # of one second
    latency_ms: float  # median
    busy_percent: float  # of all cores, whoever used them
    others_cores: float  # cores that other programs kept busy
    degraded: str  # what the server had reduced at the end


def table(cases: list[Case], machine: str) -> str:
    """The results in Markdown."""
    lines = [
        f"{machine}",
        "",
        "| connection | size | pictures a second | slowest second | latency, ms | cores busy | others, cores "
        "| reduced |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {case.connection} | {case.size} | {case.fps:.1f} | {case.slowest_fps} | {case.latency_ms:.0f} "
        f"| {case.busy_percent:.0f} % | {case.others_cores:.1f} | {case.degraded or 'nothing'} |"
        for case in cases
    ]
    return "\n".join(lines) + "\n"


def too_slow(cases: list[Case]) -> list[str]:
    """The cases that miss the goal, in words; those of other sizes have none."""
    return [
        f"{case.connection} at {case.size}: {case.fps:.1f} pictures a second, under {GOAL_FPS:g}; "
        f"other programs kept {case.others_cores:.1f} cores busy meanwhile"
        for case in cases
        if case.size == GOAL_SIZE and case.fps < GOAL_FPS
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of each case")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as name:
        film = Path(name) / "camera.mjpeg"
        with Engines() as engines:
            film_camera(engines, film, seconds=CAMERA_SECONDS, empty_seconds=0)
        with run_server() as url, open_browser(film, *FAKE_CAMERA) as browser:
            cases = [
                _measure(browser, url, connection, size, options.seconds)
                for connection in CONNECTIONS
                for size in SIZES
            ]
    machine = f"{cores} cores, server and browser both on them, {options.seconds} s each."
    sys.stdout.write(table(cases, machine))
    if options.markdown:
        options.markdown.write_text(table(cases, machine))
    if options.json:
        record = {"machine": machine, "cases": [asdict(case) for case in cases]}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    missed = too_slow(cases)
    for line in missed:
        sys.stderr.write(f"{line}\n")
    sys.exit(1 if missed else 0)


@contextmanager
def _live(browser: Any, url: str, connection: str, size: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(url)
    wait_until_ready(page)
    page.locator(".tile.photo", has_text=PHOTO).click()
    page.select_option("#connection", connection)
    page.select_option("#size", size)
    page.click("#camera")
    page.locator("#status", has_text="Live").wait_for(timeout=60_000)
    time.sleep(SETTLE_S)
    yield page
    page.close(run_before_unload=True)
    context.close()
    time.sleep(1.0)


def _measure(browser: Any, url: str, connection: str, size: str, seconds: int) -> Case:
    rates, latencies = [], []
    with _live(browser, url, connection, size) as page:
        before, others = busy_and_idle_seconds(), OthersLoad()
        for _ in range(seconds):
            time.sleep(1.0)
            rate, latency = page.inner_text("#fps"), page.inner_text("#latency")
            rates += [int(rate)] if rate.isdecimal() else [0]
            latencies += [int(latency)] if latency.isdecimal() else []
        busy, idle = (after - start for after, start in zip(busy_and_idle_seconds(), before, strict=True))
        others_cores = others.cores
        degraded = page.inner_text("#degraded") if page.is_visible("#degraded") else ""
        carried = page.inner_text("#transport")
    if not latencies:
        raise ReenactError(
            f"{carried} at {size}: the page told no latency in {seconds} s; measure for longer, and see whether it "
            "shows pictures"
        )
    return Case(
        connection=carried,
        size=int(size),
        fps=statistics.mean(rates),
        slowest_fps=min(rates),
        latency_ms=statistics.median(latencies),
        busy_percent=100 * busy / max(busy + idle, 1e-9),
        others_cores=others_cores,
        degraded=degraded.partition(": ")[2].rstrip("."),
    )


if __name__ == "__main__":
    main()
