"""The settings of one stage of DECA's training, checked; read from an ini file of our own, with a section [deca]."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ...errors import ReenactError
from ..settings import Kind, read_settings
from .deca_data import Crops

__all__ = ["CoarseWeights", "DetailWeights", "Settings", "Stage", "Weights", "read_deca_settings"]

Stage = Literal["pretrain", "coarse", "detail"]


@dataclass(frozen=True)
class CoarseWeights:
    """How much each loss of E_flame counts; the published numbers of the stage `coarse`. 0 leaves a loss out."""

    landmark: float = 1.0
    eye: float = 1.0
    lip: float = 0.5
    photo: float = 2.0
    identity: float = 0.2
    shape: float = 1e-4
    exp: float = 1e-4
    tex: float = 1e-4
    light: float = 1.0

    @property
    def draws(self) -> bool:
        """Whether heads have to be drawn."""
        return self.photo > 0 or self.identity > 0


@dataclass(frozen=True)
class DetailWeights:
    """How much each loss of E_detail and D_detail counts; the published numbers. 0 leaves a loss out."""

    photo: float = 2.0
    mrf: float = 0.1
    height: float = 0.005
    smoothness: float = 0.005
    symmetry: float = 0.005

    @property
    def draws(self) -> bool:
        """Whether skins have to be coloured."""
        return self.photo > 0 or self.mrf > 0


Weights = CoarseWeights | DetailWeights

_PRETRAIN = CoarseWeights(photo=0.0, identity=0.0, tex=0.0, light=0.0)
_WEIGHTS: dict[str, Weights] = {
    "pretrain": _PRETRAIN,
    "coarse": CoarseWeights(),
    "detail": DetailWeights(),
}
# Subjects of a batch, photos of each, steps. The published file of `detail` says 6 and 3 as well, which its second
# half overrides.
_AMOUNTS = {"pretrain": (64, 1, 100_000), "coarse": (8, 2, 200_000), "detail": (2, 4, 1_000_000)}
_KINDS: dict[str, Kind] = {
    "stage": "text",
    "checkpoints_dir": "text",
    "name": "text",
    "dataroot": "text",
    "start": "text",
    "resnet_path": "text",
    "fr_model_path": "text",
    "device": "text",
    "batch_size": "int",
    "num_images": "int",
    "num_repeats": "int",
    "num_threads": "int",
    "max_epochs": "int",
    "max_steps": "int",
    "serial_batches": "bool",
    "consistency": "bool",
    "lr": "float",
    "scale_min": "float",
    "scale_max": "float",
    "trans_scale": "float",
}
_REQUIRED = ("stage", "checkpoints_dir", "name", "dataroot")


@dataclass(frozen=True)
class Settings:
    """What a stage is told; `of_stage` gives the published numbers."""

    stage: Stage
    folder: Path  # of the checkpoints
    data: tuple[Path, ...]  # folders with list.npy
    batch_size: int  # subjects
    photos: int  # of a subject
    steps: int  # at most, and
    weights: Weights
    epochs: int = 10  # at most
    repeats: int = 1  # of each subject in an epoch
    workers: int = 8
    shuffle: bool = True
    consistency: bool = True  # whether codes are exchanged between the photos of a subject
    learning_rate: float = 1e-4
    crops: Crops = field(default_factory=Crops)
    start: Path | None = None  # weights to begin with, as deca_model.tar
    resnet: Path | None = None  # torchvision's ResNet-50, to begin the encoders with
    recognition: Path | None = None  # VGGFace2's ResNet-50, of the identity loss
    device: str = "cuda"

    def __post_init__(self) -> None:
        """Raises ReenactError that names the setting which is out of range."""
        crops = self.crops
        amounts = {name: getattr(self.weights, name) for name in _names(self.weights)}
        good: tuple[tuple[bool, str, object, str], ...] = (
            (self.stage in get_args(Stage), "stage", self.stage, f"one of {', '.join(get_args(Stage))}"),
            (len(self.data) > 0, "dataroot", "empty", "folders separated by commas"),
            (self.batch_size > 0, "batch_size", self.batch_size, "1 or more"),
            (self.photos > 0, "num_images", self.photos, "1 or more"),
            (self.repeats > 0, "num_repeats", self.repeats, "1 or more"),
            (self.workers >= 0, "num_threads", self.workers, "0 or more"),
            (self.epochs > 0, "max_epochs", self.epochs, "1 or more"),
            (self.steps > 0, "max_steps", self.steps, "1 or more"),
            (self.learning_rate > 0, "lr", self.learning_rate, "above 0"),
            (0 < crops.smallest <= crops.largest, "scale_min", crops.smallest, "above 0, at most scale_max"),
            (crops.shift >= 0, "trans_scale", crops.shift, "0 or more"),
            (self.device in ("cpu", "cuda"), "device", self.device, "cpu or cuda"),
            *((value >= 0, f"{name}_weight", value, "0 or more") for name, value in amounts.items()),
            (any(amounts.values()), "the largest loss weight", 0, "one that is above 0"),
            (
                self.start is None or self.resnet is None,
                "resnet_path",
                self.resnet,
                "nothing, as start names weights of all networks; leave out one of the two",
            ),
            (
                self.stage != "detail" or self.start is not None,
                "start",
                "missing",
                "weights with a trained E_flame, such as the deca_model.tar of the stage coarse: wrinkles are "
                "learned on the heads that it finds",
            ),
        )
        for holds, name, value, expected in good:
            if not holds:
                raise ReenactError(f"{name} is {value}; expected {expected}")

    @classmethod
    def of_stage(cls, stage: Stage, folder: Path, data: tuple[Path, ...], **changes: Any) -> "Settings":
        """The published numbers of a stage, but for these."""
        batch_size, photos, steps = _AMOUNTS[stage]
        given = {"batch_size": batch_size, "photos": photos, "steps": steps, "weights": _WEIGHTS[stage]}
        return cls(stage, folder, data, **(given | changes))


def read_deca_settings(path: Path) -> Settings:
    """The settings of one stage in an ini file, with the published numbers where it is silent.

    Paths are relative to where the command runs. Raises ReenactError that names the file and the key.
    """
    first = read_settings(path, "deca", {"stage": "text"}, required=["stage"], ignored=".*", other_names={})
    stage = cast(Stage, first["stage"])
    if stage not in _WEIGHTS:
        raise ReenactError(f"{path}: stage is {stage!r}; expected one of {', '.join(_WEIGHTS)}")
    published = _WEIGHTS[stage]
    weight_kinds: dict[str, Kind] = {f"{name}_weight": "float" for name in _names(published)}
    # Other keys are errors: there is no published file of this format, and nothing to pass over.
    told: dict[str, Any] = dict(
        read_settings(path, "deca", _KINDS | weight_kinds, required=_REQUIRED, ignored="(?!)", other_names={})
    )
    weights = type(published)(
        **{name: told.get(f"{name}_weight", getattr(published, name)) for name in _names(published)}
    )
    usual = Crops()
    crops = Crops(
        told.get("scale_min", usual.smallest),
        told.get("scale_max", usual.largest),
        told.get("trans_scale", usual.shift),
    )
    changes: dict[str, Any] = {"weights": weights, "crops": crops}
    for key, name in (
        *(("batch_size", "batch_size"), ("num_images", "photos"), ("num_repeats", "repeats")),
        *(("num_threads", "workers"), ("max_epochs", "epochs"), ("max_steps", "steps")),
        *(("consistency", "consistency"), ("lr", "learning_rate"), ("device", "device")),
    ):
        if key in told:
            changes[name] = told[key]
    for key, name in (("start", "start"), ("resnet_path", "resnet"), ("fr_model_path", "recognition")):
        if key in told:
            changes[name] = Path(told[key])
    changes["shuffle"] = not told.get("serial_batches", False)
    data = tuple(Path(part.strip()) for part in told["dataroot"].split(",") if part.strip())
    try:
        return Settings.of_stage(stage, Path(told["checkpoints_dir"], told["name"]), data, **changes)
    except ReenactError as error:
        raise ReenactError(f"{path}: {error}") from error


def _names(weights: Weights) -> list[str]:
    return [field.name for field in fields(weights)]
