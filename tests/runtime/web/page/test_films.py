"""Films made on the page."""

from reenact.runtime.provenance import verify


def test_a_film_is_made_with_progress_and_saved(on, visit, tmp_path):
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
    assert notes.errors == []
