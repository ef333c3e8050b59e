"""The settings of a Face2Face-rho training, checked; read from the published ini file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ...errors import ReenactError
from ..face2face_rho import read_config
from .schedule import POLICIES, Policy

__all__ = ["LossWeights", "Settings", "read_training_settings"]

_STEP = 64  # pixels; what the motion network needs
_SMALLEST_VGG = 16  # pixels; relu5_1 lies behind four halvings


@dataclass(frozen=True)
class LossWeights:
    """How much each loss counts; the released model's."""

    warp: float = 500.0
    reconstruction: float = 15.0
    feature_matching: float = 1.0
    face_area: float = 4.0  # of a pixel of the face in reconstruction and feature matching; 1 of any other
    init_field_epochs: int = 5
    scales: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)  # of the pictures that VGG19 compares


@dataclass(frozen=True)
class Settings:
    """What a training is told; defaults are the released model's."""

    folder: Path  # of the checkpoints
    data: Path  # the folder with list.txt
    networks: Mapping[str, Any] = field(default_factory=dict)  # of all networks, for `settings_of`
    size: int = 512
    num_repeats: int = 60
    batch_size: int = 6
    workers: int = 8
    shuffle: bool = True
    learning_rate: float = 2e-4
    beta1: float = 0.9
    policy: Policy = "lambda"
    epoch_count: int = 0  # number of the first epoch
    niter: int = 90  # epochs with the full learning rate
    niter_decay: int = 15  # epochs behind them
    weights: LossWeights = field(default_factory=LossWeights)
    start: str | None = None  # suffix of the checkpoints to begin with; None begins afresh
    device: str = "cuda"

    def __post_init__(self) -> None:
        """Raises ReenactError that names the setting which is out of range."""
        scales = self.weights.scales
        amounts = (self.weights.warp, self.weights.reconstruction, self.weights.feature_matching)
        good: tuple[tuple[bool, str, object, str], ...] = (
            (self.size > 0 and self.size % _STEP == 0, "output_size", self.size, f"a multiple of {_STEP}"),
            (self.batch_size > 0, "batch_size", self.batch_size, "1 or more"),
            (self.num_repeats > 0, "num_repeats", self.num_repeats, "1 or more"),
            (self.workers >= 0, "num_threads", self.workers, "0 or more"),
            (self.learning_rate > 0, "lr", self.learning_rate, "above 0"),
            (0 <= self.beta1 < 1, "beta1", self.beta1, "from 0 to below 1"),
            (self.policy in POLICIES, "lr_policy", self.policy, f"one of {', '.join(POLICIES)}"),
            (self.epoch_count >= 0, "epoch_count", self.epoch_count, "0 or more"),
            (self.niter >= 0, "niter", self.niter, "0 or more"),
            (self.niter_decay >= 0, "niter_decay", self.niter_decay, "0 or more"),
            (len(self.epochs) > 0, "epoch_count", self.epoch_count, "at most niter + niter_decay"),
            (min(amounts) >= 0, "the smallest loss weight", min(amounts), "0 or more"),
            (
                self.weights.face_area > 0,
                "face_area_weight_scale",
                self.weights.face_area,
                "above 0",
            ),
            (
                bool(scales) and all(0 < s <= 1 and abs(round(1 / s) * s - 1) < 1e-6 for s in scales),
                "loss_scales",
                list(scales),
                "1 over whole numbers, such as 1,0.5,0.25",
            ),
        )
        for holds, name, value, expected in good:
            if not holds:
                raise ReenactError(f"{name} is {value}; expected {expected}")
        if self.size * min(scales) < _SMALLEST_VGG:
            raise ReenactError(
                f"loss_scales go down to {min(scales)}, where output_size {self.size} has "
                f"{self.size * min(scales):.0f} pixels; VGG19 needs {_SMALLEST_VGG}, so leave out the smallest"
            )

    @property
    def epochs(self) -> range:
        """The numbers of all epochs."""
        return range(self.epoch_count, self.niter + self.niter_decay + 1)


def read_training_settings(path: Path) -> Settings:
    """The settings in an official ini file.

    What it says of displays is passed over, `model`, `phase` and `dataset_mode` too. The files' paths are
    relative to where the command runs, as published. `continue_train` begins with the checkpoints of
    `load_iter`, or else of `epoch`. Raises ReenactError that names the file and the key.
    """
    config = cast(dict[str, Any], read_config(path))
    if not config["isTrain"]:
        raise ReenactError(f"{path}: isTrain is not True; training needs the training settings")
    if config["init_type"] != "none":
        raise ReenactError(
            f"{path}: init_type is {config['init_type']}; only none, PyTorch's own initialisation, is known"
        )
    start = f"iter_{config['load_iter']}" if config["load_iter"] > 0 else str(config["epoch"])
    weights = LossWeights(
        warp=config["warp_loss_weight"],
        reconstruction=config["reconstruction_loss_weight"],
        feature_matching=config["feature_matching_loss_weight"],
        face_area=config["face_area_weight_scale"] if config["emphasize_face_area"] else 1.0,
        init_field_epochs=config["init_field_epochs"],
        scales=tuple(config["loss_scales"]),
    )
    try:
        return Settings(
            folder=Path(config["checkpoints_dir"], config["name"]),
            data=Path(config["dataroot"]),
            networks=config,
            size=config["output_size"],
            num_repeats=config["num_repeats"],
            batch_size=config["batch_size"],
            workers=config["num_threads"],
            shuffle=not config["serial_batches"],
            learning_rate=config["lr"],
            beta1=config["beta1"],
            policy=cast(Policy, config["lr_policy"]),
            epoch_count=config["epoch_count"],
            niter=config["niter"],
            niter_decay=config["niter_decay"],
            weights=weights,
            start=start if config["continue_train"] else None,
            device="cpu" if min(config["gpu_ids"]) < 0 else "cuda",
        )
    except ReenactError as error:
        raise ReenactError(f"{path}: {error}") from error
