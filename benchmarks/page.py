"""The page of `reenact serve` in a real browser, for measuring and for pictures: server, camera film, browser.

Needs chromium and playwright. The camera shows a packaged portrait that moves, and then, where asked, an empty room.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import ReenactError
from ..runtime.engines import Engines
from ..runtime.media.frame import Image
from ..runtime.moving_head import MovingHead

__all__ = ["FAKE_CAMERA", "film_camera", "open_browser", "run_server", "wait_until_ready"]

FPS = 30
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def film_camera(engines: Engines, path: Path, *, seconds: int, empty_seconds: int) -> None:
    """Write an MJPEG file that a browser takes for its camera: a moving head, 640x480, then nobody."""
    now = [0.0]

    def sleep(duration: float) -> None:
        now[0] += duration

    head = MovingHead(engines.tracker.sibling(smooth=False), clock=lambda: now[0], sleep=sleep)
    with path.open("wb") as film:
        for _ in range(seconds * FPS):
            image = head.read().image
            film.write(_jpeg(image))
        film.write(_jpeg(np.full_like(image, 120)) * (empty_seconds * FPS))
    head.close()


@contextmanager
def run_server(*arguments: str) -> Iterator[str]:
    """`reenact serve` in a process of its own; gives its address. ReenactError where it does not start."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", __package__.partition(".")[0], "serve", "--port", str(port), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise ReenactError("the server did not start; what it said about that stands above")
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def open_browser(film: Path, *flags: str) -> Iterator[Any]:
    """Chromium, headless; FAKE_CAMERA as flags gives it `film` as its camera, and leave to use it."""
    from playwright.sync_api import sync_playwright

    arguments = [*flags, f"--use-file-for-fake-video-capture={film}", "--no-sandbox"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        yield browser
        browser.close()


def wait_until_ready(page: Any) -> None:
    """Until photos and settings are there."""
    page.locator("#gallery:not([disabled])").wait_for(timeout=60_000)


def _jpeg(image: Image) -> bytes:
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
