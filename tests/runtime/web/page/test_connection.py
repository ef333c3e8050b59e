"""What the page says and does while the server is full, gone, silent or does not let it in."""

import json

import numpy as np
import pytest
from reenact.runtime.media.images import write_image


def test_who_finds_all_places_taken_waits_and_gets_in_when_one_is_free(on, serve, visit, web):
    with serve(sessions=1) as running, running.client() as client:
        taken = web.open_session(client)
        page, _ = visit(running.url)
        on.says(page, "All places taken")
        page.locator("#cover", has_text="Trying again").wait_for()
        assert page.locator("#still").is_hidden(), "no broken picture"
        on.shots(page, "busy")
        client.delete(taken)
        on.ready(page)


def test_a_broken_connection_is_told_and_taken_up_again(on, serve, visit, web):
    with serve(reconnect_seconds=0.3) as running:
        page, _ = visit(running.url)
        on.ready(page)
        page.locator(".tile.photo", has_text="Grace Hopper").click()
        page.route("**/api/**", lambda route: route.abort())
        for session in list(running.service.sessions._sessions.values()):
            running.run(running.service.sessions.close(session))
        on.says(page, "Disconnected")
        on.shots(page, "disconnected")
        page.unroute("**/api/**")
        on.ready(page)
        page.locator('.tile.photo input[value="grace-hopper"]:checked').wait_for(state="attached")


def test_a_line_that_falls_silent_counts_as_broken(on, serve, visit):
    with serve() as running:
        page, _ = visit(running.url)
        on.ready(page)
        page.context.set_offline(True)
        on.says(page, "Disconnected")
        page.context.set_offline(False)
        on.says(page, "Ready")


def test_a_token_is_taken_from_the_address_and_hidden(on, serve, visit):
    token = "a-token-of-sufficient-length"
    with serve({"token": token}) as running:
        page, _ = visit(running.url)
        page.locator("#cover", has_text="does not let you in").wait_for()
        page, notes = visit(f"{running.url}/#token={token}")
        on.ready(page)
        assert token not in page.url
        page.reload()
        on.ready(page)
        assert notes.errors == []


def test_the_printed_address_can_be_pasted_into_the_open_page(on, serve, visit):
    """Only what follows the # differs, so the browser loads nothing."""
    token = "a-token-of-sufficient-length"
    with serve({"token": token}) as running:
        page, notes = visit(running.url)
        page.locator("#cover", has_text="does not let you in").wait_for()
        page.goto(f"{running.url}/#token={token}")
        on.ready(page)
        assert token not in page.url
        assert notes.errors == []


def test_a_browser_that_keeps_nothing_for_pages_shows_it_all_the_same(on, serve, visit):
    blocked = """
      for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, {
        get() { throw new DOMException("Access is denied for this document.", "SecurityError"); },
      });
    """
    token = "a-token-of-sufficient-length"
    with serve({"token": token}) as running:
        page, notes = visit(f"{running.url}/#token={token}", script=blocked)
        on.ready(page)
        assert token not in page.url
        page.click("#theme")
        assert page.locator("html").get_attribute("data-theme") == "light"
        assert notes.errors == []


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 502, "content_type": "text/html", "body": "<h1>Bad gateway</h1>"},
        {"status": 500, "json": {"code": "fault", "message": "Something failed in the server."}},
        {"status": 201, "content_type": "application/json", "body": '{"id": "cut sho'},
    ],
    ids=["proxy", "fault", "cut short"],
)
def test_a_server_that_fails_for_a_while_is_asked_again(on, visit, server, answer):
    page, notes = visit("about:blank")
    asked = []

    def fail(route):
        asked.append(route.request.method)
        if len(asked) < 3:
            route.fulfill(**answer)
        else:
            route.continue_()

    page.route("**/api/sessions", fail)
    page.goto(server.url)
    page.locator("#cover", has_text="Trying again").wait_for()
    assert page.inner_text("#status") == "Disconnected"
    on.ready(page)
    assert asked == ["POST"] * 3
    assert notes.errors == []


def test_who_is_asked_to_wait_is_told_so_and_gets_in(on, visit, server):
    page, _ = visit("about:blank")
    problem = {"code": "too_many_requests", "message": "Too many new sessions; wait a moment."}
    page.route(
        "**/api/sessions",
        lambda route: route.fulfill(status=429, json=problem, headers={"Retry-After": "1"}),
        times=2,
    )
    page.goto(server.url)
    page.locator("#cover", has_text="The server asks to wait").wait_for()
    text = "Too many new sessions; wait a moment. Trying again in 1 second."
    assert page.inner_text("#cover-text") == text
    assert page.inner_text("#status") == "Asked to wait"
    on.ready(page)


def test_who_is_refused_can_try_again_and_the_camera_is_off_meanwhile(on, serve, visit):
    with serve() as running:
        page, notes = visit(running.url)
        on.ready(page)
        on.live(page, connection="websocket")
        refusal = {"code": "wrong_host", "message": "This server does not answer to that name."}
        page.route("**/api/sessions**", lambda route: route.fulfill(status=421, json=refusal))
        [session] = running.service.sessions._sessions.values()
        running.run(running.service.sessions.close(session))
        page.locator("#cover", has_text="does not let you in").wait_for()
        assert page.locator("body").get_attribute("data-camera") == "off"
        page.unroute("**/api/sessions**")
        page.get_by_role("button", name="Try again").click()
        on.ready(page)
        assert notes.errors == []


def test_a_line_that_the_browser_does_not_open_is_told_and_leaves_no_session(on, serve, visit, web):
    """No subprotocol may hold a space, which a header may."""
    with serve() as running:
        page, notes = visit(f"{running.url}/#token=two words")
        page.locator("#cover", has_text="The browser opens no line to the server.").wait_for()
        on.says(page, "Refused")
        web.wait_for(lambda: len(running.service.sessions) == 0, "the session to end")
        assert page.locator("#alert").is_hidden()
        assert notes.errors == []


def test_who_goes_on_after_a_pause_gets_one_session_however_long_it_takes(on, serve, visit, web):
    with serve(unused_seconds=0.5) as running:
        page, notes = visit("about:blank")
        asked, held = [], []
        page.on("request", lambda request: asked.append((request.method, request.url.split("/api/")[-1])))
        page.clock.install()
        page.goto(running.url)
        on.says(page, "Paused")
        page.route("**/api/sessions", lambda route: held.append(route))
        asked.clear()
        page.get_by_role("button", name="Continue").click()
        web.wait_for(lambda: page.wait_for_timeout(20) or held, "a session to be asked for")
        page.clock.run_for(7000)  # longer than a line may be silent
        page.wait_for_timeout(300)
        page.clock.run_for(1000)
        page.wait_for_timeout(300)
        assert [(method, path) for method, path in asked if method == "POST"] == [("POST", "sessions")]
        assert not [path for _, path in asked if "null" in path]
        held[0].continue_()
        page.locator('body[data-connection="open"]').wait_for()
        assert notes.errors == []


def test_what_went_with_the_place_is_told(on, serve, visit, web, tmp_path, hopper):
    photo = tmp_path / "mine.png"
    write_image(photo, np.ascontiguousarray(hopper[:, ::-1]), mark=False)
    with serve() as running:
        page, notes = visit(running.url)
        on.ready(page)
        page.set_input_files("#upload", photo)
        page.locator(".tile.photo input:checked ~ .name", has_text="mine.png").wait_for()
        page.select_option("#motion", "blink")
        page.click("#job-start")
        page.locator("#jobs button", has_text="Save").wait_for(timeout=60_000)
        [session] = running.service.sessions._sessions.values()
        running.run(running.service.sessions.close(session))
        page.locator("#alert", has_text="was deleted: 1 photo and 1 film.").wait_for()
        on.shots(page, "lost")
        on.ready(page)
        web.wait_for(lambda: page.locator(".tile.photo").count() == 2, "the photos of the new place")
        assert page.locator("#jobs li").count() == 0
        assert notes.errors == []


def test_settings_that_did_not_get_through_are_not_shown_after_the_connection_is_back(on, visit):
    noted = """
      window.WebSocket = class extends WebSocket {
        constructor(...given) { super(...given); window.line = this; }
      };
    """
    page, notes = visit(script=noted)
    on.ready(page)
    page.route("**/api/**", lambda route: route.abort())
    page.evaluate("() => line.close()")
    on.says(page, "Disconnected")
    page.locator("#slider-smoothing").fill("2")
    page.locator("#alert", has_text="The server cannot be reached.").wait_for()
    page.unroute("**/api/**")
    on.ready(page)
    page.wait_for_function("() => document.querySelector('#slider-smoothing').value === '1'")
    assert page.locator("#slider-smoothing").get_attribute("aria-valuetext") == "1.00×"
    assert notes.errors == []


def test_a_session_that_refuses_the_settings_gets_photos_and_camera_all_the_same(
    on, serve, visit, tmp_path, hopper_jpeg
):
    photo = tmp_path / "mine.jpg"
    photo.write_bytes(hopper_jpeg)
    with serve() as running:
        page, notes = visit(running.url)
        on.ready(page)
        page.set_input_files("#upload", photo)
        page.locator(".tile.photo input:checked ~ .name", has_text="mine.jpg").wait_for()
        on.live(page, connection="websocket")
        page.locator("#slider-smoothing").fill("2")
        page.wait_for_timeout(500)
        problem = {"code": "not_possible", "message": "These settings cannot be had."}
        page.route("**/live", lambda route: route.fulfill(status=409, json=problem), times=1)
        [session] = running.service.sessions._sessions.values()
        running.run(running.service.sessions.close(session))
        page.locator("#alert", has_text="These settings cannot be had.").wait_for()
        page.locator("#alert", has_text="was deleted: 1 photo.").wait_for()
        page.locator(".tile.photo .remove").wait_for(state="detached")
        page.wait_for_function("() => document.querySelector('#slider-smoothing').value === '1'")
        on.says(page, "Live")
        page.click("#camera")
        on.says(page, "Ready")
        assert notes.errors == []


def test_the_description_of_the_api_can_be_had_with_a_token(on, serve, visit, tmp_path):
    token = "a-token-of-sufficient-length"
    with serve({"token": token}) as running:
        page, _ = visit(f"{running.url}/#token={token}", accept_downloads=True)
        on.ready(page)
        with page.expect_download() as download:
            page.get_by_role("link", name="HTTP API").click()
        file = tmp_path / "api.json"
        download.value.save_as(file)
        assert json.loads(file.read_text())["openapi"].startswith("3")


def test_without_a_token_the_link_to_the_api_is_a_link(on, visit):
    page, _ = visit()
    on.ready(page)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="HTTP API").click()
    opened.value.wait_for_url("**/api/openapi.json")
    assert page.locator('body[data-connection="open"]').is_visible(), "the page stays"
