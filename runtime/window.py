"""A preview window with OpenCV, and whether there is a display for one."""

import os
import subprocess
import sys
from functools import cache
from typing import Protocol

import cv2

from ..errors import ReenactError
from .media.frame import Image

__all__ = ["PreviewWindow", "Window", "named_key", "why_no_window"]

PROBE_S = 20.0
_PROBE = "import cv2; cv2.namedWindow('reenact'); cv2.waitKey(1); cv2.destroyAllWindows()"

# Codes of arrow keys: X11 and Qt, Windows, macOS.
_LEFT, _UP = {0xFF51, 0x250000, 0xF702}, {0xFF52, 0x260000, 0xF700}
_RIGHT, _DOWN = {0xFF53, 0x270000, 0xF703}, {0xFF54, 0x280000, 0xF701}
_ESCAPE = 27
_LOCKS = 0xFFFF  # above it some systems tell of Shift and Caps Lock


class Window(Protocol):
    """Shows pictures and tells keys; used by one thread."""

    def show(self, picture: Image) -> None:
        """Show (H, W, 3) uint8 RGB; returns once it is handed to the display."""

    def key(self) -> str | None:
        """What was pressed: "previous", "next", "quit" or a lower-case character; None where nothing was."""

    def close(self) -> None:
        """Close it."""


def why_no_window() -> str | None:
    """Why no window can be opened here, in one line; None where one can.

    Tried once a display, in a process of its own: without one the library ends the whole process.
    """
    return _tried(os.environ.get("DISPLAY"), os.environ.get("WAYLAND_DISPLAY"))


@cache
def _tried(_display: str | None, _wayland: str | None) -> str | None:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=PROBE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"opening one takes too long ({type(error).__name__})"
    if done.returncode == 0:
        return None
    if "not implemented" in done.stderr:
        return "this build of OpenCV has no windows; install opencv-python in place of opencv-python-headless"
    lines = [line.strip() for line in done.stderr.splitlines() if "display" in line.lower()]
    return f"there is no display ({lines[0][:150]})" if lines else "there is no display"


class PreviewWindow:
    """One window; raises ReenactError where none can be opened."""

    def __init__(self, title: str, size: tuple[int, int]) -> None:
        """`size` (width, height) in pixels at the beginning; the user may change it."""
        reason = why_no_window()
        if reason is not None:
            raise ReenactError(
                f"no preview window: {reason}; use --no-preview with --record or --virtual-camera"
            )
        self._title = title
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        cv2.resizeWindow(title, *size)
        self._code = -1

    def show(self, picture: Image) -> None:
        """Show (H, W, 3) uint8 RGB; events are handled here too, so that it is really drawn."""
        cv2.imshow(self._title, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        code = cv2.waitKeyEx(1)
        self._code = code if code != -1 else self._code

    def key(self) -> str | None:
        """What was pressed; "quit" also where the window was closed."""
        code, self._code = self._code, -1
        if code == -1:
            code = cv2.waitKeyEx(1)
        if cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            return "quit"
        return None if code == -1 else named_key(code)

    def close(self) -> None:
        """Close it."""
        cv2.destroyAllWindows()
        cv2.waitKey(1)


def named_key(code: int) -> str | None:
    """The key of a code that OpenCV gives; None for one that means nothing here."""
    for codes, name in ((_LEFT | _UP, "previous"), (_RIGHT | _DOWN, "next")):
        if code in codes or code & _LOCKS in codes:
            return name
    low = code & 0xFF if code & _LOCKS < 0x100 else 0
    if low == _ESCAPE:
        return "quit"
    return chr(low).lower() if 32 < low < 127 else None
