"""The preview window: which keys mean what, and that a machine without a display says so."""

import os
import subprocess
import time

import cv2
import numpy as np
import pytest
from reenact.errors import ReenactError
from reenact.runtime import window as module
from reenact.runtime.window import PreviewWindow, named_key, why_no_window


@pytest.fixture(autouse=True)
def untried():
    """No display was tried before."""
    module._tried.cache_clear()
    yield
    module._tried.cache_clear()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (ord("q"), "q"),
        (ord("Q"), "q"),
        (ord("7"), "7"),
        (27, "quit"),
        (0xFF51, "previous"),
        (0xFF53, "next"),
        (0x250000, "previous"),  # Windows
        (0x280000, "next"),
        (63235, "next"),  # macOS
        (0x10000 | ord("x"), "x"),  # with Shift or Caps Lock, as GTK tells it
        (0x10FF52, "previous"),
        (0xFFBE, None),  # F1
        (ord(" "), None),
        (200, None),
    ],
)
def test_keys_have_one_name_on_all_systems(code, name):
    assert named_key(code) == name


def test_without_a_display_there_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":4242")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "there is no display" in (why_no_window() or "")
    with pytest.raises(ReenactError, match="use --no-preview with --record or --virtual-camera"):
        PreviewWindow("test", (64, 64))


def test_an_opencv_without_windows_says_what_to_install(monkeypatch):
    def headless(*_, **__):
        return subprocess.CompletedProcess(
            [], 1, "", "error: (-2:Unspecified error) The function is not implemented. Rebuild the library"
        )

    monkeypatch.setattr(subprocess, "run", headless)
    assert "this build of OpenCV has no windows; install opencv-python" in (why_no_window() or "")


def test_each_display_is_tried_once(monkeypatch):
    tried = []

    def opens(*_, **__):
        tried.append(os.environ["DISPLAY"])
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(subprocess, "run", opens)
    for display in (":1", ":1", ":2", ":1"):
        monkeypatch.setenv("DISPLAY", display)
        assert why_no_window() is None
    assert tried == [":1", ":2"]


def test_a_display_that_does_not_answer_is_not_waited_for(monkeypatch):
    def hangs(*_, **__):
        raise subprocess.TimeoutExpired("python", 20)

    monkeypatch.setattr(subprocess, "run", hangs)
    assert "takes too long" in (why_no_window() or "")


class MadeHighGui:
    """OpenCV's windows, with keys to come."""

    def __init__(self, monkeypatch, codes):
        self.codes, self.visible = list(codes), True
        self.shown: list[np.ndarray] = []
        monkeypatch.setattr(module, "why_no_window", lambda: None)
        for name in ("namedWindow", "resizeWindow", "destroyAllWindows"):
            monkeypatch.setattr(cv2, name, lambda *_: None)
        monkeypatch.setattr(cv2, "imshow", lambda title, image: self.shown.append(image))
        monkeypatch.setattr(cv2, "waitKeyEx", lambda _: self.codes.pop(0) if self.codes else -1)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0 if self.visible else 0.0)


def test_a_key_that_was_pressed_while_a_picture_was_drawn_is_not_lost(monkeypatch):
    made = MadeHighGui(monkeypatch, [ord("m"), -1, ord("x")])
    window = PreviewWindow("test", (64, 64))
    window.show(np.zeros((2, 2, 3), np.uint8))
    assert [window.key() for _ in range(4)] == ["m", None, "x", None]
    made.visible = False
    assert window.key() == "quit"


def test_pictures_are_shown_in_their_own_colours(monkeypatch):
    made = MadeHighGui(monkeypatch, [])
    PreviewWindow("test", (64, 64)).show(np.full((2, 2, 3), (10, 20, 30), np.uint8))
    np.testing.assert_array_equal(made.shown[0][0, 0], (30, 20, 10))  # OpenCV wants blue first


def test_a_display_is_found(display, monkeypatch):
    monkeypatch.setenv("DISPLAY", display)
    began = time.perf_counter()
    assert why_no_window() is None
    assert time.perf_counter() - began < module.PROBE_S
