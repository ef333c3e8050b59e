"""How fast `reenact serve` is with a real browser on the same machine: pictures a second and latency, as the page says.

`python -m reenact.benchmarks.serve [--seconds N] [--json FILE] [--markdown FILE] [--pictures FOLDER]`. Needs chromium
and playwright. The browser's camera is a generated moving head, 640x480 at 30 frames a second. With `--pictures`
screenshots of the page are kept, too.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from ..runtime.engines import Engines
from ..runtime.media.frame import Image
from ..runtime.moving_head import MovingHead

__all__ = ["Case", "film_camera", "main", "table"]

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
    degraded: str  # what the server had reduced at the end


def film_camera(engines: Engines, path: Path) -> None:
    """An MJPEG file that a browser takes for its camera."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    head = MovingHead(engines.tracker.sibling(smooth=False), clock=lambda: now[0], sleep=sleep)
    with path.open("wb") as film:
        for _ in range(CAMERA_SECONDS * 30):
            film.write(_jpeg(head.read().image))
    head.close()


def table(cases: list[Case], machine: str) -> str:
    """The results in Markdown."""
    lines = [
        f"{machine}",
        "",
        "| connection | size | pictures a second | slowest second | latency, ms | cores busy | reduced |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {case.connection} | {case.size} | {case.fps:.1f} | {case.slowest_fps} | {case.latency_ms:.0f} "
        f"| {case.busy_percent:.0f} % | {case.degraded or 'nothing'} |"
        for case in cases
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of each case")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with tempfile.TemporaryDirectory() as name:
        film = Path(name) / "camera.mjpeg"
        with Engines() as engines:
            film_camera(engines, film)
        load = os.getloadavg()[0]
        with _server() as url, _browser(film) as browser:
            cases = [
                _measure(browser, url, connection, size, options.seconds)
                for connection in CONNECTIONS
                for size in SIZES
            ]
            if options.pictures:
                _take_pictures(browser, url, options.pictures)
    machine = (
        f"{cores} cores, server and browser both on them; load average {load:.1f} before the first case, "
        f"{options.seconds} s each."
    )
    sys.stdout.write(table(cases, machine))
    if options.markdown:
        options.markdown.write_text(table(cases, machine))
    if options.json:
        record = {"machine": machine, "cases": [asdict(case) for case in cases]}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


@contextmanager
def _server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", __package__.partition(".")[0], "serve", "--port", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def _browser(film: Path) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    arguments = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
        "--no-sandbox",
    ]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield browser
        browser.close()


@contextmanager
def _live(browser: Any, url: str, connection: str, size: str, **options: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    page = context.new_page()
    page.goto(url)
    page.locator("#gallery:not([disabled])").wait_for()
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
        before = _busy()
        for _ in range(seconds):
            time.sleep(1.0)
            rate, latency = page.inner_text("#fps"), page.inner_text("#latency")
            rates += [int(rate)] if rate.isdecimal() else [0]
            latencies += [int(latency)] if latency.isdecimal() else []
        busy, idle = (after - start for after, start in zip(_busy(), before, strict=True))
        degraded = page.inner_text("#degraded") if page.is_visible("#degraded") else ""
        carried = page.inner_text("#transport")
    return Case(
        connection=carried,
        size=int(size),
        fps=statistics.mean(rates),
        slowest_fps=min(rates),
        latency_ms=statistics.median(latencies or [0]),
        busy_percent=100 * busy / max(busy + idle, 1e-9),
        degraded=degraded.partition(": ")[2].rstrip("."),
    )


def _busy() -> tuple[float, float]:
    """Busy and idle time of all cores since the machine started."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    return float(sum(ticks) - idle), float(idle)


def _take_pictures(browser: Any, url: str, folder: Path) -> None:
    """The main states, each as a small JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in (
        ("serve", {"color_scheme": "light"}),
        ("serve_dark", {"color_scheme": "dark"}),
    ):
        with _live(browser, url, "auto", "512", **options) as page:
            if name == "serve":
                page.click("summary")
                page.locator("#slider-brow_up").fill("0.5")
                page.evaluate("() => scrollTo(0, 0)")
                time.sleep(1.0)
            _keep(page, folder / f"{name}.jpg", 960)
            if name == "serve_dark":
                page.set_viewport_size({"width": 390, "height": 844})
                time.sleep(1.0)
                _keep(page, folder / "serve_phone.jpg", 300)


def _keep(page: Any, path: Path, width: int) -> None:
    picture = page.screenshot(path=path.with_suffix(".png")) and cv2.imread(str(path.with_suffix(".png")))
    path.with_suffix(".png").unlink()
    assert picture is not None
    height = round(picture.shape[0] * width / picture.shape[1])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), small, [cv2.IMWRITE_JPEG_QUALITY, 82])


def _jpeg(image: Image) -> bytes:
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())


if __name__ == "__main__":
    main()
