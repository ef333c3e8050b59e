"""Recordings on the page: ended by hand, by the server, and kept in mind until they are saved."""

import re

from reenact.runtime.media.reader import VideoReader


def recording(on, page):
    on.ready(page)
    on.live(page)
    page.click("#record")
    page.locator("#record[data-state=recording]").wait_for()


def length(download, folder):
    path = folder / "saved.mp4"
    download.save_as(path)
    with VideoReader(path) as reader:
        return reader.info.duration


def test_what_was_saved_is_said_for_a_while(on, visit):
    page, notes = visit(accept_downloads=True)
    recording(on, page)
    page.wait_for_timeout(1500)
    with page.expect_download():
        page.click("#record")
    page.locator("#told", has_text="Saved a recording of").wait_for()
    page.wait_for_timeout(1500)  # in which the status changes
    assert page.locator("#told", has_text="Saved a recording of").is_visible()
    on.shots(page, "saved")
    assert notes.errors == []


def test_a_recording_that_reaches_the_longest_time_is_saved_and_that_is_told(serve, on, visit, tmp_path):
    with serve(recording_seconds=1.0) as running:
        page, notes = visit(running.url, accept_downloads=True)
        with page.expect_download() as download:
            recording(on, page)
        assert 0.5 < length(download.value, tmp_path) <= 1.1
        page.locator("#alert", has_text="The recording ended by itself after 1 second.").wait_for()
        assert page.inner_text("#record") == "Record"
        assert notes.errors == []


def test_a_recording_that_cannot_be_fetched_is_not_forgotten(on, visit, server, web, tmp_path):
    page, notes = visit(accept_downloads=True)
    recording(on, page)
    page.wait_for_timeout(1000)
    page.route("**/recordings/*/file", lambda route: route.abort())
    page.click("#record")
    page.locator("#alert", has_text="The recording is not saved yet.").wait_for()
    page.locator("#record", has_text="Save again").wait_for()
    page.unroute("**/recordings/*/file")
    with page.expect_download() as download:
        page.click("#record")
    assert length(download.value, tmp_path) > 0.5
    page.locator("#record", has_text="Record").wait_for()
    session = on.newest_session(server)
    web.wait_for(lambda: not session.recordings._recordings, "the server to delete it")
    assert notes.errors == []


def test_the_button_that_ends_a_recording_keeps_its_name_while_the_time_runs(on, visit):
    page, _ = visit()
    recording(on, page)
    names = page.evaluate(
        """async () => {
          const names = new Set();
          const button = document.querySelector("#record");
          const until = performance.now() + 1800;
          while (performance.now() < until) {
            const heard = [...button.childNodes].filter((node) => node.ariaHidden !== "true");
            names.add(`${button.ariaLabel}: ${heard.map((node) => node.textContent).join("")}`);
            await new Promise((done) => setTimeout(done, 50));
          }
          return [...names];
        }"""
    )
    assert names == ["Stop recording: Stop"]
    shown = page.get_by_role("button", name="Stop recording").inner_text()
    assert re.fullmatch("Stop 0:(0[1-9]|[1-5][0-9])", shown)
    page.get_by_role("button", name="Stop recording").click()
    page.get_by_role("button", name="Record", exact=True).wait_for()


def test_a_recording_is_not_lost_by_leaving_without_a_question(on, visit):
    page, notes = visit(accept_downloads=True)
    recording(on, page)
    assert on.leaving(page) == ["beforeunload"]
    with page.expect_download():
        page.click("#record")
    page.locator("#record[data-state=idle]").wait_for()
    assert notes.errors == []
    page.on("dialog", lambda dialog: notes.errors.append(f"asked: {dialog.message}"))
    page.reload()
    on.ready(page)
    assert notes.errors == [], "what is saved needs no question"
