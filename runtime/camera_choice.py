"""A look through every camera, to choose one by its picture. What is seen here goes to no output."""

import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from ..errors import MediaError
from .media.camera import CameraInfo
from .media.frame import Image
from .media.inputs import CameraRequest, DeviceInput, Input
from .overlay import panel
from .window import Window

__all__ = ["choose_camera", "described", "pictures_of"]

SETTLING = 8  # frames until a camera has found its exposure
TILE = (320, 240)  # width, height
COLUMNS = 3
MOST = 9  # keys 1 to 9


def described(camera: CameraInfo) -> list[str]:
    """Lines about a camera: number, name, and its problem, or its sizes by pixel format with the highest rate."""
    lines = [f"{camera.index}  {camera.name}"]
    if camera.problem:
        lines.append(f"   {camera.problem}")
    for pixels in sorted({each.pixels for each in camera.formats}):
        sizes = [each for each in camera.formats if each.pixels == pixels]
        texts = [f"{each.width}x{each.height}{f'@{each.fps:g}' if each.fps else ''}" for each in sizes]
        lines.append(f"   {pixels}: {', '.join(texts)}")
    return lines


def pictures_of(
    cameras: Sequence[CameraInfo], open_camera: Callable[[CameraInfo], Input] | None = None
) -> list[Image | None]:
    """One picture through each camera, (H, W, 3) uint8 RGB; None where it gives none."""
    return [_picture(camera, open_camera or _opened) for camera in cameras]


def choose_camera(
    cameras: Sequence[CameraInfo],
    pictures: Sequence[Image | None],
    window: Window,
    sleep: Callable[[float], None] = time.sleep,
) -> CameraInfo | None:
    """The camera whose number on the sheet of pictures is pressed; None for quit. Closes the window."""
    sheet = _sheet(cameras[:MOST], pictures)
    try:
        while True:
            window.show(sheet)
            key = window.key()
            if key in ("q", "quit"):
                return None
            if key is not None and key.isdecimal() and 1 <= int(key) <= min(MOST, len(cameras)):
                return cameras[int(key) - 1]
            sleep(0.03)
    finally:
        window.close()


def _opened(camera: CameraInfo) -> Input:
    return DeviceInput(camera.device, CameraRequest(640, 480), name=camera.name)


def _picture(camera: CameraInfo, open_camera: Callable[[CameraInfo], Input]) -> Image | None:
    if camera.problem:
        return None
    try:
        opened = open_camera(camera)
    except MediaError:
        return None
    try:
        captured = None
        for _ in range(SETTLING):
            captured = opened.read() or captured
        return None if captured is None else captured.image
    except MediaError:
        return None
    finally:
        opened.close()


def _sheet(cameras: Sequence[CameraInfo], pictures: Sequence[Image | None]) -> Image:
    width, height = TILE
    rows = -(-len(cameras) // COLUMNS)
    sheet = np.zeros((rows * height, min(COLUMNS, len(cameras)) * width, 3), np.uint8)
    for number, (camera, picture) in enumerate(zip(cameras, pictures, strict=False)):
        top, left = number // COLUMNS * height, number % COLUMNS * width
        tile = sheet[top : top + height, left : left + width]
        if picture is not None:
            scale = min(width / picture.shape[1], height / picture.shape[0])
            size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
            tile[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        state = "" if picture is not None else " (gives no picture)"
        # There is no badge: these are what the cameras see. The lines stand at the top.
        panel(tile, [f"press {number + 1}: {camera.name}{state}"], corner=0)
    return sheet
