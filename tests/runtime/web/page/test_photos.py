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
