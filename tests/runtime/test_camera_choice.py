"""A look through every camera, to choose one."""

from collections import Counter

import numpy as np
import pytest
from reenact.errors import MediaError
from reenact.runtime.camera_choice import choose_camera, described, pictures_of
from reenact.runtime.media.camera import CameraInfo
from reenact.runtime.media.inputs import Captured

CAMERAS = [
    CameraInfo(f"/dev/video{n}", n, name, ()) for n, name in ((0, "Front"), (2, "Broken"), (3, "Back"))
]


class Opened:
    """A camera that gets brighter with each frame, as they do."""

    name, asked = "made", ""

    def __init__(self, camera):
        if camera.name == "Broken":
            raise MediaError("camera Broken: cannot be opened")
        self.shade, self.closed = 0, False
        self.lost: Counter[str] = Counter()
        OPENED.append(self)

    def read(self):
        self.shade += 10
        return Captured(np.full((30, 40, 3), self.shade, np.uint8), 0.0)

    def stop(self):
        pass

    def close(self):
        self.closed = True


OPENED: list[Opened] = []


class Keys:
    def __init__(self, *keys):
        self.keys, self.sheets, self.closed = list(keys), [], False

    def show(self, picture):
        self.sheets.append(picture.copy())

    def key(self):
        return self.keys.pop(0)

    def close(self):
        self.closed = True


def test_each_camera_shows_one_picture_once_its_exposure_has_settled():
    OPENED.clear()
    pictures = pictures_of(CAMERAS, Opened)
    assert [None if picture is None else int(picture[0, 0, 0]) for picture in pictures] == [80, None, 80]
    assert len(OPENED) == 2
    assert all(each.closed for each in OPENED)


def test_a_camera_that_stops_while_it_is_looked_through_has_no_picture():
    class Stopping(Opened):
        def read(self):
            raise MediaError("gone")

    assert pictures_of(CAMERAS[:1], Stopping) == [None]
    assert OPENED[-1].closed


def test_a_camera_with_a_problem_is_not_opened_and_says_it():
    forbidden = CameraInfo(
        "/dev/video4", 4, "/dev/video4", (), "no permission; add yourself to the group video"
    )
    OPENED.clear()
    assert pictures_of([forbidden], Opened) == [None]
    assert not OPENED
    assert described(forbidden) == ["4  /dev/video4", "   no permission; add yourself to the group video"]


@pytest.mark.parametrize(
    ("keys", "chosen"), [([None, "5", "3"], 3), (["1"], 0), (["q"], None), (["quit"], None)]
)
def test_the_number_on_its_picture_chooses_a_camera(keys, chosen):
    window = Keys(*keys)
    found = choose_camera(CAMERAS, pictures_of(CAMERAS, Opened), window, sleep=lambda _: None)
    assert (None if found is None else found.index) == chosen
    assert window.closed
    sheet = window.sheets[0]
    assert sheet.shape == (240, 960, 3)
    assert sheet[200, 160, 0] == sheet[200, 800, 0] == 80
    assert sheet[200, 480, 0] == 0  # the one that gives no picture
