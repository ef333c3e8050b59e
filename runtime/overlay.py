"""What is written over the live preview: help, figures, notices, and the badge that says what one sees.

Draws in place, on the preview's own copy of a picture.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from .live import Status
from .media.frame import Image

__all__ = ["CORNERS", "HELP", "badge", "figures", "panel"]

HELP = (
    "1-9\tthat photo",
    "arrows\tnext, previous photo",
    "X\tthis is the neutral pose",
    "F\tfind a better neutral frame",
    "M\tmirror",
    "R\tstart or stop recording",
    "I\tfigures",
    "B\tmove the badge",
    "H\tthis help",
    "Q\tquit",
)
CORNERS = 4
BADGE = "AI-generated"
_FONT, _SCALE, _LINE = cv2.FONT_HERSHEY_SIMPLEX, 0.42, 17  # pixels a line
_MARGIN, _DIM = 7, 0.35
_COLUMN = 56  # pixels: where what follows a tab begins


def figures(status: Status, show_ms: float | None, dropped: Mapping[str, int]) -> list[str]:
    """Rate, time a stage, latency, drops by cause and what is reduced.

    `show_ms` is the window's own time, `dropped` the pictures that each output was too slow for.
    """
    size = "" if status.input_size is None else f", {status.input_size[0]}x{status.input_size[1]}"
    stages = {**status.stages_ms, **({} if show_ms is None else {"show": show_ms})}
    lines = [f"{status.fps:.1f} fps (input {status.input_fps:.1f}{size})  {status.state}"]
    if stages:
        lines.append("  ".join(f"{name} {ms:.1f}" for name, ms in stages.items()) + " ms")
    if status.latency_ms is not None:
        latency = status.latency_ms
        lines.append(f"latency p50 {latency.p50:.0f}  p95 {latency.p95:.0f}  p99 {latency.p99:.0f} ms")
    lines += [f"dropped {count}: {cause}" for cause, count in status.drops.items()]
    lines += [f"dropped {count}: {name} was too slow" for name, count in dropped.items() if count]
    if status.degraded:
        lines.append(f"step {status.step}: {status.degraded}")
    return lines


def panel(picture: Image, lines: Sequence[str], *, corner: int, bottom: bool = False) -> None:
    """Write lines on a darkened part at the top left, or the bottom left, of (H, W, 3) uint8, in place.

    What is too long goes on in the next line; a tab begins a second column. The badge's `corner` stays free.
    """
    height, width = picture.shape[:2]
    lines = [part for line in lines for part in _wrapped(line, width - 2 * _MARGIN)]
    badge_wide, badge_tall = _badge_size(picture)
    wide = max((_wide(line) for line in lines), default=0) + 2 * _MARGIN
    same_edge = bottom == (corner % CORNERS in (0, 1))
    meet = same_edge and (corner % CORNERS in (1, 2) or wide + badge_wide > width)
    kept = badge_tall if meet else 0
    lines = lines[: max(0, (height - kept - 2 * _MARGIN) // _LINE)]
    if not lines:
        return
    tall = len(lines) * _LINE + _MARGIN
    top = height - tall - kept if bottom else kept
    part = picture[top : top + tall, : min(width, wide)]
    part[:] = np.asarray(part * _DIM, np.uint8)
    for number, line in enumerate(lines, 1):
        for column, text in enumerate(line.split("\t")):
            place = (_MARGIN + column * _COLUMN, top + number * _LINE - 3)
            cv2.putText(picture, text, place, _FONT, _SCALE, (255, 255, 255), 1, cv2.LINE_AA)


def badge(picture: Image, corner: int) -> None:
    """Say that (H, W, 3) uint8 is no camera picture, in place, in one of CORNERS: 0 bottom right, then clockwise."""
    height, width = picture.shape[:2]
    wide, tall = _badge_size(picture)
    left = width - wide if corner % CORNERS in (0, 3) else 0
    top = height - tall if corner % CORNERS in (0, 1) else 0
    part = picture[top : top + tall, left : left + wide]
    part[:] = np.asarray(part * _DIM, np.uint8)
    place = (left + _MARGIN, top + tall - _MARGIN)
    cv2.putText(picture, BADGE, place, _FONT, _SCALE, (255, 220, 120), 1, cv2.LINE_AA)


def _badge_size(picture: Image) -> tuple[int, int]:
    """Width and height in pixels."""
    height, width = picture.shape[:2]
    (wide, tall), _ = cv2.getTextSize(BADGE, _FONT, _SCALE, 1)
    return min(width, wide + 2 * _MARGIN), min(height, tall + 2 * _MARGIN)


def _wide(line: str) -> int:
    """Pixels."""
    return max(
        column * _COLUMN + int(cv2.getTextSize(text, _FONT, _SCALE, 1)[0][0])
        for column, text in enumerate(line.split("\t"))
    )


def _wrapped(line: str, width: int) -> list[str]:
    """The line in parts of at most `width` pixels, parted between words."""
    parts = [""]
    for word in line.split(" "):
        longer = f"{parts[-1]} {word}" if parts[-1] else word
        if parts[-1] and _wide(longer) > width:
            parts.append(word)
        else:
            parts[-1] = longer
    return parts
