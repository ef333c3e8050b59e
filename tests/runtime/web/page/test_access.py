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
    on.ready(page)  # a page that goes before it has its line leaves its session behind for two minutes
    assert page.locator("html").get_attribute("data-theme") == "dark"


def focused(page):
    return page.evaluate("() => document.activeElement.id")


def test_the_focus_is_not_lost_with_the_button_that_had_it(on, visit, web):
    page, _ = visit()
    on.ready(page)
    page.focus("#cover-action")
    page.keyboard.press("Enter")
    on.says(page, "Live")
    assert focused(page) == "camera"


def test_a_problem_stays_until_it_is_closed_and_the_focus_goes_back(on, visit):
    page, _ = visit()
    page.clock.install()
    on.ready(page)
    page.select_option("#motion", "")
    page.click("#job-start")
    page.locator("#alert", has_text="Choose a video first.").wait_for()
    page.clock.run_for(60_000)
    assert page.locator("#alert").is_visible()
    assert page.locator("#alert [role=alert]").inner_text() == "Choose a video first."
    assert focused(page) == "driving"
    page.keyboard.press("Escape")
    assert page.locator("#alert").is_hidden()
    assert focused(page) == "driving"
    page.click("#job-start")
    page.get_by_role("button", name="Close this message").click()
    assert page.locator("#alert").is_hidden()
    assert focused(page) == "driving"


def test_of_several_problems_none_hides_another(on, visit, tmp_path):
    page, _ = visit()
    on.ready(page)
    files = [tmp_path / f"{name}.txt" for name in "abc"]
    for file in files:
        file.write_text("no photo")
    page.set_input_files("#upload", files)
    page.locator("#alert p").nth(2).wait_for()
    assert [text[:5] for text in page.locator("#alert p").all_inner_texts()] == ["a.txt", "b.txt", "c.txt"]
    on.shots(page, "problems")


def test_why_there_is_no_camera_is_announced(on, visit, launch):
    page, _ = visit(using=launch("--use-fake-device-for-media-stream"))
    on.ready(page)
    page.click("#camera")
    page.locator("#news", has_text="was not allowed. Allow it in the browser").wait_for(state="attached")


# Text whose contrast with what is behind it is under 4.5, as WCAG 2 measures it; grey with its ancestors' opacity.
FAINT = """() => {
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
    .getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((part, k) => a * part + (1 - a) * below[k]);
  const light = (parts) => parts.map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, k) => sum + part * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    return over(rgba(getComputedStyle(element).backgroundColor), ground(element.parentElement));
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const off = element.closest("[disabled], noscript, .cover:not([data-kind=full]), .unseen, .skip, option");
    if (!own || !element.checkVisibility() || off) continue;
    const below = ground(element);
    const text = over(rgba(getComputedStyle(element).color), below);
    const [low, high] = [light(text), light(below)].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) faint.push(`${element.outerHTML.slice(0, 80)} ${contrast.toFixed(2)}`);
  }
  return faint;
}"""


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(on, visit, colours):
    page, _ = visit(color_scheme=colours)
    on.ready(page)
    page.click("#edits > summary")
    page.click("#all-edits > summary")
    page.locator("#slider-smile").fill("0.5")
    page.select_option("#motion", "")
    page.click("#job-start")  # a problem
    page.select_option("#motion", "blink")
    page.click("#job-start")
    page.locator("#jobs button", has_text="Save").wait_for(timeout=60_000)
    on.live(page)
    page.click("#record")
    page.locator("#record[data-state=recording]").wait_for()
    assert page.evaluate(FAINT) == []
    on.shots(page, f"much_{colours}")
    page.evaluate("() => document.querySelector('#alert p').style.color = 'var(--bad-soft)'")
    assert len(page.evaluate(FAINT)) == 1, "the test sees what is faint"
