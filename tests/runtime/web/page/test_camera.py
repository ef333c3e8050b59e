"""The camera on the page: not there, not allowed, started, stopped and started again."""

import pytest

# The browser asks, and whoever sits before it takes their time: `granted()` answers the oldest question.
ASKING = """
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  window.questions = [];
  window.cameras = [];
  navigator.mediaDevices.getUserMedia = (wish) => new Promise((done, fail) => window.questions.push(async () => {
    const stream = await open(wish);
    window.cameras.push(stream);
    done(stream);
  }));
  window.granted = () => window.questions.shift()();
"""
# Whatever the server sends over the WebSocket takes 200 ms.
LONG_LINE = """
  const { set } = Object.getOwnPropertyDescriptor(WebSocket.prototype, "onmessage");
  Object.defineProperty(WebSocket.prototype, "onmessage", {
    set(listener) { set.call(this, (event) => setTimeout(() => listener(event), 200)); },
  });
"""
RUNNING = "() => cameras.map((stream) => stream.getTracks()[0].readyState)"


def test_no_camera_and_a_camera_that_is_not_allowed_are_told_apart(on, visit, launch):
    without = launch("--use-fake-ui-for-media-stream")
    page, _ = visit(using=without)
    on.ready(page)
    page.click("#camera")
    page.locator("#cover", has_text="No camera was found").wait_for()
    on.shots(page, "no_camera")
    denying = launch("--use-fake-device-for-media-stream")
    page, _ = visit(using=denying)
    on.ready(page)
    page.click("#camera")
    page.locator("#cover", has_text="The camera was not allowed").wait_for()
    assert page.get_by_role("button", name="Try again").is_visible()
    on.says(page, "The camera was not allowed")
    on.shots(page, "denied")


@pytest.mark.parametrize("connection", ["websocket", "auto"])
def test_pictures_come_each_time_the_camera_is_started(on, visit, web, monkeypatch, connection):
    """Also where some are on the way when it is stopped, and without the server's patience with who forgets them."""
    from reenact.runtime.web import websocket

    monkeypatch.setattr(websocket, "ACK_SECONDS", 3600.0)
    page, notes = visit(script=LONG_LINE)
    on.ready(page)
    for _ in range(3):
        on.live(page, connection=connection)
        page.wait_for_timeout(1500)  # the rate is told once a second, and it may be one of before
        web.wait_for(lambda: on.number(page, "#fps") >= 3, "pictures to come")
        page.click("#camera")
        on.says(page, "Ready")
    assert notes.errors == []


def test_a_camera_that_is_allowed_after_stop_is_not_used(on, visit):
    page, notes = visit(script=ASKING)
    on.ready(page)
    page.click("#camera")
    on.says(page, "Asking for the camera")
    on.shots(page, "asking")
    page.click("#camera")
    on.says(page, "Ready")
    page.evaluate("() => granted()")
    page.wait_for_timeout(500)
    assert page.evaluate(RUNNING) == ["ended"], "its light goes out"
    assert page.locator("body").get_attribute("data-camera") == "off"
    assert notes.errors == []


def test_of_two_questions_for_the_camera_only_the_last_answer_counts(on, visit):
    page, notes = visit(script=ASKING)
    on.ready(page)
    page.select_option("#size", "256")
    for _ in range(3):  # start, stop, start
        page.click("#camera")
    page.evaluate("async () => { await granted(); await granted(); }")
    on.says(page, "Live")
    assert page.evaluate(RUNNING) == ["ended", "live"]
    page.click("#camera")
    on.says(page, "Ready")
    assert page.evaluate(RUNNING) == ["ended", "ended"]
    assert notes.errors == []


def test_what_was_said_about_the_face_goes_with_the_camera(on, visit):
    page, _ = visit()
    on.ready(page)
    page.select_option("#size", "256")
    page.click("#camera")
    page.locator("#hint", has_text="No face in view").wait_for()
    on.shots(page, "no_face")
    page.click("#camera")
    page.locator("#cover", has_text="Bring this photo to life").wait_for()
    assert page.locator("#hint").is_hidden()


def test_a_camera_that_ends_by_itself_is_told_and_can_be_started_again(on, visit, web):
    page, notes = visit()
    on.ready(page)
    web.wait_for(lambda: on.look(page).std() > 15, "the photo")
    before = on.look(page)
    on.live(page)
    page.locator(".tile.photo", has_text="Grace Hopper").click()
    page.locator('.tile.photo[aria-busy="true"]').wait_for()
    page.locator('.tile.photo[aria-busy="true"]').wait_for(state="detached")
    page.evaluate(
        "() => document.querySelector('#preview').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))"
    )
    page.locator("#cover", has_text="The camera stopped").wait_for()
    on.changes(page, before, 15)  # the photo that was chosen while live
    page.get_by_role("button", name="Try again").click()
    on.says(page, "Live")
    page.click("#camera")
    on.says(page, "Ready")
    page.wait_for_timeout(1000)
    assert on.unlike(page, before) > 15, "of the photo that was chosen while live"
    assert notes.errors == []
