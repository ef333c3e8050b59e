"""Photos on the page: chosen, uploaded, dropped, removed, refused."""

import numpy as np
from reenact.runtime.media.images import write_image


def test_a_photo_without_a_face_is_refused_in_words_and_the_old_one_stays(on, visit, tmp_path):
    page, notes = visit()
    on.ready(page)
    blank = tmp_path / "blank.png"
    write_image(blank, np.full((200, 200, 3), 128, np.uint8), mark=False)
    page.set_input_files("#upload", blank)
    page.locator("#alert", has_text="blank.png: No face found").wait_for()
    on.shots(page, "refused")
    assert page.locator(".tile.photo").count() == 2
    assert page.locator(".tile.photo input:checked").get_attribute("value") == "eileen-collins"
    assert notes.errors == []


def test_photos_can_be_dropped(on, visit, tmp_path, hopper_jpeg):
    page, notes = visit()
    on.ready(page)
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


def test_what_waits_behind_a_refused_change_goes_with_it(on, visit, server, web):
    """The page shows what the server has, and nothing is sent later that nobody wished then."""
    page, notes = visit()
    on.ready(page)
    sent, held = [], []

    def take(route):
        sent.append(route.request.post_data_json)
        if len(sent) == 1:
            held.append(route)
        else:
            route.continue_()

    page.route("**/live", take)
    before = page.locator("#size").input_value()
    page.select_option("#size", "256")
    web.wait_for(lambda: page.wait_for_timeout(20) or held, "the change to be sent")
    page.locator(".tile.photo", has_text="Grace Hopper").click()
    page.locator('.tile.photo input[value="grace-hopper"]:checked').wait_for(state="attached")
    held[0].fulfill(status=409, json={"code": "not_possible", "message": "Not so small."})
    page.locator("#alert", has_text="Not so small.").wait_for()
    page.locator('.tile.photo input[value="eileen-collins"]:checked').wait_for(state="attached")
    assert page.locator("#size").input_value() == before
    page.locator("#slider-smoothing").fill("2")
    session = on.newest_session(server)
    web.wait_for(lambda: page.wait_for_timeout(20) or session.live.settings.smoothing == 2, "the slider")
    assert sent[1:] == [{"smoothing": 2}]
    assert session.live.settings.photo == "eileen-collins"
    assert notes.errors == []
