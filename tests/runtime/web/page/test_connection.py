"""What the page says and does while the server is full, gone, silent or does not let it in."""

import json

import numpy as np
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
        assert page.locator(".tile.photo").count() == 2
        assert page.locator("#jobs li").count() == 0
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
    page.get_by_role("link", name="HTTP API").click()
    page.wait_for_url("**/api/openapi.json")
