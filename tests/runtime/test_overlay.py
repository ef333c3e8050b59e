"""What is written over the preview: legible in every corner, size and length, and nothing over anything else."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from reenact.runtime.overlay import CORNERS, HELP, badge, figures, panel

LONG = "the camera 2 (a long name): asked for 1280x720, 30 fps, MJPG; what comes is 640x480, 15.0 fps"


def written(draw, width=512, height=512):
    """Where `draw` has changed a grey picture."""
    picture = np.full((height, width, 3), 200, np.uint8)
    draw(picture)
    return (picture != 200).any(axis=2)


def box(mask):
    """Top, bottom, left, right, the last of each included."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.mark.parametrize("corner", range(CORNERS))
@pytest.mark.parametrize("width", [200, 320, 512])
@pytest.mark.parametrize("bottom", [False, True])
def test_the_badge_and_lines_never_lie_over_each_other(corner, width, bottom, live_status):
    lines = [LONG] if bottom else figures(live_status, 4.0, {"out.mp4": 3})
    text = written(lambda picture: panel(picture, lines, corner=corner, bottom=bottom), width)
    said = written(lambda picture: badge(picture, corner), width)
    assert text.any()
    assert said.any()
    assert not (text & said).any()


def test_the_badge_goes_clockwise_from_the_bottom_right():
    places = [
        box(written(lambda picture, corner=corner: badge(picture, corner))) for corner in range(CORNERS + 1)
    ]
    assert [(place[1] == 511, place[3] == 511) for place in places] == [
        (True, True),
        (True, False),
        (False, False),
        (False, True),
        (True, True),
    ]


def test_what_is_too_long_goes_on_in_the_next_line(monkeypatch):
    texts: list[tuple[str, int]] = []
    put = cv2.putText

    def note(picture, text, place, font, scale, *arguments):
        texts.append((text, place[0] + cv2.getTextSize(text, font, scale, 1)[0][0]))
        put(picture, text, place, font, scale, *arguments)

    monkeypatch.setattr(cv2, "putText", note)
    written(lambda picture: panel(picture, [LONG], corner=0, bottom=True), width=256)
    assert len(texts) > 1
    assert " ".join(text for text, _ in texts) == LONG
    assert max(right for _, right in texts) <= 256


def test_the_help_has_two_straight_columns(monkeypatch):
    places: list[tuple[str, int]] = []
    monkeypatch.setattr(cv2, "putText", lambda picture, text, place, *_: places.append((text, place[0])))
    written(lambda picture: panel(picture, HELP, corner=0))
    assert len(places) == 2 * len(HELP)
    keys, meanings = places[::2], places[1::2]
    assert len({left for _, left in keys}) == len({left for _, left in meanings}) == 1
    font = cv2.FONT_HERSHEY_SIMPLEX
    assert max(left + cv2.getTextSize(key, font, 0.42, 1)[0][0] for key, left in keys) < meanings[0][1]


@pytest.mark.parametrize("size", [(64, 64), (30, 20), (1, 1)])
def test_small_pictures_show_what_fits(size):
    for corner in range(CORNERS):
        written(lambda picture, corner=corner: badge(picture, corner), *size)
        written(lambda picture, corner=corner: panel(picture, HELP, corner=corner), *size)
        written(lambda picture, corner=corner: panel(picture, [LONG], corner=corner, bottom=True), *size)


def test_the_figures_say_everything_that_is_known(live_status):
    assert figures(live_status, 4.04, {"out.mp4": 3, "the window": 0}) == [
        "29.0 fps (input 30.0, 640x480)  live",
        "track 5.0  animate 6.2  show 4.0 ms",
        "latency p50 20  p95 40  p99 60 ms",
        "dropped 7: frame rate",
        "dropped 3: out.mp4 was too slow",
        "step 1: at most 20 fps",
    ]
    early = replace(live_status, input_size=None, stages_ms={}, latency_ms=None, drops={}, degraded="")
    assert figures(early, None, {}) == ["29.0 fps (input 30.0)  live"]
