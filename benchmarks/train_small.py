"""Trains Face2Face-rho from scratch for a few steps at a small size: weights of a trained kind, to measure with.

`python -m reenact.benchmarks.train_small DATA -o FOLDER [--size 128] [--batch 2] [--steps 300] [--threads 1]`

Half precision, quantisation and pruning behave otherwise on trained weights than on random ones. The perceptual
loss looks through a VGG19 whose weights are made by rule (`reference/fill.py`): random features, which are enough to
pull pictures together on a few frames, and no file to fetch. The result knows those frames and nothing else.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ReenactError
from ..reference.fill import Rules, fill
from ..reference.training.dataset import read_videos
from ..reference.training.distributed import Place
from ..reference.training.face2face_rho import make_job
from ..reference.training.loop import Options, Trained, Trainer
from ..reference.training.settings import LossWeights, Settings
from ..reference.training.vgg import Vgg19

__all__ = ["main", "train_small"]

_EPOCHS, _HELD = 10, 4  # of a run; in the first of them the fields are held near the identity, less and less
_SMALLEST_VGG = 16  # pixels of the smallest picture that VGG19 compares


@dataclass
class LastPicture:
    """A board that keeps the first and the last picture."""

    first: NDArray[np.uint8] | None = None
    last: NDArray[np.uint8] | None = None

    def scalars(self, _values: object, _step: int) -> None:
        """Passed over: the trainer says them as well."""

    def picture(self, _name: str, picture: torch.Tensor, _step: int) -> None:
        """Keep (3, H, W) in [0, 1] as (H, W, 3) uint8 RGB."""
        self.last = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        if self.first is None:
            self.first = self.last

    def close(self) -> None:
        """Nothing to write."""


def train_small(
    data: Path, folder: Path, *, size: int, batch: int, steps: int, learning_rate: float
) -> tuple[Trained, NDArray[np.uint8]]:
    """Train on the folder `data` with its list.txt; published layout goes into `folder`.

    Returns how it ended and (H, W, 3) uint8 RGB: source, driving and fake, of the first step above the last one.
    Raises ReenactError for what cannot be trained with.
    """
    persons = len({video.person for video in read_videos(data)})
    scales = tuple(scale for scale in LossWeights().scales if size * scale >= _SMALLEST_VGG)
    settings = Settings(
        folder=folder,
        data=data,
        size=size,
        batch_size=batch,
        workers=0,
        learning_rate=learning_rate,
        num_repeats=math.ceil(steps * batch / _EPOCHS / persons),
        weights=LossWeights(scales=scales, init_field_epochs=_HELD),
        device="cpu",
    )
    vgg = Vgg19()
    fill(vgg, Rules())
    board = LastPicture()
    job = make_job(settings, vgg, say=_say)
    job.samples.check()
    trainer = Trainer(
        job,
        Place(torch.device("cpu")),
        Options(steps=steps, log_every=max(1, steps // 30), pictures_every=max(1, (steps - 1) // 2)),
        _say,
    )
    done = trainer.run(board)
    if board.first is None or board.last is None:
        raise ReenactError("no step was made, so there is no picture")
    return done, np.vstack([board.first, board.last])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder with a list.txt")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="new folder for checkpoints and sheet"
    )
    parser.add_argument("--size", type=int, default=128, help="pixels, a multiple of 64")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate; published is 2e-4")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    try:
        done, sheet = train_small(
            given.data,
            given.output,
            size=given.size,
            batch=given.batch,
            steps=given.steps,
            learning_rate=given.lr,
        )
    except ReenactError as error:
        sys.exit(f"error: {error}")
    path = given.output / "samples.png"
    if not cv2.imwrite(str(path), sheet[:, :, ::-1]):
        sys.exit(f"error: {path}: cannot be written")
    _say(f"step {done.step}; checkpoints and {path.name} are in {given.output}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main()
