"""A real browser with a camera that shows a film, and what tests of the page do in it."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from reenact.runtime.media.reader import VideoReader

FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
WAIT_MS = 30_000
FACE_SECONDS, EMPTY_SECONDS = 5, 3

# What the portrait shows now, SIZE x SIZE pixels, RGB in one list.
LOOK = """(size) => {
  const shown = [...document.querySelectorAll("#stream, #picture, #still")].find((element) => !element.hidden);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const pen = canvas.getContext("2d");
  if (shown) pen.drawImage(shown, 0, 0, size, size);
  const { data } = pen.getImageData(0, 0, size, size);
  return Array.from(data).filter((_, index) => index % 4 < 3);
}"""


@pytest.fixture(scope="session", autouse=True)
def chromium() -> str:
    """Where it is; all of this folder is skipped where something is missing."""
    pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
    pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    return found


@pytest.fixture(scope="session")
def camera_film(tmp_path_factory: pytest.TempPathFactory, camera_frames: list[Any]) -> Path:
    """An MJPEG file that a browser takes for its camera: somebody who moves, then an empty room, over and over."""
    clip = Path(__file__).resolve().parents[4] / "../shared/data/clips/lp_d9.mp4"
    if clip.is_file():
        with VideoReader(clip, duration=FACE_SECONDS) as reader:
            frames = [cv2.resize(frame.image, (512, 480)) for frame in reader]
    else:
        frames = [camera_frames[k // 4 % 12] for k in range(30 * FACE_SECONDS)]
    return write_film(tmp_path_factory.mktemp("camera"), frames, empty_seconds=EMPTY_SECONDS)


@pytest.fixture(scope="session")
def steady_film(tmp_path_factory: pytest.TempPathFactory, camera_frames: list[Any]) -> Path:
    """Likewise, of somebody who hardly moves and never leaves."""
    return write_film(tmp_path_factory.mktemp("camera"), camera_frames[:1] * 30, empty_seconds=0)


def write_film(folder: Path, frames: list[Any], empty_seconds: int) -> Path:
    empty = np.full_like(frames[0], 120)
    path = folder / "film.mjpeg"
    with path.open("wb") as film:
        for image in (*frames, *[empty] * (30 * empty_seconds)):
            film.write(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
    return path


@pytest.fixture(scope="module")
def launching(chromium: str, camera_film: Path) -> Iterator[Callable[..., Any]]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:

        def launch(*arguments: str, film: Path = camera_film) -> Any:
            given = [f"--use-file-for-fake-video-capture={film}", "--no-sandbox", *arguments]
            return driver.chromium.launch(executable_path=chromium, args=given, headless=True)

        yield launch


@pytest.fixture
def launch(launching: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Another browser, with these arguments, for this test."""
    with contextlib.ExitStack() as opened:

        def launch(*arguments: str, **options: Any) -> Any:
            browser = launching(*arguments, **options)
            opened.callback(browser.close)
            return browser

        yield launch


@pytest.fixture(scope="module")
def browser(launching: Callable[..., Any]) -> Iterator[Any]:
    opened = launching(*FAKE_CAMERA)
    yield opened
    opened.close()


@pytest.fixture
def visit(browser: Any, server: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page; what it complains of and which servers it asks is noted."""
    with contextlib.ExitStack() as opened:

        def visiting(where: str | None = None, using: Any = None, script: str = "", **options: Any) -> Any:
            """`script` runs before the page's own."""
            context = (using or browser).new_context(**options)
            opened.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(WAIT_MS)
            notes = SimpleNamespace(errors=[], hosts=set())
            page.on("pageerror", lambda error: notes.errors.append(str(error)))
            page.on("request", lambda asked: notes.hosts.add(asked.url.split("/")[2]))
            if script:
                page.add_init_script(script)
            page.goto(where or server.url)
            return page, notes

        yield visiting


@pytest.fixture(scope="session")
def on(web: SimpleNamespace) -> SimpleNamespace:
    """What is done on the page, and looked up there."""

    def ready(page: Any) -> None:
        page.locator('body[data-connection="open"]').wait_for()
        page.locator("#options:not([disabled])").wait_for()
        page.locator("#gallery:not([disabled])").wait_for()

    def says(page: Any, text: str) -> None:
        page.locator("#status", has_text=text).wait_for()

    def live(page: Any, size: str = "256", connection: str = "auto") -> None:
        page.select_option("#size", size)
        page.select_option("#connection", connection)
        page.click("#camera")
        says(page, "Live")

    def look(page: Any, size: int = 24) -> Any:
        """The portrait as it shows now, (size, size, 3) RGB, 0 to 255."""
        return np.array(page.evaluate(LOOK, size), float).reshape(size, size, 3)

    def unlike(page: Any, before: Any) -> float:
        """Mean difference from how it looked before, in levels."""
        return float(np.abs(look(page) - before).mean())

    def changes(page: Any, before: Any, least: float) -> None:
        web.wait_for(lambda: unlike(page, before) > least, "the portrait to change")

    def number(page: Any, selector: str) -> int:
        text = page.inner_text(selector)
        return int(text) if text.isdecimal() else 0

    def leaving(page: Any) -> list[str]:
        """Begin to leave, as a link does; what the browser asked meanwhile. It is answered with no: the page stays."""
        asked: list[str] = []

        def stay(dialog: Any) -> None:
            asked.append(dialog.type)
            dialog.dismiss()

        page.once("dialog", stay)
        page.close(run_before_unload=True)
        web.wait_for(lambda: page.wait_for_timeout(20) or asked, "the browser to ask")
        return asked

    def newest_session(running: Any) -> Any:
        """Of a server, on which pages of other tests may not have been missed yet."""
        return list(running.service.sessions._sessions.values())[-1]

    def shots(page: Any, name: str) -> None:
        """Screenshots for people, where somebody asked for them."""
        folder = os.environ.get("REENACT_SCREENSHOTS")
        if folder:
            page.wait_for_timeout(300)
            page.screenshot(path=f"{folder}/{name}.png")

    return SimpleNamespace(
        ready=ready,
        says=says,
        live=live,
        look=look,
        unlike=unlike,
        changes=changes,
        number=number,
        leaving=leaving,
        newest_session=newest_session,
        shots=shots,
        fake_camera=FAKE_CAMERA,
    )
