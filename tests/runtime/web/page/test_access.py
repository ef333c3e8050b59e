"""The page for everybody: by keyboard, by screen reader, on a phone, in light and in dark."""

import json

import pytest


def test_the_keyboard_reaches_and_moves_everything(on, visit, web):
    page, _ = visit()
    on.ready(page)
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
    on.ready(page)
    assert page.locator("#badge").bounding_box() == badge, "it stays where it was put"

    page.focus('.tile.photo input[value="eileen-collins"]')
    page.keyboard.press("ArrowRight")
    page.locator('.tile.photo input[value="grace-hopper"]:checked').wait_for(state="attached")
    page.focus("#slider-pose_strength")
    page.keyboard.press("ArrowRight")
    assert page.locator("#slider-pose_strength").get_attribute("aria-valuetext") == "1.05×"


def test_everything_has_a_name_for_screen_readers(on, visit):
    page, _ = visit()
    on.ready(page)
    page.click("#edits > summary")
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
def test_a_phone_shows_it_all_without_scrolling_sideways(on, visit, colours):
    page, _ = visit(
        viewport={"width": 360, "height": 740}, color_scheme=colours, is_mobile=True, has_touch=True
    )
    on.ready(page)
    page.click("#edits > summary")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(ground.replace("rgb(", "[").replace(")", "]"))) > 384) == (colours == "light")
    on.shots(page, f"phone_{colours}")


def test_colours_can_be_chosen_and_are_remembered(on, visit):
    page, _ = visit(color_scheme="light")
    on.ready(page)
    page.click("#theme")
    page.click("#theme")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
