"""Films made on the page."""

import time

import numpy as np
import pytest
from reenact.runtime import assets
from reenact.runtime.provenance import verify
from reenact.runtime.reenactor import Reenactor


@pytest.fixture(scope="session")
def driving(tmp_path_factory, models_home):
    """A short video that can drive a film."""
    path = tmp_path_factory.mktemp("driving") / "driving.mp4"
    with Reenactor(assets.portrait("eileen_collins"), crop=True) as reenactor:
        reenactor.run_motion("blink", path, duration=0.3)
    return path


def test_a_film_is_made_with_progress_saved_and_removed(on, visit, server, web, tmp_path):
    page, notes = visit(accept_downloads=True)
    on.ready(page)
    page.select_option("#motion", "blink")
    page.click("#job-start")
    page.locator("#jobs progress[value]").first.wait_for()
    on.shots(page, "film")
    with page.expect_download() as download:
        page.locator("#jobs button", has_text="Save").click(timeout=60_000)
    film = tmp_path / "film.mp4"
    download.value.save_as(film)
    assert verify(film).statement is not None
    page.locator("#news", has_text="The film breathing and blinking is ready.").wait_for(state="attached")
    on.shots(page, "film_done")
    page.get_by_role("button", name="Remove: breathing and blinking").click()
    assert page.locator("#jobs li").count() == 0
    assert page.evaluate("() => document.activeElement.id") == "job-start", "the focus is not lost"
    web.wait_for(lambda: not on.newest_session(server).jobs.all(), "the job to be deleted")
    assert notes.errors == []


def test_one_video_after_another_can_drive_films(serve, on, visit, web, driving):
    """More of them than the server keeps at once."""
    with serve(videos=1, jobs=1) as running:
        page, notes = visit(running.url)
        on.ready(page)
        page.select_option("#motion", "")
        page.set_input_files("#driving", driving)
        for _ in range(2):
            page.click("#job-start")
            page.locator("#jobs button", has_text="Save").wait_for(timeout=60_000)
            web.wait_for(lambda: not on.newest_session(running).photos._videos, "the video to be deleted")
            page.locator("#jobs button", has_text="Remove").click()
            web.wait_for(lambda: not on.newest_session(running).jobs.all(), "the job to be deleted")
        assert page.locator("#alert").is_hidden()
        assert notes.errors == []


def test_a_film_that_failed_is_deleted_with_its_row(on, visit, server, web, driving, tmp_path, monkeypatch):
    from reenact.runtime.web.jobs import Jobs

    async def fails(self, job, process):
        self._fail(job, "It cannot be done.")

    monkeypatch.setattr(Jobs, "_follow", fails)
    page, _ = visit()
    on.ready(page)
    page.select_option("#motion", "")
    page.set_input_files("#driving", driving)
    page.click("#job-start")
    page.locator("#jobs .failed", has_text="It cannot be done.").wait_for()
    page.locator("#news", has_text="The film driving.mp4 failed: It cannot be done.").wait_for(
        state="attached"
    )
    web.wait_for(lambda: not on.newest_session(server).photos._videos, "the video to be deleted")
    assert len(on.newest_session(server).jobs.all()) == 1
    page.get_by_role("button", name="Dismiss: driving.mp4").click()
    web.wait_for(lambda: not on.newest_session(server).jobs.all(), "the job to be deleted")
    assert page.locator("#jobs li").count() == 0


def test_an_upload_can_be_cancelled(on, visit, server, tmp_path):
    page, notes = visit()
    on.ready(page)
    big = tmp_path / "big.mp4"
    big.write_bytes(np.zeros(40_000_000, np.uint8).tobytes())
    slow = page.context.new_cdp_session(page)
    slow.send("Network.enable")
    slow.send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 500_000},
    )
    asked, ended = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: ended.append(request.url))
    page.select_option("#motion", "")
    page.set_input_files("#driving", big)
    page.click("#job-start")
    page.locator("#jobs", has_text="Uploading").wait_for()
    page.get_by_role("button", name="Cancel: big.mp4").click()
    assert page.locator("#jobs li").count() == 0
    page.wait_for_timeout(500)
    assert any(url.endswith("/videos") for url in ended), "nothing is sent any more"
    assert not any(url.endswith("/jobs") for url in asked)
    assert page.locator("#alert").is_hidden()
    assert notes.errors == []


def test_a_broken_line_does_not_make_a_film_a_failed_one(on, visit, server, web):
    page, notes = visit()
    on.ready(page)
    page.route("**/events", lambda route: route.abort())
    page.select_option("#motion", "blink")
    page.click("#job-start")
    page.locator("#jobs", has_text="The connection was lost. Looking again").wait_for()
    assert page.locator("#jobs .failed").count() == 0
    page.unroute("**/events")
    page.locator("#jobs button", has_text="Save").wait_for(timeout=60_000)
    assert notes.errors == []


def test_a_film_is_not_lost_by_leaving_without_a_question(on, visit):
    page, notes = visit(accept_downloads=True)
    on.ready(page)
    page.select_option("#motion", "blink")
    page.click("#job-start")
    assert on.leaving(page) == ["beforeunload"]
    page.locator("#jobs button", has_text="Save").wait_for(timeout=60_000)
    assert on.leaving(page) == ["beforeunload"]
    with page.expect_download():
        page.locator("#jobs button", has_text="Save").click()
    page.wait_for_timeout(200)
    assert notes.errors == []
    page.on("dialog", lambda dialog: notes.errors.append(f"asked: {dialog.message}"))
    page.reload()
    on.ready(page)
    assert notes.errors == [], "what is saved needs no question"


def test_a_film_can_be_cancelled_while_it_is_made(on, visit, server, web):
    page, notes = visit()
    on.ready(page)
    page.click("#job-start")
    page.locator("#jobs progress[value]").first.wait_for()
    page.get_by_role("button", name="Cancel: a bit of everything").click()
    assert page.locator("#jobs li").count() == 0
    web.wait_for(lambda: not on.newest_session(server).jobs.all(), "the job to be deleted")
    time.sleep(0.5)
    assert page.locator("#jobs li").count() == 0
    assert page.locator("#alert").is_hidden()
    assert notes.errors == []
