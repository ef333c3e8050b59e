"""The page in a real browser with a camera that shows a film: what it does and what it says in every state."""

import contextlib
import itertools
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from reenact.runtime.media.images import write_image
from reenact.runtime.media.reader import VideoReader
from reenact.runtime.provenance import verify

ice = pytest.importorskip("aioice.ice", reason="the server needs the extra [web], which is not installed")
pytest.importorskip("aiortc", reason="the server needs the extra [web], which is not installed")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright, which drives the browser, is not installed"
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: apt-get install chromium")

FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
WAIT_MS = 30_000
FACE_SECONDS, EMPTY_SECONDS = 5, 3

# What the portrait shows now, 24x24 pixels in grey.
LOOK = """() => {
  const shown = [...document.querySelectorAll("#stream, #picture, #still")].find((element) => !element.hidden);
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 24;
  const pen = canvas.getContext("2d");
  pen.drawImage(shown, 0, 0, 24, 24);
  const { data } = pen.getImageData(0, 0, 24, 24);
  return Array.from({ length: 576 }, (_, k) => (data[4 * k] + data[4 * k + 1] + data[4 * k + 2]) / 3);
}"""


@pytest.fixture(scope="module")
def camera_film(tmp_path_factory, request, camera_frames):
    """An MJPEG file that a browser takes for its camera: somebody who moves, then an empty room, over and over."""
    clip = Path(__file__).resolve().parents[3] / "../shared/data/clips/lp_d9.mp4"
    if clip.is_file():
        with VideoReader(clip, duration=FACE_SECONDS) as reader:
            frames = [cv2.resize(frame.image, (512, 480)) for frame in reader]
    else:
        frames = [camera_frames[k // 4 % 12] for k in range(30 * FACE_SECONDS)]
    empty = np.full_like(frames[0], 120)
    path = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    with path.open("wb") as film:
        for image in (*frames, *[empty] * (30 * EMPTY_SECONDS)):
            film.write(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes())
    return path


@pytest.fixture(scope="module")
def driver():
    with playwright.sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def launching(driver, camera_film):
    def launch(*arguments):
        given = [f"--use-file-for-fake-video-capture={camera_film}", "--no-sandbox", *arguments]
        return driver.chromium.launch(executable_path=CHROMIUM, args=given, headless=True)

    return launch


@pytest.fixture
def launch(launching):
    """Another browser, with these arguments, for this test."""
    with contextlib.ExitStack() as opened:

        def launch(*arguments):
            browser = launching(*arguments)
            opened.callback(browser.close)
            return browser

        yield launch


@pytest.fixture(scope="module")
def browser(launching):
    opened = launching(*FAKE_CAMERA)
    yield opened
    opened.close()


@pytest.fixture
def visit(browser, server):
    """Opens the page; what it complains of and which servers it asks is noted."""
    with contextlib.ExitStack() as opened:

        def visiting(where=None, using=None, **options):
            context = (using or browser).new_context(**options)
            opened.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(WAIT_MS)
            notes = SimpleNamespace(errors=[], hosts=set())
            page.on("pageerror", lambda error: notes.errors.append(str(error)))
            page.on("request", lambda asked: notes.hosts.add(asked.url.split("/")[2]))
            page.goto(where or server.url)
            return page, notes

        yield visiting


def ready(page):
    page.locator('body[data-connection="open"]').wait_for()
    page.locator("#options:not([disabled])").wait_for()
    page.locator("#gallery:not([disabled])").wait_for()


def says(page, text):
    page.locator("#status", has_text=text).wait_for()


def live(page, size="256", connection="auto"):
    page.select_option("#size", size)
    page.select_option("#connection", connection)
    page.click("#camera")
    says(page, "Live")


def look(page):
    return np.array(page.evaluate(LOOK))


def changes(page, before, least, web):
    """Wait until the portrait looks otherwise."""
    return web.wait_for(lambda: np.abs(look(page) - before).mean() > least, "the portrait to change")


def shots(page, name):
    """Screenshots for people, where somebody asked for them."""
    import os

    folder = os.environ.get("REENACT_SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png")


def test_a_whole_visit(visit, server, client, web, tmp_path, hopper, record_property):
    """Camera, upload, another photo, a slider, a recording, a face lost and found, a reload; nothing stays."""
    page, notes = visit(accept_downloads=True)
    ready(page)
    live(page)
    assert page.inner_text("#transport") in ("WebRTC", "–")

    photo = tmp_path / "mine.png"
    write_image(photo, np.ascontiguousarray(hopper[:, ::-1]), mark=False)
    before = look(page)
    page.set_input_files("#upload", photo)
    page.locator(".tile.photo input:checked ~ .name", has_text="mine.png").wait_for()
    changes(page, before, 15, web)

    looks = []
    for _ in range(30):
        looks.append(look(page))
        time.sleep(0.03)
    moved = [np.abs(b - a).mean() for a, b in itertools.pairwise(looks)]
    assert sum(change > 0 for change in moved) > 10, "the portrait moves"
    fps = web.wait_for(lambda: number(page, "#fps"), "the rate to be told")
    record_property("fps", fps)
    assert fps >= 5, "on a machine with nothing else to do it is 20 and more, see docs/serve.md"
    assert 0 < number(page, "#latency") < 2000

    before = look(page)
    page.locator(".tile.photo", has_text="Eileen Collins").click()
    changes(page, before, 15, web)

    page.click("summary")
    before = look(page)
    page.locator("#slider-yaw").fill("25")
    changes(page, before, 4, web)
    assert page.inner_text("#edited") == "1 on"
    page.click("#edits-reset")
    assert page.locator("#slider-yaw").input_value() == "0"

    page.click("#record")
    page.locator("#record[aria-pressed=true]").wait_for()
    time.sleep(1.5)
    with page.expect_download() as download:
        page.click("#record")
    recorded = tmp_path / "recorded.mp4"
    download.value.save_as(recorded)
    with VideoReader(recorded) as reader:
        frames = sum(1 for _ in reader)
        assert (reader.info.width, reader.info.height) == (256, 256)
        assert reader.info.duration > 1  # type: ignore[operator]
    assert frames > 5
    assert verify(recorded).marked

    says(page, "No face")
    page.locator("#hint", has_text="No face in view").wait_for()
    assert look(page).std() > 15, "the portrait stays; the empty room is never shown"
    says(page, "Live")

    with page.expect_download() as download:
        page.click("#snapshot")
    snapshot = tmp_path / "snapshot.png"
    download.value.save_as(snapshot)
    assert verify(snapshot).statement is not None

    sessions = set(server.service.sessions._sessions)
    page.reload()
    ready(page)
    web.wait_for(
        lambda: not sessions & set(server.service.sessions._sessions), "the session of before to end"
    )
    assert notes.errors == []
    assert notes.hosts == {f"127.0.0.1:{server.port}"}, "nothing comes from anywhere else"
    page.close(run_before_unload=True)
    web.wait_for(lambda: len(server.service.sessions) == 0, "the last session to end")


def number(page, selector):
    text = page.inner_text(selector)
    return int(text) if text.isdecimal() else 0


def test_where_udp_is_blocked_the_websocket_carries_the_pictures(visit, server, web, monkeypatch):
    """No packet gets through to the server's media sockets, as behind a strict firewall."""
    monkeypatch.setattr(ice.StunProtocol, "datagram_received", lambda *packet: None)
    page, notes = visit()
    ready(page)
    live(page)
    page.locator("#transport", has_text="WebSocket").wait_for()
    before = look(page)
    page.locator(".tile.photo", has_text="Grace Hopper").click()
    changes(page, before, 15, web)
    assert web.wait_for(lambda: number(page, "#fps"), "the rate") >= 5
    shots(page, "websocket")
    assert notes.errors == []


def test_before_the_camera_edits_show_on_the_standing_portrait(visit, web):
    page, notes = visit()
    ready(page)
    page.locator("#cover", has_text="Bring this photo to life").wait_for()
    shots(page, "idle")
    web.wait_for(lambda: look(page).std() > 15, "the portrait")
    before = look(page)
    page.click("summary")
    page.locator("#slider-yaw").fill("25")
    changes(page, before, 4, web)
    before = look(page)
    page.select_option("#whole", "whole")
    changes(page, before, 4, web)
    assert notes.errors == []


def test_a_photo_without_a_face_is_refused_in_words_and_the_old_one_stays(visit, tmp_path):
    page, notes = visit()
    ready(page)
    blank = tmp_path / "blank.png"
    write_image(blank, np.full((200, 200, 3), 128, np.uint8), mark=False)
    page.set_input_files("#upload", blank)
    page.locator("#alert", has_text="blank.png: No face found").wait_for()
    shots(page, "refused")
    assert page.locator(".tile.photo").count() == 2
    assert page.locator(".tile.photo input:checked").get_attribute("value") == "eileen-collins"
    assert notes.errors == []


def test_photos_can_be_dropped(visit, tmp_path, hopper_jpeg):
    page, notes = visit()
    ready(page)
    page.evaluate(
        """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", { type: "image/jpeg" }));
          const over = (kind) => document.body.dispatchEvent(
            new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
          over("dragenter"); over("dragover"); over("drop");
        }""",
        list(hopper_jpeg),
    )
    page.locator(".tile.photo input:checked ~ .name", has_text="dropped.jpg").wait_for()
    assert page.locator("#drop").is_hidden()
    page.get_by_role("button", name="Remove dropped.jpg").click()
    page.locator(".tile.photo", has_text="dropped.jpg").wait_for(state="detached")
    assert page.locator(".tile.photo input:checked").get_attribute("value") == "eileen-collins"
    assert notes.errors == []


def test_a_film_is_made_with_progress_and_saved(visit, tmp_path):
    page, notes = visit(accept_downloads=True)
    ready(page)
    page.select_option("#motion", "blink")
    page.click("#job-start")
    page.locator("#jobs progress[value]").first.wait_for()
    shots(page, "film")
    with page.expect_download() as download:
        page.locator("#jobs button", has_text="Save").click(timeout=60_000)
    film = tmp_path / "film.mp4"
    download.value.save_as(film)
    assert verify(film).statement is not None
    assert notes.errors == []


def test_no_camera_and_a_camera_that_is_not_allowed_are_told_apart(visit, launch):
    without = launch("--use-fake-ui-for-media-stream")
    page, _ = visit(using=without)
    ready(page)
    page.click("#camera")
    page.locator("#cover", has_text="No camera was found").wait_for()
    shots(page, "no_camera")
    denying = launch("--use-fake-device-for-media-stream")
    page, _ = visit(using=denying)
    ready(page)
    page.click("#camera")
    page.locator("#cover", has_text="The camera was not allowed").wait_for()
    assert page.get_by_role("button", name="Try again").is_visible()
    says(page, "The camera was not allowed")
    shots(page, "denied")


def test_who_finds_all_places_taken_waits_and_gets_in_when_one_is_free(serve, visit, web):
    with serve(sessions=1) as running, running.client() as client:
        taken = web.open_session(client)
        page, _ = visit(running.url)
        says(page, "All places taken")
        page.locator("#cover", has_text="Trying again").wait_for()
        shots(page, "busy")
        client.delete(taken)
        ready(page)


def test_a_broken_connection_is_told_and_taken_up_again(serve, visit, web):
    with serve(reconnect_seconds=0.3) as running:
        page, _ = visit(running.url)
        ready(page)
        page.locator(".tile.photo", has_text="Grace Hopper").click()
        page.route("**/api/**", lambda route: route.abort())
        for session in list(running.service.sessions._sessions.values()):
            running.run(running.service.sessions.close(session))
        says(page, "Disconnected")
        shots(page, "disconnected")
        page.unroute("**/api/**")
        ready(page)
        page.locator('.tile.photo input[value="grace-hopper"]:checked').wait_for(state="attached")


def test_a_line_that_falls_silent_counts_as_broken(serve, visit):
    with serve() as running:
        page, _ = visit(running.url)
        ready(page)
        page.context.set_offline(True)
        says(page, "Disconnected")
        page.context.set_offline(False)
        says(page, "Ready")


def test_a_token_is_taken_from_the_address_and_hidden(serve, visit):
    token = "a-token-of-sufficient-length"
    with serve({"token": token}) as running:
        page, _ = visit(running.url)
        page.locator("#cover", has_text="does not let you in").wait_for()
        page, notes = visit(f"{running.url}/#token={token}")
        ready(page)
        assert token not in page.url
        page.reload()
        ready(page)
        assert notes.errors == []


def test_the_keyboard_reaches_and_moves_everything(visit, web):
    page, _ = visit()
    ready(page)
    focused = (
        "() => document.activeElement.id || document.activeElement.value || document.activeElement.className"
    )
    order = []
    for _ in range(14):
        page.keyboard.press("Tab")
        order.append(page.evaluate(focused))
    assert order[:5] == ["skip", "theme", "badge", "cover-action", "camera"]
    assert (
        order.index("eileen-collins") < order.index("upload") < order.index("system") < order.index("mirror")
    )

    page.focus("#badge")
    place = page.locator("#badge").bounding_box()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    moved = page.locator("#badge").bounding_box()
    assert moved["x"] > place["x"]
    assert moved["y"] > place["y"]
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    screen, badge = page.locator("#screen").bounding_box(), page.locator("#badge").bounding_box()
    assert badge["x"] + badge["width"] <= screen["x"] + screen["width"] + 0.5, "it stays on the picture"
    page.reload()
    ready(page)
    assert page.locator("#badge").bounding_box() == badge, "it stays where it was put"

    page.focus('.tile.photo input[value="eileen-collins"]')
    page.keyboard.press("ArrowRight")
    page.locator('.tile.photo input[value="grace-hopper"]:checked').wait_for(state="attached")
    page.focus("#slider-pose_strength")
    page.keyboard.press("ArrowRight")
    assert page.locator("#slider-pose_strength").get_attribute("aria-valuetext") == "1.05×"


def test_everything_has_a_name_for_screen_readers(visit):
    page, _ = visit()
    ready(page)
    page.click("summary")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, a, summary")]
          .filter((element) => element.checkVisibility())
          .filter((element) => !(element.getAttribute("aria-label") || element.textContent.trim()
            || [...(element.labels ?? [])].some((label) => label.textContent.trim())))
          .map((element) => element.outerHTML)"""
    )
    assert nameless == []
    tree = page.locator("body").aria_snapshot()
    for named in (
        'heading "reenact"',
        "status: Ready",
        'radio "Eileen Collins" [checked]',
        'slider "Movement"',
        'button "AI-generated. Drag it, or move it with the arrow keys."',
        'combobox "Quality"',
    ):
        assert named in tree, tree


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_phone_shows_it_all_without_scrolling_sideways(visit, colours):
    page, _ = visit(
        viewport={"width": 360, "height": 740}, color_scheme=colours, is_mobile=True, has_touch=True
    )
    ready(page)
    page.click("summary")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(ground.replace("rgb(", "[").replace(")", "]"))) > 384) == (colours == "light")
    shots(page, f"phone_{colours}")


def test_colours_can_be_chosen_and_are_remembered(visit):
    page, _ = visit(color_scheme="light")
    ready(page)
    page.click("#theme")
    page.click("#theme")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
