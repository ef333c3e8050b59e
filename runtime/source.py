"""Finds the face of a source: in a photo, in the first seconds of a video or in an array; crops around it."""

import math
from pathlib import Path

import cv2
import numpy as np

from ..errors import FaceNotFoundError, MediaError
from .media.frame import Image
from .media.limits import Limits
from .media.reader import VideoReader
from .tracking.face import Face
from .tracking.tracker import Tracker

__all__ = ["check_image", "crop_around", "find_source"]

SEARCH_SECONDS = 5.0  # of a source video
SEARCH_STEP = 0.25  # seconds of it from one look to the next: a thorough look takes its time
MOST_ROLL = math.radians(75)  # a face turned further is in a picture that lies on its side
CROP_SIDE = 512  # pixels
CROP_REACH = 2.2  # side of the crop over the longer side of the face's box


def find_source(
    source: str | Path | Image, tracker: Tracker, number: int, limits: Limits
) -> tuple[Image, Face]:
    """The source's picture, (H, W, 3) uint8 RGB, and its face: number 0 is the largest, 1 the next.

    Of a video it is the first frame, of four a second, that shows so many faces. Raises FaceNotFoundError, saying
    how many there are, and MediaError or LimitError where the file cannot be read.
    """
    if isinstance(source, np.ndarray):
        image = check_image(source, "source")
        return image, _picked(tracker.find_faces(image), number, "the source picture")
    most: list[Face] = []
    next_look = 0.0
    with VideoReader(source, limits=limits, duration=SEARCH_SECONDS) as reader:
        for frame in reader:
            if frame.time < next_look:
                continue
            next_look = frame.time + SEARCH_STEP
            image, faces = frame.image, tracker.find_faces(frame.image)
            most = max(most, faces, key=len)
            if len(faces) > number:
                break
    return image, _picked(most, number, str(source))


def crop_around(image: Image, face: Face) -> tuple[Image, Face]:
    """A square of CROP_SIDE pixels around the head, as far as the photo goes, and the face in it."""
    x0, y0, x1, y1 = face.box
    height, width = image.shape[:2]
    side = max(1, min(round(CROP_REACH * max(x1 - x0, y1 - y0)), height, width))
    left = int(np.clip(round((x0 + x1 - side) / 2), 0, width - side))
    top = int(np.clip(round((y0 + y1 - side) / 2), 0, height - side))
    scale = CROP_SIDE / side
    square = cv2.resize(
        image[top : top + side, left : left + side],
        (CROP_SIDE, CROP_SIDE),
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC,
    )
    return square, face.placed(scale=scale, x=-left * scale, y=-top * scale)


def check_image(image: Image, name: str) -> Image:
    """`image`, C-contiguous; raises MediaError unless it is (H, W, 3) uint8."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise MediaError(
            f"the {name} is an array of {image.dtype} of shape {image.shape}; expected (H, W, 3) uint8 RGB"
        )
    return np.ascontiguousarray(image)


def _picked(faces: list[Face], number: int, name: str) -> Face:
    if number < 0:
        raise FaceNotFoundError(f"--face {number} is no face; count from 0, the largest")
    if not faces:
        raise FaceNotFoundError(
            f"{name}: no face found; use a picture in which a face is clearly visible and not too small"
        )
    if number >= len(faces):
        found = "1 face was" if len(faces) == 1 else f"{len(faces)} faces were"
        raise FaceNotFoundError(f"{name}: {found} found, --face {number} is too many; 0 is the largest")
    face = faces[number]
    roll = math.degrees(face.pose.yaw_pitch_roll[2])
    if abs(roll) > math.degrees(MOST_ROLL):
        raise FaceNotFoundError(
            f"{name}: the face is turned by {abs(roll):.0f} degrees; turn the picture upright first"
        )
    return face
