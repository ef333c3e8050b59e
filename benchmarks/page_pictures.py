"""Pictures of the page's main states for the documents, each a JPEG of less than 60 kB.

`python -m reenact.benchmarks.page_pictures docs/images`. Needs chromium and playwright; see `page.py`.
"""

import argparse
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import ReenactError
from ..runtime.engines import Engines
from .page import FAKE_CAMERA, film_camera, open_browser, run_server, wait_until_ready

__all__ = ["main"]

MOST_BYTES = 60_000
PHOTO = "Grace Hopper"
WIDE = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"}
SMALL = {"viewport": {"width": 960, "height": 720}, "color_scheme": "light"}
DARK = {**SMALL, "color_scheme": "dark"}
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "is_mobile": True}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        film = Path(name) / "camera.mjpeg"
        with Engines() as engines:
            film_camera(engines, film, seconds=16, empty_seconds=6)
        with run_server() as url:
            with open_browser(film, *FAKE_CAMERA) as browser:
                _with_camera(browser, url, folder)
            with open_browser(film, FAKE_CAMERA[0]) as browser:
                _without(browser, url, "not allowed", folder / "serve_denied.jpg")
            with open_browser(film, FAKE_CAMERA[1]) as browser:
                _without(browser, url, "No camera", folder / "serve_no_camera.jpg")
        with run_server("--sessions", "1") as url, open_browser(film) as browser:
            _full(browser, url, folder)


def _with_camera(browser: Any, url: str, folder: Path) -> None:
    with _page(browser, url, SMALL) as page:
        page.locator("#cover", has_text="Bring this photo").wait_for()
        _keep(page, folder / "serve_start.jpg", 480)
        page.select_option("#motion", "nod")
        page.click("#job-start")
        page.locator("#jobs button", has_text="Save").wait_for(timeout=120_000)
        page.locator("#film").scroll_into_view_if_needed()
        _keep(page.locator("#film"), folder / "serve_film.jpg", 480)
    with _page(browser, url, WIDE) as page:
        _live(page)
        page.click("#edits > summary")
        page.locator("#slider-smile").fill("0.5")
        page.evaluate("() => scrollTo(0, 0)")
        _keep(page, folder / "serve.jpg", 900)
    with _page(browser, url, PHONE) as page:
        _live(page)
        _keep(page, folder / "serve_phone.jpg", 300)
    with _page(browser, url, DARK) as page:
        _live(page)
        _keep(page, folder / "serve_dark.jpg", 480)
        page.locator("#hint", has_text="No face").wait_for(timeout=60_000)
        _keep(page, folder / "serve_no_face.jpg", 480)
        page.locator("#status", has_text="Live").wait_for(timeout=60_000)
        page.context.set_offline(True)
        page.locator("#cover", has_text="Disconnected").wait_for(timeout=60_000)
        _keep(page, folder / "serve_disconnected.jpg", 480)


def _without(browser: Any, url: str, said: str, path: Path) -> None:
    with _page(browser, url, SMALL) as page:
        page.click("#camera")
        page.locator("#cover", has_text=said).wait_for()
        _keep(page, path, 480)


def _full(browser: Any, url: str, folder: Path) -> None:
    wish = urllib.request.Request(f"{url}api/sessions", method="POST")
    urllib.request.urlopen(wish, timeout=60).close()
    page = browser.new_context(**SMALL).new_page()
    page.goto(url)
    page.locator("#cover", has_text="All places are taken").wait_for()
    _keep(page, folder / "serve_full.jpg", 480)


@contextmanager
def _page(browser: Any, url: str, options: dict[str, Any]) -> Iterator[Any]:
    context = browser.new_context(**options)
    page = context.new_page()
    page.goto(url)
    wait_until_ready(page)
    page.locator(".tile.photo", has_text=PHOTO).click()
    page.wait_for_timeout(1000)
    yield page
    page.close(run_before_unload=True)
    context.close()


def _live(page: Any) -> None:
    page.select_option("#size", "512")
    page.evaluate("() => scrollTo(0, 0)")
    page.click("#camera")
    page.locator("#status", has_text="Live").wait_for(timeout=60_000)
    page.locator("#fps", has_not_text="–").wait_for()
    page.wait_for_timeout(4000)


def _keep(shown: Any, path: Path, width: int) -> None:
    """Keep a picture of a page or a part of it, as good as MOST_BYTES allow."""
    picture = cv2.imdecode(np.frombuffer(shown.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    height = round(picture.shape[0] * width / picture.shape[1])
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    for quality in range(88, 50, -4):
        content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(content) < MOST_BYTES:
            path.write_bytes(content)
            return
    raise ReenactError(f"{path}: more than {MOST_BYTES} bytes even at low quality; make it narrower")


if __name__ == "__main__":
    main()
