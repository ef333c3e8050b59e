"""A picture of how photos follow a driving clip: one row a photo, one column a moment.

`python -m reenact.benchmarks.contact_sheet DRIVING PHOTOS... -o SHEET.jpg [--moments 5] [--cell 256]`.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from ..errors import ReenactError
from ..runtime.media.frame import Image
from ..runtime.media.images import write_image
from ..runtime.media.reader import VideoReader
from ..runtime.reenactor import Reenactor

__all__ = ["contact_sheet", "main"]


def contact_sheet(driving: Path, photos: list[Path], *, moments: int, cell: int, system: str) -> Image:
    """(H, W, 3) uint8: the driving in the first row, then each photo as it is and as it follows.

    Photos without a face are left out with a note on the error stream.
    """
    with VideoReader(driving) as reader:
        frames = list(reader)
    # The moments that differ most tell most: spread over the clip, never the first frame alone.
    shown = sorted(set(np.linspace(0, len(frames) - 1, moments + 1).astype(int)[1:].tolist()))
    rows = [[frames[0].image, *(frames[i].image for i in shown)]]
    for photo in photos:
        try:
            with Reenactor(photo, system=system, crop=True, mark=False) as reenactor:
                outputs = [reenactor.animate(frame.image, time=frame.time) for frame in frames]
                rows.append([reenactor.portrait.image, *(outputs[i] for i in shown)])
        except ReenactError as error:
            sys.stderr.write(f"left out: {error}\n")
    return np.vstack([np.hstack([_fit(picture, cell) for picture in row]) for row in rows])


def _fit(picture: Image, cell: int) -> Image:
    """The picture inside a white square of `cell` pixels, its proportions kept."""
    scale = cell / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    canvas = np.full((cell, cell, 3), 255, np.uint8)
    top, left = (cell - size[1]) // 2, (cell - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = small
    return canvas


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("driving", type=Path)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--moments", type=int, default=5)
    parser.add_argument("--cell", type=int, default=256, help="pixels of one picture's side")
    parser.add_argument("--system", default="meshwarp")
    options = parser.parse_args()
    sheet = contact_sheet(
        options.driving, options.photos, moments=options.moments, cell=options.cell, system=options.system
    )
    write_image(options.output, sheet)


if __name__ == "__main__":
    main()
